"""Finds the plain conversations of a block, which are nearly all lines, in a few steps for all lines.

A compiled function (``_conversations.c``) reads, checks and rewrites them. If it was not built, they are decoded as
the structs here, which have no other keys and need no further check; the result is the same.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from cloudtune.data.read.blocks import PART_BYTES
from cloudtune.data.read.duplicate_keys import has_same_keys
from cloudtune.data.read.plain import PlainRows, Precomputed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudtune.data.read.blocks import Block
    from cloudtune.data.write.row_template import Weave

    Found = tuple[int, bytes, list[bytes], bool, bytes | None, bytes, bytes, bytes, bytes]
    GoThrough = Callable[[bytes, int, Weave | None], Found]

_MOST_TURNS = 64
"""Longer conversations are decoded one by one."""
_MOST_PASSED = 64
_WORTH_BYTES = 1 << 14
"""Fewer bytes of plain lines between others are decoded with the others."""


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


_ORDERS = frozenset(
    (*head, *((_User, _Assistant) * pairs)) for pairs in range(1, _MOST_TURNS // 2) for head in ((), (_System,))
)
_decoder = msgspec.json.Decoder(_Plain)
_array_decoder = msgspec.json.Decoder(list[_Plain])
# The decoder takes values as they follow one another. No value holds this key within, so where it opens every line
# and there are as many values as lines, each line is one value.
_OPENING = re.compile(rb'\{[ \t]*"messages"')
_NOT_OPENING = re.compile(rb'\n(?!\{[ \t]*"messages"|\Z)')
_encoder = msgspec.json.Encoder()


class PlainBlocks:
    """Finds the plain lines of a file. After many other lines, it tries less often."""

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
                yield part, PlainRows(joined, lines, escaped=escaped, precomputed=Precomputed(*found[4:]))
                at, line, self._aside = end, line + len(lines), 1
            if at < len(block.data):
                # More and more of them, where one follows the other: each part has its own cost.
                part = block.part(at, block.end_of_line(at + self._aside), line)
                yield part, self.rows(part) if self._aside > 1 else None
                at, line, self._aside = at + len(part.data), line + part.lines, min(8 * self._aside, PART_BYTES)

    def rows(self, block: Block) -> PlainRows | None:
        """The block's rows; None if one of them may not be plain."""
        if self._to_pass:
            self._to_pass -= 1
            return None
        rows = _decoded(block)
        if rows is None:
            self._to_pass = self._passed
            self._passed = min(2 * self._passed + 1, _MOST_PASSED)
            return None
        self._passed = 0
        return rows


@cache
def compiled() -> GoThrough | None:
    """The compiled function for plain lines, if it was built."""
    try:
        from cloudtune.data._conversations import rows
    except ImportError:
        return None
    return rows


def _decoded(block: Block) -> PlainRows | None:
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
    joined = _encoder.encode_lines(rows)
    raw = block.data if block.pieces is None else b"".join([piece for _, piece in block.pieces])
    return PlainRows(joined, escaped=True) if has_same_keys(raw, joined) else None


def _is_one_a_line(rows: int, block: Block) -> bool:
    return rows == block.lines and bool(_OPENING.match(block.data)) and not _NOT_OPENING.search(block.data)
