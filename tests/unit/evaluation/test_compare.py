"""Comparisons and verdicts."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from cloudtune.evaluation.compare import Answered, Comparison, Measured, sentence, shown_interval
from cloudtune.evaluation.metrics import METRICS
from cloudtune.evaluation.statistics import Groups

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS = 200
WORDS = ["the", "cat", "sat", "on", "a", "mat", "near", "the", "old", "red", "house", "by", "the", "river"]


def compare(metric: str, one: Answered, others: list[Answered], expected: list[str]) -> tuple[Comparison, ...]:
    groups = Groups(range(len(expected)))
    return Measured([METRICS[metric]], [one, *others], expected, groups, 0).comparisons()


def model(name: str, right: float, seed: int, expected: list[str]) -> Answered:
    """A model that answers a share of the rows correctly, and the others with another row's answer."""
    chance = random.Random(seed)
    return Answered(name, "other", [one if chance.random() < right else chance.choice(expected) for one in expected])


@pytest.fixture(params=["accuracy", "f1_macro", "chrf", "bleu", "rouge_l"])
def case(request: pytest.FixtureRequest) -> tuple[str, list[str]]:
    chance = random.Random(0)
    if request.param in ("accuracy", "f1_macro"):
        return request.param, [chance.choice(["yes", "no", "maybe"]) for _ in range(ROWS)]
    return request.param, [" ".join(chance.choices(WORDS, k=8)) for _ in range(ROWS)]


def test_a_better_model_helps_and_the_reverse_is_worse(case: tuple[str, list[str]]) -> None:
    name, expected = case
    metric = METRICS[name]
    good, bad = model("good", 0.9, 1, expected), model("bad", 0.5, 2, expected)
    (up,), (down,) = (compare(name, one, [other], expected) for one, other in ((good, bad), (bad, good)))
    assert (up.verdict, down.verdict) == ("helped", "worse")
    assert up.low is not None
    assert up.high is not None
    assert 0 < up.low < up.difference < up.high
    assert up.difference == pytest.approx(-down.difference)
    assert up.p_value < 0.001
    assert sentence(metric, up, ROWS).startswith(f"Helped: {name} of good against bad: +")


def test_equal_answers_give_no_evidence(case: tuple[str, list[str]]) -> None:
    name, expected = case
    one = model("tuned", 0.7, 1, expected)
    same = one._replace(name="base model")
    (found,) = compare(name, one, [same], expected)
    assert (found.verdict, found.p_value, found.difference) == ("no evidence", 1.0, 0.0)
    text = sentence(METRICS[name], found, ROWS)
    assert "No evidence of a difference" in text
    assert "200 rows show a difference of 3.0 points in 4 of 5 cases" in text
    assert "same answer to every row" in text


def test_equal_models_with_other_answers_give_no_evidence(case: tuple[str, list[str]]) -> None:
    name, expected = case
    one, other = model("tuned", 0.7, 11, expected), model("base model", 0.7, 12, expected)
    (found,) = compare(name, one, [other], expected)
    assert found.verdict == "no evidence"
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high
    assert found.detectable is not None
    assert found.detectable > abs(found.difference)


def test_more_comparisons_need_stronger_evidence() -> None:
    expected = ["yes", "no"] * 50
    one, other = model("a", 0.8, 1, expected), model("b", 0.55, 3, expected)
    (alone,) = compare("accuracy", one, [other], expected)
    several = compare("accuracy", one, [other] * 5, expected)
    assert several[0].p_value == pytest.approx(min(1.0, 5 * alone.p_value))


def test_lower_errors_are_better() -> None:
    expected = [str(number) for number in range(60)]
    close = Answered("close", "tuned", [str(number + 1) for number in range(60)])
    far = Answered("far", "base", [str(number + 9 + number % 3) for number in range(60)])
    (found,) = compare("mean_absolute_error", close, [far], expected)
    assert found.verdict == "helped"
    assert found.difference == pytest.approx(-9)


