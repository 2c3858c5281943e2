"""Finds keys that occur twice in one JSON object. Parsers disagree on which of the values counts."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.read.size_limits import SHOWN_CHARS
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ESCAPED_COLON = b"\\u003"
_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def has_same_keys(raw: bytes, encoded: bytes) -> bool:
    """Whether no key can be missing from ``encoded``, which was made of the decoded ``raw``.

    Each key has one colon, and strings keep theirs, so a dropped key makes the counts differ. False means only that
    something may be missing: an unused key, a null or a duplicate.
    """
    return raw.count(b":") == encoded.count(b":") and _ESCAPED_COLON not in raw


def check_keys(data: bytes, decoded: list[Any], rows: Iterable[tuple[int, bytes]]) -> None:
    """Raise ValueError if a key occurs twice in one of the rows, which were decoded from ``data``."""
    encoded = _encoder.encode(decoded)
    # An encoded tool call has a type even where the row does not, so its colons do not show what was dropped.
    same = has_same_keys(data, encoded) and b'"tool_calls":' not in encoded
    if not same and any(duplicate_key(row) for _, row in rows):
        raise ValueError("duplicate key")


def duplicate_key(raw: bytes) -> Problem | None:
    """The problem of the first key that occurs twice in an object of the row, which must be valid JSON."""
    if has_same_keys(raw, _encoder.encode(_decoder.decode(raw))):
        return None
    place = next(_places(json.loads(raw, object_pairs_hook=_Object)), None)
    if place is None:
        return None
    field, key = place
    return Problem(
        code="duplicate_key", message=f"the key {key[:SHOWN_CHARS]!r} occurs more than once in one object",
        field=field, fix="keep one: some programs read the first value, others the last",
    )  # fmt: skip


class _Object(dict[str, Any]):
    """A JSON object that records its duplicate keys."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = (
            [] if len(self) == len(pairs) else [key for key, n in Counter(k for k, _ in pairs).items() if n > 1]
        )


def _places(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Place and name of each key that occurs more than once."""
    if isinstance(value, _Object):
        for key in value.twice:
            yield f"{place}.{key[:SHOWN_CHARS]}".lstrip("."), key
        for key, inner in value.items():
            yield from _places(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _places(inner, f"{place}[{i}]")
