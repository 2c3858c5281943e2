"""Reads small parts of untrusted model files: JSON documents and the headers of safetensors files.

Each reader raises ValueError with the problem, for any content, and uses memory in proportion to the file.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeGuard

from cloudtune.errors import Problem
from cloudtune.files.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

LARGEST_JSON = 64 << 20
LARGEST_HEAD = 100 << 20
"""safetensors reads no longer header (github.com/huggingface/safetensors, MAX_HEADER_SIZE, seen 2026-11-28)."""
LARGEST_COUNT = 1 << 48
"""No model has so many weights, tokens or positions."""
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


def json_object(content: bytes) -> dict[str, Any]:
    """Return the JSON object in ``content``. Raises ValueError, also for duplicate keys, NaN and deep nesting."""
    if len(content) > LARGEST_JSON:
        raise ValueError(f"it is larger than {LARGEST_JSON} bytes")
    return _object(content)


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - invalid content, not a wrong Python type
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {twice[:100]!a}")
    return found


def _constant(name: str) -> float:
    if name == "NaN":
        _refuse("NaN is not a number")
    return float(name)  # the configurations of some models have Infinity


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)


def read_json_object(path: Path) -> dict[str, Any]:
    """`json_object` of a file. Raises ValueError, and OSError where the file cannot be read or is not a regular one."""
    with open_regular(path) as file:
        return json_object(file.read(min(path.stat().st_size, LARGEST_JSON) + 1))


class Sizes(NamedTuple):
    """The sizes in a model's config.json; None for missing ones."""

    context_length: int | None
    vocab_size: int | None


def links_outside(folder: Path, files: Iterable[Path]) -> Iterator[Problem]:
    """The problem of each file that is a link out of the model's folder: an upload could send any file of the user.

    The links of the Hugging Face Hub's cache, ``snapshots/COMMIT/FILE -> ../../blobs/HASH``, are part of the model.
    """
    own = folder.resolve()
    blobs = own.parents[1] / "blobs" if own.parent.name == "snapshots" else None
    for file in files:
        target = file.resolve()
        if not target.is_relative_to(own) and target.parent != blobs:
            message = f"a link to {target}, outside the folder"
            fix = "copy the file into the folder, or remove the link"
            yield Problem(code="link_outside", file=str(file), message=message, fix=fix)


def model_sizes(config: Mapping[str, Any]) -> Sizes:
    """Read the sizes from config.json, or from its ``text_config``. Raises ValueError for invalid sizes."""
    text = config.get("text_config")
    if text is not None and not isinstance(text, dict):
        raise ValueError("text_config is not a JSON object")
    inner = {**config, **(text or {})}  # vision-language models have a separate language part
    context = next((inner[name] for name in _CONTEXT if inner.get(name) is not None), None)
    return Sizes(size_of("the context length", context), size_of("vocab_size", inner.get("vocab_size")))


def size_of(what: str, value: Any) -> int | None:
    """Return a size from a model's file, or None if it is missing. Raises ValueError for an invalid size."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < LARGEST_COUNT:
        raise ValueError(f"{what} is not a valid size")
    return value


class Tensor(NamedTuple):
    """One tensor in the header of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Start and end of its bytes, relative to the end of the header."""
    end: int


def safetensors_head(read: Callable[[int, int], bytes], size: int) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file of ``size`` bytes. ``read(start, length)`` returns its bytes.

    Raises ValueError for a damaged header, and for a file that does not end with the last tensor.
    """
    length = int.from_bytes(read(0, 8), "little")
    if not 2 <= length <= min(LARGEST_HEAD, size - 8):
        raise ValueError("it is not a safetensors file, or it is truncated")
    document = _object(read(8, length))
    document.pop("__metadata__", None)
    found = {name: _tensor(name, entry) for name, entry in document.items()}
    place = 0
    for tensor in sorted(found.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != place:
            raise ValueError("its tensors overlap, or have gaps between them")
        place = tensor.end
    if 8 + length + place != size:
        raise ValueError("it is truncated, or has data after its tensors")
    return found


def _tensor(name: str, entry: Any) -> Tensor:
    label = f"the tensor {name[:100]!a}"
    if not isinstance(entry, dict):
        raise ValueError(f"{label} is not a JSON object")  # noqa: TRY004 - bad content
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"{label} has an unknown dtype")
    if not _are_counts(shape) or len(shape) > 16:
        raise ValueError(f"{label} has an invalid shape")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{label} has invalid data_offsets")
    begin, end = offsets
    tensor = Tensor(dtype, tuple(shape), begin, end)
    if (tensor.end - tensor.begin) * 8 != math.prod(shape) * _BITS[dtype]:
        raise ValueError(f"{label} has data_offsets that do not match its shape")
    return tensor


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        isinstance(number, int) and not isinstance(number, bool) and 0 <= number < LARGEST_COUNT for number in value
    )
