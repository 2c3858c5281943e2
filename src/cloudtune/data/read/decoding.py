"""Rows of one file decoded into canonical records: all of a block at once where all are good, else one by one."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.places import Batch, located
from cloudtune.data.problem_list import MAX_UNUSED_KEYS
from cloudtune.data.read import explain, wrong_values
from cloudtune.data.read.blocks import PART_BYTES, Block
from cloudtune.data.read.causes import UNEXPECTED_ERRORS
from cloudtune.data.read.duplicate_keys import check_keys, duplicate_key
from cloudtune.data.read.json_syntax import TOO_DEEP, NestedError, syntax
from cloudtune.data.read.kinds import MAX_EXTRA, RowType, fits_a_field, records, row_type, with_fields
from cloudtune.data.read.kinds_other import KINDS, deciding, kind_named, recognise
from cloudtune.data.read.nested import unnested
from cloudtune.data.read.nesting import DeepError, check_depth, may_be_deep
from cloudtune.data.read.plain_blocks import PlainBlocks
from cloudtune.data.records import Chat, checked
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
_MOST_OTHERS = 16
"""Rows of another kind one after the other, before the rows that follow are expected to be of it too."""
_BAD_ROW = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_BAD_RECORD = (ValueError, *UNEXPECTED_ERRORS)


@cache
def plain_type(name: str) -> RowType:
    """How rows of a kind are decoded that have its own keys alone."""
    return row_type(kind_named(name), {})


class FileRows:
    """Decodes the rows of one file. Each row is read as its own kind; all kinds of a file make the same records."""

    def __init__(
        self,
        file: str,
        columns: Mapping[str, str],
        how: RowType | None,
        faults: Faults,
        *,
        is_fixed: bool = False,
        items: bool = False,
    ) -> None:
        self.file, self.columns, self.how, self.faults = file, columns, how, faults
        self.is_fixed, self.items = is_fixed, items
        """The kind is not chosen by the rows; conversations are tasks for a grader, with whatever keys they have."""
        self.seen = False
        self.hopeless = False
        """The columns of a table are those of no kind: no row of it can be used."""
        self.bad = 0
        """Rows that could not be decoded."""
        self._given_up = False
        self._named: set[str] = set()
        self._suggested: Counter[str] = Counter()
        self._plain = PlainBlocks()
        self._types: dict[str, RowType] = {}
        """The last way to decode rows of each kind."""
        self._others = 0
        """How many rows of other kinds followed one another."""

    def parts(self, block: Block, weave: Weave | None = None) -> Iterator[tuple[Block, PlainRows | None]]:
        """The block, or smaller ones of it, with the rows of those that hold nothing but plain conversations."""
        if self.how is None or self.how.struct is not Chat:
            yield from ((part, None) for part in block.parts(PART_BYTES))
            return
        for part, rows in self._plain.parts(block, weave):
            self.seen = self.seen or bool(rows)
            self._others = 0 if rows else self._others
            yield part, rows

    def of(self, chunk: Block | Table) -> Batch | None:
        """Records of a block or a table."""
        return self.of_block(chunk) if isinstance(chunk, Block) else self.of_table(chunk)

    def of_block(self, block: Block) -> Batch:
        """Records of JSON rows."""
        if self.how is not None:
            try:
                batch = self._at_once(block, self.how)
                if block.pieces is not None or may_be_deep(block.data):
                    check_depth(batch.records)
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
            if made := self._quickly(data) or self._row(line, data):
                found += made
                lines.append(line)
        return Batch(self.file, lines, found)

    def _quickly(self, data: bytes) -> list[Record] | None:
        """The record of a row of the kind and the types that the rows before it have."""
        if self.how is None:
            return None
        try:
            made = records([self.how.lines.decode(data)], self.how)
            check_depth(made)
            if duplicate_key(data):
                return None
        except (*_BAD_ROW, *_BAD_RECORD):
            return None
        self._others = 0
        return made

    def _row(self, line: int, data: bytes) -> list[Record] | None:
        """The record of any row; None if it is bad, which is reported."""
        if problem := syntax(data):
            self._bad(line, problem)
            return None
        value = msgspec.json.decode(data)
        if not isinstance(value, dict):
            self._bad(line, explain.not_an_object(value))
            return None
        return self._converted(value, line)

    def _converted(
        self, row: Mapping[str, Any], line: int, *, is_cell: bool = False, by_row: bool = False
    ) -> list[Record] | None:
        """The record of a row's values, read as the row's own kind; None if it is bad, which is reported."""
        names = {key: self._our_name(key) for key in row}
        if problem := explain.mapped_twice(names):
            self._bad(line, problem, by_row)
            return None
        named = {name: row[key] for key, name in names.items() if name is not None}
        given = {ours: value for ours, value in named.items() if value is not None}
        kind = self._kind(given, named, self.columns.keys() - row.keys())
        if isinstance(kind, Problem):
            self._bad(line, kind, by_row)
            return None
        keys = named if kind.required.keys() - given.keys() else given
        values: dict[str, Any] = {}
        try:
            values = {key: unnested(key, value, kind, is_cell=is_cell) for key, value in keys.items()}
            if kind.read is not None:
                left = dict(values)  # reading removes the keys that it uses
                made = checked(kind.read(left)) if kind.free_form else kind.read(left)
            else:
                known = {key: value for key, value in values.items() if key in kind.keys}
                left = {key: value for key, value in values.items() if key not in kind.keys}
                how = plain_type(kind.name)
                (made,) = records([msgspec.convert(known, how.struct, strict=not is_cell)], how)
            unused = [key for key in row if names[key] in (None, *left)]
            extra = unused
            if kind.keeps_extra:
                unused = [key for key in row if names[key] is None]
                extra = [key for key in row if key not in unused and names[key] not in kind.keys]
                more = {str(names[key]): row[key] for key in extra}
                made = with_fields(made, {key: unnested(key, one, kind, is_cell=is_cell) for key, one in more.items()})
            check_depth([made])
        except NestedError as error:
            self._bad(line, self._in_the_file(error.problem), by_row)
            return None
        except msgspec.ValidationError as error:
            self._bad(line, self._in_the_file(wrong_values.validation(str(error), values, kind)), by_row)
            return None
        except _BAD_RECORD as error:
            self._bad(line, self._in_the_file(wrong_values.conversion(error, values, kind.read)), by_row)
            return None
        except RecursionError as error:
            field = error.field if isinstance(error, DeepError) else None
            self._bad(line, msgspec.structs.replace(TOO_DEEP, field=field), by_row)
            return None
        self._adopt(kind, unused, extra, line)
        return [made]

    def _in_the_file(self, problem: Problem) -> Problem:
        """The problem with the file's own name of a mapped key."""
        field = problem.field or ""
        name = re.split(r"[.\[]", field, maxsplit=1)[0]
        theirs = next((key for key, names in self.columns.items() if names == name), name)
        return msgspec.structs.replace(problem, field=theirs + field[len(name) :] or None)

    def of_table(self, table: Table) -> Batch | None:
        """Records of a table's rows; None if its columns are not those of any kind, which is reported once."""
        self.seen = self.seen or bool(table.rows)
        first = {names: value for key, value in table.rows[0].items() if (names := self._our_name(key)) is not None}
        kind = self._kind(first, first, self.columns.keys() - table.rows[0].keys())
        if isinstance(kind, Problem) and kind.code != "mixed_kinds":
            self.hopeless = True
            if kind.code in {"unknown_keys", "missing_key"} and not self.columns and table.has_header:
                kind = explain.headerless(table.rows[0]) or kind
            self.faults.add(msgspec.structs.replace(kind, file=self.file, line=None if table.by_row else 1))
            return None
        lines: list[int] = []
        found: list[Any] = []
        for line, row in zip(table.lines, table.rows, strict=True):
            if made := self._converted(row, line, is_cell=True, by_row=table.by_row):
                found += made
                lines.append(line)
        return Batch(self.file, lines, found, table.by_row)

    def _kind(self, given: Mapping[str, Any], named: Mapping[str, Any], unmapped: set[str]) -> Kind | Problem:
        """The kind of a row with these values, with and without null, or why it can be none."""
        other = recognise(given) or recognise(named)
        kind = self.how.kind if self.how and (self.is_fixed or other is None) else other
        if kind is not None and self.items and kind.makes is Chat and "messages" in given:
            kind = KINDS["item"]
        if kind is None or not named.keys() >= kind.required.keys():
            return explain.keys(named, kind, unmapped, self._may_suggest)
        if self.how is None or kind is self.how.kind:
            return kind
        return kind if kind.makes is self.how.kind.makes else explain.mixed(kind, self.how.kind)

    def _may_suggest(self, code: str) -> bool:
        """Whether to look for a name that was meant: that takes long, and only the first problems are listed."""
        self._suggested[code] += 1
        return self._suggested[code] <= MAX_SUGGESTIONS

    def _our_name(self, key: str) -> str | None:
        """The name that the file's key is known by; None if another key is mapped to that name."""
        if key in self.columns:
            return self.columns[key]
        return None if key in self.columns.values() else key

    def _adopt(self, kind: Kind, unused: Iterable[str], extra: Iterable[str], line: int | None) -> None:
        """Decode the rows that follow as this kind with these extra keys, and report each unused key once."""
        how = self._types.get(kind.name) or (self.how if self.how is not None and self.how.kind is kind else None)
        known = how.extra if how is not None else ()
        for key in unused:
            if key not in self._named and len(self._named) <= MAX_UNUSED_KEYS:
                self._named.add(key)
                self.faults.warn(
                    "unused_key", f"the key {key!r} is not used", file=self.file, line=line, field=key,
                    fix="remove it, or map it with columns",
                )  # fmt: skip
        new = tuple(islice(
            (key for key in extra
             if key not in known and fits_a_field(key) and deciding(kind.name).isdisjoint({key, self._our_name(key)})),
            max(MAX_EXTRA - len(known), 0),
        ))  # fmt: skip
        if new or how is None:
            how = row_type(kind, self.columns, (*known, *new))
        self._types[kind.name] = how
        self._others = self._others + 1 if self.how is not None and self.how.kind is not kind else 0
        if self.how is None or self.how.kind is kind or self._others > _MOST_OTHERS:
            self.how = how

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
