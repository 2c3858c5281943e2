"""CSV, TSV and plain text: rows as dictionaries, in bounded memory, with the line that each began on."""

from __future__ import annotations

import csv
from collections import Counter
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from msgspec import structs

from cloudtune.data.read.blocks import MAX_ROW_BYTES, line_blocks
from cloudtune.data.read.explain import headerless
from cloudtune.data.read.size_limits import SHOWN_CHARS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.problem_list import Faults

BATCH_ROWS = 1024
MAX_COLUMNS = 10_000
MAX_BROKEN_ROWS = 100_000


class Table(NamedTuple):
    """Some rows of one file, at least one, and the line of each."""

    lines: list[int]
    rows: list[dict[str, Any]]
    by_row: bool = False
    """The file has no lines: ``lines`` are rows, counted from 1."""
    has_header: bool = False
    """The file's first line has the names of the columns."""


def csv_tables(stream: IO[bytes], file: str, faults: Faults, delimiter: str, head: bytes) -> Iterator[Table]:
    """Rows of a CSV or TSV file whose first line names the columns."""
    # The module's own limit of 128 KiB a field is too small for documents; it can only be set for the process.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    reader = csv.reader(_text_lines(stream, file, faults, head), delimiter=delimiter, strict=True)
    names: list[str] = []
    start, broken = 1, 0
    try:
        names = next(reader, [])
        if names == ["sep=", ""]:  # Excel's own line, which names the separator
            names = next(reader, [])
        if not _good_header(names, file, faults):
            return
        lines: list[int] = []
        rows: list[dict[str, Any]] = []
        start = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(names):
                lines.append(start)
                rows.append(dict(zip(names, cells, strict=True)))
            elif cells:
                broken += 1
                faults.error(
                    "wrong_columns", f"{len(cells)} cells under {len(names)} column names", file=file, line=start,
                    fix="quote cells that contain the separator or a line break",
                )  # fmt: skip
            start = reader.line_num + 1
            if broken > MAX_BROKEN_ROWS:
                faults.error("broken_csv", "the rest was not read: too many rows have the wrong number of cells",
                             file=file, line=start, fix="fix these first")  # fmt: skip
                break
            if len(rows) >= BATCH_ROWS:
                yield Table(lines, rows, has_header=True)
                lines, rows = [], []
        if rows:
            yield Table(lines, rows, has_header=True)
    except csv.Error:
        message = f"the quotes in the row that starts here are not those of CSV with the separator {delimiter!r}"
        faults.error(
            "broken_csv", message, file=file, line=start,
            fix='quote cells that contain quotes, and double each inner quote: "say ""hi"""',
        )  # fmt: skip


def _text_lines(stream: IO[bytes], file: str, faults: Faults, head: bytes) -> Iterator[str]:
    for block in line_blocks(stream, file, faults, head):
        for number, line in enumerate(block.data.splitlines(keepends=True), block.first_line):
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                faults.error(
                    "invalid_utf8", f"byte {error.start + 1} of this line, {line[error.start]:#04x}, is not UTF-8",
                    file=file, line=number, fix="save the file as UTF-8",
                )  # fmt: skip
                yield line.decode(errors="replace")


def _good_header(names: list[str], file: str, faults: Faults) -> bool:
    if len(names) > MAX_COLUMNS:
        faults.error("bad_header", f"the header line has {len(names):,} columns", file=file, line=1,
                     fix=f"keep {MAX_COLUMNS:,} or fewer, and check the separator")  # fmt: skip
        return False
    if len({*names, ""}) <= len(names) and (problem := headerless(names)):
        faults.add(structs.replace(problem, file=file, line=1))
        return False
    blank = [str(i) for i, name in enumerate(names, 1) if not name.strip()]
    twice = sorted(name for name, times in Counter(names).items() if times > 1 and name)
    if not names:
        faults.error(
            "empty_file", "the file has no header line", file=file, fix="put the column names in the first line"
        )
    if blank:
        faults.error("bad_header", f"column {_some(blank)} has no name", file=file, line=1, fix="add a name")
    if twice:
        faults.error("bad_header", f"duplicate column {_some(twice)}", file=file, line=1, fix="rename one of them")
    return bool(names) and not blank and not twice


def _some(names: list[str]) -> str:
    """The first few: a malformed file may have thousands."""
    shown = ", ".join(name[:SHOWN_CHARS] for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8:,} more"


def text_tables(stream: IO[bytes], file: str, faults: Faults, head: bytes) -> Iterator[Table]:
    """Paragraphs of a plain text file: a record ends at a blank line, or where it gets longer than a block."""
    lines: list[int] = []
    rows: list[dict[str, Any]] = []
    held: list[str] = []
    start, size, number = 1, 0, 0

    def finish() -> None:
        if text := "".join(held).strip("\r\n"):
            lines.append(start)
            rows.append({"text": text})
        held.clear()

    for number, line in enumerate(_text_lines(stream, file, faults, head), 1):
        if line.isspace() or size > 1 << 16:
            finish()
            start, size = number + 1 if line.isspace() else number, 0
            if len(rows) >= BATCH_ROWS:
                yield Table(lines, rows)
                lines, rows = [], []
        if not line.isspace():
            held.append(line)
            size += len(line)
    finish()
    if rows:
        yield Table(lines, rows)
