"""Reads a source as batches of canonical records with their locations, and reports all problems."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from msgspec import structs

from cloudtune.data.media.addressing import with_whole_paths
from cloudtune.data.media.folders import is_image
from cloudtune.data.read.arrow import ON_DISK, ColumnarReader
from cloudtune.data.read.blocks import PART_BYTES, Block, array_blocks, line_blocks
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.json_layout import sniff
from cloudtune.data.read.kinds import RowType, row_type
from cloudtune.data.read.kinds_other import kind_named
from cloudtune.data.read.opening import at_hand, files_of, format_of, opened, unreadable
from cloudtune.data.read.recognizing import Content, Transcoded, content_of, encoding_of
from cloudtune.data.read.remote import RemoteFile, problem_of
from cloudtune.data.read.tables import Table, csv_tables, text_tables
from cloudtune.errors import CloudtuneError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.places import Batch
    from cloudtune.data.problem_list import Faults
    from cloudtune.data.read.opening import File
    from cloudtune.spec import Source

_HEAD = 1 << 16


def read(source: Source, faults: Faults, *, items: bool = False) -> Iterator[Batch]:
    """All records of the source, file by file, in order. Files that they name have absolute paths."""
    for rows, chunk in chunks_of(source, faults, items=items):
        if isinstance(chunk, Block):
            yield from (with_whole_paths(rows.of_block(part)) for part in chunk.parts(PART_BYTES))
        elif (batch := rows.of_table(chunk)) is not None:
            yield with_whole_paths(batch)


def chunks_of(source: Source, faults: Faults, *, items: bool = False) -> Iterator[tuple[FileRows, Block | Table]]:
    """The source's files in chunks, each with its file's decoder; problems of a file are reported.

    ``items``: conversations are tasks for a grader.
    """
    how: RowType | None = None
    if source.kind != "auto":
        how = row_type(kind_named(source.kind), source.columns)
    with ColumnarReader() as columnar:
        for path in files_of(source, faults):
            rows = _rows(str(path), source, how, faults, items=items)
            errors, has_rows = faults.total("error"), False
            try:
                for chunk in _chunks(path, source, faults, columnar):
                    # The reader may decode the block later, after it has seen the next one.
                    has_rows = has_rows or (isinstance(chunk, Block) and bool(chunk.data) and not chunk.data.isspace())
                    yield rows, chunk
                    if rows.hopeless or rows.is_given_up():
                        break
            except CloudtuneError as error:
                if not isinstance(path, RemoteFile):
                    raise
                faults.add(problem_of(error, path.uri))
            except (OSError, UnicodeError) as error:
                _report(error, path, faults)
            how = rows.how  # all files of a source have the same kind of rows
            if not (rows.seen or has_rows) and faults.total("error") == errors:
                faults.error("empty_file", "this file has no rows", file=str(path), fix="write at least one")


def _rows(file: str, source: Source, how: RowType | None, faults: Faults, *, items: bool) -> FileRows:
    """The decoder of one file of the source."""
    if source.template:
        from cloudtune.data.read.templating import TemplateRows

        return TemplateRows(file, source.template, faults)
    return FileRows(file, source.columns, how, faults, is_fixed=source.kind != "auto", items=items)


def _report(error: Exception, path: File, faults: Faults) -> None:
    if isinstance(error, UnicodeError):
        faults.error("invalid_encoding", "the file begins as UTF-16 or UTF-32, and has bytes that are neither",
                     file=str(path), fix="save the file as UTF-8")  # fmt: skip
        return
    message = unreadable(error)
    if message is None:
        raise error
    faults.error(message[0], message[1], file=str(path), fix=message[2])


def _chunks(path: File, source: Source, faults: Faults, columnar: ColumnarReader) -> Iterator[Block | Table]:
    file = str(path)
    if isinstance(path, Path) and is_image(path):
        here = path.absolute()  # in the folder of its class
        yield Table([1], [{"image": str(here), "label": here.parent.name}], by_row=True)
        return
    with opened(path) as raw:
        head, stream = raw.read(_HEAD), raw
        if encoding := encoding_of(head):
            stream = cast("IO[bytes]", Transcoded(head, raw, encoding))
            head = stream.read(_HEAD)
        found = content_of(head, format_of(path), source.format, source.columns, source.delimiter)
        if isinstance(found, Problem):
            faults.add(structs.replace(found, file=file))
        elif found.format in ON_DISK:
            with at_hand(path, head, stream) as here:
                yield from columnar.tables(here, found.format, faults, file)
        else:
            yield from _text_chunks(stream, head, found, file, faults)


def is_json(path: File, source: Source) -> bool:
    """Whether the file has rows of JSON. Raises OSError for a file that cannot be read."""
    with opened(path) as stream:
        head = stream.read(_HEAD)
        found = content_of(head, format_of(path), source.format, source.columns, source.delimiter)
        return isinstance(found, Content) and found.format in {"jsonl", "json"} and encoding_of(head) is None


def _text_chunks(
    stream: IO[bytes], head: bytes, found: Content, file: str, faults: Faults
) -> Iterator[Block | Table]:  # fmt: skip
    looks, head = sniff(head)
    if found.format == "csv":
        yield from csv_tables(stream, file, faults, found.delimiter, head)
    elif found.format == "text":
        yield from text_tables(stream, file, faults, head)
    else:
        # The content determines the layout: arrays are often named .jsonl, and lines .json.
        cut = array_blocks if looks == "json" else line_blocks
        yield from cut(stream, file, faults, head)
