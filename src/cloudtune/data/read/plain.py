"""Plain conversations of a block, processed from their lines without creating records.

``record_checks.is_plain`` defines plain: text-only messages in valid order, ending with an assistant message.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

import msgspec

from cloudtune.data.records import Chat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.write.row_template import Weave

ANSWER = b'{"role":"assistant"'
"""The start of an assistant's turn in canonical form."""
_BEFORE_ANSWER, _BEHIND_ANSWER = len(b'{"role":"assistant","content":'), len(b"}]}")
_MOST_BYTES = 6
"""The longest encoding of one character in JSON."""
_encoder = msgspec.json.Encoder()
_chat_decoder = msgspec.json.Decoder(Chat)
_text_decoder = msgspec.json.Decoder(str)


class Precomputed(NamedTuple):
    """Facts about rows besides their canonical lines, in the order of the rows: see ``PlainRows``."""

    woven: bytes | None
    hashes: bytes
    prompts: bytes
    sizes: bytes
    answers: bytes
    """Bytes of the last texts in JSON, 4 bytes each."""


class PlainRows(Sequence[Chat]):
    """The records of plain lines, created on demand, which is rare."""

    def __init__(
        self,
        joined: bytes,
        lines: list[bytes] | None = None,
        *,
        escaped: bool = False,
        precomputed: Precomputed | None = None,
    ) -> None:
        self.joined = joined
        self.lines = joined.split(b"\n")[:-1] if lines is None else lines
        """Their canonical lines; ``joined`` is all of them."""
        self.escaped = escaped
        """There may be escapes in them, other than of quotes, backslashes, tabs and ends of lines."""
        self._precomputed = precomputed

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, index: int) -> Chat: ...
    @overload
    def __getitem__(self, index: slice) -> list[Chat]: ...
    def __getitem__(self, index: int | slice) -> Chat | list[Chat]:
        if isinstance(index, slice):
            return [_chat_decoder.decode(line) for line in self.lines[index]]
        return _chat_decoder.decode(self.lines[index])

    def __iter__(self) -> Iterator[Chat]:
        return iter(_chat_decoder.decode_lines(self.joined))

    def hashes(self) -> bytes:
        """Of the lines, 8 bytes each."""
        return self._precomputed.hashes if self._precomputed else array("q", map(hash, self.lines)).tobytes()

    def prompts(self) -> bytes:
        """Hashes of the text before the last answers, 8 bytes each."""
        if self._precomputed:
            return self._precomputed.prompts
        return array("q", [hash(line[: line.rfind(ANSWER) + 1]) for line in self.lines]).tobytes()

    def sizes(self) -> bytes:
        """Bytes of the lines, 4 bytes each."""
        return self._precomputed.sizes if self._precomputed else array("I", map(len, self.lines)).tobytes()

    def woven(self, weave: Weave) -> bytes:
        """The rows in the format that is written so."""
        if self._precomputed and self._precomputed.woven is not None:
            return self._precomputed.woven
        return b"".join(
            [weave.row([(turn.role, _encoder.encode(turn.content)) for turn in row.messages]) for row in self]
        )

    def chars(self, index: int) -> int:
        """The length of a row's texts."""
        return sum([len(message.text) for message in self[index].messages])

    def short_answers(self, most: int) -> list[str]:
        """The last text, if it is short enough."""
        longest = _MOST_BYTES * most + 2
        short = [(line, size) for line, size in zip(self.lines, self._answers(), strict=True) if size <= longest]
        answers = [_text_decoder.decode(line[-size - _BEHIND_ANSWER : -_BEHIND_ANSWER]) for line, size in short]
        return [said for said in answers if len(said) <= most]

    def _answers(self) -> Sequence[int]:
        if self._precomputed:
            return array("I", self._precomputed.answers)
        around = _BEFORE_ANSWER + _BEHIND_ANSWER
        return [len(line) - line.rfind(ANSWER) - around for line in self.lines]
