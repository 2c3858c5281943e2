"""JSON files cut into blocks of whole rows, in bounded memory, with the line that each row begins on."""

from __future__ import annotations

import re
from functools import cache
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.problem_list import Faults

BLOCK_BYTES = 1 << 19
"""Bytes of lines per block, large enough that the overhead per block is small."""
PART_BYTES = 1 << 16
"""Bytes of rows decoded at once. Data that fits a core's cache is decoded fastest."""
MAX_ROW_BYTES = 64 << 20
MAX_SKIP_BYTES = 1 << 30
MAX_BROKEN = 1000
"""Places where a file is broken, before the rest of it is left unread."""
_KEPT_BYTES = 16 << 20
TOO_LONG_FIX = f"a row can be at most {MAX_ROW_BYTES >> 20} MiB; check that the file has one JSON object per line"


@cache
def keep_memory() -> None:
    """Make the process reuse the memory of finished blocks, from the first call on.

    The C library returns allocations of that size to the system and requests them again each time, which costs more
    than the work on them, until a larger one has been freed.
    """
    bytes(_KEPT_BYTES)


class Block(NamedTuple):
    """Whole rows of one file: lines in ``data``, or JSON values in ``pieces``."""

    data: bytes
    first_line: int
    pieces: list[tuple[int, bytes]] | None = None
    """The line that each row begins on, and its bytes, where a row is not a line of the file."""
    lines: int = 0
    """How many lines ``data`` has."""

    def with_next(self, more: Block) -> Block:
        """This block of lines and the one behind it, as one."""
        return Block(self.data + more.data, self.first_line, lines=self.lines + more.lines)

    def part(self, start: int, end: int, line: int) -> Block:
        """The lines between two places of the data; the first of them is the file's line of that number."""
        if start == 0 and end == len(self.data):
            return self
        data = self.data[start:end]
        return Block(data, line, lines=data.count(b"\n") + (not data.endswith(b"\n")))

    def end_of_line(self, at: int) -> int:
        """Where the line that holds the byte before this place ends."""
        return self.data.find(b"\n", at - 1) + 1 or len(self.data)

    def parts(self, size: int) -> Iterator[Block]:
        """The block in smaller ones, of whole lines."""
        if self.pieces is not None or len(self.data) <= size:
            yield self
            return
        start, line = 0, self.first_line
        while start < len(self.data):
            part = self.part(start, self.end_of_line(min(start + size, len(self.data))), line)
            yield part
            start, line = start + len(part.data), line + part.lines

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """Line number and bytes of each row that is not blank."""
        if self.pieces is not None:
            yield from self.pieces
            return
        for number, line in enumerate(self.data.split(b"\n"), self.first_line):
            if line and not line.isspace():
                yield number, line


def line_blocks(stream: IO[bytes], file: str, faults: Faults, head: bytes = b"") -> Iterator[Block]:
    """Blocks of a file that holds one JSON object a line. ``head`` is what was already read of it."""
    held: list[bytes] = []
    line, size, more = 1, 0, head or stream.read(BLOCK_BYTES)
    while more:
        cut = more.rfind(b"\n") + 1
        if cut:
            data = b"".join([*held, memoryview(more)[:cut]])
            ends = data.count(b"\n")
            yield Block(data, line, lines=ends)
            line += ends
            held, size = [more[cut:]], len(more) - cut
        elif size + len(more) <= MAX_ROW_BYTES:
            held.append(more)
            size += len(more)
        else:
            faults.error("row_too_long", "unterminated row", file=file, line=line, fix=TOO_LONG_FIX)
            held, size, line, more = [], 0, line + 1, _skip_line(stream)
            continue
        more = stream.read(BLOCK_BYTES)
    if size:
        yield Block(b"".join(held), line, lines=1)


def _skip_line(stream: IO[bytes]) -> bytes:
    """What follows the end of the line; nothing if there is no end in sight (a packed file may hold terabytes)."""
    skipped = 0
    while skipped < MAX_SKIP_BYTES and (more := stream.read(BLOCK_BYTES)):
        if (cut := more.find(b"\n")) >= 0:
            return more[cut + 1 :] or stream.read(BLOCK_BYTES)
        skipped += len(more)
    return b""


# A lone quote matches last: it is a string whose end has not been read yet.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^",\[\]{}\s]+', re.DOTALL)
_NOT_SPACE = re.compile(rb"\S")


