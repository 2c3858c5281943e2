"""A self-contained HTML page about data: counts, lengths, answers, problems."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import msgspec

from cloudtune.data.write.pages import policy, script_safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.data.report import CheckReport

_STYLE = """\
body{font:15px/1.5 system-ui,sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#1b1b1b;background:#fff}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.25em .7em;border-bottom:1px solid #ddd;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}h2{margin:2em 0 .4em;font-size:1.15em}
.cards{display:flex;flex-wrap:wrap;gap:1em}.card{background:#f4f4f1;border-radius:8px;padding:.7em 1.2em}
.card b{display:block;font-size:1.5em}.error{color:#b00020}.warning{color:#8a5a00}.bar{fill:#4a7fb5}
@media(prefers-color-scheme:dark){body{color:#e8e8e8;background:#161616}td,th{border-color:#333}.card{background:#242424}
.error{color:#ff8a96}.warning{color:#e0b060}}
"""
_LISTED = 200


def profile_page(report: CheckReport, title: str) -> str:
    """Return the page, which also contains the report as JSON."""
    data = script_safe(msgspec.json.encode(report).decode())
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8>{policy(_STYLE)}",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>",
        _cards(report),
        _sides(report),
        _histogram("Tokens per row", report.token_sizes),
        _histogram("Bytes per row", report.sizes),
        _answers(report),
        _costs(report),
        _problems(report),
        f"<script type=application/json id=report>{data}</script></html>\n",
    ]
    return "".join(parts)


def _cards(report: CheckReport) -> str:
    facts = [
        ("rows", f"{report.rows:,}"),
        ("kind", ", ".join(report.kinds) or "none"),
        ("bytes", f"{report.bytes:,}"),
        ("tokens", f"{report.tokens:,}" if report.tokens is not None else "not counted"),
        (
            "longest row",
            f"{report.largest_tokens:,} tokens" if report.largest_tokens else f"{report.largest_bytes:,} B",
        ),
        ("duplicates", f"{report.duplicates:,}"),
        ("conflicting answers", f"{report.conflicts:,}"),
        ("verdict", "good" if report.ok else "errors"),
    ]
    cards = "".join(f"<div class=card>{escape(name)}<b>{escape(value)}</b></div>" for name, value in facts)
    return f"<div class=cards>{cards}</div><p>Fingerprint <code>{report.fingerprint}</code></p>"


def _sides(report: CheckReport) -> str:
    if len(report.splits) < 2:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}<td class=n>{side.rows:,}<td class=n>{side.bytes:,}<td class=n>{side.mean_bytes:,.0f}"
        f"<td class=n>{side.largest_bytes:,}<td class=n>{'' if side.tokens is None else format(side.tokens, ',')}"
        for name, side in report.splits.items()
    )
    head = "<tr><th>split<th>rows<th>bytes<th>mean<th>longest<th>tokens"
    leaks = f"<p class=warning>{report.leaks:,} rows are in two splits.</p>" if report.leaks else ""
    return f"<h2>Sides</h2>{leaks}<table>{head}{rows}</table>"


def _histogram(title: str, buckets: Sequence[tuple[int, int]]) -> str:
    if not buckets:
        return ""
    most = max(count for _, count in buckets)
    height, width = 22, 420
    rows = []
    for i, (bound, count) in enumerate(buckets):
        y, long = i * height, width * count / most
        rows.append(
            f"<text x=90 y={y + 15} text-anchor=end>&lt; {bound:,}</text>"
            f"<rect class=bar x=100 y={y + 3} width={long:.1f} height={height - 6} rx=2></rect>"
            f"<text x={106 + long:.1f} y={y + 15}>{count:,}</text>"
        )
    size = f"width=640 height={len(buckets) * height} font-size=13 fill=currentColor"
    return f"<h2>{escape(title)}</h2><svg {size}>{''.join(rows)}</svg>"


def _answers(report: CheckReport) -> str:
    if not report.labels:
        return ""
    rows = "".join(
        f"<tr><td>{escape(label)}<td class=n>{count:,}<td class=n>{100 * count / max(report.rows, 1):.1f} %"
        for label, count in report.labels.items()
    )
    return f"<h2>Answers</h2><table><tr><th>answer<th>rows<th>share{rows}</table>"


def _costs(report: CheckReport) -> str:
    if not report.costs:
        return ""
    rows = "".join(
        f"<tr><td>{escape(one.backend)}<td>{escape(one.model)} {escape(one.tier)}<td class=n>{_span(one.tokens, ',')}"
        f"<td class=n>{_span(one.usd, ',.2f')}<td>{_COUNTED[one.counted]}<td>{escape(one.source)}"
        for one in report.costs
    )
    head = "<tr><th>back end<th>model<th>tokens<th>USD<th>counted<th>price"
    return f"<h2>Cost of one pass over the training rows</h2><table>{head}{rows}</table>"


_COUNTED = {"exact": "exact, with the vendor's tokenizer", "bounds": "lower and upper bound"}


def _span(pair: tuple[float, float], form: str) -> str:
    least, most = (format(value, form) for value in pair)
    return least if least == most else f"{least} &ndash; {most}"


def _problems(report: CheckReport) -> str:
    if not report.counts:
        return "<h2>Problems</h2><p>None.</p>"
    counts = ", ".join(f"{code} {count:,}" for code, count in report.counts.items())
    rows = "".join(
        f"<tr><td class={one.severity}>{one.severity}<td>{escape(one.code)}"
        f"<td>{escape(':'.join(str(part) for part in (one.file, one.line or one.row) if part))}"
        f"<td>{escape(one.field or '')}<td>{escape(one.message)}<td>{escape(one.fix or '')}"
        for one in report.problems[:_LISTED]
    )
    head = "<tr><th>severity<th>code<th>place<th>field<th>what<th>what to do"
    return f"<h2>Problems</h2><p>{escape(counts)}</p><table>{head}{rows}</table>"
