"""Token counts of rows: exact if the model's tokenizer is available and there are few rows, else two bounds.

The bounds are computed from the canonical bytes, without decoding them. A token has at least one byte. No token of the
vendors' tokenizers contains a space between two other characters, so each gap between words starts a new token
(github.com/openai/tiktoken, openai_public.py, o200k_base and cl100k_base; seen 2026-11-29).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.data.checks.tokens import counter_of
from cloudtune.data.records import decoded
from cloudtune.plan import TokenCount

if TYPE_CHECKING:
    from collections.abc import Iterable

COUNTED_BYTES = 8 << 20
"""Splits with more bytes are not counted, only bounded: counting this size takes about two seconds."""
_TURN = b'{"role":"'
"""The start of each turn in canonical JSON. Within a text the quotes are escaped."""
_TURN_JSON, _TURN_TOKENS = 24, 8
"""Minimum bytes of JSON around a turn's role and text, and maximum tokens that a vendor adds there."""
_UNREAD_KEYS = (b'"fields":', b'"reasoning_content":', b'"answers":')
_UNREAD = frozenset({"item", "question", "thoughts"})
"""Kinds and features of rows with texts that the model may not get."""
_NOT_TEXT = frozenset({"image_label", "speech", "images", "videos"})
"""Kinds and features of rows with tokens that are not from text."""


class TokenBounds:
    """Lower and upper bound of the tokens of rows."""

    def __init__(self) -> None:
        self.bytes = 0
        self._rows = self._turns = self._gaps = 0

    def add(self, lines: bytes, rows: int) -> None:
        """Add so many rows as canonical JSON."""
        self.bytes += len(lines)
        self._rows += rows
        self._turns += lines.count(_TURN)
        # One token may contain several spaces next to each other: taking two for each pair leaves at most one for each
        # run. It may also contain several that other white space follows, which JSON mostly writes as escapes.
        self._gaps += lines.count(b" ") - 2 * lines.count(b"  ") - lines.count(b" \\")
        if not lines.isascii():
            self._gaps -= lines.count(b" \xc2\xa0") + lines.count(b" \xe3\x80\x80")

    def least(self, *, unread: bool) -> int:
        """Each row has a token, and each gap between words starts one, unless it is in `unread` text."""
        return self._rows if unread else max(self._rows, self._gaps)

    def most(self) -> int:
        """Each byte is a token, but for the JSON around turns."""
        return self.bytes - (_TURN_JSON - _TURN_TOKENS) * self._turns


def unread(lines: bytes) -> bool:
    """Whether canonical rows may have texts that the model does not get, such as a grader's reference."""
    return any(key in lines for key in _UNREAD_KEYS)


class SplitTokens:
    """The tokens of one split. Rows are stored only while there are few enough to count."""

    def __init__(self, tokenizer: str | None) -> None:
        self._tokenizer = tokenizer
        self._bounds = TokenBounds()
        self._kept: list[bytes] = []

    def add(self, lines: bytes, rows: int) -> None:
        """Add so many rows as canonical JSON, each ending in a line end."""
        self._bounds.add(lines, rows)
        if self._bounds.bytes > COUNTED_BYTES:
            self._kept.clear()
        elif self._tokenizer is not None:
            self._kept.append(lines)

    def total(self, kinds: Iterable[str], features: Iterable[str]) -> TokenCount | None:
        """The count, or its bounds. None if the rows contain images, videos or audio."""
        found = {*kinds, *features}
        if found & _NOT_TEXT:
            return None
        if self._tokenizer is not None and self._kept:
            (kind,) = kinds
            counter = counter_of(self._tokenizer)
            try:
                count = sum([sum(counter.count(decoded(lines, kind))) for lines in self._kept])
            except ValueError:  # a text that the tokenizer refuses, for example because it is too long
                pass
            else:
                return TokenCount(least=count, most=count, counted_by=self._tokenizer)
        return TokenCount(least=self._bounds.least(unread=bool(found & _UNREAD)), most=self._bounds.most())
