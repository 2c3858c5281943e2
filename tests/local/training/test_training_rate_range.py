"""A learning-rate range test: rates, the end at divergence, and what it leaves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rate_range import has_diverged
from cloudtune_trainer.run_spec import read_spec

from .conftest import Runs, events, metrics, sums

RANGE = {"first": 1e-5, "last": 10.0}


def test_rates_grow_until_the_loss_diverges(runs: Runs) -> None:
    found = []
    for name in ("one", "again"):
        run = runs.make(name, rows=sums(24), held_out=sums(4), adapter={"type": "full"}, learning_rate_range=RANGE,
                        hyperparameters={"max_steps": 40, "batch_size": 8, "dropout": 0.0})  # fmt: skip
        assert runs.train(run) == "succeeded"
        assert [path for path in run.path.rglob("*.safetensors") if "base" not in path.parts] == []
        found.append([line["values"] for line in metrics(run, "train")])
        assert metrics(run, "validation") == []
        assert "the loss diverged at a learning rate of" in events(run, "message")[-1]["message"]
    first, again = found
    assert first == again
    assert len(first) < 40
    for step, values in enumerate(first):
        assert values["learning_rate"] == pytest.approx(1e-5 * 1e6 ** (step / 39))
    average = first[0]["loss"]
    assert first[0]["smoothed_loss"] == pytest.approx(average)
    assert min(values["loss"] for values in first) < 0.9 * first[0]["loss"]


@pytest.mark.parametrize(("curve", "expected"), [
    ([6.0, 5.9, 6.1], False), ([6.0, 3.0, 4.4], False), ([6.0, 3.0, 4.6], True), ([1.0, 0.95, 4.0], True),
    ([6.0, math.nan], True), ([6.0, math.inf], True), ([6.0], False), ([6.0, 5.9, 6.4], False),
])  # fmt: skip
def test_a_loss_far_above_its_lowest_has_diverged(curve: list[float], expected: bool) -> None:
    assert has_diverged(curve) is expected


def test_a_range_that_does_not_grow_is_refused(runs: Runs) -> None:
    for bad in ({"first": 1.0, "last": 0.1}, {"first": 0.0, "last": 1.0}, {"first": 1.0, "last": math.inf}):
        run = runs.make(f"run-{bad['first']}-{bad['last']}")
        document = {"version": 2, "model": {"source": "folder", "path": str(Path("/m"))}, "data": {"train": "t"},
                    "learning_rate_range": bad}  # fmt: skip
        with pytest.raises(TrainingProblem, match="learning_rate_range: the first rate"):
            read_spec(document)
        assert run.path.exists()
