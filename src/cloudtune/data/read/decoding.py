"""Rows of one file decoded into canonical records: all of a block at once where all are good, else one by one."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.places import Batch, located
from cloudtune.data.problem_list import MAX_UNUSED_KEYS
from cloudtune.data.read import explain, wrong_values
from cloudtune.data.read.blocks import PART_BYTES, Block
from cloudtune.data.read.duplicate_keys import check_keys, duplicate_key
from cloudtune.data.read.json_syntax import syntax
from cloudtune.data.read.kinds import MAX_EXTRA, RowType, field_name, fits_a_field, records, row_type, with_fields
from cloudtune.data.read.kinds_other import recognise
from cloudtune.data.read.nested import NestedError, unnested
from cloudtune.data.read.plain_blocks import PlainBlocks
from cloudtune.data.records import Chat
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cloudtune.data.problem_list import Faults
    from cloudtune.data.read.kinds import Kind
    from cloudtune.data.read.plain import PlainRows
    from cloudtune.data.read.tables import Table
    from cloudtune.data.records import Record
    from cloudtune.data.write.row_template import Weave

MAX_BAD_ROWS = 100_000
"""Rows of one file that cannot be decoded, before the rest of it is left unread."""
MAX_SUGGESTIONS = 1000
"""Of each code, in one file."""
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
        self.bad = 0
        """Rows that could not be decoded."""
        self._given_up = False
        self._named: set[str] = set()
        self._suggested: Counter[str] = Counter()
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
            data = b"[" + b",".join([piece for _, piece in block.pieces]) + b"]"
            rows = how.array.decode(data)
            check_keys(data, rows, block.rows())
            return Batch(self.file, [line for line, _ in block.pieces], records(rows, how))
        rows = how.lines.decode_lines(block.data)
        check_keys(block.data, rows, block.rows())
        if len(rows) == block.lines and block.data.count(b"}\n{") == len(rows) - 1:
            return Batch(self.file, range(block.first_line, block.first_line + len(rows)), records(rows, how))
        # There are blank lines, or rows over several lines, or several in one: JSON, but not one object a line.
        lines = [(line, data.strip()) for line, data in block.rows()]
        if len(lines) != len(rows) or not all(data[:1] == b"{" and data[-1:] == b"}" for _, data in lines):
            raise ValueError("not one object per line")
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
                found += row if isinstance(row, list) else records([row], self.how)
            except (msgspec.ValidationError, *_BAD_RECORD) as error:
                self._bad(line, self._unusable(error, row, self.how))
            else:
                lines.append(line)
        return Batch(self.file, lines, found)

    def _row(self, line: int, data: bytes) -> Any:
        """One decoded row, or its record in a list; None if it is bad, which is reported."""
        if self.how is not None:
            try:
                row = self.how.lines.decode(data)
                problem = duplicate_key(data)
            except _BAD_ROW:
                pass
            else:
                return row if problem is None else self._bad(line, problem)
        if problem := syntax(data):
            return self._bad(line, problem)
        value = msgspec.json.decode(data)
        if not isinstance(value, dict):
            return self._bad(line, explain.not_an_object(value))
        how = self._fitting(value, line)
        if isinstance(how, Problem):
            return self._bad(line, how)
        try:
            return self._with_odd_keys(value, how) if self._has_odd_keys(value, how) else how.lines.decode(data)
        except msgspec.ValidationError as error:
            return self._bad(line, wrong_values.validation(str(error), value, how.kind))
        except _BAD_RECORD as error:
            return self._bad(line, wrong_values.conversion(error))

    def _has_odd_keys(self, row: Mapping[str, Any], how: RowType) -> bool:
        """Whether the row has keys that its type does not list: see ``kinds.MAX_EXTRA`` and ``kinds.fits_a_field``."""
        return any(
            not fits_a_field(key) if self._our_name(key) in how.kind.keys else key not in how.extra for key in row
        )

    def _with_odd_keys(self, row: Mapping[str, Any], how: RowType) -> list[Record]:
        """The record of such a row. Raises ValidationError, or ValueError if it makes no record."""
        known = {self._field_name(key): row[key] for key in row if self._our_name(key) in how.kind.keys}
        made = records([msgspec.convert(known, how.struct)], how)
        if not how.kind.keeps_extra:
            return made
        return [with_fields(made[0], {key: row[key] for key in row if self._our_name(key) not in how.kind.keys})]

    def _field_name(self, key: str) -> str:
        return field_name(key, self.columns[key]) if key in self.columns else key

    def of_table(self, table: Table) -> Batch | None:
        """Records of a table's rows; None if its columns are not those of any kind, which is reported once."""
        self.seen = self.seen or bool(table.rows)
        lines: list[int] = []
        found: list[Any] = []
        how = self._fitting(table.rows[0], None)
        if isinstance(how, Problem):
            self.hopeless = True
            if how.code in {"unknown_keys", "missing_key"} and not self.columns:
                how = (explain.headerless(table.rows[0]) if table.has_header else None) or how
            self.faults.add(msgspec.structs.replace(how, file=self.file, line=None if table.by_row else 1))
            return None
        used = [key for key in table.rows[0] if self._our_name(key) in how.kind.keys]
        extra = [key for key in table.rows[0] if key not in set(used)] if how.kind.keeps_extra else []
        for line, row in zip(table.lines, table.rows, strict=True):
            try:
                value = {self._field_name(key): unnested(key, row[key], how) for key in used}
                more = {key: unnested(key, row[key], how) for key in extra}
            except NestedError as error:
                self._bad(line, error.problem, table.by_row)
                continue
            try:
                decoded = msgspec.convert(value, how.struct, strict=False)
            except msgspec.ValidationError as error:
                self._bad(line, wrong_values.validation(str(error), value, how.kind), table.by_row)
                continue
            try:
                made = records([decoded], how)
                if extra:
                    made = [with_fields(made[0], more)]
            except (msgspec.ValidationError, *_BAD_RECORD) as error:
                self._bad(line, self._unusable(error, decoded, how), table.by_row)
            else:
                found += made
                lines.append(line)
        return Batch(self.file, lines, found, table.by_row)

    @staticmethod
    def _unusable(error: Exception, row: Any, how: RowType) -> Problem:
        """Why no record can be made of the decoded row."""
        return wrong_values.conversion(error, row, lambda one: records([one], how))

    def _fitting(self, row: Mapping[str, Any], line: int | None) -> RowType | Problem:
        """How to decode a row with these keys, or why that cannot be. Keys that are not used are noted once."""
        ours = {key: self._our_name(key) for key in row}
        named = {name: row[key] for key, name in ours.items() if name is not None}
        if problem := explain.mapped_twice(ours):
            return problem
        other = recognise(named)
        kind = self.how.kind if self.how else other
        if kind is None or not named.keys() >= kind.required.keys():
            return explain.keys(named, kind, {key for key in self.columns if key not in row}, self._may_suggest)
        if other is not None and other is not kind and other.tell and other.required.keys() == kind.required.keys():
            return explain.mixed(other, kind)
        return self._with_extra(kind, [key for key, name in ours.items() if name not in kind.keys], line)

    def _may_suggest(self, code: str) -> bool:
        """Whether to look for a name that was meant: that takes long, and only the first problems are listed."""
        self._suggested[code] += 1
        return self._suggested[code] <= MAX_SUGGESTIONS

    def _our_name(self, key: str) -> str | None:
        """The name that the file's key is known by; None if another key is mapped to that name."""
        if key in self.columns:
            return self.columns[key]
        return None if key in self.columns.values() else key

    def _with_extra(self, kind: Kind, extra: Iterable[str], line: int | None) -> RowType:
        known = self.how.extra if self.how else ()
        for key in () if kind.keeps_extra else extra:
            if key not in self._named and len(self._named) <= MAX_UNUSED_KEYS:
                self._named.add(key)
                self.faults.warn(
                    "unused_key", f"the key {key!r} is not used", file=self.file, line=line, field=key,
                    fix="remove it, or map it with columns",
                )  # fmt: skip
        room = MAX_EXTRA - len(known)
        new = tuple(islice((key for key in extra if key not in known and fits_a_field(key)), max(room, 0)))
        if new or self.how is None:
            self.how = row_type(kind, self.columns, (*known, *new))
        return self.how

    def is_given_up(self) -> bool:
        """Whether too many rows of the file are bad to read on, which is reported once."""
        if self.bad > MAX_BAD_ROWS and not self._given_up:
            self._given_up = True
            message = f"more than {MAX_BAD_ROWS:,} rows are invalid; the rest was not read"
            self.faults.error("too_many_bad_rows", message, file=self.file, fix="fix these first")
        return self._given_up

    def _bad(self, line: int, problem: Problem, by_row: bool = False) -> None:
        self.bad += 1
        self.faults.add(located(problem, self.file, line, by_row))
