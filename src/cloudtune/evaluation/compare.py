"""Compares the answers of several models to the same rows: one table, paired differences and a verdict in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cloudtune.evaluation import statistics
from cloudtune.evaluation.statistics import LEVEL, Groups
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.evaluation.metrics import Metric
    from cloudtune.evaluation.statistics import Array, Measure
    from cloudtune.state import Generation

Role = Literal["tuned", "base", "few_shot", "majority", "copy", "other"]
VerdictWord = Literal["helped", "no evidence", "worse"]
_FEWEST_TO_DRAW = 2
"""Samples of fewer groups are all equal."""
_ROUNDING = 1e-9
"""Relative difference of samples that are equal except for rounding."""


class Answered(NamedTuple):
    """A model, or a baseline, and its answers in the order of the rows."""

    name: str
    role: Role
    answers: Sequence[str]
    generations: Sequence[Generation] = ()
    """The answers with scores and numbers of tokens. Empty for a baseline without a model."""
    likelihoods: Sequence[Generation] = ()
    """The likelihoods of the expected texts, for metrics that require them."""

    def rows(self, metric: Metric, expected: Sequence[str]) -> Array | None:
        """The contributions of the rows to a metric. None if it requires probabilities and the model gives none."""
        if metric.of_likelihoods:
            return metric.rows(self.likelihoods, expected) if self.likelihoods else None
        if not metric.of_scores:
            return metric.rows(self.answers, expected)
        known = self.generations and all(one.scores for one in self.generations)
        return metric.rows(self.generations, expected) if known else None


class Score(Value, frozen=True, kw_only=True):
    """One metric of one model, with its 95% interval."""

    value: float
    low: float | None
    """None, like ``high``, if the rows do not show how the value varies."""
    high: float | None


class ModelScores(Value, frozen=True, kw_only=True):
    """A line of the table."""

    name: str
    role: Role
    scores: dict[str, Score]
    """By metric. A metric that requires probabilities is missing if the model gives none."""


class Comparison(Value, frozen=True, kw_only=True):
    """The difference between two models on the same rows, in the first metric."""

    model: str
    against: str
    role: Role
    """The role of ``against``."""
    metric: str
    difference: float
    """Positive if the value of ``model`` is higher."""
    low: float | None
    high: float | None
    """The 95% interval of the difference. None if the rows do not show how it varies."""
    p_value: float
    """Corrected for the number of comparisons."""
    test: Literal["mcnemar_exact", "permutation"]
    verdict: VerdictWord
    detectable: float | None
    """The smallest difference that these rows show in 4 of 5 cases. None if so few rows show no difference, or if
    the rows do not show how it varies."""
    same_answers: int
    """Rows on which both models give the same answer."""


class Measured:
    """Metrics of models on the same rows. All of them are measured on the same bootstrap samples."""

    def __init__(
        self, metrics: Sequence[Metric], models: Sequence[Answered], expected: Sequence[str], groups: Groups, seed: int
    ) -> None:
        """The first metric and the first model are those that are compared."""
        import numpy as np

        self._metrics, self._models, self._groups, self._seed = metrics, models, groups, seed
        self._rows = [[model.rows(metric, expected) for metric in metrics] for model in models]
        drawn: list[list[list[Array]]] = [[[] for _ in metrics] for _ in models]
        for weights in groups.samples(statistics.SAMPLES, seed):
            for of_model, rows in zip(drawn, self._rows, strict=True):
                for values, metric, one in zip(of_model, metrics, rows, strict=True):
                    if one is not None:
                        values.append(metric.value(weights, one))
        self._drawn = [[np.concatenate(values or [[]]) for values in of_model] for of_model in drawn]

    def scores(self) -> tuple[ModelScores, ...]:
        """Every metric of every model, with intervals."""
        return tuple(
            ModelScores(name=model.name, role=model.role, scores={
                metric.name: self._score(metric, rows, drawn)
                for metric, rows, drawn in zip(self._metrics, self._rows[number], self._drawn[number], strict=True)
                if rows is not None
            })
            for number, model in enumerate(self._models)
        )  # fmt: skip

    def _score(self, metric: Metric, rows: Array, drawn: Array) -> Score:
        if metric.is_share and self._groups.are_rows:
            return Score(**statistics.wilson(int(rows.sum()), len(rows))._asdict())
        value, low, high = self._interval(metric, lambda weights: metric.value(weights, rows), drawn)
        return Score(value=value, low=low, high=high)

    def _interval(
        self, metric: Metric, measure: Measure, drawn: Array, *, is_difference: bool = False
    ) -> tuple[float, float | None, float | None]:
        """The value and its interval.

        If all samples are equal, the value still has an error: its interval is as wide as that of a share of 0.
        """
        import numpy as np

        count = self._groups.count
        if count >= _FEWEST_TO_DRAW and np.ptp(drawn) > _ROUNDING * np.abs(drawn).max():
            return statistics.interval(measure, self._groups, drawn)
        value = float(measure(np.ones((1, self._groups.rows)))[0])
        if metric.span is None or count < _FEWEST_TO_DRAW:
            return value, None, None
        lowest, width = metric.lowest, metric.span - metric.lowest
        share = statistics.matched_shares(0, 0, count) if is_difference else statistics.wilson(0, count)
        highest, error = metric.span, share.high * width
        if is_difference:
            lowest, highest = -width, width
        return value, max(lowest, value - error), min(highest, value + error)

    def comparisons(self) -> tuple[Comparison, ...]:
        """The first model against each of the others. The p-values are corrected with Holm's method."""
        found = [self._pair(number, ours, rows[0]) for number, rows in enumerate(self._rows)
                 if number and rows[0] is not None and (ours := self._rows[0][0]) is not None]  # fmt: skip
        p_values = statistics.holm([one["p_value"] for one in found])
        return tuple(
            Comparison(**{**one, "p_value": p, "verdict": _verdict(self._metrics[0], one["difference"], p)})
            for one, p in zip(found, p_values, strict=True)
        )

    def _pair(self, number: int, ours: Array, theirs: Array) -> dict[str, Any]:
        metric, model, other = self._metrics[0], self._models[0], self._models[number]
        drawn = self._drawn[0][0] - self._drawn[number][0]
        low: float | None
        high: float | None
        if metric.is_share and self._groups.are_rows:
            gained, lost = (int(one.sum()) for one in (ours * (1 - theirs), theirs * (1 - ours)))
            difference, low, high = statistics.matched_shares(gained, lost, len(ours))
            p_value, test = statistics.mcnemar(gained, lost), "mcnemar_exact"
        else:
            difference, low, high = self._interval(
                metric, lambda weights: metric.value(weights, ours) - metric.value(weights, theirs), drawn,
                is_difference=True,
            )  # fmt: skip
            swapped = _swapped(metric, ours, theirs)
            p_value, test = statistics.permutation(swapped, self._groups, seed=self._seed), "permutation"
        return {
            "model": model.name, "against": other.name, "role": other.role, "metric": metric.name,
            "difference": difference, "low": low, "high": high, "p_value": p_value, "test": test,
            "detectable": statistics.detectable(float(drawn.std()), self._groups.count, metric.span),
            "same_answers": sum(a == b for a, b in zip(model.answers, other.answers, strict=True)),
        }  # fmt: skip


