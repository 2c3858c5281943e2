"""The blocks of a report, which each format writes in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from cloudtune.evaluation.compare import Score
    from cloudtune.report.rows import ComparedRow, RowComparison
    from cloudtune.state import Metric

Cell = str | int | float


class Paragraph(NamedTuple):
    """Text."""

    text: str
    kind: Literal["plain", "note", "warning"] = "plain"


class Facts(NamedTuple):
    """Names with values."""

    pairs: tuple[tuple[str, str], ...]


class Table(NamedTuple):
    """A table. The first column names the rows."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    right: frozenset[int] = frozenset()
    """Columns of numbers."""
    intervals: tuple[Score | None, ...] = ()
    """For each row, an interval to draw."""
    is_matrix: bool = False
    """The first row and column are labels, and the other cells are counts."""


class Curves(NamedTuple):
    """Charts of metrics over the steps."""

    metrics: tuple[Metric, ...]


class Code(NamedTuple):
    """Text for a shell or a file."""

    text: str
    label: str


class RowTable(NamedTuple):
    """The compared rows, as a table to sort and to filter."""

    comparison: RowComparison


class WorstRows(NamedTuple):
    """The rows with the worst answers."""

    comparison: RowComparison
    rows: tuple[ComparedRow, ...]


Block = Paragraph | Facts | Table | Curves | Code | RowTable | WorstRows


class Section(NamedTuple):
    """A heading, and what is under it."""

    id: str
    title: str
    blocks: tuple[Block, ...]
