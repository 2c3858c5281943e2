"""A block of code without I/O: no file, socket, database, process or import."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_EVENTS = ("open", "import", "os.", "socket.", "sqlite3.", "subprocess.", "shutil.", "tempfile.", "glob.")
"""Prefixes of the names of audit events for I/O: https://docs.python.org/3/library/audit_events.html."""
_UNAUDITED = ("access", "lstat", "readlink", "stat", "statvfs")
"""Functions of ``os`` that read the file system without an audit event."""


class _Watch(threading.local):
    """The I/O of the current thread in the block; None outside of it."""

    seen: list[str] | None = None

    def refuse(self, what: str, arguments: tuple[Any, ...]) -> None:
        if self.seen is not None:
            self.seen.append(f"{what} {arguments[0] if arguments else ''}")
            raise AssertionError(f"I/O where none is allowed: {self.seen[-1]}")


_watch = _Watch()


@contextmanager
def no_io() -> Iterator[None]:
    """Fail on I/O that this thread begins in the block. Importing a module that is not loaded yet is I/O too.

    The code under test may catch the error that stops it, so the block also fails at its end.
    """
    _install()
    with ExitStack() as patched:
        for name in _UNAUDITED:
            refusing = _refusing(f"os.{name}", getattr(os, name))
            patched.enter_context(mock.patch.object(os, name, refusing))
        seen: list[str] = []
        _watch.seen = seen
        try:
            yield
        finally:
            _watch.seen = None
    assert not seen, f"I/O where none is allowed: {seen}"


@cache
def _install() -> None:
    # An audit hook stays for the life of the process. Outside `no_io` this one only compares a value with None.
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch.seen is not None and event.startswith(_EVENTS):
        _watch.refuse(event, arguments)


def _refusing(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def refuse(*arguments: Any, **options: Any) -> Any:
        _watch.refuse(what, arguments)
        return function(*arguments, **options)

    return refuse
