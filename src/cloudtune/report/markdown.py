"""The report as GitHub-flavored Markdown."""

from __future__ import annotations

import re
from functools import singledispatch
from pathlib import PurePath
from typing import TYPE_CHECKING

from cloudtune.report.blocks import Code, Curves, Facts, Paragraph, RowTable, Table, WorstRows
from cloudtune.report.content import outcome, overview, sections
from cloudtune.report.curves import series_of, summary
from cloudtune.report.markup import clipped, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cloudtune.report.document import Report
    from cloudtune.report.rows import ComparedRow, RowComparison

_MARKUP = re.compile(
    r"[\\`*\[\]<>|&~$]|(?<!\w)_|_(?!\w)"
    r"|:(?=//)|(?<=www)\."  # addresses, which become links
    r"|^[-=+#]|^\d+[.)](?=\s|$)"  # lists and headings
)
_LONGEST = 200
_ROWS_OF_A_KIND = 20


def markdown_text(report: Report) -> str:
    """Return the text."""
    found = outcome(report)
    parts = [f"# {plain(report.name)}", f"**{plain(found.headline)}.** {plain(found.detail)}",
             _table(("", ""), ((name, value) for name, value in overview(report)))]  # fmt: skip
    for section in sections(report):
        parts.append(f"## {section.title}")
        parts += [text for block in section.blocks if (text := write(block))]
    made = f"Report of {report.ref}, made on {report.created_at:%Y-%m-%d %H:%M %Z}"
    return "\n\n".join([*parts, plain(f"{made} with cloudtune {report.cloudtune_version}.")]) + "\n"


def plain(text: object) -> str:
    """Text on one line in which nothing is markup."""
    one = " ".join(visible(str(text)).split())
    return _MARKUP.sub(lambda found: f"{found.group()[:-1]}\\{found.group()[-1]}", one)


@singledispatch
def write(block: object) -> str:
    """Return a block as Markdown."""
    raise TypeError(f"unknown block: {type(block).__name__}")


@write.register
def _(block: Paragraph) -> str:
    return plain(block.text)


@write.register
def _(block: Facts) -> str:
    return _table(("", ""), block.pairs)


@write.register
def _(block: Table) -> str:
    return f"{plain(block.caption)}\n\n{_table(block.headers, block.rows, block.right)}"


@write.register
def _(block: Curves) -> str:
    names = dict.fromkeys(name for metric in block.metrics for name in metric.values)
    return "\n".join(f"- {plain(summary(name, found))}" for name in names if (found := series_of(block.metrics, name)))


@write.register
def _(block: Code) -> str:
    longest = max((len(run) for run in re.findall("`+", block.text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{visible(block.text).rstrip()}\n{fence}"


@write.register
def _(block: RowTable) -> str:
    found = block.comparison
    place = _place_of(found)
    headers = ["Change", "Line", "Prompt", "Expected", found.model]
    if found.reference is not None:
        headers.append(found.reference)
    parts = []
    for change in ("worse", "better"):
        rows = [row for row in found.rows if row.change == change]
        parts.append(f"{len(rows):,} {change} by {plain(found.metric)}" + (
            f", the first {_ROWS_OF_A_KIND}:" if len(rows) > _ROWS_OF_A_KIND else ":" if rows else "."
        ))  # fmt: skip
        cells = ((row.change, place(row), row.prompt, row.expected, row.answer, row.other) for row in rows)
        if rows:
            parts.append(_table(headers, [one[: len(headers)] for one in cells][:_ROWS_OF_A_KIND], {1}))
    return "\n\n".join(parts)


@write.register
def _(block: WorstRows) -> str:
    headers = ("Line", block.comparison.metric, "Prompt", "Expected", block.comparison.model)
    place = _place_of(block.comparison)
    rows = [(place(row), f"{row.score:.3g}", row.prompt, row.expected, row.answer) for row in block.rows]
    return _table(headers, rows, {0, 1})


def _place_of(found: RowComparison) -> Callable[[ComparedRow], object]:
    """How a row is named: by its line, after its file if there are several files."""
    if len({row.file for row in found.rows}) > 1:
        return lambda row: f"{PurePath(row.file).name}:{row.line}"
    return lambda row: row.line


def _table(headers: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> str:
    lines = ["---:" if place in set(right) else "---" for place in range(len(headers))]
    shown = [[plain(clipped(str(cell), _LONGEST)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(map(plain, headers)), lines, *shown])
