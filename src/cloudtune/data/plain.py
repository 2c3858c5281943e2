"""Lines that hold nothing but plain conversations, which nearly all lines do, gone through in a few steps for all.

Plain is what ``record_checks.is_plain`` says: turns of words in good order, an answer last, nothing beside them. Such
lines are read, checked and written anew by a compiled function (``_conversations.c``). Where that was not built, they
decode as the structs here, which know no other keys, and need no check one by one; the outcome is the same.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, overload

import msgspec

from cloudtune.data.blocks import PART_BYTES, Block
from cloudtune.data.records import Chat
from cloudtune.data.weaving import AFTER_SYSTEM, AGAIN, ANSWERED, FIRST_SYSTEM, FIRST_USER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudtune.data.weaving import Weave

    Found = tuple[int, bytes, list[bytes], bool, bytes | None, bytes, bytes, bytes, bytes]
    GoThrough = Callable[[bytes, int, Weave | None], Found]

ANSWER = b'{"role":"assistant"'
"""How the canonical form of an assistant's turn begins."""
_MOST_TURNS = 64
"""Longer conversations are gone through one by one."""
_MOST_PASSED = 64
_WORTH_BYTES = 1 << 14
"""Fewer bytes of plain lines between others are left to be decoded with those."""
_BEFORE_ANSWER = b'{"role":"assistant","content":'
_BEHIND_ANSWER = len(b"}]}")
_MOST_BYTES = 6
"""Of one character in JSON."""


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


@cache
def _places(speakers: tuple[type, ...]) -> list[int]:
    """Where the turns of a conversation stand."""
    found = [FIRST_SYSTEM if speakers[0] is _RawSystem else FIRST_USER]
    for before, who in pairwise(speakers):
        found.append(ANSWERED if who is _RawAssistant else AFTER_SYSTEM if before is _RawSystem else AGAIN)
    return found


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


class _Told(NamedTuple):
    """What is told of rows besides their canonical lines: of each in turn, as ``PlainRows`` has it."""

    woven: bytes | None
    hashes: bytes
    prompts: bytes
    sizes: bytes
    answers: bytes
    """Bytes of the last texts in JSON, 4 bytes each."""


class PlainRows(Sequence[Chat]):
    """The records of plain lines. They are made where one is asked for, which is seldom."""

    def __init__(
        self, joined: bytes, lines: list[bytes] | None = None, *, escaped: bool = False, told: _Told | None = None
    ) -> None:
        self.joined = joined
        self.lines = joined.split(b"\n")[:-1] if lines is None else lines
        """Their canonical lines; ``joined`` is all of them."""
        self.escaped = escaped
        """There may be escapes in them, other than of quotes, backslashes, tabs and ends of lines."""
        self._told = told

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
        return self._told.hashes if self._told else array("q", map(hash, self.lines)).tobytes()

    def prompts(self) -> bytes:
        """Hashes of what comes before the last answers, 8 bytes each."""
        if self._told:
            return self._told.prompts
        return array("q", [hash(line[: line.rfind(ANSWER) + 1]) for line in self.lines]).tobytes()

    def sizes(self) -> bytes:
        """Bytes of the lines, 4 bytes each."""
        return self._told.sizes if self._told else array("I", map(len, self.lines)).tobytes()

    def woven(self, weave: Weave) -> bytes:
        """The rows in the format that is written so."""
        if self._told and self._told.woven is not None:
            return self._told.woven
        rows = _raw_decoder.decode_lines(self.joined)
        return b"".join([
            weave.row(_places(tuple(map(type, row.messages))), [turn.content for turn in row.messages]) for row in rows
        ])  # fmt: skip

    def chars(self, index: int) -> int:
        """How long the texts of one are."""
        return sum([len(message.text) for message in self[index].messages])

    def short_answers(self, most: int) -> list[str]:
        """What is said last, where it has at most so many characters."""
        longest = _MOST_BYTES * most + 2
        short = [(line, size) for line, size in zip(self.lines, self._answers(), strict=True) if size <= longest]
        answers = [_text_decoder.decode(line[-size - _BEHIND_ANSWER : -_BEHIND_ANSWER]) for line, size in short]
        return [said for said in answers if len(said) <= most]

    def _answers(self) -> Sequence[int]:
        if self._told:
            return array("I", self._told.answers)
        around = len(_BEFORE_ANSWER) + _BEHIND_ANSWER
        return [len(line) - line.rfind(ANSWER) - around for line in self.lines]


class PlainBlocks:
    """Tells the plain lines of a file. Where it has met many that are not, it looks at fewer of them."""

    def __init__(self) -> None:
        self._passed = self._to_pass = 0
        self._aside = 1

    def parts(self, block: Block, weave: Weave | None = None) -> Iterator[tuple[Block, PlainRows | None]]:
        """The block with its rows, or blocks of some of its lines; None for those that may hold others than plain ones.

        With a ``weave`` they are written in that format at once.
        """
        go_through = compiled()
        if go_through is None or block.pieces is not None:
            yield from ((part, self.rows(part)) for part in block.parts(PART_BYTES))
            return
        at, line = 0, block.first_line
        while at < len(block.data):
            found = go_through(block.data, at, weave)
            end, joined, lines, escaped = found[:4]
            if end == len(block.data) or end - at >= _WORTH_BYTES:
                part = block.part(at, end, line)
                yield part, PlainRows(joined, lines, escaped=escaped, told=_Told(*found[4:]))
                at, line, self._aside = end, line + len(lines), 1
            if at < len(block.data):
                # More and more of them, where one follows the other: each part has its own cost.
                part = block.part(at, block.end_of_line(at + self._aside), line)
                yield part, self.rows(part) if self._aside > 1 else None
                at, line, self._aside = at + len(part.data), line + part.lines, min(8 * self._aside, PART_BYTES)

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


@cache
def compiled() -> GoThrough | None:
    """The function that goes through plain lines, where it was built."""
    try:
        from cloudtune.data._conversations import rows
    except ImportError:
        return None
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
    return None if _NOT_SAID.search(joined) else PlainRows(joined)


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
    return PlainRows(_encoder.encode_lines(rows), escaped=True)


def _is_one_a_line(rows: int, block: Block) -> bool:
    return rows == block.lines and bool(_OPENING.match(block.data)) and not _NOT_OPENING.search(block.data)
