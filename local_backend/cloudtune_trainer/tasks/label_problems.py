"""What the label of a text is: one class, any number of classes, or a number. Loss, metrics and predictions of each.

Losses are sums over rows, so that their mean is that of transformers' own forward pass.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from cloudtune_trainer.monitor import entropy
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tasks.predictor import Prediction
from cloudtune_trainer.tasks.task import BestMetric

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from cloudtune_trainer.classification_spec import Classification
    from cloudtune_trainer.records import Record

_COLLAPSED, _USUAL_SHARE = 0.995, 0.9
NUMBER = "score"
"""The name of the only output of regression."""


class LabelProblem(Protocol):
    """One problem."""

    best_metric: BestMetric
    labels: tuple[str, ...]
    """The names of the outputs; `learn` sets them."""

    @property
    def metric_sums(self) -> int:
        """How many sums `sums` returns."""

    def learn(self, records: Iterable[Record]) -> None:
        """Find the labels of the training rows. Raises ``bad_data`` for rows from which nothing can be learned."""

    def target(self, record: Record, row: int) -> Any:
        """The row's label as one entry of an array. Raises ``bad_data`` that names the row."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum of the rows' losses."""

    def sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sums over rows for `metrics`."""

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """The metrics besides the loss."""

    def constant_loss(self, targets: NDArray[Any]) -> float | None:
        """See `Monitored.constant_loss`, for these targets of the training rows."""

    def collapsed(self, sums: Sequence[float]) -> str | None:
        """See `Monitored.collapsed`."""


class SingleLabel:
    """One class for each text. The metric sums, for each label: correct rows, predicted rows, actual rows."""

    best_metric = BestMetric("macro_f1", higher_is_better=True)

    def __init__(self, settings: Classification) -> None:
        self.labels: tuple[str, ...] = ()
        self._settings = settings
        self._weights: Tensor | None = None

    @property
    def metric_sums(self) -> int:
        """See `LabelProblem.metric_sums`."""
        return 3 * len(self.labels)

    def learn(self, records: Iterable[Record]) -> None:
        """See `LabelProblem.learn`. The labels are in the order of their names."""
        counts = Counter(self._label(record, row) for row, record in enumerate(records, 1))
        self.labels = tuple(sorted(counts))
        if len(self.labels) < 2:
            raise TrainingProblem("bad_data", f"train: all rows have the label {self.labels[0]!r}", "Give two labels.")
        given = self._settings.class_weights
        if given == "balanced":  # as in scikit-learn: every label has the same sum of weights
            given = {label: counts.total() / (len(counts) * count) for label, count in counts.items()}
        if given is not None:
            if unknown := sorted(given.keys() - counts.keys()):
                what = f"class_weights: no training row has the labels {', '.join(unknown)}"
                raise TrainingProblem("bad_spec", what, f"The labels are {', '.join(self.labels)}.")
            self._weights = torch.tensor([given.get(label, 1.0) for label in self.labels])

    def target(self, record: Record, row: int) -> int:
        """See `LabelProblem.target`."""
        return _known(self._label(record, row), self.labels, row)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `LabelProblem.loss`. With class weights it is still divided by the number of rows."""
        weights = None if self._weights is None else self._weights.to(logits.device)
        return F.cross_entropy(
            logits, targets, weights, reduction="sum", label_smoothing=self._settings.label_smoothing
        )

    def sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `LabelProblem.sums`."""
        predicted = F.one_hot(logits.argmax(-1), len(self.labels))
        return _counts(predicted, F.one_hot(targets, len(self.labels)))

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """See `LabelProblem.metrics`. Macro F1 is the mean over the labels that any row has or is predicted to have."""
        right, predicted, actual = np.asarray(sums, dtype=float).reshape(3, -1)
        return {
            "accuracy": float(right.sum()) / max(1, count), "macro_f1": _macro_f1(right, predicted, actual)
        }  # fmt: skip

    def constant_loss(self, targets: NDArray[Any]) -> float | None:
        """See `LabelProblem.constant_loss`. Unknown where the settings change the loss."""
        if self._weights is not None or self._settings.label_smoothing:
            return None
        return entropy(np.bincount(targets).tolist())

    def collapsed(self, sums: Sequence[float]) -> str | None:
        """See `LabelProblem.collapsed`. Where nearly all rows have one label, predicting it is no collapse."""
        _, predicted, actual = np.asarray(sums, dtype=float).reshape(3, -1)
        rows, most = actual.sum(), int(predicted.argmax())
        same = predicted[most] >= _COLLAPSED * rows and actual[most] < _USUAL_SHARE * rows
        return f"the label {self.labels[most]!r}" if same else None

    @staticmethod
    def predictions(logits: Tensor, labels: Sequence[str]) -> list[Prediction]:
        """The most likely label of each row, with the probability of every label."""
        return [Prediction(next(iter(each)), max(each.values()), each)
                for each in _ordered(torch.softmax(logits, -1), labels)]  # fmt: skip

    @staticmethod
    def _label(record: Record, row: int) -> str:
        label = record.get("label")
        if isinstance(label, str | int) and not isinstance(label, bool):
            return str(label)
        hint = {float: "For numbers, use problem: regression.", list: "For several labels, use problem: multi_label."}
        what = f"row {row}: the label {label!r} is no class, which is a text or a whole number"
        raise TrainingProblem("bad_data", what, hint.get(type(label)))


