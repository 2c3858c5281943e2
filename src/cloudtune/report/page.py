"""The report as one HTML page: readable without its script, which sorts and filters tables. It loads nothing."""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING

from cloudtune.data.write.pages import policy
from cloudtune.report.blocks import Code, Curves, Facts, Paragraph, RowTable, Table, WorstRows
from cloudtune.report.content import outcome, overview, sections
from cloudtune.report.curves import charts
from cloudtune.report.markup import Html, clipped, joined, tag
from cloudtune.report.rows import ORDER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.evaluation.compare import Score
    from cloudtune.report.blocks import Cell
    from cloudtune.report.document import Report
    from cloudtune.report.rows import ComparedRow, RowComparison

LARGEST = 1_500_000
"""Bytes of a page. The rows get what the other blocks leave."""
_FOR_FRAME = 100_000
_LONGEST_CELL = 600
_SHOWN = 100
"""Rows that are laid out when the page opens. The script shows more; without it, all are shown."""
_SHADES = 5


def html_page(report: Report) -> str:
    """Return the page."""
    style, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    verdict = outcome(report)
    found = sections(report)
    written = {one.id: joined(write(block) for block in one.blocks if not isinstance(block, RowTable)) for one in found}
    if report.rows is not None:
        left = LARGEST - _FOR_FRAME - sum(len(text.encode()) for text in (style, script, *written.values()))
        written["rows"] = _rows(report.rows, left)
    links = tag("ul", *(tag("li", tag("a", one.title, href=f"#{one.id}")) for one in found))
    made = f"Report of {report.ref}, made on {report.created_at:%Y-%m-%d %H:%M %Z} with cloudtune"
    body = joined([
        tag("a", "Skip to the result", href="#result", class_="skip"),
        tag("header", tag("h1", report.name), tag("p", f"{made} {report.cloudtune_version}", class_="soft")),
        tag("main",
            tag("div", tag("b", verdict.headline), tag("span", verdict.detail),
                class_=f"verdict {verdict.word.replace(' ', '-')}"),
            tag("dl", *(_pair(*pair) for pair in overview(report)), class_="cards"),
            tag("nav", links, aria_label="Sections"),
            *(tag("section", tag("h2", one.title, id=f"{one.id}-title"), written[one.id], id=one.id,
                  aria_labelledby=f"{one.id}-title") for one in found)),
    ])  # fmt: skip
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8>{policy(style, script)}"
        "<meta name=viewport content='width=device-width'><meta name=referrer content=no-referrer>"
        f"{tag('title', f'{report.name}: {verdict.headline}')}<style>{style}</style></head>"
        f"<body>{body}<script>{script}</script></body></html>\n"
    )


@singledispatch
def write(block: object) -> Html:
    """Return a block as HTML."""
    raise TypeError(f"unknown block: {type(block).__name__}")


@write.register
def _(block: Paragraph) -> Html:
    return tag("p", block.text, class_=None if block.kind == "plain" else block.kind)


@write.register
def _(block: Facts) -> Html:
    return tag("dl", *(_pair(*pair) for pair in block.pairs), class_="facts")


def _pair(name: str, value: str) -> Html:
    return tag("div", tag("dt", name), tag("dd", value))


@write.register
def _(block: Curves) -> Html:
    return charts(block.metrics)


@write.register
def _(block: Code) -> Html:
    return tag("pre", tag("code", block.text.rstrip("\n")), tabindex=0, role="region", aria_label=block.label)


@write.register
def _(block: Table) -> Html:
    heads = [tag("th", head, scope="col", class_="n" if place in block.right else None)
             for place, head in enumerate(block.headers)]  # fmt: skip
    if block.intervals:
        percent = 100 if block.headers[1].endswith("%") else 1
        low, high = (percent * end for end in _ends(block.intervals))
        heads.append(tag("th", f"{block.headers[1]}, {low:.4g} to {high:.4g}", scope="col", data_fixed=True))
    most = max((cell for row in block.rows for cell in row if isinstance(cell, int)), default=0)
    rows = []
    for number, row in enumerate(block.rows):
        cells = [tag("th", row[0], scope="row"), *(
            _cell(block, cell, place, most, is_diagonal=place == number + 1)
            for place, cell in enumerate(row[1:], 1)
        )]  # fmt: skip
        if block.intervals:
            cells.append(tag("td", _interval(block.intervals[number], block.intervals)))
        rows.append(tag("tr", *cells))
    return _scroll(block.caption, tag(
        "table", tag("caption", block.caption), tag("thead", tag("tr", *heads)), tag("tbody", *rows),
        class_="matrix" if block.is_matrix else None, data_sortable=not block.is_matrix and len(block.rows) > 1,
    ))  # fmt: skip


