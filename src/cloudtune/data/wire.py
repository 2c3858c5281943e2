"""What processes that share the work say to each other: messages, each behind its length."""

from __future__ import annotations

from typing import IO, TypeVar

import msgspec

from cloudtune.data.scanning import Scanned
from cloudtune.errors import Problem

AHEAD = 3
"""Requests that may wait for a worker."""
KEPT = 1000
"""Problems of a block that are sent in full; the rest is counted."""
_T = TypeVar("_T")


class Request(msgspec.Struct, array_like=True):
    """One block of a file."""

    file: str
    origin: str
    columns: dict[str, str]
    kind: str | None
    extra: tuple[str, ...]
    data: bytes
    first_line: int
    lines: int
    pieces: list[tuple[int, bytes]] | None


class Reply(msgspec.Struct, array_like=True):
    """What the block holds, and what could not be decoded."""

    scanned: Scanned
    problems: list[Problem]
    counts: list[tuple[str, str, int]]


def send(stream: IO[bytes], message: object) -> None:
    """Write one message."""
    data = msgspec.msgpack.encode(message)
    stream.write(len(data).to_bytes(8, "little"))
    stream.write(data)
    stream.flush()


def receive(stream: IO[bytes], sort: type[_T]) -> _T | None:
    """Read one message; None at the end."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    return msgspec.msgpack.decode(stream.read(int.from_bytes(head, "little")), type=sort)
