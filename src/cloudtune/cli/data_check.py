"""``cloudtune data check``: everything that is wrong with rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudtune.cli.data_options import data_command, held_out, report_json, show_report

if TYPE_CHECKING:
    from cloudtune.cli.data_options import Rows
    from cloudtune.cli.session import Session


@data_command("check")
@click.option("--for", "target", metavar="BACKEND", help="Hold the rows against this back end's rules too.")
@click.option("--model", help="The base model: some rules are the model's.")
@click.option("--method", help="sft, cpt, dpo, ...; taken from the kind of rows unless given.")
@click.option("--private", is_flag=True, help="Look for keys, card numbers, bank accounts and e-mail addresses too.")
@click.option("--near", type=click.FloatRange(0.1, 1), metavar="SHARE", help="Find rows that share so much of their "
              "runs of three words with an earlier one, e.g. 0.8.")  # fmt: skip
@click.option(
    "--tokenizer",
    metavar="FOLDER",
    help="Count tokens with this tokenizer (a folder, a tokenizer.json, a GGUF file, o200k_base).",
)
@click.option("--max-tokens", type=int, metavar="N", help="Tokens a row may have; the back end's limit by default.")
@held_out
def command_(
    session: Session, rows: Rows, target: str | None, model: str | None, method: str | None, private: bool,
    near: float | None, tokenizer: str | None, max_tokens: int | None, validation: str | None, test: str | None,
) -> int:  # fmt: skip
    """Find everything that is wrong with rows, in one pass. Exit code 0: clean or warnings; 2: errors.

    FILE is JSONL, JSON, CSV, TSV, Parquet, Arrow or text, also .gz or .zst; a pattern; or - for standard input.
    """
    from cloudtune.data.report import check

    if near is not None and "-" in rows.source.paths:
        raise click.UsageError("--near goes through the rows twice: give a file, not standard input")
    report = check(rows.sides(validation, test), target=target, model=model, method=method, private=private,
                   tokenizer=tokenizer, max_tokens=max_tokens, near=near, change=rows.change)  # fmt: skip
    session.result(report_json(report))
    if not session.json:
        show_report(session, report)
    return 0 if report.ok else 2
