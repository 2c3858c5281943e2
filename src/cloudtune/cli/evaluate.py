"""``cloudtune evaluate``: measure on held-out rows whether tuning helped."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command, trust_option, trust_reward_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.cli.session import Session
    from cloudtune.evaluation.compare import Comparison, Score
    from cloudtune.evaluation.contamination import Overlap
    from cloudtune.evaluation.costs import EvaluationCost
    from cloudtune.evaluation.result import EvaluateOptions, Evaluation

_LINES_SHOWN = 10
_SAID_EVERY = 50
_SAID_EVERY_S = 5.0


def evaluation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that ``evaluate`` and ``compare`` share."""
    for decorator in (
        trust_option,
        trust_reward_option,
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed for "
                     "resampling and for the choice of examples."),
        click.option("--group", metavar="FIELD", help="Field that names the source of a row: rows with the same source "
                     "are resampled together. Default: the prompt."),
        click.option("--max-tokens", type=click.IntRange(1), help="Limit of each answer. Default: from the length of "
                     "the expected answers."),
        click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Metric to use instead of those chosen "
                     "from the rows: accuracy, f1_macro, chrf, exact_match, regex:PATTERN, json_schema:FILE, "
                     "FILE.py:FUNCTION, ... The first one decides. Repeatable."),
        click.option("--kind", default="auto", help="Kind of the rows, as for `data check`."),
        click.option("--max-rows", type=click.IntRange(1), metavar="N", help="Use at most this many rows, chosen by "
                     "content and seed."),
        click.option("--max-cost-usd", type=click.FloatRange(0, min_open=True), metavar="USD", help="Ask nothing if "
                     "the answers may cost more, or if their price is unknown."),
        click.option("--judge", metavar="JOB|FOLDER|BACKEND=MODEL", help="Also let this model judge the answers."),
        click.option("--rubric", metavar="FILE", help="What a good answer has, for the judge. Without it, the judge "
                     "compares each answer with the base model's, in both orders."),
        click.option("--human-labels", metavar="FILE", help="Labels of people, with which the judge is checked and its "
                     "rates are corrected."),
        click.option("--parallel", type=click.IntRange(1, 64), default=8, show_default=True, help="Most prompts that a "
                     "vendor is asked at a time. Halved when it throttles."),
    ):  # fmt: skip
        function = decorator(function)
    return function


@command("evaluate")
@click.argument("model", metavar="[JOB|FOLDER|BACKEND=MODEL]", required=False)
@click.option("--data", multiple=True, metavar="FILE", help="Held-out rows in any supported format, with the expected "
              "answers. Repeatable. Default: the evaluation in the job's spec, which then decides about all "
              "options.")  # fmt: skip
@evaluation_options
@click.option("--model", "vendor_model", metavar="ID", help="A deployment, or a vendor's id of a model, of --backend.")
@click.option("--against", multiple=True, metavar="JOB|FOLDER|BACKEND=MODEL", help="Also compare with this model. "
              "Repeatable.")  # fmt: skip
@click.option("--few-shot", type=click.IntRange(0, 64), default=0, metavar="K", help="Also compare with the base model "
              "after K training rows as examples.")  # fmt: skip
@click.option("--guard", metavar="FILE", help="General rows that show what the model has forgotten.")
@click.option("--no-baselines", is_flag=True, help="Leave out the base model and the simple baselines.")
def evaluate(
    session: Session, model: str | None, vendor_model: str | None, data: tuple[str, ...], against: tuple[str, ...],
    few_shot: int, guard: str | None, no_baselines: bool, **settings: Any,
) -> None:  # fmt: skip
    """Measure on held-out rows whether tuning helped.

    The tuned model, its base model and simple baselines answer the same rows. Each metric has a 95% interval, and each
    difference a paired test. Answers are stored: the same command asks no model again.
    """
    if (model is None) == (vendor_model is None):
        raise click.UsageError("name a job, a folder or BACKEND=MODEL, or give --model")
    if model is None:
        model = f"{session.backend or session.config.backend}={vendor_model}"
    elif session.backend is not None:
        raise click.UsageError("--backend belongs to --model; a job is evaluated on its own back end")
    options = options_of(settings, baselines=not no_baselines, few_shot=few_shot)
    put_evaluation(session, [model, *against], data, options, guard=guard, **settings)


def options_of(settings: dict[str, Any], **more: Any) -> EvaluateOptions:
    """Take the options of an evaluation out of the values of a command."""
    from cloudtune.evaluation.result import EvaluateOptions, JudgeOptions

    names = ("metrics", "max_rows", "max_tokens", "group", "seed", "parallel", "max_cost_usd")
    model, *files = (settings.pop(name) for name in ("judge", "rubric", "human_labels"))
    if model is None and any(files):
        raise click.UsageError("--rubric and --human-labels belong to --judge")
    judge = None if model is None else JudgeOptions(model=model, rubric=files[0], human_labels=files[1])
    return EvaluateOptions(**{name: settings.pop(name) for name in names}, judge=judge, **more)


