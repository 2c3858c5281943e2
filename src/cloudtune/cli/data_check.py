"""``cloudtune data check``: report every problem in the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.data_options import data_command, held_out, report_json, show_report

if TYPE_CHECKING:
    from cloudtune.cli.data_options import Rows
    from cloudtune.cli.session import Session


@data_command("check")
@click.option("--for", "target", metavar="BACKEND", help="Also check the rules of this back end.")
@click.option("--model", help="Base model, for rules that depend on it.")
@click.option("--method", help="sft, cpt, dpo, ... Default: inferred from the rows.")
@click.option(
    "--private", is_flag=True, help="Also look for API keys, card numbers, bank accounts and email addresses."
)
@click.option("--near", type=click.FloatRange(0.1, 1), metavar="SHARE", help="Find near-duplicates: "
              "rows that share this fraction of their word trigrams with an earlier row, e.g. 0.8.")  # fmt: skip
@click.option(
    "--tokenizer",
    metavar="FOLDER",
    help="Count tokens with this tokenizer (a folder, a tokenizer.json, a GGUF file, o200k_base).",
)
@click.option("--max-tokens", type=int, metavar="N", help="Maximum tokens per row. Default: the back end's limit.")
@held_out
def command_(
    session: Session, rows: Rows, target: str | None, model: str | None, method: str | None, private: bool,
    near: float | None, tokenizer: str | None, max_tokens: int | None, validation: str | None, test: str | None,
) -> int:  # fmt: skip
    """Check rows in one pass and report every problem. Exits with 0 if there are no errors, 2 otherwise.

    FILE is a JSONL, JSON, CSV, TSV, Parquet, Arrow or text file (optionally .gz or .zst), a glob pattern, or - for
    standard input.
    """
    from cloudtune.data.report import check

    if near is not None and "-" in rows.source.paths:
        raise click.UsageError("--near reads the rows twice and cannot use standard input: pass a file")
    report = check(rows.sides(validation, test), target=target, model=model, method=method, private=private,
                   tokenizer=tokenizer, max_tokens=max_tokens, near=near, change=rows.change)  # fmt: skip
    session.result(report_json(report))
    if not session.json:
        show_report(session, report)
    return 0 if report.ok else 2
