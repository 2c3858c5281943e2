"""Messages between worker processes, each prefixed with its length."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, TypeVar

import msgspec

from cloudtune.data.scanned import Scanned, Side, Task
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.checks.shared_memory import Places

AHEAD = 3
"""Requests that can wait for a worker."""
KEPT = 1000
"""Problems of a block that are sent in full; the rest is counted."""
_T = TypeVar("_T")


class Begin(msgspec.Struct, array_like=True):
    """The first message to a worker."""

    task: Task
    memory: int | None
    """The descriptor of the file whose memory is shared."""
    places: int


class Request(msgspec.Struct, array_like=True):
    """One block of a file; its lines follow as bytes."""

    file: str
    origin: str
    columns: dict[str, str]
    kind: str | None
    first_line: int
    lines: int
    pieces: list[tuple[int, bytes]] | None
    is_fixed: bool
    place: int = 0
    """The position of its lines, and of the reply's, in the shared memory."""


class Reply(msgspec.Struct, array_like=True):
    """The block's records and decoding problems; the splits' lines follow as bytes."""

    scanned: list[Scanned]
    problems: list[Problem]
    counts: list[tuple[str, str, int]]
    file: str
    origin: str
    bad: int
    """Rows that could not be decoded."""

    def unloaded(self) -> list[bytes]:
        """Remove and return the splits' lines."""
        found = []
        for side in self._sides():
            found.append(side.canonical)
            side.canonical = b""
            if side.written is not None:
                found.append(side.written)
                side.written = b""
        return found

    def load(self, lines: list[bytes]) -> None:
        """Restore the lines that ``unloaded`` removed."""
        left = iter(lines)
        for side in self._sides():
            side.canonical = next(left)
            if side.written is not None:
                side.written = next(left)

    def _sides(self) -> Iterator[Side]:
        return (side for one in self.scanned for side in one.sides.values())


def send(stream: IO[bytes], message: object, blobs: list[bytes], places: Places | None = None, place: int = 0) -> None:
    """Write one message, and large bytes separately: into shared memory if they fit, else after the message."""
    shared = places is not None and places.put(place, blobs)
    data = msgspec.msgpack.encode((message, [len(blob) for blob in blobs], place if shared else None))
    stream.write(len(data).to_bytes(8, "little") + data)
    if not shared:
        for blob in blobs:
            stream.write(blob)
    stream.flush()


def receive(stream: IO[bytes], sort: type[_T], places: Places | None = None) -> tuple[_T, list[bytes]] | None:
    """Read one message and its bytes; None at the end."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head, "little")
    data = stream.read(size)
    if len(data) < size:
        return None
    message, sizes, place = _DECODERS[sort].decode(data)
    if place is not None and places is not None:
        return message, places.take(place, sizes)
    blobs = [stream.read(size) for size in sizes]
    if [len(blob) for blob in blobs] != sizes:
        return None
    return message, blobs


_DECODERS: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {
    sort: msgspec.msgpack.Decoder(tuple[sort, list[int], int | None])  # type: ignore[valid-type]
    for sort in (Begin, Request, Reply)
}
