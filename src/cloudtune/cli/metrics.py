"""``cloudtune metrics``: the metrics of a job as a table, a terminal chart or a PNG."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command, ref_argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.cli.session import Session
    from cloudtune.state import Metric

ROWS = 25


@command("metrics", without=("backend",))
@ref_argument
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Only metrics of this split.")
@click.option("--key", "keys", multiple=True, metavar="NAME", help="Only this metric, e.g. loss. Repeatable.")
@click.option("--all", "everything", is_flag=True, help="Show every row instead of an evenly spaced sample.")
@click.option("--plot", is_flag=True, help="Plot the first metric (loss, unless --key is given) in the terminal.")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Save the plot to this file.")
def metrics(
    session: Session, ref: str, split: str | None, keys: tuple[str, ...], everything: bool, plot: bool,
    png: Path | None,
) -> None:  # fmt: skip
    """Show the metrics of a job, as a table or a chart."""
    from cloudtune.cli.render_plot import curves, save_png
    from cloudtune.errors import InputError
    from cloudtune.state import to_json

    job = session.job(ref)
    found = [metric for metric in job.metrics() if split in (None, metric.split)]
    known = list(dict.fromkeys(name for metric in found for name in metric.values))
    if unknown := [key for key in keys if key not in known and known]:
        raise InputError(f"unknown metric {unknown[0]!r}", hint=f"known metrics: {', '.join(known)}")
    drawn = keys[0] if keys else "loss"
    if png is not None:
        save_png(series(found, drawn), png, title=f"{drawn} of {job.ref.id}")
        session.say(f"wrote {png}")
    session.result({"ref": str(job.ref), "metrics": [to_json(metric) for metric in found]})
    if session.json:
        return
    if not found:
        session.say("no metrics yet")
    elif plot:
        size = shutil.get_terminal_size((100, 30))
        course = curves(series(found, drawn), width=min(size.columns, 120), height=min(max(size.lines - 6, 8), 24),
                        colour=sys.stdout.isatty())  # fmt: skip
        session.put(course or f"not enough values of {drawn} to plot")
    elif png is None:
        _table(session, found, list(keys) or known, everything)


def series(metrics: Sequence[Metric], key: str) -> dict[str, list[tuple[float, float]]]:
    """Return the points of one metric for each split."""
    found: dict[str, list[tuple[float, float]]] = {}
    for metric in metrics:
        if key in metric.values:
            found.setdefault(metric.split, []).append((metric.step, metric.values[key]))
    return found


def _table(session: Session, found: list[Metric], keys: list[str], everything: bool) -> None:
    from cloudtune.cli.render import figure, table

    shown = found
    if not everything and len(found) > ROWS and sys.stdout.isatty():
        every = len(found) / ROWS
        kept = {min(int((number + 1) * every) - 1, len(found) - 1) for number in range(ROWS)} | {0}
        shown = [metric for number, metric in enumerate(found) if number in kept or metric.split != "train"]
        session.say(f"showing {len(shown)} of {len(found)} rows; use --all for all of them")
    columns = ["STEP", "EPOCH", "SPLIT", *(key.upper() for key in keys)]
    table(columns, [[metric.step, _epoch(metric), metric.split, *(_cell(metric, key, figure) for key in keys)]
                    for metric in shown], right=[column for column in columns if column != "SPLIT"])  # fmt: skip


def _epoch(metric: Metric) -> str:
    return "" if metric.epoch is None else f"{metric.epoch:.2f}"


def _cell(metric: Metric, key: str, figure: Any) -> str:
    return figure(metric.values[key]) if key in metric.values else ""
