"""``cloudtune compare``: compare models on held-out rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.evaluate import evaluation_options, options_of, put_evaluation
from cloudtune.cli.options import command

if TYPE_CHECKING:
    from cloudtune.cli.session import Session


@command("compare", without=("backend",))
@click.argument("models", nargs=-1, required=True, metavar="JOB|FOLDER|BACKEND=MODEL...")
@click.option("--data", required=True, multiple=True, metavar="FILE", help="Held-out rows in any supported format, "
              "with the expected answers. Repeatable.")  # fmt: skip
@evaluation_options
def compare(session: Session, models: tuple[str, ...], data: tuple[str, ...], **settings: Any) -> None:
    """Compare the first model with the others, on held-out rows.

    The evaluation of the first model that `show` and `report` print is not replaced.
    """
    if len(models) < 2:
        raise click.UsageError("name at least two models")
    options = options_of(settings, baselines=False)
    put_evaluation(session, models, data, options, store=False, **settings)