def put_evaluation(
    session: Session, models: Sequence[str], data: tuple[str, ...], options: EvaluateOptions, *, kind: str,
    trust_remote_code: bool, trust_reward: bool, guard: str | None = None, store: bool = True,
) -> None:  # fmt: skip
    """Evaluate the first model against the others, and print the result."""
    from cloudtune.cli.data_options import source_of
    from cloudtune.evaluation.result import EvaluateOptions
    from cloudtune.state import to_json

    if not data and (options != EvaluateOptions() or guard is not None or len(models) > 1 or kind != "auto"):
        raise click.UsageError("without --data, the evaluation in the job's spec decides about all options")
    found = session.client.evaluate(
        models[0], source_of(data, kind) if data else None, against=models[1:], guard=guard, options=options,
        store=store, trust_remote_code=trust_remote_code, trust_reward=trust_reward,
        on_progress=Progress(session), on_cost=functools.partial(say_cost, session),
    )  # fmt: skip
    session.result(to_json(found))
    if not session.json:
        show_evaluation(session, found)


class Progress:
    """Prints how many answers a model has given: every 50 answers, or when the last line is 5 seconds old."""

    def __init__(self, session: Session, seconds: Callable[[], float] = time.monotonic) -> None:
        self._session, self._seconds, self._said_at = session, seconds, seconds()

    def __call__(self, name: str, done: int, count: int) -> None:
        """Called with a model's name, the number of its answers and of all."""
        now = self._seconds()
        if done % _SAID_EVERY == 0 or done == count or now - self._said_at >= _SAID_EVERY_S:
            self._said_at = now
            self._session.say(f"{name}: {done:,} of {count:,} answers")


def say_cost(session: Session, cost: EvaluationCost) -> None:
    """Print what the answers may cost, if a service bills them."""
    if cost.answers:
        session.say(cost.text())


def show_evaluation(session: Session, found: Evaluation) -> None:
    """Print the tables, the verdict and the notes, and those of the guard rows."""
    from cloudtune.cli.render import table
    from cloudtune.evaluation.choosing import chosen_metrics
    from cloudtune.evaluation.compare import shown_interval

    metrics = chosen_metrics(found.metrics, found.task, load=False)
    headers = [f"{one.name.upper()}{' %' if one.span == 1.0 else ''}" for one in metrics]

    def cell(number: int, score: Score | Comparison, value: float, *, signed: bool = False) -> str:
        interval = shown_interval(metrics[number], score, signed=signed)
        return metrics[number].shown(value, signed=signed) + (f" ({interval})" if interval else "")

    groups = "" if found.groups == found.rows else f" in {found.groups:,} group{'s' if found.groups != 1 else ''}"
    session.put(f"{found.rows:,} row{'s' if found.rows != 1 else ''}{groups}; in parentheses: 95% intervals\n")
    table(["MODEL", *headers], [
        [one.name, *(cell(number, score, score.value) if (score := one.scores.get(metric.name)) else "-"
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
    for line in found.judged.sentences() if found.judged is not None else ():
        session.put(line)
    for note in (*found.notes, *_overlap_notes(found.overlap, found.rows)):
        session.put(f"note: {note}")
    if found.usage:
        used = "; ".join(f"{name}: {one.prompt_tokens:,} prompt, {one.completion_tokens:,} answer"
                         f"{'' if one.usd is None else f', {one.usd:.4f} USD'}"
                         for name, one in found.usage.items())  # fmt: skip
        session.say(f"tokens: {used}")
    if found.guard is not None:
        session.put("\nWhat it forgot, on general rows\n")
        show_evaluation(session, found.guard)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _overlap_notes(overlap: Overlap, rows: int) -> list[str]:
    """What to know about test rows that are training rows."""
    from cloudtune.evaluation.contamination import places_text

    if not overlap.checked:
        return [f"the test rows were not compared with the training rows: {overlap.reason}"]
    of_rows = f"of {rows:,} test row{'s' if rows != 1 else ''}"
    nearly = "most runs of three words with a training row"
    unlike = "from a training row only in case, spaces or punctuation"
    other_answer = "the prompt of a training row with another answer"
    kinds = (
        (overlap.equal, "is a training row", "are training rows"),
        (overlap.similar, f"differs {unlike}", f"differ {unlike}"),
        (overlap.near, f"shares {nearly}", f"share {nearly}"),
        (overlap.same_prompt, f"has {other_answer}", f"have {other_answer}"),
    )
    notes = [f"{len(found):,} {of_rows} {one if len(found) == 1 else many}: line{'s' if len(found) > 1 else ''} "
             f"{places_text(found, _LINES_SHOWN)}" for found, one, many in kinds if found]  # fmt: skip
    if overlap.validation:
        notes.append("the test rows are the validation data of the training, which chose the best checkpoint")
    if overlap.has_seen:
        notes.append("remove rows that were in training: on them, the metrics measure memory and not generalization")
    return notes
