"""Bytes of multipart uploads on disk: one file per upload, whatever the number and the sizes of its parts.

Completing an upload copies nothing: the object reads the same regions of the same file.
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
    """An unnamed file that only grows; it is deleted with its last piece. Thread-safe."""

    def __init__(self) -> None:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the heap
        self._number = file.fileno()
        self._lock = threading.Lock()
        self._end = 0
        weakref.finalize(self, file.close)

    def __deepcopy__(self, memo: object) -> PartStore:
        """The same file: moto copies uploads with the objects that were assembled from them."""
        return self

    def reserve(self, size: int) -> Extent:
        """Reserve a region of ``size`` bytes for one writer."""
        with self._lock:
            start, self._end = self._end, self._end + size
        return Extent(self, start, size)

    def write(self, at: int, content: bytes | memoryview) -> None:
        """Write bytes into a region."""
        left = memoryview(content)
        while left:
            done = os.pwrite(self._number, left, at)
            left, at = left[done:], at + done

    def read(self, at: int, size: int) -> bytes:
        """Read bytes; returns fewer at the end of the file or after a short read."""
        return os.pread(self._number, size, at)


class Extent(NamedTuple):
    """A region of a heap."""

    heap: PartStore
    start: int
    size: int


class ExtentReader(io.RawIOBase):
    """Concatenated pieces as a readable file."""

    def __init__(self, pieces: Iterable[Extent]) -> None:
        self.pieces: Sequence[Extent] = tuple(pieces)
        self.size = sum(piece.size for piece in self.pieces)
        self._at = 0

    def __deepcopy__(self, memo: object) -> ExtentReader:
        """Another reader of the same regions: moto copies its objects to list them."""
        return ExtentReader(self.pieces)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a byte."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence])
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, or all remaining bytes; fewer only at the end."""
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
        """Read all remaining bytes."""
        return self.read()

    def close(self) -> None:
        """Release the pieces."""
        self.pieces, self.size = (), 0
        super().close()
