"""``cloudtune lr-find``: suggest a learning rate from a range test."""

from __future__ import annotations

import math
import shutil
import sys
from typing import TYPE_CHECKING

import click

from cloudtune.cli.options import command, trust_option

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.learning_rates import RateSuggestion

ROWS = 15


@command("lr-find", without=("backend", "ledger"))
@click.argument("spec", metavar="SPEC")
@click.option("--set", "sets", multiple=True, metavar="A.B=VALUE", help="Change a field of the spec. Repeatable.")
@click.option("--min", "first", type=float, default=1e-7, show_default=True, help="Learning rate of the first step.")
@click.option("--max", "last", type=float, default=1.0, show_default=True, help="Learning rate of the last step.")
@click.option("--steps", type=click.IntRange(min=10), default=100, show_default=True, help="Number of steps.")
@trust_option
def lr_find(
    session: Session, spec: str, sets: tuple[str, ...], first: float, last: float, steps: int, trust_remote_code: bool
) -> None:
    """Suggest a learning rate for SPEC: train on this machine at growing rates until the loss diverges.

    Nothing of the training is kept: no job, no model, no checkpoint. SPEC is a YAML, JSON or TOML file. - reads
    standard input.
    """
    from cloudtune.cli.render_watch import LiveView, PlainView
    from cloudtune.errors import InputError
    from cloudtune.learning_rates import range_test

    file = session.open_spec(spec, sets, None)
    try:
        with LiveView() if session.live else PlainView(session.say) as view:
            found = range_test(
                file.spec, first=first, last=last, steps=steps, config=session.config,
                trust_remote_code=trust_remote_code, on_update=view.update,
            )  # fmt: skip
    except InputError as error:
        error.problems = tuple(file.placed(problem) for problem in error.problems)
        raise
    session.result({
        "suggestion": found.suggestion, "steepest": found.steepest, "diverged": found.diverged,
        "points": [point._asdict() for point in found.points],
    })  # fmt: skip
    if not session.json:
        _show(session, found)


def _show(session: Session, found: RateSuggestion) -> None:
    from cloudtune.cli.render import figure, table
    from cloudtune.cli.render_plot import curves

    if not found.points:
        session.put("no suggestion: the loss is not a finite number at the lowest rate; try lower rates with --min")
        return
    count = len(found.points)
    shown = [found.points[round(i * (count - 1) / (ROWS - 1))] for i in range(ROWS)] if count > ROWS else found.points
    columns = ["LEARNING RATE", "LOSS", "SMOOTHED"]
    table(columns, [[f"{point.learning_rate:.2e}", figure(point.loss), figure(point.smoothed)] for point in shown],
          right=columns)  # fmt: skip
    size = shutil.get_terminal_size((100, 30))
    smoothed = [(math.log10(point.learning_rate), point.smoothed) for point in found.points]
    ends = (f"{found.points[0].learning_rate:.0e}", f"{found.points[-1].learning_rate:.0e}")
    session.put(curves({"smoothed loss": smoothed}, width=min(size.columns, 100), height=16, across="learning rate",
                       ends=ends, colour=sys.stdout.isatty()))  # fmt: skip
    if found.suggestion is None:
        session.put("no suggestion: the loss never falls in this range; try other rates with --min and --max")
        return
    end = "it did not diverge" if found.diverged is None else f"it diverged at {found.diverged:.1e}"
    session.put(
        f"the loss falls fastest at {found.steepest:.1e}; {end}\nsuggested learning_rate: {found.suggestion:.1e}"
    )
    session.say(f"use it with: --set hyperparameters.learning_rate={found.suggestion:.1e}")
