"""Metrics of probabilities and edit distances equal scikit-learn 1.9.1 and jiwer 4.0.0. Their values are constants."""

from __future__ import annotations

import numpy as np
import pytest

from cloudtune.evaluation.compare import Answered, Measured
from cloudtune.evaluation.metrics import METRICS
from cloudtune.evaluation.statistics import Groups
from cloudtune.state import Generation

THREE = [2, 2, 0, 2, 1, 1, 1, 0, 2, 0, 0, 1]
OF_THREE = [
    (0.3, 0.6, 0.1), (0.5, 0.3, 0.2), (0.2, 0.3, 0.5), (0.2, 0.5, 0.3), (0.6, 0.2, 0.2), (0.3, 0.7, 0.0),
    (0.1, 0.5, 0.4), (0.5, 0.4, 0.1), (0.3, 0.5, 0.2), (0.1, 0.6, 0.3), (0.5, 0.2, 0.3), (0.5, 0.1, 0.4),
]  # fmt: skip
TWO = [0, 1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1]
OF_TWO = [(0.2, 0.8), (0.6, 0.4), (0.1, 0.9), (0.6, 0.4), (0.5, 0.5), (0.3, 0.7), (0.3, 0.7), (0.3, 0.7), (0.2, 0.8),
          (0.8, 0.2), (0.6, 0.4), (0.5, 0.5)]  # fmt: skip
WEIGHTS = [2, 0, 1, 1, 3, 1, 0, 1, 1, 1, 0, 1]


def generations(rows: list[tuple[float, ...]]) -> list[Generation]:
    scores = [dict(zip("abc", row, strict=False)) for row in rows]
    return [Generation(text=max(one, key=lambda label: one[label]), scores=one) for one in scores]


def value(name: str, rows: list[tuple[float, ...]], labels: list[int], weights: list[int] | None = None) -> float:
    metric = METRICS[name]
    found = metric.rows(generations(rows), ["abc"[label] for label in labels])
    return float(metric.value(np.array([weights or [1] * len(rows)], dtype=np.float64), found)[0])


@pytest.mark.parametrize(("name", "three", "two"), [
    ("roc_auc", 0.3958333333333333, 0.3), ("average_precision", 0.38080808080808076, 0.5001082251082252),
    ("log_loss", 1.4154663515552535, 0.9381747681157936),
])  # fmt: skip
def test_metrics_of_probabilities_equal_scikit_learn(name: str, three: float, two: float) -> None:
    assert value(name, OF_THREE, THREE) == pytest.approx(three)  # multi_class="ovr", average="macro"
    assert value(name, OF_TWO, TWO) == pytest.approx(two)


@pytest.mark.parametrize(
    ("name", "expected"), [("roc_auc", 0.2657407407407408), ("average_precision", 0.3396464646464647)]
)
def test_a_drawn_sample_equals_scikit_learn_on_its_rows(name: str, expected: float) -> None:
    assert value(name, OF_THREE, THREE, WEIGHTS) == pytest.approx(expected)


def test_calibration_is_the_distance_of_confidence_and_accuracy() -> None:
    rows = [(0.9, 0.1)] * 10 + [(0.6, 0.4)] * 10
    labels = [0] * 9 + [1] + [0] * 4 + [1] * 6
    assert value("calibration_error", rows, labels) == pytest.approx(0.5 * 0.0 + 0.5 * 0.2)
    assert value("calibration_error", [(1.0, 0.0)] * 4, [1] * 4) == 1.0


def test_samples_with_one_label_only_have_a_value() -> None:
    assert value("roc_auc", OF_TWO, [1] * 12) == 0.5
    assert value("average_precision", OF_TWO, [1] * 12) == 1.0


def test_models_without_probabilities_are_left_out() -> None:
    expected = ["ab"[label] for label in TWO]
    model, other = generations(OF_TWO), generations([row[::-1] for row in OF_TWO])
    texts = [one.text for one in model]
    measured = Measured(
        [METRICS["log_loss"], METRICS["accuracy"]],
        [Answered("m", "tuned", texts, model), Answered("always 'a'", "majority", ["a"] * 12),
         Answered("o", "other", [one.text for one in other], other)],
        expected, Groups(range(12)), 0,
    )  # fmt: skip
    assert [set(one.scores) for one in measured.scores()] == [{"log_loss", "accuracy"}, {"accuracy"},
                                                              {"log_loss", "accuracy"}]  # fmt: skip
    assert [one.against for one in measured.comparisons()] == ["o"]


def test_error_rates_equal_jiwer() -> None:
    expected = ["the cat sat on the mat", "hello duck"]
    answers = ["the cat sit on mat", "hello big duck now"]
    for name, rate in (("wer", 0.5), ("cer", 0.40625)):
        metric = METRICS[name]
        assert metric.value(np.ones((1, 2)), metric.rows(answers, expected))[0] == pytest.approx(rate)
    edits = METRICS["cer"].rows(["kitten", "", "abc", "sunday"], ["sitting", "abc", "abc", "saturday"])
    assert edits.tolist() == [[3, 7], [3, 3], [0, 3], [3, 8]]