def _cell(block: Table, cell: Cell, place: int, most: int, *, is_diagonal: bool) -> Html:
    shown = f"{cell:,}" if isinstance(cell, int) else cell
    if not block.is_matrix:
        return tag("td", shown, class_="n" if place in block.right else None,
                   data_v=cell if isinstance(cell, int) else None)  # fmt: skip
    shade = -(-_SHADES * int(cell) // most) if most else 0
    return tag("td", shown, class_=" ".join([f"h{shade}", *(["diagonal"] if is_diagonal else [])]))


def _scroll(label: str, table: Html) -> Html:
    """The table in a region that scrolls sideways, also by keyboard."""
    return tag("div", table, class_="scroll", role="region", aria_label=label, tabindex=0)


def _ends(scores: Sequence[Score | None]) -> tuple[float, float]:
    """The ends of the axis that the rows share."""
    ends = [end for one in scores if one is not None
            for end in (one.low, one.value, one.high) if end is not None]  # fmt: skip
    return (0.0, 1.0) if not ends or (min(ends) >= 0 and max(ends) <= 1) else (min(ends), max(ends))


def _interval(score: Score | None, scores: Sequence[Score | None]) -> Html:
    """The value and its interval. The cells beside it have the numbers."""
    if score is None:
        return Html()
    low, high = _ends(scores)

    def at(value: float) -> float:
        return round(6 + 148 * (value - low) / ((high - low) or 1), 1)

    parts = [tag("line", class_="axis", x1=6, x2=154, y1=10, y2=10)]
    if score.low is not None and score.high is not None:
        parts.append(tag("line", x1=at(score.low), x2=at(score.high), y1=10, y2=10))
    parts.append(tag("circle", cx=at(score.value), cy=10, r=4))
    return tag("svg", *parts, class_="interval", viewBox="0 0 160 20", aria_hidden="true")


# -- rows --------------------------------------------------------------------------------------------------------------


def _rows(comparison: RowComparison, left: int) -> Html:
    """The compared rows that fit into that many bytes."""
    is_graded = any(row.score not in (0.0, 1.0) for row in comparison.rows)
    models = [comparison.model, *([comparison.reference] if comparison.reference is not None else [])]
    heads = ["Change", "Line", "Prompt", "Expected", *models]
    if is_graded:
        heads += [f"{comparison.metric}, {model}" for model in models]
    with_file = len({row.file for row in comparison.rows}) > 1
    rows: list[Html] = []
    for row in comparison.rows:
        shown = _row(row, is_graded=is_graded, with_file=with_file, hidden=len(rows) >= _SHOWN)
        left -= len(shown.encode())
        if left < 0:
            break
        rows.append(shown)
    counts = ", ".join(f"{number:,} {change}" for change in ORDER
                       if (number := sum(row.change == change for row in comparison.rows)))  # fmt: skip
    against = f" against {comparison.reference}" if comparison.reference is not None else ""
    caption = f"{comparison.model}{against}, by {comparison.metric}: {counts}"
    table = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads))),
        tag("tbody", *rows), id="compared", data_sortable=True,
    )  # fmt: skip
    left_out = len(comparison.rows) - len(rows)
    note = f"{left_out:,} more rows do not fit into this page. The JSON format of the report has all of them."
    return joined([
        _filter(comparison), _scroll(caption, table),
        tag("button", "Show 100 more rows", type="button", id="more", class_="more", hidden=True),
        *([tag("p", note, class_="note")] if left_out else []),
    ])  # fmt: skip


def _filter(comparison: RowComparison) -> Html:
    found = {row.change for row in comparison.rows}
    options = [tag("option", "all", value=""), *(tag("option", one) for one in ORDER if one in found)]
    return tag(
        "div", tag("label", "Change", tag("select", *options, id="change")),
        tag("label", "Text", Html('<input id="search" type="search" autocomplete="off">')),
        tag("output", "", id="count", for_="change search"), id="filter", class_="controls", role="search",
        aria_label="Filter rows", hidden=True,
    )  # fmt: skip


def _row(row: ComparedRow, *, is_graded: bool, with_file: bool, hidden: bool) -> Html:
    style = {"better": "better", "worse": "lost"}.get(row.change, "")
    texts = [row.prompt, row.expected, row.answer, *([row.other] if row.other is not None else [])]
    scores = [one for one in (row.score, row.other_score) if one is not None] if is_graded else []
    return tag(
        "tr", tag("th", tag("span", row.change, class_=style or None), scope="row", class_="change",
                  data_v=ORDER.index(row.change)),
        tag("td", f"{Path(row.file).name}:{row.line}", class_="n") if with_file
        else tag("td", f"{row.line:,}", class_="n", data_v=row.line),
        *(tag("td", clipped(text, _LONGEST_CELL), class_="text") for text in texts),
        *(tag("td", f"{score:.3f}", class_="n") for score in scores), data_change=row.change, hidden=hidden,
    )  # fmt: skip


@write.register
def _(block: WorstRows) -> Html:
    def item(row: ComparedRow) -> Html:
        pairs = [("Prompt", row.prompt), ("Expected", row.expected), (block.comparison.model, row.answer)]
        if row.other is not None:
            pairs.append((str(block.comparison.reference), row.other))
        place = f"{Path(row.file).name}:{row.line}, {block.comparison.metric} {row.score:.3g}"
        facts = (_pair(name, clipped(text, _LONGEST_CELL)) for name, text in pairs)
        return tag("li", tag("b", place), tag("dl", *facts, class_="facts"))

    return tag("ol", *map(item, block.rows), class_="worst")
