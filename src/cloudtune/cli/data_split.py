"""``cloudtune data split``: hold rows out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudtune.cli.data_options import data_command, put_written, shuffle_option

if TYPE_CHECKING:
    from cloudtune.cli.data_options import Rows
    from cloudtune.cli.session import Session


@data_command("split")
@click.option("--validation", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True)
@click.option("--test", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True)
@shuffle_option
@click.option("--by", type=click.Choice(["row", "question", "label"]), default="row", show_default=True,
              help="question: rows of one question stay together; label: each label gives its share.")  # fmt: skip
@click.option("--to", "form", default="cloudtune", show_default=True, metavar="FORMAT", help="As for convert.")
@click.option("-o", "--out", required=True, metavar="FOLDER", help="Gets train.jsonl, validation.jsonl, test.jsonl.")
def command_(
    session: Session, rows: Rows, validation: float, test: float, shuffle: bool, by: str, form: str, out: str
) -> None:
    """Hold rows out by their content: equal rows fall on one side, and rows added later move none that are there."""
    from cloudtune.data.transform.shaping import label_of, question_of

    if validation + test >= 1:
        raise click.UsageError("--validation and --test together leave nothing to learn from")
    seed = rows.changes.seed
    sides = rows.dataset().split(
        validation, test, seed=seed, group=question_of if by == "question" else None,
        stratify=label_of if by == "label" else None,
    )  # fmt: skip
    if shuffle:
        sides = {name: side.shuffle(seed) for name, side in sides.items()}
    put_written(session, {name: side.write(Path(out) / f"{name}.jsonl", form) for name, side in sides.items()})
