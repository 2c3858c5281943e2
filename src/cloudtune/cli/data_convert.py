"""``cloudtune data convert``: rows in a vendor's format."""

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
              "jumpstart-chat, alpaca, sharegpt, ...; a wrong name lists the near ones.")  # fmt: skip
@click.option("-o", "--out", required=True, metavar="FILE", help="Where to write; nothing is written on errors.")
@click.option("--for", "target", metavar="BACKEND", help="Hold the rows against this back end's rules too.")
@click.option("--model", help="The base model: some rules are the model's.")
@click.option("--private", is_flag=True, help="Look for keys, card numbers, bank accounts and e-mail addresses too.")
@click.option("--allow-dropped", "allow_dropped", multiple=True, metavar="FEATURE",
              help="What may be lost: system, turns, "
              "tools, images, videos, bucket_owners, media_formats, parts, weights, thoughts, names, fields (also "
              "several, with commas).")  # fmt: skip
@click.option("--method", help="sft, cpt, dpo, ...; taken from the kind of rows unless given.")
@click.option("--mix", "mixes", multiple=True, metavar="FILE=WEIGHT", help="Put rows of another file between these: "
              "--mix general.jsonl=0.25 puts one behind every fourth; chosen by hash.")  # fmt: skip
@shuffle_option
def command_(
    session: Session, rows: Rows, to: str, out: str, target: str | None, model: str | None, private: bool,
    allow_dropped: tuple[str, ...], method: str | None, shuffle: bool, mixes: tuple[str, ...],
) -> int:  # fmt: skip
    """Check rows and write them in a format, in one pass. What the format cannot carry is refused, unless allowed."""
    from cloudtune.data.report import convert
    from cloudtune.data.write.dropped_features import FEATURES

    allowed = [name.strip() for one in allow_dropped for name in one.split(",")]
    if unknown := sorted(set(allowed) - set(FEATURES)):
        raise click.UsageError(f"--allow-dropped {', '.join(unknown)} is not known; it is one of {', '.join(FEATURES)}")
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
