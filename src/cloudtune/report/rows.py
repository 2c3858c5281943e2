"""The rows of an evaluation, compared one by one: which got better with tuning, and which got worse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cloudtune.errors import InputError
from cloudtune.evaluation.choosing import chosen_metrics
from cloudtune.evaluation.metrics import METRICS
from cloudtune.evaluation.prepared import need_numpy
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.evaluation.metrics import Metric
    from cloudtune.evaluation.result import Evaluation

Change = Literal["worse", "better", "both wrong", "both right", "wrong", "right", "equal", "scored"]
"""``equal`` and ``scored`` are for metrics with degrees, ``wrong``, ``right`` and ``scored`` for a model alone."""
ORDER: tuple[Change, ...] = ("worse", "better", "both wrong", "wrong", "equal", "scored", "both right", "right")
_GRADED = frozenset({
    "chrf", "token_f1", "rouge1", "rouge2", "rouge_l", "answer_f1", "entity_f1", "tag_accuracy", "mean_absolute_error",
    "wer", "cer",
})  # fmt: skip
"""Metrics with degrees that are meaningful for one row."""
_REFERENCES = ("base", "other", "few_shot", "copy", "majority")
_WORST = 10
_EQUAL = 1e-9


class ComparedRow(Value, frozen=True, kw_only=True):
    """One row, and the answers of two models to it."""

    file: str
    line: int
    prompt: str
    expected: str
    answer: str
    """Of the tuned model."""
    other: str | None
    """Of the reference. None if the tuned model is compared with nothing."""
    score: float
    other_score: float | None
    change: Change


class RowComparison(Value, frozen=True, kw_only=True):
    """All rows: first those that got worse, then those that got better."""

    metric: str
    """The metric of the scores."""
    model: str
    reference: str | None
    """The model that the rows are compared with."""
    rows: tuple[ComparedRow, ...]
    worst: tuple[int, ...]
    """Indices of the rows with the worst scores, at most 10. None of them is right."""


def metric_named(name: str, evaluation: Evaluation) -> Metric | None:
    """The metric, if this version knows it. A function or a schema that it names is not loaded."""
    try:
        return chosen_metrics([name], evaluation.task, load=False)[0]
    except InputError:
        return None


def compared_rows(evaluation: Evaluation) -> RowComparison | None:
    """Compare the rows by the first metric of the evaluation that is meaningful for one row."""
    if not evaluation.answers or not evaluation.models or evaluation.task == "passages":
        return None
    need_numpy()
    metric = _row_metric(evaluation)
    model = evaluation.models[0].name
    reference = _reference(evaluation)
    expected = [str(row["expected"]) for row in evaluation.answers]
    scores = _scores(metric, [row["answers"][model] for row in evaluation.answers], expected)
    others: Sequence[float | None] = [None] * len(expected)
    if reference is not None:
        others = _scores(metric, [row["answers"][reference] for row in evaluation.answers], expected)
    rows = [
        ComparedRow(
            file=str(row["file"]), line=row["line"], prompt=str(row.get("prompt", "")), expected=right,
            answer=row["answers"][model], other=row["answers"][reference] if reference is not None else None,
            score=score, other_score=other, change=_change(metric, score, other),
        )
        for row, right, score, other in zip(evaluation.answers, expected, scores, others, strict=True)
    ]  # fmt: skip
    rows.sort(key=lambda row: ORDER.index(row.change))
    return RowComparison(
        metric=metric.name, model=model, reference=reference, rows=tuple(rows), worst=_worst(metric, rows)
    )


def _row_metric(evaluation: Evaluation) -> Metric:
    for name in evaluation.metrics:
        is_known = name in METRICS or name.startswith("regex:")
        metric = metric_named(name, evaluation) if is_known else None
        if metric is not None and (metric.is_share or name in _GRADED):
            return metric
    return METRICS["exact_match"]


def _reference(evaluation: Evaluation) -> str | None:
    """The model to compare with: the base model if it was asked."""
    others = evaluation.models[1:]
    return min(others, key=lambda one: _REFERENCES.index(one.role)).name if others else None


def _scores(metric: Metric, answers: Sequence[str], expected: Sequence[str]) -> list[float]:
    import numpy as np

    rows = metric.rows(answers, expected)
    if rows.shape[1] == 1:
        return [float(value) for value in rows[:, 0]]
    one = np.ones((1, 1))
    return [float(metric.value(one, rows[number : number + 1])[0]) for number in range(len(rows))]


def _change(metric: Metric, score: float, other: float | None) -> Change:
    if other is None:
        return "scored" if not metric.is_share else "right" if score else "wrong"
    if abs(score - other) > _EQUAL:
        return "better" if (score > other) == metric.higher_is_better else "worse"
    if not metric.is_share:
        return "equal"
    return "both right" if score else "both wrong"


def _worst(metric: Metric, rows: Sequence[ComparedRow]) -> tuple[int, ...]:
    """Rows that got worse come first among rows with equal scores."""
    best = metric.span if metric.higher_is_better else 0.0
    sign = 1 if metric.higher_is_better else -1
    wrong = [number for number, row in enumerate(rows) if best is None or abs(row.score - best) > _EQUAL]
    return tuple(sorted(wrong, key=lambda number: sign * rows[number].score)[:_WORST])
