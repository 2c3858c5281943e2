"""What Acme's service accepts as rows: a file format, the kind that reads it back, a tokenizer, and the rules.

A row is ``{"acme": 1, "system": "...", "turns": [{"ask": "...", "answer": "..."}]}``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from cloudtune.catalog import read
from cloudtune.data.checks.targets import Target
from cloudtune.data.checks.tokens import Span
from cloudtune.data.read.kinds import Kind
from cloudtune.data.records import Chat, Message
from cloudtune.data.row_rules import RowRule, Source
from cloudtune.data.rules import texts
from cloudtune.data.write.formats import Format
from cloudtune.data.write.turns import TALK, split_system

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.records import Record

# -- the format, and the kind that reads it


class Turn(msgspec.Struct, forbid_unknown_fields=True):
    """A question and its answer."""

    ask: str
    answer: str


def to_turns(chat: Chat) -> dict[str, Any]:
    """The row of a conversation. Raises ValueError for one whose questions are not answered one by one."""
    system, messages = split_system(chat.messages)
    if [message.role for message in messages] != ["user", "assistant"] * (len(messages) // 2):
        raise ValueError("messages: every question needs its answer")
    turns = [Turn(ask.text, answer.text) for ask, answer in zip(messages[::2], messages[1::2], strict=True)]
    return {"acme": 1, **({"system": system} if system else {}), "turns": turns}


def to_chat(row: Any) -> Chat:
    """The conversation of a decoded row."""
    messages = [Message("system", row.system)] if row.system is not UNSET else []
    for turn in row.turns:
        messages += [Message("user", turn.ask), Message("assistant", turn.answer)]
    return Chat(messages)


TURNS = Format("acme-turns", "Acme's turns", frozenset({"chat"}), TALK, to_turns, own="acme_turns")
TURNS_ROWS = Kind("acme_turns", {"acme": int, "turns": list[Turn]}, {"system": str | UnsetType}, to_chat)

# -- how tokens are counted


class QuarterTokens:
    """Counts a token for every four characters, as Acme does. Made with the name of the entry point."""

    def __init__(self, name: str) -> None:
        self.name = name

    def count(self, records: list[Record]) -> list[int]:
        """How many tokens each record has."""
        return [sum((len(text) + 3) // 4 for _, _, text in texts(record)) for record in records]

    def spans(self, record: Record) -> tuple[str, list[Span]]:
        """The text that is counted, and its tokens; what the assistant says is trained on."""
        whole, spans = "", []
        for _, role, text in texts(record):
            begin, trained = len(whole), role == "assistant"
            whole += text
            spans += [Span(at, min(at + 4, len(whole)), trained) for at in range(begin, len(whole), 4)]
        return whole, spans


# -- the rules

_CATALOG = read(Path(__file__).with_name("catalog.json"))
_SMALL = Target("acme", {"sft": "acme-turns"}, max_tokens=4_000, tokenizer="acme-quarters")
_LARGE = _SMALL._replace(name="acme-large", max_tokens=16_000)


def target_of(model: str | None, method: str | None) -> Target:
    """The rules for that base model: its family's, with the catalog's limits."""
    family = _LARGE if (model or "").startswith("acme-large-") else _SMALL
    return family._replace(rules_of=("acme", model, method)).with_limits(_CATALOG, model, method)


def _reserved(record: Record) -> Iterator[tuple[str, str]]:
    for field, _, text in texts(record):
        if "<acme>" in text:
            yield field, "the text contains <acme>"


RULES = (
    RowRule(
        "reserved_word", "No text contains <acme>.", Source("https://acme.example/guide", "2026-11-29"),
        '{"ask": "What is <acme>?"}', "write it another way", _reserved, re.compile(b"<acme>"),
    ),
)  # fmt: skip
"""Rules for the rows of every model."""
