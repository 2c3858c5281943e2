"""The tokens of a training file, as OpenAI bills them: counted with the published encoding of the base model.

The rule is the one of OpenAI's cookbook, "Data preparation and analysis for chat model fine-tuning" (seen 2026-11-21):
three tokens for each row and each message, one more for a name, and those of all texts and roles. How tool calls, tools
and preference pairs are counted is not documented; here their texts are counted once.
"""

from __future__ import annotations

import contextlib
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune_emulator.openai.training_rows import texts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OF_ROW, _OF_MESSAGE, _OF_NAME = 3, 3, 1
_COUNTED_BYTES = 8 << 20
"""After so many bytes the other rows are assumed to have as many tokens per byte."""
_BYTES_PER_TOKEN = 4
"""An estimate for when bpe-openai is not installed."""
_OLDER = ("gpt-4-", "gpt-3.5", "gpt-35")
"""Models with the encoding cl100k_base; later ones have o200k_base (github.com/openai/tiktoken, tiktoken/model.py,
seen 2026-11-21), which also stands in for the tokenizers of other vendors' models."""


class TrainingTokens:
    """Adds up the tokens of rows."""

    def __init__(self, model: str) -> None:
        self._encoding = "cl100k_base" if model.startswith(_OLDER) else "o200k_base"
        self._tokens = self._counted_bytes = self._bytes = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        """Add a valid row of that many bytes."""
        self._bytes += size
        if self._bytes > _COUNTED_BYTES:
            return
        length = _length_of(self._encoding)
        with contextlib.suppress(ValueError):  # the package refuses very long texts
            self._tokens += _OF_ROW + sum(length(text) + more for text, more in _texts(row))
            self._counted_bytes += size

    def total(self) -> int:
        """The tokens of one epoch."""
        if not self._counted_bytes:
            return max(1, self._bytes // _BYTES_PER_TOKEN)
        return round(self._tokens * self._bytes / self._counted_bytes)


@cache
def _length_of(encoding: str) -> Callable[[str], int]:
    """The function that counts a text's tokens. Loading it takes half a second.

    Without the package it raises ValueError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about how the package opens its own files
            from bpe_openai import get_encoding

            encode = get_encoding(encoding).encode_ordinary
            encode("a")
    except ImportError:
        return _not_installed
    return lambda text: len(encode(text))


def _not_installed(text: str) -> int:
    raise ValueError("bpe-openai is not installed")


def _texts(row: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The texts of a row, each with the tokens that are added for it."""
    given = row.get("input", row)
    if tools := given.get("tools"):
        yield msgspec.json.encode(tools).decode(), 0
    outputs = (row.get(side, ()) for side in ("preferred_output", "non_preferred_output"))
    for message in (*given["messages"], *(message for output in outputs for message in output)):
        yield message["role"], _OF_MESSAGE
        yield from ((text, 0) for text in texts_of(message))
        if name := message.get("name"):
            yield name, _OF_NAME
        yield from ((call["function"]["name"], 0) for call in message.get("tool_calls") or ())
