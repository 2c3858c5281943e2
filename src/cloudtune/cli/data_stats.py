"""``cloudtune data stats``: how many rows, how long, which answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.data_options import data_command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.data.checking import CheckReport
    from cloudtune.spec import Source

_WIDTH = 40


@data_command("stats")
@click.option("--tokenizer", metavar="FOLDER", help="Count tokens with this tokenizer (a folder or tokenizer.json).")
def command_(session: Session, source: Source, tokenizer: str | None) -> int:
    """Count rows, sizes, answers and, with a tokenizer, tokens."""
    from cloudtune.data.checking import check

    report = check(source, tokenizer=tokenizer)
    session.result(
        {
            "rows": report.rows, "bytes": report.bytes, "kinds": report.kinds, "fingerprint": report.fingerprint,
            "mean_bytes": report.mean_bytes, "largest_bytes": report.largest_bytes, "sizes": report.sizes,
            "duplicates": report.duplicates, "conflicts": report.conflicts, "labels": report.labels,
            "tokens": report.tokens, "largest_tokens": report.largest_tokens, "token_sizes": report.token_sizes,
            "problems": report.counts, "ok": report.ok,
        }
    )  # fmt: skip
    if not session.json:
        _show(session, report)
    return 0 if report.ok else 2


def _show(session: Session, report: CheckReport) -> None:
    from cloudtune.cli.render import fields, size

    session.put(fields([
        ("rows", f"{report.rows:,}"),
        ("kind", ", ".join(f"{kind} {count:,}" for kind, count in report.kinds.items())),
        ("size", f"{size(report.bytes)} as canonical records, {report.mean_bytes:,.0f} bytes a row"),
        ("tokens", f"{report.tokens:,}, at most {report.largest_tokens:,} a row" if report.tokens else None),
        ("duplicates", report.duplicates or None), ("conflicts", report.conflicts or None),
        ("fingerprint", report.fingerprint),
        ("problems", ", ".join(f"{code} {count:,}" for code, count in report.counts.items())),
    ]))  # fmt: skip
    for title, buckets in (("bytes", report.sizes), ("tokens", report.token_sizes)):
        if buckets:
            session.put(f"\n{title} a row")
            most = max(count for _, count in buckets)
            for bound, count in buckets:
                session.put(f"  < {bound:>9,}  {'█' * round(_WIDTH * count / most):<{_WIDTH}} {count:,}")
    if report.labels:
        session.put("\nanswers")
        for label, count in list(report.labels.items())[:20]:
            session.put(f"  {count:>9,}  {label}")
