"""Cleaning records: private data covered, text normalised."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cloudtune.data.records import Message, Record, TextPart
from cloudtune.data.rules import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Callable

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SPACES = re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u3000]+")
_LINES = re.compile(r"\n{3,}")


def redacted(record: Record) -> Record:
    """Keys, card numbers, bank accounts and e-mail addresses covered: ``[EMAIL]``."""
    return _changed(record, _cover)


def normalised(record: Record) -> Record:
    """Text in Unicode's NFC, line ends of one sort, no control characters, no runs of blanks or of empty lines."""
    return _changed(record, _tidy)


def _cover(text: str) -> str:
    for rule in PRIVATE:
        if not any(sign.decode() in text for sign in rule.signs):
            continue
        word = f"[{rule.code.upper()}]"
        accept = rule.accept

        def put(match: re.Match[str], word: str = word, accept: Callable[[str], bool] | None = accept) -> str:
            return word if accept is None or accept(match.group()) else match.group()

        text = rule.pattern.sub(put, text)
    return text


def _tidy(text: str) -> str:
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    return _LINES.sub("\n\n", _SPACES.sub(" ", _CONTROL.sub("", text))).strip()


def _changed(record: Record, change: Callable[[str], str]) -> Record:
    """The record with every text changed."""
    changes: dict[str, object] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, str):
            changes[name] = change(value)
        elif isinstance(value, list) and value and isinstance(value[0], Message):
            changes[name] = [_turn(message, change) for message in value]
    return replace(record, **changes)


def _turn(message: Message, change: Callable[[str], str]) -> Message:
    if isinstance(message.content, str):
        return replace(message, content=change(message.content))
    if message.content is None:
        return message
    parts = [replace(part, text=change(part.text)) if isinstance(part, TextPart) else part for part in message.content]
    return replace(message, content=parts)
