"""The suggestion of a learning-rate range test, from its metrics."""

from __future__ import annotations

import math

import pytest

from cloudtune.errors import InputError
from cloudtune.learning_rates import RateSuggestion, _test_of, range_test, suggested
from cloudtune.spec import JobSpec
from cloudtune.state import Metric


def curve(*losses: float, steps: int | None = None) -> RateSuggestion:
    """The suggestion for these losses at rates of 1e-5, 1e-4.9 ..."""
    rows, average = [], 0.0
    for step, loss in enumerate(losses):
        average = 0.9 * average + 0.1 * loss
        values = {
            "learning_rate": 10 ** (-5 + step / 10),
            "loss": loss,
            "smoothed_loss": average / (1 - 0.9 ** (step + 1)),
        }
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        rows.append(Metric(step=step + 1, split="train", values=finite, cursor=str(step)))
    return suggested(rows, steps or len(losses))


FLAT, FALL, LOW = [6.0] * 12, [6.0 - 0.5 * i for i in range(1, 8)], [2.0] * 11


def test_the_steepest_fall_is_suggested() -> None:
    found = curve(*FLAT, *FALL, *LOW)
    assert found.diverged is None
    assert found.steepest is not None
    assert 12 <= round((math.log10(found.steepest) + 5) * 10) <= 19
    assert found.suggestion == found.steepest


def test_it_is_at_most_a_tenth_of_the_rate_of_divergence() -> None:
    found = curve(*FLAT, *FALL, 9.0, steps=40)
    assert found.diverged == pytest.approx(10 ** (-5 + 1.9))
    assert found.suggestion == pytest.approx(found.diverged / 10)


def test_a_loss_that_is_no_number_is_a_divergence() -> None:
    found = curve(*FLAT, *FALL, math.nan)
    assert found.diverged == pytest.approx(10 ** (-5 + 1.9))
    assert len(found.points) == 19


@pytest.mark.parametrize(
    "losses", [[], [6.0], [6.0] * 30, [float(i) for i in range(1, 31)]], ids=["none", "one", "flat", "rising"]
)
def test_a_loss_that_never_falls_gives_no_suggestion(losses: list[float]) -> None:
    assert curve(*losses, steps=30).suggestion is None


@pytest.mark.parametrize(
    ("first", "last", "steps"), [(1.0, 0.1, 50), (0.0, 1.0, 50), (1e-5, 1.0, 9), (1e-5, math.inf, 50)]
)
def test_a_range_that_makes_no_sense_is_refused(first: float, last: float, steps: int) -> None:
    spec = JobSpec.model_validate({"model": "m", "data": {"train": "rows.jsonl"}})
    with pytest.raises(InputError, match="at least 10 steps"):
        range_test(spec, first=first, last=last, steps=steps)


def test_rows_that_are_held_out_stay_held_out() -> None:
    rows = {"train": "a.jsonl", "validation": 0.1, "test": "b.jsonl"}
    spec = JobSpec.model_validate({"model": "m", "data": rows, "validation": {"every": 5}})
    data = _test_of(spec, 1e-6, 1e-2, 20).data
    assert (data.validation, data.test) == (0.1, None)
