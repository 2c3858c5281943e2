"""Rows of an Excel workbook (xlsx)."""

from __future__ import annotations

import os
from collections import Counter
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZipFile

from cloudtune.data.read.size_limits import SHOWN_CHARS, expansion

if TYPE_CHECKING:
    from collections.abc import Iterator

_BATCH_ROWS = 1024


class Refused(Exception):
    """The file cannot be read; the arguments are code, message and fix."""


def sheet_rows(file: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    """The rows of a workbook's only worksheet with content, below the column names in its first row."""
    from python_calamine import CalamineWorkbook

    with ZipFile(file) as archive:
        content = sum(one.file_size for one in archive.infolist())
    size = file.seek(0, os.SEEK_END)
    if message := expansion(size, content):
        raise Refused("decompressed_too_large", message, "if that is correct, save it as CSV")
    file.seek(0)
    book = CalamineWorkbook.from_filelike(file)
    sheets, cells = {}, 0
    for name in book.sheet_names:
        sheet = book.get_sheet_by_name(name)
        cells += sheet.height * sheet.width  # the cells between two others count, which the file need not contain
        if message := expansion(size, values=cells):
            raise Refused("decompressed_too_large", message, "delete the cells far from the others, or save it as CSV")
        if found := sheet.to_python():
            sheets[name] = found
    if len(sheets) > 1:
        raise Refused("several_sheets", f"the workbook has several worksheets: {', '.join(list(sheets)[:8])}"[:300],
                      "save the one to use as a file of its own")  # fmt: skip
    names, *rows = [[_cell(value) for value in row] for row in next(iter(sheets.values()), [[]])]
    width = max((i for i, name in enumerate(names, 1) if name), default=0)
    if not width or not all(names[:width]) or any(any(row[width:]) for row in rows):
        raise Refused("bad_header", "a column has no name in the first row", "write a name above each column")
    if twice := [name for name, times in Counter(map(str, names[:width])).items() if times > 1]:
        raise Refused("bad_header", f"duplicate column {twice[0][:SHOWN_CHARS]}", "rename one of them")
    for start in range(0, len(rows), _BATCH_ROWS):
        some = rows[start : start + _BATCH_ROWS]
        yield [{str(name): cell for name, cell in zip(names[:width], row)} for row in some]  # noqa: B905


def _cell(value: Any) -> Any:
    """A worksheet's numbers are all floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
