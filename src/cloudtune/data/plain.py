"""Blocks that hold nothing but plain conversations, which nearly all blocks do, decoded in a few steps for all rows.

Plain is what ``record_checks.is_plain`` says: turns of words in good order, an answer last, nothing beside them. Such a
row decodes as one of the structs here, which know no other keys, and needs no check one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import msgspec

from cloudtune.data.records import Chat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.blocks import Block

ANSWER = b'{"role":"assistant"'
"""How the canonical form of an assistant's turn begins."""
_MOST_TURNS = 64
"""Longer conversations are gone through one by one."""
_MOST_PASSED = 64


class _Turn(msgspec.Struct, gc=False, tag_field="role", forbid_unknown_fields=True):
    content: str


class _System(_Turn, tag="system"):
    pass


class _User(_Turn, tag="user"):
    pass


class _Assistant(_Turn, tag="assistant"):
    pass


class _Plain(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    messages: list[_System | _User | _Assistant]


_GOOD_ORDERS = frozenset(
    (*head, *((_User, _Assistant) * pairs)) for pairs in range(1, _MOST_TURNS // 2) for head in ((), (_System,))
)
_decoder = msgspec.json.Decoder(_Plain)
_array_decoder = msgspec.json.Decoder(list[_Plain])
# The decoder takes values as they follow one another. No value holds this key within, so where it opens every line
# and there are as many values as lines, each line is one value.
_OPENING = re.compile(rb'\{[ \t]*"messages"')
_NOT_OPENING = re.compile(rb'\n(?!\{[ \t]*"messages"|\Z)')
_encoder = msgspec.json.Encoder()
_chat_decoder = msgspec.json.Decoder(Chat)


class PlainRows(Sequence[Chat]):
    """The records of a plain block. They are made where one is asked for, which is seldom."""

    def __init__(self, rows: list[_Plain]) -> None:
        self._rows = rows
        self.joined = _encoder.encode_lines(rows)
        """Their canonical lines."""
        self.lines = self.joined.split(b"\n")
        self.lines.pop()

    def __len__(self) -> int:
        return len(self._rows)

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

    def chars(self, index: int) -> int:
        """How long the texts of one are."""
        return sum([len(turn.content) for turn in self._rows[index].messages])

    def prompts(self) -> list[int]:
        """Hashes of what comes before the last answer of each."""
        # An answer has at least as many bytes as characters: what stands before it is not looked for within it.
        return [
            hash(line[: line.rfind(ANSWER, 0, -len(row.messages[-1].content)) + 1])
            for row, line in zip(self._rows, self.lines, strict=True)
        ]

    def answers(self) -> list[str]:
        """What is said last in each."""
        return [row.messages[-1].content for row in self._rows]


class PlainBlocks:
    """Tells the plain blocks of a file. Where it has met many that are not, it looks at fewer of them."""

    def __init__(self) -> None:
        self._passed = self._to_pass = 0

    def rows(self, block: Block) -> PlainRows | None:
        """The block's rows; None if one of them is not plain, or may not be."""
        if self._to_pass:
            self._to_pass -= 1
            return None
        rows = _decoded(block)
        if rows is None or not _all_plain(rows):
            self._to_pass = self._passed
            self._passed = min(2 * self._passed + 1, _MOST_PASSED)
            return None
        self._passed = 0
        return PlainRows(rows)


def _decoded(block: Block) -> list[_Plain] | None:
    try:
        if block.pieces is not None:
            return _array_decoder.decode(b"[" + b",".join([piece for _, piece in block.pieces]) + b"]")
        rows = _decoder.decode_lines(block.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    one_a_line = len(rows) == block.lines and _OPENING.match(block.data) and not _NOT_OPENING.search(block.data)
    return rows if one_a_line else None


def _all_plain(rows: list[_Plain]) -> bool:
    if not {tuple(map(type, row.messages)) for row in rows} <= _GOOD_ORDERS:
        return False
    contents = [turn.content for row in rows for turn in row.messages]
    return all(contents) and not any(map(str.isspace, contents))
