"""``cloudtune data profile``: an HTML report about the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudtune.cli.data_options import data_command, held_out, report_json

if TYPE_CHECKING:
    from cloudtune.cli.data_options import Rows
    from cloudtune.cli.session import Session


@data_command("profile")
@click.option("-o", "--out", required=True, metavar="FILE.html", help="Output file.")
@click.option("--for", "target", metavar="BACKEND", help="Also check the rules of this back end.")
@click.option("--model", help="Base model, for rules that depend on it.")
@click.option(
    "--private", is_flag=True, help="Also look for API keys, card numbers, bank accounts and email addresses."
)
@click.option(
    "--tokenizer",
    metavar="FOLDER",
    help="Count tokens with this tokenizer (a folder, a tokenizer.json, a GGUF file, o200k_base).",
)
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Maximum tokens per row.")
@held_out
def command_(
    session: Session, rows: Rows, out: str, target: str | None, model: str | None, private: bool,
    tokenizer: str | None, max_tokens: int | None, validation: str | None, test: str | None,
) -> int:  # fmt: skip
    """Write a self-contained HTML report: counts, lengths, labels and every problem found."""
    import msgspec

    from cloudtune.data.checks.costs import count, estimates
    from cloudtune.data.report import check
    from cloudtune.data.write.profile import profile_page

    report = check(rows.sides(validation, test), target=target, model=model, private=private, tokenizer=tokenizer,
                   max_tokens=max_tokens, change=rows.change)  # fmt: skip
    if "-" not in rows.source.paths:  # standard input cannot be read twice
        tokens = count(rows.sides(validation, test), method=report.method, change=rows.change)
        costs = estimates(tokens, report.method, target, model)
        report = msgspec.structs.replace(report, costs=costs)
    Path(out).write_text(profile_page(report, ", ".join(rows.source.paths)), encoding="utf-8")
    session.result(report_json(report) | {"page": out})
    session.say(f"wrote {out}")
    return 0 if report.ok else 2
