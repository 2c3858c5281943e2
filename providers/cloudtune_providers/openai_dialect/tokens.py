"""Exact offline token counts for OpenAI's models, by their published encodings from ``bpe-openai``."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.checks.tokens import Span
from cloudtune.data.records import Chat, Item, Message, Preference, Rated, compact
from cloudtune.data.rules import texts
from cloudtune.errors import DataError, Problem
from cloudtune.install_command import install_command

if TYPE_CHECKING:
    from cloudtune.data.records import Record

# github.com/openai/tiktoken, tiktoken/model.py (seen 2026-11-21): the longest matching prefix of a model's name.
_BY_MODEL = {
    "gpt-4o": "o200k_base", "gpt-4.1": "o200k_base", "gpt-4.5": "o200k_base", "gpt-5": "o200k_base", "o1": "o200k_base",
    "o3": "o200k_base", "o4": "o200k_base", "gpt-4": "cl100k_base", "gpt-3.5": "cl100k_base", "gpt-35": "cl100k_base",
}  # fmt: skip
# OpenAI's cookbook, "Data preparation and analysis for chat model fine-tuning" (seen 2026-11-21).
_MESSAGE, _NAME, _ROW = 3, 1, 3


def encoding_of(model: str | None) -> str | None:
    """Return the encoding of a model or its tuned models, or None if it is unknown or not available."""
    if model is None or not _is_here():
        return None
    base = model.split(":")[1] if model.startswith("ft:") and ":" in model[3:] else model
    fits = [start for start in _BY_MODEL if base.startswith(start)]
    return _BY_MODEL[max(fits, key=len)] if fits else None


def _is_here() -> bool:
    return find_spec("bpe_openai") is not None


@cache
def _loaded(encoding: str) -> Any:
    """The encoding, built once per process: building one takes tenths of a second."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about how the package opens its own files
        from bpe_openai import get_encoding

        loaded = get_encoding(encoding)
        loaded.encode_ordinary("a")
    return loaded


class OpenAITokens:
    """Counts the tokens of records like OpenAI's cookbook: text and roles, and a few more for each message."""

    def __init__(self, encoding: str) -> None:
        self._name = encoding
        if not _is_here():
            message, fix = (
                f"counting tokens with {encoding} requires bpe-openai",
                install_command("openai-tokens"),
            )
            raise DataError([Problem(code="no_tokenizer", message=message, field="tokenizer", fix=fix)])

    @property
    def _encoding(self) -> Any:
        """Loaded for the first counted row: only rows that may be too long are counted."""
        return _loaded(self._name)

    def count(self, records: list[Record]) -> list[int]:
        """The number of tokens of each record."""
        parts = [_parts(record) for record in records]
        # One by one, and each text once: the package's batches pass every text to a thread, which takes three times as
        # long. Roles and system messages are the same in most records.
        encode = self._encoding.encode_ordinary
        lengths = {text: len(encode(text)) for text in dict.fromkeys(text for pieces, _ in parts for text in pieces)}
        return [more + sum([lengths[text] for text in pieces]) for pieces, more in parts]

    def text(self, record: Record) -> str:
        """The record's text."""
        return "\n".join([words for _, _, words in texts(record)])

    def spans(self, record: Record) -> tuple[str, list[Span]]:
        """Return the text and its tokens. Assistant tokens are trained on, or all tokens if there are no turns."""
        whole, found = "", []
        for _, role, words in texts(record):
            if whole:
                whole += "\n"
                found.append(Span(len(whole) - 1, len(whole), learnt=False))
            ids = self._encoding.encode_ordinary(words)
            starts = [*self._encoding.decode_with_offsets(ids)[1], len(words)]
            learnt = role in ("assistant", "text")
            found += [Span(len(whole) + start, len(whole) + end, learnt) for start, end in pairwise(starts)]
            whole += words
        return whole, found


def _parts(record: Record) -> tuple[list[str], int]:
    """The separately encoded texts of a record, and the number of additional tokens."""
    if not isinstance(record, Chat | Preference | Rated | Item):
        return ["\n".join([words for _, _, words in texts(record)])], 0
    turns: list[Message] = [*record.messages]
    if isinstance(record, Preference):
        turns += [*record.chosen, *record.rejected]
    elif isinstance(record, Rated):
        turns += record.completion
    found, more = [], _ROW
    for turn in turns:
        found += [turn.role, turn.text]
        more += _MESSAGE
        if turn.name:
            found.append(turn.name)
            more += _NAME
        for call in turn.tool_calls or ():
            found += [call.function.name, call.function.arguments]
    tools = getattr(record, "tools", msgspec.UNSET)
    return [*found, *([compact(tools)] if tools else [])], more
