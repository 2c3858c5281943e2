"""``cloudtune data split``: split rows into training, validation and test sets."""

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
              help="question: keep rows of the same question together. label: split each label evenly.")  # fmt: skip
@click.option("--to", "form", default="cloudtune", show_default=True, metavar="FORMAT", help="See `data convert`.")
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="FOLDER",
    help="Output folder for train.jsonl, validation.jsonl and test.jsonl.",
)
def command_(
    session: Session, rows: Rows, validation: float, test: float, shuffle: bool, by: str, form: str, out: str
) -> None:
    """Split rows by a hash of their content. Equal rows stay together, and adding rows never moves existing ones."""
    from cloudtune.data.transform.shaping import label_of, question_of

    if validation + test >= 1:
        raise click.UsageError("--validation and --test leave no training rows")
    seed = rows.changes.seed
    sides = rows.dataset().split(
        validation, test, seed=seed, group=question_of if by == "question" else None,
        stratify=label_of if by == "label" else None,
    )  # fmt: skip
    if shuffle:
        sides = {name: side.shuffle(seed) for name, side in sides.items()}
    put_written(session, {name: side.write(Path(out) / f"{name}.jsonl", form) for name, side in sides.items()})
