"""The canonical records: what every file becomes, whatever its format, and what back ends' formats are written from.

One record is one compact UTF-8 JSON object on a line. Two files that mean the same give the same bytes, so hashes of
records (fingerprint, split, duplicates) do not depend on the format that held them.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = ("system", "user", "assistant", "tool")


class Message(msgspec.Struct, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Role
    content: str
    weight: Literal[0, 1] | UnsetType = UNSET
    """Of an assistant's turn: 0 = read it, but do not learn it."""


class Chat(msgspec.Struct, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A conversation to learn from."""

    messages: list[Message]


class Text(msgspec.Struct, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A piece of plain text, learnt whole."""

    text: str


Record = Chat | Text

_encoder = msgspec.json.Encoder()


def canonical(record: Record) -> bytes:
    """The record as compact UTF-8 JSON, without a line end."""
    return _encoder.encode(record)


def compact(value: object) -> str:
    """A JSON value as the text that a model reads: strings as they are, everything else as compact JSON."""
    return value if isinstance(value, str) else _encoder.encode(value).decode()


def chars(record: Record) -> int:
    """Characters of text in the record."""
    return len(record.text) if isinstance(record, Text) else sum([len(m.content) for m in record.messages])