class MultiLabel:
    """Any number of classes for each text, each of them likely or not by itself, at a probability of 0.5.

    The metric sums: rows whose labels are all right; and for each label: rows that have it and are predicted to,
    predicted rows, actual rows.
    """

    best_metric = BestMetric("macro_f1", higher_is_better=True)

    def __init__(self, _: Classification) -> None:
        self.labels: tuple[str, ...] = ()

    @property
    def metric_sums(self) -> int:
        """See `LabelProblem.metric_sums`."""
        return 1 + 3 * len(self.labels)

    def learn(self, records: Iterable[Record]) -> None:
        """See `LabelProblem.learn`. The labels are in the order of their names."""
        sets = {frozenset(_list(record, row)) for row, record in enumerate(records, 1)}
        self.labels = tuple(sorted(set[str]().union(*sets)))
        if len(self.labels) < 2:
            what = f"train: no row has a label other than {', '.join(self.labels) or 'none'}"
            raise TrainingProblem("bad_data", what, "Give two labels.")
        if len(sets) == 1:
            what = f"train: all rows have the labels {', '.join(self.labels)}"
            raise TrainingProblem("bad_data", what, "Give rows with different labels.")

    def target(self, record: Record, row: int) -> NDArray[np.bool_]:
        """See `LabelProblem.target`."""
        found = np.zeros(len(self.labels), dtype=np.bool_)
        found[[_known(label, self.labels, row) for label in _list(record, row)]] = True
        return found

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `LabelProblem.loss`. A row's loss is the mean over the labels."""
        return F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="sum") / logits.shape[-1]

    def sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `LabelProblem.sums`."""
        predicted = logits > 0
        right = (predicted == targets).all(-1).sum()
        return torch.cat([right[None], _counts(predicted.long(), targets.long())])

    def metrics(self, sums: Sequence[float], count: int) -> dict[str, float]:
        """See `LabelProblem.metrics`. Accuracy: rows whose labels are all right."""
        right, predicted, actual = np.asarray(sums[1:], dtype=float).reshape(3, -1)
        micro = 2 * right.sum() / max(1.0, predicted.sum() + actual.sum())
        return {
            "accuracy": sums[0] / max(1, count), "macro_f1": _macro_f1(right, predicted, actual),
            "micro_f1": float(micro),
        }  # fmt: skip

    def constant_loss(self, targets: NDArray[Any]) -> float | None:
        """See `LabelProblem.constant_loss`."""
        shares = targets.mean(0).tolist()
        return sum(entropy((share, 1 - share)) for share in shares) / len(shares)

    def collapsed(self, _: Sequence[float]) -> str | None:
        """See `LabelProblem.collapsed`. Each label is likely or not by itself."""
        return None

    @staticmethod
    def predictions(logits: Tensor, labels: Sequence[str]) -> list[Prediction]:
        """The labels of each row with a probability above 0.5, and the probability of every label."""
        rows = _ordered(torch.sigmoid(logits), labels)
        return [Prediction(", ".join(label for label in each if each[label] > 0.5), None, each) for each in rows]


class Regression:
    """A number for each text. Its metrics are those of `SequenceClassification.row_metrics`."""

    best_metric = BestMetric("loss", higher_is_better=False)
    metric_sums = 0

    def __init__(self, _: Classification) -> None:
        self.labels: tuple[str, ...] = ()

    def learn(self, records: Iterable[Record]) -> None:
        """See `LabelProblem.learn`."""
        found = {self.target(record, row) for row, record in enumerate(records, 1)}
        if len(found) == 1:
            what = f"train: all rows have the label {found.pop():g}"
            raise TrainingProblem("bad_data", what, "Give rows with different labels.")
        self.labels = (NUMBER,)

    def target(self, record: Record, row: int) -> float:
        """See `LabelProblem.target`."""
        label = record.get("label")
        try:
            number = float(label) if isinstance(label, str | int | float) and not isinstance(label, bool) else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            what = f"row {row}: the label {label!r} is no number, and problem: regression learns numbers"
            raise TrainingProblem("bad_data", what, "For classes, use problem: single_label.")
        return number

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `LabelProblem.loss`: squared errors."""
        return F.mse_loss(logits[:, 0], targets.to(logits.dtype), reduction="sum")

    def sums(self, logits: Tensor, _: Tensor) -> Tensor:
        """See `LabelProblem.sums`."""
        return logits.new_zeros(0)

    def metrics(self, _: Sequence[float], count: int) -> dict[str, float]:
        """See `LabelProblem.metrics`."""
        return {}

    def constant_loss(self, targets: NDArray[Any]) -> float | None:
        """See `LabelProblem.constant_loss`."""
        return float(targets.var())

    def collapsed(self, _: Sequence[float]) -> str | None:
        """See `LabelProblem.collapsed`."""
        return None

    @staticmethod
    def predictions(logits: Tensor, _: Sequence[str]) -> list[Prediction]:
        """The number of each row."""
        return [Prediction(f"{value:.6g}", value=value) for value in logits[:, 0].tolist()]


