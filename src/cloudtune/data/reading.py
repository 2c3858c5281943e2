"""From a source to batches of canonical records, each with its place; everything that is wrong is reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cloudtune.data import explain
from cloudtune.data.blocks import Block, array_blocks, line_blocks, sniff
from cloudtune.data.kinds import KINDS, RowType, recognise, records, row_type
from cloudtune.data.opening import files_of, format_of, opened, unreadable
from cloudtune.data.tables import Table, csv_tables, parquet_tables, text_tables
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cloudtune.data.faults import Faults
    from cloudtune.data.records import Record
    from cloudtune.spec import Source

_HEAD = 1 << 16
_TABULAR = {"csv": ",", "tsv": "\t"}


class Batch(NamedTuple):
    """Some records of one file, and the line (or row) of each."""

    file: str
    lines: Sequence[int]
    records: list[Record]


def read(source: Source, faults: Faults) -> Iterator[Batch]:
    """All records of the source, file by file, in order."""
    how: RowType | None = None
    if source.kind != "auto":
        how = row_type(KINDS[source.kind], source.columns)
    for path in files_of(source, faults):
        rows = _FileRows(str(path), source.columns, how, faults)
        try:
            for chunk in _chunks(path, source.format, faults):
                batch = rows.of_block(chunk) if isinstance(chunk, Block) else rows.of_table(chunk)
                if batch.records:
                    yield batch
        except (OSError, EOFError, UnicodeError, ValueError) as error:
            _report(error, path, faults)
        how = rows.how  # files of one source hold one kind
        if not rows.seen and not faults.total("error"):
            faults.error("empty_file", "there are no rows in this file", file=str(path), fix="write at least one")


def _report(error: Exception, path: Path, faults: Faults) -> None:
    if isinstance(error, UnicodeError):
        faults.error("invalid_utf8", str(error), file=str(path), fix="save the file as UTF-8")
        return
    told = unreadable(error)
    if told is None:
        raise error
    faults.error(told[0], told[1], file=str(path), fix=told[2])


def _chunks(path: Path, wanted: str, faults: Faults) -> Iterator[Block | Table]:
    file, kind = str(path), format_of(path, wanted)
    if kind == "parquet":
        yield from parquet_tables(path, faults)
        return
    with opened(path) as stream:
        looks, head = sniff(stream.read(_HEAD))
        if kind is None and head.lstrip()[:1] not in b"{[":
            faults.error(
                "unknown_format", "neither name nor content tell the format", file=file,
                fix="say it: format: jsonl, json, csv, tsv, parquet or text",
            )  # fmt: skip
        elif kind in _TABULAR:
            yield from csv_tables(stream, file, faults, _TABULAR[kind], head)
        elif kind == "text":
            yield from text_tables(stream, file, faults, head)
        else:
            # The content decides: arrays are often named .jsonl, and lines .json.
            cut = array_blocks if looks == "json" else line_blocks
            yield from cut(stream, file, faults, head)


class _FileRows:
    """Decodes the rows of one file."""

    def __init__(self, file: str, columns: dict[str, str], how: RowType | None, faults: Faults) -> None:
        self.file, self.columns, self.how, self.faults = file, columns, how, faults
        self.seen = False

    def of_block(self, block: Block) -> Batch:
        """Records of JSON rows: all at once if all are good, else one by one."""
        if self.how is not None:
            try:
                if block.pieces is not None:
                    rows = self.how.array.decode(b"[" + b",".join([piece for _, piece in block.pieces]) + b"]")
                    lines: Sequence[int] = [line for line, _ in block.pieces]
                else:
                    rows = self.how.lines.decode_lines(block.data)
                    lines = range(block.first_line, block.first_line + len(rows))
                    if len(rows) != block.data.count(b"\n") + (not block.data.endswith(b"\n")):
                        lines = [line for line, _ in block.rows()]
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
            else:
                self.seen = self.seen or bool(rows)
                return Batch(self.file, lines, records(rows, self.how))
        return self._one_by_one(block)

    def _one_by_one(self, block: Block) -> Batch:
        batch = Batch(self.file, [], [])
        for line, data in block.rows():
            self.seen = True
            row = self._row(line, data)
            if row is not None and self.how is not None:
                batch.lines.append(line)  # type: ignore[attr-defined]
                batch.records.extend(records([row], self.how))
        return batch

    def _row(self, line: int, data: bytes) -> Any:
        """One decoded row; None if it is bad, which is reported."""
        try:
            if self.how is not None:
                return self.how.lines.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        if problem := explain.syntax(data):
            return self._bad(line, problem)
        value = msgspec.json.decode(data)
        if not isinstance(value, dict):
            what = type(value).__name__ if value is not None else "null"
            problem = Problem(
                code="not_an_object", message=f"a row is a JSON object, this is {what}", fix="write {...}"
            )
            return self._bad(line, problem)
        if not self._fits(line, value):
            return None
        assert self.how is not None
        try:
            return self.how.lines.decode(data)
        except msgspec.ValidationError as error:
            return self._bad(line, explain.validation(str(error)))

    def of_table(self, table: Table) -> Batch:
        """Records of a table's rows."""
        self.seen = self.seen or bool(table.rows)
        batch = Batch(self.file, [], [])
        for line, row in zip(table.lines, table.rows, strict=True):
            if not self._fits(line, row):
                continue
            assert self.how is not None
            if isinstance(row.get("messages"), str) and (problem := self._nested(row)):
                self._bad(line, problem)
                continue
            try:
                value = msgspec.convert({key: row[key] for key in row if key not in self.how.unused}, self.how.struct)
            except msgspec.ValidationError as error:
                self._bad(line, explain.validation(str(error)))
                continue
            batch.lines.append(line)  # type: ignore[attr-defined]
            batch.records.extend(records([value], self.how))
        return batch

    def _nested(self, row: dict[str, Any]) -> Problem | None:
        """Decode messages that a table's cell holds as JSON text."""
        if problem := explain.syntax(row["messages"].encode(errors="surrogatepass")):
            return msgspec.structs.replace(problem, field="messages")
        row["messages"] = msgspec.json.decode(row["messages"])
        return None

    def _fits(self, line: int, row: dict[str, Any]) -> bool:
        """Whether the row has the keys of the file's kind. The first row decides the kind; keys not used are noted."""
        present = [self.columns.get(key, key) for key in row]
        kind = self.how.kind if self.how else recognise(present)
        if kind is None or not kind.keys.issuperset(present) or self.how is None:
            if kind is None or not set(present).issuperset(kind.required):
                self._bad(line, explain.keys(present, kind))
                return False
            if (other := recognise(present)) is not kind and other is not None and self.how is None:
                kind = other
            extra = tuple(key for key in row if self.columns.get(key, key) not in kind.keys)
            self._pass_over(line, kind, extra)
        return True

    def _pass_over(self, line: int, kind: Any, extra: tuple[str, ...]) -> None:
        known = self.how.unused if self.how else ()
        for key in extra:
            if key not in known:
                self.faults.warn(
                    "unused_key", f"the key {key!r} is not used", file=self.file, line=line, field=key,
                    fix="remove it, or map it with columns",
                )  # fmt: skip
        new = tuple(key for key in extra if key not in known)
        if new or self.how is None:
            self.how = row_type(kind, self.columns, (*known, *new))

    def _bad(self, line: int, problem: Problem) -> None:
        self.faults.add(msgspec.structs.replace(problem, file=self.file, line=line))
