"""Compares two ways to train, each of which has made several models with different seeds, on the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.errors import InputError
from cloudtune.evaluation import compare
from cloudtune.evaluation.compare import Answered, Comparison, ModelScores
from cloudtune.evaluation.contamination import Overlap
from cloudtune.evaluation.evaluating import overlap_of
from cloudtune.evaluation.prepared import prepare
from cloudtune.evaluation.rows import group_names
from cloudtune.evaluation.statistics import Groups
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudtune.evaluation.evaluating import Evaluator
    from cloudtune.evaluation.metrics import Metric
    from cloudtune.evaluation.result import EvaluateOptions
    from cloudtune.job import Job
    from cloudtune.spec import Data, JobSpec, Source


class Repeats(Value, frozen=True, kw_only=True):
    """The models of two ways to train, compared on held-out rows."""

    rows: int
    groups: int
    metrics: tuple[str, ...]
    models: tuple[ModelScores, ...]
    """The two ways, over all of their models."""
    by_seed: dict[str, tuple[float, ...]]
    """The first metric of each model, by the name of the way."""
    comparison: Comparison
    worth: str
    """The difference in words."""
    overlap: Overlap
    """Test rows that are also training rows."""


def compare_repeats(
    evaluator: Evaluator,
    ways: Mapping[str, Sequence[Job]],
    data: Source | Data,
    options: EvaluateOptions,
    spec: JobSpec,
) -> Repeats:
    """Compare the first way to train with the second one.

    The answers of all models to one row are resampled together, so the interval shows how the difference varies
    between rows. How it varies between seeds is in ``by_seed``.

    Raises what `Client.evaluate` raises.
    """
    import numpy as np

    test = prepare(data, options, spec, trusted=evaluator.trust_reward)
    count = min(map(len, ways.values()))
    answered = evaluator.answered({name: jobs[:count] for name, jobs in ways.items()}, test, options)
    pooled = [
        Answered(name, "other", [text for one in runs for text in one.answers],
                 [answer for one in runs for answer in one.generations],
                 [answer for one in runs for answer in one.likelihoods])
        for name, runs in answered.items()
    ]  # fmt: skip
    groups = Groups(list(group_names(test.rows, options.group)) * count)
    measured = compare.Measured(test.metrics, pooled, list(test.expected) * count, groups, options.seed)
    metric, comparisons = test.metrics[0], measured.comparisons()
    if not comparisons:
        raise InputError(f"{metric.name} requires the probability of each label, which the models do not give",
                         hint="use another metric")  # fmt: skip
    by_seed: dict[str, tuple[float, ...]] = {}
    for name, runs in answered.items():
        found = [one.rows(metric, test.expected) for one in runs]
        by_seed[name] = tuple(
            float(metric.value(np.ones((1, len(test.rows))), rows)[0]) for rows in found if rows is not None
        )
    return Repeats(
        rows=len(test.rows), groups=groups.count, metrics=tuple(one.name for one in test.metrics),
        models=measured.scores(), by_seed=by_seed, comparison=comparisons[0],
        worth=_worth(metric, comparisons[0], len(test.rows), by_seed), overlap=overlap_of(test.rows, spec.data),
    )  # fmt: skip


def _worth(metric: Metric, one: Comparison, rows: int, by_seed: Mapping[str, Sequence[float]]) -> str:
    count = min(map(len, by_seed.values()))
    unit = " points of" if metric.span else ""
    margin, interval = "", ""
    if one.low is not None and one.high is not None:
        margin = f" ± {metric.shown((one.high - one.low) / 2)}"
        interval = f", 95% interval {compare.shown_interval(metric, one, signed=True)}"
    p = "p < 0.001" if one.p_value < 0.001 else f"p = {one.p_value:.3f}"
    trainings = "1 training" if count == 1 else f"{count} trainings"
    figures = (
        f"{metric.shown(one.difference, signed=True)}{margin}{unit} {metric.name} over the {one.against}"
        f"{interval}, {p}, on {rows:,} test row{'s' if rows != 1 else ''} with {trainings} each"
    )
    if one.verdict == "no evidence":
        return f"No evidence that tuning helped: {figures}."
    helped = f"Tuning was worth {figures}." if one.verdict == "helped" else f"Tuning made the model worse: {figures}."
    return f"{helped}{_doubt(*by_seed.values())}"


def _doubt(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """What the values of single trainings say against the difference. The interval is only about the rows."""
    if len(ours) == 1:
        return " One training each does not show how much of this is due to the seed."
    if min(ours) <= max(theirs) and min(theirs) <= max(ours):
        return " But the values of single trainings overlap, so other seeds can change this: raise tune.seeds."
    return ""
