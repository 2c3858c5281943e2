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


class _RawTurn(msgspec.Struct, gc=False, tag_field="role", forbid_unknown_fields=True):
    content: msgspec.Raw


class _RawSystem(_RawTurn, tag="system"):
    pass


class _RawUser(_RawTurn, tag="user"):
    pass


class _RawAssistant(_RawTurn, tag="assistant"):
    pass


class _RawPlain(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    messages: list[_RawSystem | _RawUser | _RawAssistant]


def _orders(system: type, user: type, assistant: type) -> frozenset[tuple[type, ...]]:
    return frozenset(
        (*head, *((user, assistant) * pairs)) for pairs in range(1, _MOST_TURNS // 2) for head in ((), (system,))
    )


_ORDERS, _RAW_ORDERS = _orders(_System, _User, _Assistant), _orders(_RawSystem, _RawUser, _RawAssistant)
_decoder = msgspec.json.Decoder(_Plain)
_array_decoder = msgspec.json.Decoder(list[_Plain])
# The decoder takes values as they follow one another. No value holds this key within, so where it opens every line
# and there are as many values as lines, each line is one value.
_OPENING = re.compile(rb'\{[ \t]*"messages"')
_NOT_OPENING = re.compile(rb'\n(?!\{[ \t]*"messages"|\Z)')
# Where no other escapes than these stand in a text, it stands there as the canonical form has it, and need not be
# taken out of its JSON and be put in again. Such texts are checked for being JSON, but not for being UTF-8.
_raw_decoder = msgspec.json.Decoder(_RawPlain)
_RARE_ESCAPE = re.compile(rb'\\[^"\\nrt]')
# A content that is a text, with more in it than white space. It may also be none that this does not see.
_NOT_SAID = re.compile(
    rb'"content":(?!"(?: |\\[nrt])*'
    rb'(?:[^\\" \xc2\xe1\xe2\xe3]|\\["\\]|\xc2[^\x85\xa0]|\xe1[^\x9a]|\xe2[^\x80\x81]|\xe3[^\x80]|\xe3\x80[^\x80]))'
)
_encoder = msgspec.json.Encoder()
_chat_decoder = msgspec.json.Decoder(Chat)
_text_decoder = msgspec.json.Decoder(str)


class PlainRows(Sequence[Chat]):
    """The records of a plain block. They are made where one is asked for, which is seldom."""

    def __init__(self, rows: list[_Plain] | list[_RawPlain], joined: bytes) -> None:
        self._rows, self.joined = rows, joined
        self.lines = joined.split(b"\n")
        """Their canonical lines; ``joined`` is all of them."""
        self.lines.pop()
        self.escaped = type(rows[0]) is _Plain if rows else False
        """There may be escapes in them, other than of quotes, backslashes, tabs and ends of lines."""

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
        return sum([len(message.text) for message in self[index].messages])

    def prompts(self) -> list[int]:
        """Hashes of what comes before the last answer of each."""
        return [hash(line[: line.rfind(ANSWER) + 1]) for line in self.lines]

    def answers(self) -> list[str]:
        """What is said last in each."""
        contents = [row.messages[-1].content for row in self._rows]
        return [one if isinstance(one, str) else _text_decoder.decode(one) for one in contents]


class PlainBlocks:
    """Tells the plain blocks of a file. Where it has met many that are not, it looks at fewer of them."""

    def __init__(self) -> None:
        self._passed = self._to_pass = 0

    def rows(self, block: Block) -> PlainRows | None:
        """The block's rows; None if one of them is not plain, or may not be."""
        if self._to_pass:
            self._to_pass -= 1
            return None
        rows = _as_it_stands(block) or _taken_out(block)
        if rows is None:
            self._to_pass = self._passed
            self._passed = min(2 * self._passed + 1, _MOST_PASSED)
            return None
        self._passed = 0
        return rows


def _as_it_stands(block: Block) -> PlainRows | None:
    """The rows of a block whose texts stand there in their canonical form; None if they may not."""
    data = block.data
    if block.pieces is not None or _RARE_ESCAPE.search(data):
        return None
    try:
        if not data.isascii():
            data.decode()
        rows = _raw_decoder.decode_lines(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not _is_one_a_line(len(rows), block) or not {tuple(map(type, row.messages)) for row in rows} <= _RAW_ORDERS:
        return None
    joined = _encoder.encode_lines(rows)
    return None if _NOT_SAID.search(joined) else PlainRows(rows, joined)


def _taken_out(block: Block) -> PlainRows | None:
    """The rows of any plain block; None if one of them is not plain."""
    try:
        if block.pieces is not None:
            rows = _array_decoder.decode(b"[" + b",".join([piece for _, piece in block.pieces]) + b"]")
        else:
            rows = _decoder.decode_lines(block.data)
            if not _is_one_a_line(len(rows), block):
                return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not {tuple(map(type, row.messages)) for row in rows} <= _ORDERS:
        return None
    contents = [turn.content for row in rows for turn in row.messages]
    if not all(contents) or any(map(str.isspace, contents)):
        return None
    return PlainRows(rows, _encoder.encode_lines(rows))


def _is_one_a_line(rows: int, block: Block) -> bool:
    return rows == block.lines and bool(_OPENING.match(block.data)) and not _NOT_OPENING.search(block.data)
