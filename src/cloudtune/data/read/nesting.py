"""Limits how deeply the JSON in records is nested, so that every program that walks a record can recurse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from cloudtune.data.records import Item

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloudtune.data.records import Record

MAX_DEPTH = 100
"""Levels of objects and arrays in a tool, in the fields of an item or in the arguments of a call."""
_NEITHER = bytes(set(range(256)).difference(b"{[\\\n"))
_MANY = re.compile(rb"[{[\\]{%d}" % (MAX_DEPTH + 1))
# A string that is not closed ends with the text: scanning on from within it takes quadratic time.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_TURNS = ("messages", "chosen", "rejected", "completion")


class DeepError(RecursionError):
    """A record has JSON that is nested too deeply."""

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is nested too deeply")
        self.field = field


def may_be_deep(lines: bytes) -> bool:
    """Whether one of these lines of JSON could hold more than `MAX_DEPTH` levels. Costs little, even for long texts.

    Each level has an opening bracket. In a string it can be an escape, so each backslash counts too.
    """
    return _MANY.search(lines.translate(None, _NEITHER)) is not None


def check_depth(records: Iterable[Record]) -> None:
    """Raise DeepError for the first value that is nested more than `MAX_DEPTH` levels deep."""
    for record in records:
        fields = record.__struct_fields__
        if "tools" in fields and (tools := getattr(record, "tools", None)) and _is_deep(msgspec.json.encode(tools)):
            raise DeepError("tools")
        if isinstance(record, Item) and record.fields and _is_deep(msgspec.json.encode(record.fields)):
            raise DeepError("fields")
        for place, arguments in _arguments(record, [name for name in _TURNS if name in fields]):
            if _is_deep(arguments.encode(errors="surrogatepass")):
                raise DeepError(place)


def _arguments(record: Record, names: list[str]) -> Iterator[tuple[str, str]]:
    """Field and text of the arguments of each call."""
    for name in names:
        for i, message in enumerate(getattr(record, name)):
            for j, call in enumerate(message.tool_calls or ()):
                yield f"{name}[{i}].tool_calls[{j}].function.arguments", call.function.arguments


def _is_deep(data: bytes) -> bool:
    """Whether JSON is nested more than `MAX_DEPTH` levels deep."""
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _TOKEN.finditer(data):
        if token.group() in (b"{", b"["):
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token.group() in (b"}", b"]"):
            depth -= 1
    return False
