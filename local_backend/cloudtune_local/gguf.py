"""The head of a GGUF file: what kind of model it holds, read without any library. See the GGUF specification, v3."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_LONGEST = 1 << 24


def read_head(path: Path) -> dict[str, Any]:
    """Its metadata, arrays as their lengths only, and ``parameters``, the number of weights. Raises ValueError."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version, tensors, pairs = _unpack(file, "<IQQ")
        if version not in (2, 3):
            raise ValueError(f"version {version} of the format is not known")
        head: dict[str, Any] = {}
        for _ in range(pairs):
            key = _string(file)
            head[key] = _value(file, *_unpack(file, "<I"))
        head["parameters"] = sum(_weights(file) for _ in range(tensors))
    return head


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        return _array(file)
    if kind not in _SCALARS:
        raise ValueError(f"a value of type {kind} is not known")
    return _unpack(file, _SCALARS[kind])[0]


def _array(file: BinaryIO) -> int:
    kind, count = _unpack(file, "<IQ")
    if kind in _SCALARS:
        file.seek(count * struct.calcsize(_SCALARS[kind]), 1)
    else:
        for _ in range(count):
            if kind == _STRING:
                (length,) = _unpack(file, "<Q")
                file.seek(length, 1)
            else:
                _value(file, kind)
    return int(count)


def _weights(file: BinaryIO) -> int:
    _string(file)
    (dimensions,) = _unpack(file, "<I")
    if dimensions > 8:
        raise ValueError("a tensor has too many dimensions")
    shape = _unpack(file, f"<{dimensions}Q")
    _unpack(file, "<IQ")  # its type and place
    return math.prod(shape)


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<Q")
    if length > _LONGEST:
        raise ValueError("a text is impossibly long")
    return file.read(length).decode("utf-8", errors="replace")


def _unpack(file: BinaryIO, shape: str) -> tuple[Any, ...]:
    size = struct.calcsize(shape)
    content = file.read(size)
    if len(content) < size:
        raise ValueError("it ends in the middle of its head")
    return struct.unpack(shape, content)
