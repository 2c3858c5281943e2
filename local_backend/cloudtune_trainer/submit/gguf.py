"""Reads the header of a GGUF file, which describes the model, without any library. See the GGUF specification, v3."""

from __future__ import annotations

import math
import os
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

from cloudtune.files.model_files import LARGEST_COUNT
from cloudtune.files.regular_file import open_regular

if TYPE_CHECKING:
    from pathlib import Path

_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_LONGEST = 1 << 24
_MOST_ITEMS = 1 << 22
"""Limit of strings and arrays in all arrays together. The largest vocabularies have a quarter of a million."""
_MOST_ENTRIES = 1 << 18
_DEEPEST = 4


def read_head(path: Path) -> dict[str, Any]:
    """The metadata, with only the lengths of arrays, and ``parameters``, the number of weights. Raises ValueError."""
    with open_regular(path) as file:
        return _Head(file, path.stat().st_size).read()


class _Head:
    """A reader that stays within the file, and within limits far above those of real models."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._items = 0

    def read(self) -> dict[str, Any]:
        if self._file.read(4) != b"GGUF":
            raise ValueError("it does not start with GGUF")
        version, tensors, pairs = self._unpack("<IQQ")
        if version not in (2, 3):
            raise ValueError(f"unknown format version {version}")
        if max(tensors, pairs) > _MOST_ENTRIES:
            raise ValueError("it has an invalid number of entries")
        head: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._string()
            if key in head:
                raise ValueError(f"duplicate key {key[:100]!a}")
            head[key] = self._value(*self._unpack("<I"), depth=0)
        head["parameters"] = sum(self._weights() for _ in range(tensors))
        if head["parameters"] >= LARGEST_COUNT:
            raise ValueError("it has an invalid number of weights")
        return head

    def _value(self, kind: int, *, depth: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(depth + 1)
        if kind not in _SCALARS:
            raise ValueError(f"unknown value type {kind}")
        return self._unpack(_SCALARS[kind])[0]

    def _array(self, depth: int) -> int:
        kind, count = self._unpack("<IQ")
        if depth > _DEEPEST:
            raise ValueError("its arrays are nested too deeply")
        if kind in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[kind]))
            return int(count)
        self._items += count
        if self._items > _MOST_ITEMS:
            raise ValueError("it has an invalid number of array items")
        for _ in range(count):
            if kind == _STRING:
                self._skip(*self._unpack("<Q"))
            else:
                self._value(kind, depth=depth)
        return int(count)

    def _weights(self) -> int:
        self._string()
        (dimensions,) = self._unpack("<I")
        if dimensions > 8:
            raise ValueError("a tensor has too many dimensions")
        shape = self._unpack(f"<{dimensions}Q")
        self._unpack("<IQ")  # its type and offset
        return math.prod(shape)

    def _string(self) -> str:
        (length,) = self._unpack("<Q")
        if length > _LONGEST:
            raise ValueError("a string is too long")
        return self._bytes(length).decode("utf-8", errors="replace")

    def _skip(self, length: int) -> None:
        if self._file.tell() + length > self._size:
            raise ValueError("its header is truncated")
        self._file.seek(length, os.SEEK_CUR)

    def _unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))

    def _bytes(self, length: int) -> bytes:
        content = self._file.read(length)
        if len(content) < length:
            raise ValueError("its header is truncated")
        return content
