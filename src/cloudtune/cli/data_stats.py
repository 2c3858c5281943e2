"""``cloudtune data stats``: row counts, lengths and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.data_options import data_command, held_out

if TYPE_CHECKING:
    from cloudtune.cli.data_options import Rows
    from cloudtune.cli.session import Session
    from cloudtune.data.report import CheckReport

_WIDTH = 40


@data_command("stats")
@click.option(
    "--tokenizer",
    metavar="FOLDER",
    help="Count tokens with this tokenizer (a folder, a tokenizer.json, a GGUF file, o200k_base).",
)
@held_out
def command_(
    session: Session, rows: Rows, tokenizer: str | None, validation: str | None, test: str | None
) -> int:  # fmt: skip
    """Count rows, sizes, labels and, with --tokenizer, tokens."""
    import msgspec

    from cloudtune.data.report import check

    report = check(rows.sides(validation, test), tokenizer=tokenizer, change=rows.change)
    session.result(
        {
            "rows": report.rows, "bytes": report.bytes, "kinds": report.kinds, "fingerprint": report.fingerprint,
            "mean_bytes": report.mean_bytes, "largest_bytes": report.largest_bytes, "sizes": report.sizes,
            "duplicates": report.duplicates, "conflicts": report.conflicts, "labels": report.labels,
            "tokens": report.tokens, "largest_tokens": report.largest_tokens, "token_sizes": report.token_sizes,
            "splits": msgspec.to_builtins(report.splits), "leaks": report.leaks, "problems": report.counts,
            "ok": report.ok,
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
        ("size", f"{size(report.bytes)} as canonical records, {report.mean_bytes:,.0f} bytes per row"),
        ("tokens", f"{report.tokens:,}, at most {report.largest_tokens:,} per row" if report.tokens else None),
        ("duplicates", report.duplicates or None), ("conflicts", report.conflicts or None),
        ("fingerprint", report.fingerprint),
        ("problems", ", ".join(f"{code} {count:,}" for code, count in report.counts.items())),
    ]))  # fmt: skip
    if len(report.splits) > 1:
        session.put("\nsplits")
        for name, side in report.splits.items():
            tokens = f", {side.tokens:,} tokens" if side.tokens is not None else ""
            session.put(f"  {name:<10}  {side.rows:>9,} rows, {side.mean_bytes:,.0f} bytes per row{tokens}")
    for title, buckets in (("bytes", report.sizes), ("tokens", report.token_sizes)):
        if buckets:
            session.put(f"\n{title} per row")
            most = max(count for _, count in buckets)
            for bound, count in buckets:
                session.put(f"  < {bound:>9,}  {'█' * round(_WIDTH * count / most):<{_WIDTH}} {count:,}")
    if report.labels:
        session.put("\nlabels")
        for label, count in list(report.labels.items())[:20]:
            session.put(f"  {count:>9,}  {label}")
