"""Cleans records: redacts private data, normalizes text."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from cloudtune.data.record_texts import changed
from cloudtune.data.records import Question
from cloudtune.data.rules import cover

if TYPE_CHECKING:
    from cloudtune.data.records import Record

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SPACES = re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u3000]+")
_LINES = re.compile(r"\n{3,}")
_PROSE = re.compile(
    r"(?:(?:messages|chosen|rejected|completion)\[\d+\]\.(?:content(?:\[\d+\]\.text)?|reasoning_content)"
    r"|text|label|source|target|transcript)"
)
"""Fields with natural text. Spaces in the others matter: in a call's arguments, a schema, a URL or a token."""


def redacted(record: Record) -> Record:
    """Redact keys, card numbers, bank accounts and e-mail addresses in every text: ``[EMAIL]``."""
    return changed(record, lambda text, *_: cover(text))


def normalised(record: Record) -> Record:
    """Text in Unicode's NFC, line ends of one sort, no control characters, no runs of blanks or of empty lines.

    A question about a context is not changed: the answers' positions count its characters.
    """
    if isinstance(record, Question):
        return record
    return changed(record, lambda text, field, _: _tidy(text) if _PROSE.fullmatch(field) else text)


def _tidy(text: str) -> str:
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    return _LINES.sub("\n\n", _SPACES.sub(" ", _CONTROL.sub("", text))).strip()