def _verdict(metric: Metric, difference: float, p_value: float) -> VerdictWord:
    if p_value >= 1 - LEVEL or difference == 0:
        return "no evidence"
    return "helped" if (difference > 0) == metric.higher_is_better else "worse"


def _swapped(metric: Metric, ours: Array, theirs: Array) -> Callable[[Array], Array]:
    """The difference between the two models after the contributions of some rows are swapped."""
    import numpy as np

    both = np.concatenate([ours, theirs])

    def difference(swapped: Array) -> Array:
        kept = 1 - swapped
        return metric.value(np.concatenate([kept, swapped], axis=1), both) - metric.value(
            np.concatenate([swapped, kept], axis=1), both
        )

    return difference


def shown_interval(metric: Metric, one: Score | Comparison, *, signed: bool = False) -> str | None:
    """The interval as text, if there is one."""
    if one.low is None or one.high is None:
        return None
    return f"{metric.shown(one.low, signed=signed)} to {metric.shown(one.high, signed=signed)}"


def sentence(metric: Metric, one: Comparison, rows: int) -> str:
    """The verdict in words."""
    unit = " points" if metric.span else ""
    about = f"{metric.name} of {one.model} against {one.against}"
    p = "p < 0.001" if one.p_value < 0.001 else f"p = {one.p_value:.3f}"
    interval = "" if (shown := shown_interval(metric, one, signed=True)) is None else f", 95% interval {shown}"
    figures = f"{metric.shown(one.difference, signed=True)}{unit}{interval}, {p}"
    if one.verdict != "no evidence":
        word = "Helped" if one.verdict == "helped" else "Worse"
        return f"{word}: {about}: {figures}."
    if one.detectable is not None:
        limit = f" {rows:,} rows show a difference of {metric.shown(one.detectable)}{unit} in 4 of 5 cases."
    elif metric.span is None and one.low is None:
        limit = ""
    else:
        limit = f" {rows:,} row{'s' if rows != 1 else ''} cannot show any difference."
    same = " Both give the same answer to every row." if one.same_answers == rows else ""
    return f"No evidence of a difference: {about}: {figures}.{limit}{same}"
