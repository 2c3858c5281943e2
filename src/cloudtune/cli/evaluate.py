"""``cloudtune evaluate``: measure on held-out rows whether tuning helped."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command, ref_argument, trust_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.cli.session import Session
    from cloudtune.evaluation.compare import Comparison, Score
    from cloudtune.evaluation.evaluating import EvaluateOptions, Evaluation
    from cloudtune.evaluation.rows import Overlap
    from cloudtune.job import Job

_LINES_SHOWN = 10
_SAID_EVERY = 50


def evaluation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that ``evaluate`` and ``compare`` share."""
    for decorator in (
        trust_option,
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed for "
                     "resampling and for the choice of examples."),
        click.option("--group", metavar="FIELD", help="Field that names the source of a row: rows with the same source "
                     "are resampled together. Default: the prompt."),
        click.option("--max-tokens", type=click.IntRange(1), help="Limit of each answer. Default: from the length of "
                     "the expected answers."),
        click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Metric to use instead of those chosen "
                     "from the rows: accuracy, f1_macro, chrf, exact_match, regex:PATTERN, ... The first one decides. "
                     "Repeatable."),
        click.option("--kind", default="auto", help="Kind of the rows, as for `data check`."),
        click.option("--data", "data", required=True, metavar="FILE", help="Held-out rows in any supported format, "
                     "with the expected answers."),
    ):  # fmt: skip
        function = decorator(function)
    return function


@command("evaluate", without=("backend",))
@ref_argument
@evaluation_options
@click.option("--against", multiple=True, metavar="JOB", help="Also compare with the model of this job. Repeatable.")
@click.option("--few-shot", type=click.IntRange(0, 64), default=0, metavar="K", help="Also compare with the base model "
              "after K training rows as examples.")  # fmt: skip
@click.option("--no-baselines", is_flag=True, help="Leave out the base model and the simple baselines.")
def evaluate(
    session: Session, ref: str, data: str, kind: str, metrics: tuple[str, ...], max_tokens: int | None,
    group: str | None, seed: int, trust_remote_code: bool, against: tuple[str, ...], few_shot: int, no_baselines: bool,
) -> None:  # fmt: skip
    """Measure on held-out rows whether tuning helped.

    The tuned model, its base model and simple baselines answer the same rows. Each metric has a 95% interval, and each
    difference a paired test. Answers are stored: the same command asks no model again.
    """
    from cloudtune.evaluation.evaluating import EvaluateOptions

    options = EvaluateOptions(metrics=metrics, baselines=not no_baselines, few_shot=few_shot, max_tokens=max_tokens,
                              group=group, seed=seed)  # fmt: skip
    jobs = [session.job(one) for one in (ref, *against)]
    put_evaluation(session, jobs, data, kind, options, trust_remote_code=trust_remote_code)


def put_evaluation(
    session: Session, jobs: list[Job], data: str, kind: str, options: EvaluateOptions, *, trust_remote_code: bool
) -> None:
    """Evaluate the first job against the others, and print the result."""
    from cloudtune.cli.data_options import source_of
    from cloudtune.state import to_json

    found = session.client.evaluate(
        jobs[0], source_of((data,), kind), against=jobs[1:], options=options, trust_remote_code=trust_remote_code,
        on_progress=functools.partial(_say_progress, session),
    )  # fmt: skip
    session.result({"ref": str(jobs[0].ref), "data": data} | to_json(found))
    if not session.json:
        _show(session, found)


def _say_progress(session: Session, name: str, done: int, count: int) -> None:
    if done % _SAID_EVERY == 0 or done == count:
        session.say(f"{name}: {done:,} of {count:,} answers")


def _show(session: Session, found: Evaluation) -> None:
    from cloudtune.cli.render import table
    from cloudtune.evaluation.compare import shown_interval
    from cloudtune.evaluation.metrics import chosen_metrics

    metrics = chosen_metrics(found.metrics, found.task)
    headers = [f"{one.name.upper()}{' %' if one.span == 1.0 else ''}" for one in metrics]

    def cell(number: int, score: Score | Comparison, value: float, *, signed: bool = False) -> str:
        interval = shown_interval(metrics[number], score, signed=signed)
        return metrics[number].shown(value, signed=signed) + (f" ({interval})" if interval else "")

    groups = "" if found.groups == found.rows else f" in {found.groups:,} group{'s' if found.groups != 1 else ''}"
    session.put(f"{found.rows:,} row{'s' if found.rows != 1 else ''}{groups}; in parentheses: 95% intervals\n")
    table(["MODEL", *headers], [
        [one.name, *(cell(number, one.scores[metric.name], one.scores[metric.name].value)
                     for number, metric in enumerate(metrics))] for one in found.models
    ], right=headers)  # fmt: skip
    if found.comparisons:
        session.put("")
        difference = f"{headers[0]} DIFFERENCE"
        table([f"{found.models[0].name} AGAINST", difference, "P", "VERDICT"], [
            [one.against, cell(0, one, one.difference, signed=True), _p(one.p_value), one.verdict]
            for one in found.comparisons
        ], right=[difference, "P"])  # fmt: skip
    session.put(f"\n{found.verdict}")
    if len(found.comparisons) > 1:
        session.put(f"p-values are corrected for {len(found.comparisons)} comparisons (Holm).")
    for note in (*found.notes, *_overlap_notes(found.overlap, found.rows)):
        session.put(f"note: {note}")


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _overlap_notes(found: Overlap, rows: int) -> list[str]:
    """What to know about test rows that are training rows."""
    if not found.checked:
        return [f"the test rows were not compared with the training rows: {found.reason}"]
    of_rows = f"of {rows:,} test row{'s' if rows != 1 else ''}"
    unlike = "from a training row only in case, spaces or punctuation"
    other_answer = "the prompt of a training row with another answer"
    kinds = (
        (found.equal, "is a training row", "are training rows"),
        (found.similar, f"differs {unlike}", f"differ {unlike}"),
        (found.same_prompt, f"has {other_answer}", f"have {other_answer}"),
    )
    notes = [f"{len(lines):,} {of_rows} {one if len(lines) == 1 else many}: {_lines(lines)}"
             for lines, one, many in kinds if lines]  # fmt: skip
    if found.validation:
        notes.append("the test rows are the validation data of the training, which chose the best checkpoint")
    if found.seen:
        notes.append("remove rows that were in training: on them, the metrics measure memory and not generalization")
    return notes


def _lines(lines: tuple[int, ...]) -> str:
    more = ", ..." if len(lines) > _LINES_SHOWN else ""
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines[:_LINES_SHOWN]))}{more}"
