"""From a source to batches of canonical records, each with its place; everything that is wrong is reported."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from cloudtune.data.read.arrow import ColumnarReader
from cloudtune.data.read.blocks import PART_BYTES, Block, array_blocks, line_blocks, sniff
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.kinds import RowType, row_type
from cloudtune.data.read.kinds_other import kind_named
from cloudtune.data.read.opening import at_hand, files_of, format_of, opened, unreadable
from cloudtune.data.read.remote import RemoteFile, problem_of
from cloudtune.data.read.tables import Table, csv_tables, text_tables
from cloudtune.errors import CloudtuneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.places import Batch
    from cloudtune.data.problem_list import Faults
    from cloudtune.data.read.opening import File
    from cloudtune.spec import Source

_HEAD = 1 << 16
_TABULAR = {"csv": ",", "tsv": "\t"}


def read(source: Source, faults: Faults, *, items: bool = False) -> Iterator[Batch]:
    """All records of the source, file by file, in order."""
    for rows, chunk in chunks_of(source, faults, items=items):
        if isinstance(chunk, Block):
            yield from map(rows.of_block, chunk.parts(PART_BYTES))
        elif (batch := rows.of_table(chunk)) is not None:
            yield batch


def chunks_of(source: Source, faults: Faults, *, items: bool = False) -> Iterator[tuple[FileRows, Block | Table]]:
    """The source's files in chunks, each with what decodes its file; what is wrong with a file is reported.

    ``items``: conversations are tasks for a grader.
    """
    how: RowType | None = None
    if source.kind != "auto":
        how = row_type(kind_named(source.kind), source.columns)
    with ColumnarReader() as columnar:
        for path in files_of(source, faults):
            rows = _rows(str(path), source, how, faults, items=items)
            errors = faults.total("error")
            try:
                for chunk in _chunks(path, source.format, faults, columnar):
                    yield rows, chunk
                    if rows.hopeless or rows.is_given_up():
                        break
            except CloudtuneError as error:
                if not isinstance(path, RemoteFile):
                    raise
                faults.add(problem_of(error, path.uri))
            except (OSError, EOFError, UnicodeError, zlib.error) as error:
                _report(error, path, faults)
            how = rows.how  # files of one source hold one kind
            if not rows.seen and faults.total("error") == errors:
                faults.error("empty_file", "this file has no rows", file=str(path), fix="write at least one")


def _rows(file: str, source: Source, how: RowType | None, faults: Faults, *, items: bool) -> FileRows:
    """What decodes one file of the source."""
    if source.template:
        from cloudtune.data.read.templating import TemplateRows

        return TemplateRows(file, source.template, faults)
    return FileRows(file, source.columns, how, faults, is_fixed=source.kind != "auto", items=items)


def _report(error: Exception, path: File, faults: Faults) -> None:
    if isinstance(error, UnicodeError):
        faults.error("invalid_utf8", str(error), file=str(path), fix="save the file as UTF-8")
        return
    told = unreadable(error)
    if told is None:
        raise error
    faults.error(told[0], told[1], file=str(path), fix=told[2])


def _chunks(path: File, wanted: str, faults: Faults, columnar: ColumnarReader) -> Iterator[Block | Table]:
    file, kind = str(path), format_of(path, wanted)
    if kind in {"parquet", "arrow"}:
        with at_hand(path) as here:
            yield from columnar.tables(here, kind, faults, file)
        return
    with opened(path) as stream:
        looks, head = sniff(stream.read(_HEAD))
        if kind is None and head.lstrip()[:1] not in b"{[":
            faults.error(
                "unknown_format", "unknown format: neither the name nor the content identifies it", file=file,
                fix="set format: jsonl, json, csv, tsv, parquet, arrow or text",
            )  # fmt: skip
        elif kind in _TABULAR:
            yield from csv_tables(stream, file, faults, _TABULAR[kind], head)
        elif kind == "text":
            yield from text_tables(stream, file, faults, head)
        else:
            # The content decides: arrays are often named .jsonl, and lines .json.
            cut = array_blocks if looks == "json" else line_blocks
            yield from cut(stream, file, faults, head)
