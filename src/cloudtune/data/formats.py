"""The file formats that records are written in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.errors import DataError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.data.records import Record

    Writer = Callable[[Record, bytes], bytes]
    """Makes the line to write of a record and its canonical line."""


def _as_it_is(record: Record, line: bytes) -> bytes:
    return line


_WRITERS: dict[str, Writer] = {"cloudtune": _as_it_is}


def writer(name: str) -> Writer:
    """The writer of a format. Raises DataError for a name that is not known."""
    if name in _WRITERS:
        return _WRITERS[name]
    known = ", ".join(sorted(_WRITERS))
    raise DataError([Problem(code="unknown_format", message=f"there is no format {name!r}", fix=f"use one of {known}")])
