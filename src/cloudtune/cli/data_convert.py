"""``cloudtune data convert``: convert rows to a vendor's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudtune.cli.data_options import data_command, report_json, show_report, shuffle_option

if TYPE_CHECKING:
    from cloudtune.cli.data_options import Rows
    from cloudtune.cli.session import Session


@data_command("convert")
@click.option("--to", required=True, metavar="FORMAT", help="openai, bedrock-converse, claude, sagemaker-messages, "
              "jumpstart-chat, alpaca, sharegpt, ... An unknown name prints similar ones.")  # fmt: skip
@click.option("-o", "--out", required=True, metavar="FILE", help="Output file. Nothing is written if there are errors.")
@click.option("--for", "target", metavar="BACKEND", help="Also check the rules of this back end.")
@click.option("--model", help="Base model, for rules that depend on it.")
@click.option(
    "--private", is_flag=True, help="Also look for API keys, card numbers, bank accounts and email addresses."
)
@click.option("--allow-dropped", "allow_dropped", multiple=True, metavar="FEATURE",
              help="Features that may be dropped: system, turns, "
              "tools, images, videos, bucket_owners, media_formats, parts, weights, thoughts, names, fields (also "
              "comma-separated).")  # fmt: skip
@click.option("--method", help="sft, cpt, dpo, ... Default: inferred from the rows.")
@click.option("--mix", "mixes", multiple=True, metavar="FILE=WEIGHT", help="Mix in rows of another file: "
              "--mix general.jsonl=0.25 adds one row for every four. Rows are chosen by hash.")  # fmt: skip
@shuffle_option
def command_(
    session: Session, rows: Rows, to: str, out: str, target: str | None, model: str | None, private: bool,
    allow_dropped: tuple[str, ...], method: str | None, shuffle: bool, mixes: tuple[str, ...],
) -> int:  # fmt: skip
    """Check rows and convert them to a format. Fails if the format cannot hold a feature, unless --allow-dropped."""
    from cloudtune.data.report import convert
    from cloudtune.data.write.dropped_features import FEATURES

    allowed = [name.strip() for one in allow_dropped for name in one.split(",")]
    if unknown := sorted(set(allowed) - set(FEATURES)):
        raise click.UsageError(
            f"--allow-dropped: unknown feature {', '.join(unknown)}; choose from {', '.join(FEATURES)}"
        )
    report = convert(
        rows.mixed(mixes), to=to, out=Path(out), target=target, model=model, allow_dropped=allowed, method=method,
        private=private, change=rows.change, shuffle=rows.changes.seed if shuffle else None,
    )  # fmt: skip
    session.result(report_json(report))
    if not session.json:
        show_report(session, report)
        if report.ok:
            session.say(f"wrote {out}: {report.rows:,} rows, {report.out_bytes:,} bytes, {to}")
            for path in report.beside:
                session.say(f"wrote {path}")
    return 0 if report.ok else 2
