"""Rows from templates: ``Q: {question}`` inserts the column ``question`` of each row, for any kind of row."""

from __future__ import annotations

import difflib
from itertools import islice
from string import Formatter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cloudtune.data.places import Batch
from cloudtune.data.read import explain
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.json_syntax import NestedError, syntax
from cloudtune.data.read.kinds import row_type
from cloudtune.data.read.kinds_other import recognise
from cloudtune.data.read.nested import decoded
from cloudtune.data.read.size_limits import SHOWN_CHARS
from cloudtune.data.records import compact
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cloudtune.data.problem_list import Faults
    from cloudtune.data.read.blocks import Block
    from cloudtune.data.read.kinds import RowType
    from cloudtune.data.read.tables import Table

_COMPARED = 100
"""Columns of a row that are suggested for a missing one."""


class Template(NamedTuple):
    """Text with places for columns."""

    parts: tuple[tuple[str, str | None], ...]
    """Text, and the column that follows it."""

    @property
    def columns(self) -> set[str]:
        """The columns that it names."""
        return {name for _, name in self.parts if name is not None}

    def fill(self, row: Mapping[str, Any]) -> str:
        """Fill in the row's values: texts unchanged, everything else as compact JSON, null as empty.

        Raises NestedError for bytes that are not text.
        """
        return "".join([text + (_words(row[name], name) if name is not None else "") for text, name in self.parts])


def _words(value: Any, column: str) -> str:
    if value is None:
        return ""
    return decoded(value, column) if isinstance(value, bytes) else compact(value)


def parse(text: str) -> Template:
    """Read a template, as ``Source`` in a spec has found it good. Raises ValueError."""
    return Template(tuple((words, name) for words, name, _, _ in Formatter().parse(text)))


class TemplateRows(FileRows):
    """Creates the rows of one file from templates, one for each canonical key."""

    def __init__(self, file: str, templates: Mapping[str, str], faults: Faults) -> None:
        super().__init__(file, {}, None, faults, is_fixed=True)
        self._templates = {key: parse(text) for key, text in templates.items()}
        self._wanted = set().union(*[template.columns for template in self._templates.values()])

    def of_block(self, block: Block) -> Batch:
        """Records of JSON rows."""
        return self._made(self._decoded(block), by_row=False)

    def _decoded(self, block: Block) -> Iterator[tuple[int, dict[str, Any]]]:
        for line, data in block.rows():
            self.seen = True
            if problem := syntax(data):
                self._bad(line, problem)
                continue
            value = msgspec.json.decode(data)
            if isinstance(value, dict):
                yield line, value
            else:
                self._bad(line, explain.not_an_object(value))

    def of_table(self, table: Table) -> Batch | None:
        """Return the records of a table's rows, or None if columns are missing, which is reported once."""
        self.seen = self.seen or bool(table.rows)
        if missing := self._missing(table.rows[0]):
            self.hopeless = True
            self.faults.add(msgspec.structs.replace(missing, file=self.file, line=None if table.by_row else 1))
            return None
        return self._made(zip(table.lines, table.rows, strict=True), by_row=table.by_row)

    def _missing(self, row: Mapping[str, Any]) -> Problem | None:
        gone = sorted(self._wanted.difference(row))
        if not gone:
            return None
        names = [name[:SHOWN_CHARS] for name in islice(row, _COMPARED)]
        near = difflib.get_close_matches(gone[0], names, n=1) if self._may_suggest("missing_column") else ()
        shown = ", ".join(names[:8]) or "none"
        return Problem(
            code="missing_column", field=gone[0], message=f"unknown columns {', '.join(gone)}; the file has {shown}",
            fix=f"did you mean {{{near[0]}}}?" if near else "use existing columns",
        )  # fmt: skip

    def _made(self, rows: Iterable[tuple[int, Mapping[str, Any]]], *, by_row: bool) -> Batch:
        lines: list[int] = []
        found: list[Any] = []
        for line, row in rows:
            if problem := self._missing(row):
                self._bad(line, problem, by_row)
                continue
            try:
                filled = {key: template.fill(row) for key, template in self._templates.items()}
            except NestedError as error:
                self._bad(line, error.problem, by_row)
                continue
            self.how = self.how or self._recognised(filled)
            if self.how is None:
                break
            if made := self._converted(filled, line, by_row=by_row):
                found += made
                lines.append(line)
        return Batch(self.file, lines, found, by_row)

    def _recognised(self, filled: Mapping[str, str]) -> RowType | None:
        """Return the decoder of the first row, or None if its kind is unknown, which is reported."""
        kind = recognise(filled)
        if kind is not None and kind.keys.issuperset(filled):
            return row_type(kind, {})
        self.hopeless = True
        fix = "set text, or prompt and completion, or other keys of a known kind of row"
        self.faults.error(
            "template", f"{' and '.join(filled)} do not make a complete row", file=self.file, field="template", fix=fix
        )
        return None
