"""Records with their locations in the files."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.data.records import Record
    from cloudtune.errors import Problem


class Batch(NamedTuple):
    """Some records of one file, and the line of each, counted from 1."""

    file: str
    lines: Sequence[int]
    records: list[Record]
    by_row: bool = False
    """The file has no lines: ``lines`` are rows."""

    def locate(self, problem: Problem, line: int) -> Problem:
        """The problem with its place."""
        return located(problem, self.file, line, self.by_row)


class Located(NamedTuple):
    """The locations of records, without the records."""

    file: str
    lines: Sequence[int]
    by_row: bool = False

    def locate(self, problem: Problem, index: int) -> Problem:
        """The problem with the location of the record of that index."""
        return located(problem, self.file, self.lines[index], self.by_row)

    def some(self, indexes: Sequence[int]) -> Located:
        """Of these records alone."""
        return self._replace(lines=[self.lines[index] for index in indexes])


def located(problem: Problem, file: str, line: int, by_row: bool) -> Problem:
    """The problem with its place."""
    if by_row:
        return msgspec.structs.replace(problem, file=file, row=line)
    return msgspec.structs.replace(problem, file=file, line=line)
