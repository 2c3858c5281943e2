"""What processes that share the work say to each other: messages, each behind its length."""

from __future__ import annotations

from typing import IO, TypeVar

import msgspec

from cloudtune.data.scanned import Scanned
from cloudtune.errors import Problem

AHEAD = 3
"""Requests that may wait for a worker."""
KEPT = 1000
"""Problems of a block that are sent in full; the rest is counted."""
_T = TypeVar("_T")


class Request(msgspec.Struct, array_like=True):
    """One block of a file; its lines follow as bytes."""

    file: str
    origin: str
    columns: dict[str, str]
    kind: str | None
    extra: tuple[str, ...]
    first_line: int
    lines: int
    pieces: list[tuple[int, bytes]] | None


class Reply(msgspec.Struct, array_like=True):
    """What the block holds, and what could not be decoded; the sides' lines follow as bytes."""

    scanned: Scanned
    problems: list[Problem]
    counts: list[tuple[str, str, int]]

    def unloaded(self) -> list[bytes]:
        """The sides' lines, taken out."""
        found = []
        for side in self.scanned.sides.values():
            found.append(side.canonical)
            side.canonical = b""
            if side.written is not None:
                found.append(side.written)
                side.written = b""
        return found

    def load(self, lines: list[bytes]) -> None:
        """Put back what ``unloaded`` took out."""
        left = iter(lines)
        for side in self.scanned.sides.values():
            side.canonical = next(left)
            if side.written is not None:
                side.written = next(left)


def send(stream: IO[bytes], message: object, blobs: list[bytes] | None = None) -> None:
    """Write one message, and large bytes beside it, which are not copied on the way."""
    blobs = blobs or []
    data = msgspec.msgpack.encode((message, [len(blob) for blob in blobs]))
    stream.write(len(data).to_bytes(8, "little") + data)
    for blob in blobs:
        stream.write(blob)
    stream.flush()


def receive(stream: IO[bytes], sort: type[_T]) -> tuple[_T, list[bytes]] | None:
    """Read one message and the bytes beside it; None at the end."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head, "little")
    data = stream.read(size)
    if len(data) < size:
        return None
    message, sizes = msgspec.msgpack.decode(data, type=tuple[sort, list[int]])  # type: ignore[valid-type]
    blobs = [stream.read(size) for size in sizes]
    if [len(blob) for blob in blobs] != sizes:
        return None
    return message, blobs
