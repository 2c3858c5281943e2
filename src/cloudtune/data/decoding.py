"""Rows of one file decoded into canonical records: all of a block at once where all are good, else one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data import explain
from cloudtune.data.blocks import PART_BYTES, Block
from cloudtune.data.kinds import RowType, records, row_type
from cloudtune.data.kinds_other import recognise
from cloudtune.data.nested import NestedError, unnested
from cloudtune.data.places import Batch, located
from cloudtune.data.plain_blocks import PlainBlocks
from cloudtune.data.records import Chat
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cloudtune.data.faults import Faults
    from cloudtune.data.kinds import Kind
    from cloudtune.data.plain import PlainRows
    from cloudtune.data.tables import Table
    from cloudtune.data.weaving import Weave

_BAD_ROW = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_BAD_RECORD = (ValueError, KeyError, TypeError, AttributeError)
"""What conversion from a vendor's free-form blocks may meet."""


class FileRows:
    """Decodes the rows of one file. The first good row decides the kind, unless it is known."""

    def __init__(self, file: str, columns: Mapping[str, str], how: RowType | None, faults: Faults) -> None:
        self.file, self.columns, self.how, self.faults = file, columns, how, faults
        self.seen = False
        self.hopeless = False
        """The columns of a table are those of no kind: no row of it can be used."""
        self._plain = PlainBlocks()

    def parts(self, block: Block, weave: Weave | None = None) -> Iterator[tuple[Block, PlainRows | None]]:
        """The block, or smaller ones of it, with the rows of those that hold nothing but plain conversations."""
        if self.how is None or self.how.struct is not Chat:
            yield from ((part, None) for part in block.parts(PART_BYTES))
            return
        for part, rows in self._plain.parts(block, weave):
            self.seen = self.seen or bool(rows)
            yield part, rows

    def of(self, chunk: Block | Table) -> Batch | None:
        """Records of a block or a table."""
        return self.of_block(chunk) if isinstance(chunk, Block) else self.of_table(chunk)

    def of_block(self, block: Block) -> Batch:
        """Records of JSON rows."""
        if self.how is not None:
            try:
                batch = self._at_once(block, self.how)
            except (*_BAD_ROW, *_BAD_RECORD):
                pass
            else:
                self.seen = self.seen or bool(batch.records)
                return batch
        return self._one_by_one(block)

    def _at_once(self, block: Block, how: RowType) -> Batch:
        if block.pieces is not None:
            rows = how.array.decode(b"[" + b",".join([piece for _, piece in block.pieces]) + b"]")
            return Batch(self.file, [line for line, _ in block.pieces], records(rows, how))
        rows = how.lines.decode_lines(block.data)
        if len(rows) == block.lines and block.data.count(b"}\n{") == len(rows) - 1:
            return Batch(self.file, range(block.first_line, block.first_line + len(rows)), records(rows, how))
        # There are blank lines, or rows over several lines, or several in one: JSON, but not one object a line.
        lines = [(line, data.strip()) for line, data in block.rows()]
        if len(lines) != len(rows) or not all(data[:1] == b"{" and data[-1:] == b"}" for _, data in lines):
            raise ValueError("not one object a line")
        return Batch(self.file, [line for line, _ in lines], records(rows, how))

    def _one_by_one(self, block: Block) -> Batch:
        lines: list[int] = []
        found: list[Any] = []
        for line, data in block.rows():
            self.seen = True
            row = self._row(line, data)
            if row is None or self.how is None:
                continue
            try:
                found += records([row], self.how)
            except _BAD_RECORD as error:
                self._bad(line, explain.conversion(error))
            else:
                lines.append(line)
        return Batch(self.file, lines, found)

    def _row(self, line: int, data: bytes) -> Any:
        """One decoded row; None if it is bad, which is reported."""
        if self.how is not None:
            try:
                return self.how.lines.decode(data)
            except _BAD_ROW:
                pass
        if problem := explain.syntax(data):
            return self._bad(line, problem)
        value = msgspec.json.decode(data)
        if not isinstance(value, dict):
            return self._bad(line, explain.not_an_object(value))
        how = self._fitting(value, line)
        if isinstance(how, Problem):
            return self._bad(line, how)
        try:
            return how.lines.decode(data)
        except msgspec.ValidationError as error:
            return self._bad(line, explain.validation(str(error)))

    def of_table(self, table: Table) -> Batch | None:
        """Records of a table's rows; None if its columns are not those of any kind, which is reported once."""
        self.seen = self.seen or bool(table.rows)
        lines: list[int] = []
        found: list[Any] = []
        how = self._fitting(table.rows[0], None)
        if isinstance(how, Problem):
            self.hopeless = True
            self.faults.add(msgspec.structs.replace(how, file=self.file, line=None if table.by_row else 1))
            return None
        passed_over = frozenset() if how.kind.keeps_extra else frozenset(how.extra)
        for line, row in zip(table.lines, table.rows, strict=True):
            try:
                value = {key: unnested(key, row[key], how) for key in row if key not in passed_over}
                found += records([msgspec.convert(value, how.struct, strict=False)], how)
            except NestedError as error:
                self.faults.add(located(error.problem, self.file, line, table.by_row))
            except msgspec.ValidationError as error:
                self.faults.add(located(explain.validation(str(error)), self.file, line, table.by_row))
            except _BAD_RECORD as error:
                self.faults.add(located(explain.conversion(error), self.file, line, table.by_row))
            else:
                lines.append(line)
        return Batch(self.file, lines, found, table.by_row)

    def _fitting(self, row: Mapping[str, Any], line: int | None) -> RowType | Problem:
        """How to decode a row with these keys, or why that cannot be. Keys that are not used are noted once."""
        ours = {key: self._our_name(key) for key in row}
        named = {name: row[key] for key, name in ours.items() if name is not None}
        other = recognise(named)
        kind = self.how.kind if self.how else other
        if kind is None or not named.keys() >= kind.required.keys():
            return explain.keys(named, kind, {theirs for theirs in self.columns if theirs not in row})
        if other is not None and other is not kind and other.tell and other.required.keys() == kind.required.keys():
            return explain.mixed(other, kind)
        extra = [key for key, name in ours.items() if name not in kind.keys]
        return self._with_extra(kind, extra, line)

    def _our_name(self, key: str) -> str | None:
        """The name that the file's key is known by; None if another key is mapped to that name."""
        if key in self.columns:
            return self.columns[key]
        return None if key in self.columns.values() else key

    def _with_extra(self, kind: Kind, extra: Iterable[str], line: int | None) -> RowType:
        known = self.how.extra if self.how else ()
        new = tuple(key for key in extra if key not in known)
        for key in () if kind.keeps_extra else new:
            self.faults.warn(
                "unused_key", f"the key {key!r} is not used", file=self.file, line=line, field=key,
                fix="remove it, or map it with columns",
            )  # fmt: skip
        if new or self.how is None:
            self.how = row_type(kind, self.columns, (*known, *new))
        return self.how

    def _bad(self, line: int, problem: Problem) -> None:
        self.faults.add(located(problem, self.file, line, by_row=False))