def test_grouped_rows_have_wider_intervals() -> None:
    chance = random.Random(4)
    expected, answers = [], []
    for _ in range(40):  # all rows of a document are right, or none
        right = chance.random() < 0.6
        expected += ["yes"] * 5
        answers += ["yes" if right else "no"] * 5
    one = Answered("m", "tuned", answers)
    widths = []
    for names in (range(200), [number // 5 for number in range(200)]):
        score = Measured([METRICS["accuracy"]], [one], expected, Groups(names), 0).scores()[0].scores["accuracy"]
        assert score.low is not None
        assert score.high is not None
        widths.append(score.high - score.low)
    assert widths[1] > 1.8 * widths[0]


@pytest.mark.parametrize(("name", "expected", "answers", "score"), [
    ("accuracy", ["yes", "no"] * 20, ["yes", "no"] * 20, (1.0, 0.912, 1.0)),
    ("f1_macro", ["yes", "no"] * 20, ["yes", "no"] * 20, (1.0, 0.912, 1.0)),
    ("f1_macro", ["yes", "no"] * 20, ["?"] * 40, (0.0, 0.0, 0.088)),
    ("token_f1", ["one two three"] * 40, ["one four"] * 40, (0.4, 0.312, 0.488)),
    ("chrf", ["one two"] * 40, ["one two"] * 40, (100.0, 91.2, 100.0)),
    ("spearman", list("12345678") * 5, ["3"] * 40, (0.0, -0.175, 0.175)),
])  # fmt: skip
def test_equal_samples_still_have_an_interval(
    name: str, expected: list[str], answers: list[str], score: tuple[float, float, float]
) -> None:
    one, other = Answered("m", "tuned", answers), Answered("n", "base", answers)
    measured = Measured([METRICS[name]], [one, other], expected, Groups(range(40)), 0)
    found = measured.scores()[0].scores[name]
    (compared,) = measured.comparisons()
    assert (found.value, found.low, found.high) == pytest.approx(score, rel=0.01)
    width = 0.046 * {"chrf": 100, "spearman": 2}.get(name, 1)
    assert (compared.low, compared.high) == pytest.approx((-width, width), rel=0.02)


@pytest.mark.parametrize(("name", "groups"), [("mean_absolute_error", range(40)), ("spearman", [0] * 40)])
def test_an_unknown_interval_is_not_shown(name: str, groups: Sequence[int]) -> None:
    expected = [str(number) for number in range(40)]
    one, other = (Answered(name, "other", [str(number + 1) for number in range(40)]) for name in "mn")
    measured = Measured([METRICS[name]], [one, other], expected, Groups(groups), 0)
    found = measured.scores()[0].scores[name]
    (compared,) = measured.comparisons()
    assert (found.low, found.high, compared.low, compared.high) == (None, None, None, None)
    assert compared.detectable is None
    assert shown_interval(METRICS[name], found) is None
    assert "interval" not in sentence(METRICS[name], compared, 40)


def test_numbers_of_any_length_have_an_interval() -> None:
    expected = [str(number) for number in range(40)]
    one, other = Answered("m", "tuned", expected), Answered("n", "base", [*expected[1:], "1" * 300])
    measured = Measured([METRICS["mean_absolute_error"]], [other, one], expected, Groups(range(40)), 0)
    score, (compared,) = measured.scores()[0].scores["mean_absolute_error"], measured.comparisons()
    for value in (score.value, score.low, score.high, compared.low, compared.high, compared.detectable):
        assert value is not None
        assert math.isfinite(value)


def test_few_rows_cannot_show_a_difference() -> None:
    expected = ["yes"] * 5
    right, wrong = Answered("m", "tuned", ["yes"] * 5), Answered("n", "base", ["no"] * 5)
    (found,) = compare("accuracy", right, [wrong], expected)
    assert found.verdict == "no evidence"
    assert "5 rows cannot show any difference" in sentence(METRICS["accuracy"], found, 5)