PROBLEMS: dict[str, type[SingleLabel | MultiLabel | Regression]] = {
    "single_label": SingleLabel, "multi_label": MultiLabel, "regression": Regression,
}  # fmt: skip


def _list(record: Record, row: int) -> list[str]:
    labels = record.get("label")
    if not isinstance(labels, list):
        what = f"row {row}: the label {labels!r} is no list of classes, which problem: multi_label needs"
        raise TrainingProblem("bad_data", what, "For one class in each row, use problem: single_label.")
    named = [str(label) for label in labels if isinstance(label, str | int) and not isinstance(label, bool)]
    if len(set(named)) < len(labels):  # such as a 0 or 1 for each class
        what = f"row {row}: the label {labels!r} does not list each of its classes once, as a text or a whole number"
        raise TrainingProblem("bad_data", what, 'List the names of the classes that the row has, such as ["red"].')
    return named


def _known(label: str, labels: tuple[str, ...], row: int) -> int:
    if label not in labels:
        what = f"row {row}: no training row has the label {label!r}"
        raise TrainingProblem("bad_data", what, f"The labels are {', '.join(labels)}.")
    return labels.index(label)


def _counts(predicted: Tensor, actual: Tensor) -> Tensor:
    return torch.cat([(predicted * actual).sum(0), predicted.sum(0), actual.sum(0)])


def _macro_f1(right: NDArray[Any], predicted: NDArray[Any], actual: NDArray[Any]) -> float:
    seen = predicted + actual > 0
    return float((2 * right[seen] / (predicted + actual)[seen]).mean()) if seen.any() else 0.0


def _ordered(probabilities: Tensor, labels: Sequence[str]) -> list[dict[str, float]]:
    """For each row the probability of each label, the most likely first."""
    return [dict(sorted(zip(labels, row, strict=True), key=lambda item: -item[1])) for row in probabilities.tolist()]