def array_blocks(stream: IO[bytes], file: str, faults: Faults, head: bytes = b"") -> Iterator[Block]:
    """Blocks of a file that holds a JSON array of objects, or objects one after another over any number of lines."""
    pieces: list[tuple[int, bytes]] = []
    size = 0
    for piece in _Splitter(stream, head, file, faults).rows():
        pieces.append(piece)
        size += len(piece[1])
        if size >= PART_BYTES:
            yield Block(b"", pieces[0][0], pieces)
            pieces, size = [], 0
    if pieces:
        yield Block(b"", pieces[0][0], pieces)


class _Splitter:
    """Finds where each object of the array begins and ends, without decoding it."""

    def __init__(self, stream: IO[bytes], head: bytes, file: str, faults: Faults) -> None:
        self.stream, self.buffer, self.file, self.faults = stream, head, file, faults
        self.at, self.line, self.ended = 0, 1, False
        self.found = 0
        """Problems so far."""

    def fault(self, message: str, fix: str, code: str = "invalid_json") -> None:
        self.found += 1
        self.faults.error(code, message, file=self.file, line=self.line, fix=fix)

    def more(self) -> bool:
        """Read on, at least as much again as is already held, so that a long row is not scanned over and over."""
        held = self.buffer[self.at :]
        found = self.stream.read(max(PART_BYTES, len(held)))
        self.buffer, self.at = held + found, 0
        self.ended = not found
        return not self.ended

    def step(self, end: int) -> None:
        """Move to this position in the buffer."""
        self.line += self.buffer.count(b"\n", self.at, end)
        self.at = end

    def peek(self) -> bytes:
        """The next byte that is not white space; empty at the end of the file."""
        while True:
            if found := _NOT_SPACE.search(self.buffer, self.at):
                self.step(found.start())
                return self.buffer[self.at : self.at + 1]
            self.step(len(self.buffer))
            if not self.more():
                return b""

    def rows(self) -> Iterator[tuple[int, bytes]]:
        in_array = self.peek() == b"["
        if in_array:
            self.step(self.at + 1)
        comma_due = False
        while byte := self.peek():
            if in_array and byte == b"]":
                self.step(self.at + 1)
                if self.peek():
                    self.fault("unexpected content after the end of the array", "remove it, or use one object per line")
                return
            if in_array and comma_due != (byte == b","):
                self.fault(f"a comma {'is missing' if comma_due else 'too many'} here", "correct the array's commas")
                if self.found >= MAX_BROKEN:
                    self.fault("the rest of the array was not read: too many errors", "write one row per line")
                    return
            comma_due = False
            if in_array and byte == b",":
                self.step(self.at + 1)
                continue
            start = self.line
            row = self.element()
            if row is None:
                return
            if row:
                yield start, row
            comma_due = in_array
        if in_array:
            self.fault("the array is not closed", "end it with ], or check whether the file is truncated")

    def element(self) -> bytes | None:
        """The bytes of the element that begins here; empty if it is too long, None if it has no end: both reported."""
        while True:
            if end := self.end_of_element():
                row = self.buffer[self.at : end] if end - self.at <= MAX_ROW_BYTES else b""
                if not row:
                    self.fault("this row is too long", TOO_LONG_FIX, "row_too_long")
                self.step(end)
                return row
            if len(self.buffer) - self.at > MAX_ROW_BYTES:
                self.fault("unterminated row", TOO_LONG_FIX, "row_too_long")
                return None
            if not self.more():
                self.fault(
                    "the file ends in the middle of this row", "check for a truncated file, or an open quote or brace"
                )
                return None

    def end_of_element(self) -> int:
        """Where the element that begins here ends in the buffer; 0 if that has not been read yet."""
        if self.buffer[self.at] not in b"{[":
            found = _SCALAR.match(self.buffer, self.at)
            end = found.end() if found else self.at + 1
            return end if self.ended or end < len(self.buffer) else 0
        depth = 0
        for token in _TOKEN.finditer(self.buffer, self.at):
            byte = self.buffer[token.start()]
            if byte in b"{[":
                depth += 1
            elif byte in b"}]":
                depth -= 1
                if not depth:
                    return token.end()
            elif token.end() - token.start() == 1:
                return 0
        return 0
