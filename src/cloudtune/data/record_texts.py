"""Iterates over every text of a record, for rules and for changes such as redaction.

It follows the record's values, not a list of field names, so it covers new fields too.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cloudtune.data.records import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudtune.data.records import Record

    Change = Callable[[str, str, str], str]
    """Receives a text, its field and its role. Returns the new text."""

_AnyRecord = TypeVar("_AnyRecord", bound="Record")
_CHOICES = frozenset({"role", "type"})
"""Fields of records whose values are defined by the schema."""
_LONG_NUMBER = 10**12
"""Integers from here on may be card numbers."""
_BASE64 = re.compile(r"data:[^,]{0,200};base64,[A-Za-z0-9+/=_\s-]*")


def texts(record: Record) -> Iterator[tuple[str, str, str]]:
    """Field, role and words of every text in the record, of keys and long integers too.

    A text that is JSON, such as a call's arguments, is yielded unchanged and with each text that it contains.
    """
    found: list[tuple[str, str, str]] = []

    def look(text: str, field: str, role: str) -> str:
        found.append((field, role, text))
        return text

    changed(record, look)
    return iter(found)


def changed(record: _AnyRecord, change: Change) -> _AnyRecord:
    """The record with every text changed. Texts that are JSON stay JSON."""
    return _walk(record, "", "text", change)  # type: ignore[no-any-return]


def _walk(value: Any, field: str, role: str, change: Change) -> Any:
    if isinstance(value, str):
        return _text(value, field, role, change)
    if isinstance(value, msgspec.Struct):
        role = value.role if isinstance(value, Message) else role
        new = {
            name: _walk(inner, f"{field}.{name}".lstrip("."), "tools" if name == "tools" else role, change)
            for name in value.__struct_fields__
            if name not in _CHOICES and (inner := getattr(value, name)) is not None
        }
        return msgspec.structs.replace(value, **new)
    if isinstance(value, list):
        return [_walk(one, f"{field}[{i}]", role, change) for i, one in enumerate(value)]
    if isinstance(value, dict):
        return _object(value, field, role, change)
    if isinstance(value, int) and abs(value) >= _LONG_NUMBER:
        text = change(str(value), field, role)
        return value if text == str(value) else text
    return value


def _object(value: dict[str, Any], field: str, role: str, change: Change) -> dict[str, Any]:
    new: dict[str, Any] = {}
    for key, one in value.items():
        name = change(key, field, role)
        number = 2
        while name in new or (name != key and name in value):
            name, number = f"{change(key, field, role)} {number}", number + 1
        new[name] = _walk(one, f"{field}.{key}", role, change)
    return new


def _text(text: str, field: str, role: str, change: Change) -> str:
    if _BASE64.fullmatch(text):
        return text
    if text[:1] in ("{", "["):
        try:
            value = msgspec.json.decode(text)
            if text.count(":") != msgspec.json.encode(value).count(b":"):  # perhaps a key that occurs twice
                value = json.loads(text, object_pairs_hook=_every_pair)
            new = _walk(value, "", role, lambda inner, _, who: change(inner, field, who))
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):  # content can be JSON of any depth
            return change(text, field, role)
        if new != value:
            text = msgspec.json.encode(new).decode()
    return change(text, field, role)


def _every_pair(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with a name of its own for each value of a key that occurs twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        name, number = key, 2
        while name in found:
            name, number = f"{key} {number}", number + 1
        found[name] = value
    return found
