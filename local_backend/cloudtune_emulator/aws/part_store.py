"""Bytes that arrive in parts, on disk: one file an upload, whatever the number of its parts and of their sizes.

Nothing is copied where parts become an object: the object reads the same places of the same file.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class PartStore:
    """A file without a name that only grows; it is gone with the last piece of it. Thread safe."""

    def __init__(self) -> None:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the heap
        self._number = file.fileno()
        self._lock = threading.Lock()
        self._end = 0
        weakref.finalize(self, file.close)

    def __deepcopy__(self, memo: object) -> PartStore:
        """The same file: moto copies uploads with the objects that were made of them."""
        return self

    def reserve(self, size: int) -> Extent:
        """A place for so many bytes, which nobody else writes to."""
        with self._lock:
            start, self._end = self._end, self._end + size
        return Extent(self, start, size)

    def write(self, at: int, content: bytes | memoryview) -> None:
        """Put bytes there."""
        left = memoryview(content)
        while left:
            done = os.pwrite(self._number, left, at)
            left, at = left[done:], at + done

    def read(self, at: int, size: int) -> bytes:
        """The bytes that lie there; fewer where the file, or the system's patience, ends."""
        return os.pread(self._number, size, at)


class Extent(NamedTuple):
    """A place in a heap."""

    heap: PartStore
    start: int
    size: int


class ExtentReader(io.RawIOBase):
    """Pieces, one after the other, as a file to read."""

    def __init__(self, pieces: Iterable[Extent]) -> None:
        self.pieces: Sequence[Extent] = tuple(pieces)
        self.size = sum(piece.size for piece in self.pieces)
        self._at = 0

    def __deepcopy__(self, memo: object) -> ExtentReader:
        """Another reader of the same places: moto copies its objects to list them."""
        return ExtentReader(self.pieces)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a byte."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence])
        return self._at

    def tell(self) -> int:
        """Where it stands."""
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, or all that are left; fewer only at the end."""
        end = self.size if size is None or size < 0 else min(self.size, self._at + size)
        found, start = bytearray(), 0
        for piece in self.pieces:
            while start <= self._at < min(end, start + piece.size):
                inside = self._at - start
                block = piece.heap.read(piece.start + inside, min(piece.size - inside, end - self._at))
                if not block:
                    raise OSError("a file of the emulator was cut")
                found += block
                self._at += len(block)
            start += piece.size
        return bytes(found)

    def readall(self) -> bytes:
        """All that are left."""
        return self.read()

    def close(self) -> None:
        """Let go of the pieces."""
        self.pieces, self.size = (), 0
        super().close()
