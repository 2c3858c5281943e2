"""A run that is stopped and resumed makes the same steps as one that is not: to the bit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune_trainer import checkpoints
from cloudtune_trainer.folder import RunFolder, read_json

from .conftest import Runs, events, metrics, same_bits, sums, texts, weights

if TYPE_CHECKING:
    from pathlib import Path

LORA = {"type": "lora", "rank": 4, "dropout": 0.2}
FULL = {"type": "full"}


def spec_of(adapter: dict[str, Any], **hyper: Any) -> dict[str, Any]:
    return {
        "adapter": adapter,
        "hyperparameters": {"epochs": 2, "dropout": 0.1, "scheduler": "cosine", "warmup_steps": 2, **hyper},
        "checkpoints": {"every": 100},
        "seed": 7,
    }


@pytest.mark.parametrize(("packing", "adapter"), [
    pytest.param(True, LORA, id="packed-lora"), pytest.param(False, FULL, id="unpacked-full"),
    pytest.param(True, FULL, id="packed-full", marks=pytest.mark.soak),
    pytest.param(False, LORA, id="unpacked-lora", marks=pytest.mark.soak),
])  # fmt: skip
def test_resumed_mid_epoch_is_equal_to_the_bit(runs: Runs, adapter: dict[str, Any], packing: bool) -> None:
    spec = spec_of(adapter, packing=packing, gradient_accumulation_steps=2, batch_size=3)
    unbroken, broken = runs.make("unbroken", rows=sums(30), **spec), runs.make("broken", rows=sums(30), **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    (saved,) = checkpoints.saved_in(broken.checkpoints)
    assert saved.step == 3
    assert saved.epoch != int(saved.epoch), "the stop must fall inside an epoch for this test to mean anything"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    assert [m["values"]["loss"] for m in metrics(unbroken)] == [m["values"]["loss"] for m in metrics(broken)]


@pytest.mark.parametrize("step", [4, 8])
def test_an_evaluation_that_was_broken_off_is_made_up_for(runs: Runs, step: int) -> None:
    """Step 4 is in the middle, 8 the last: what is best must not depend on the interruption."""
    spec = spec_of(FULL, max_steps=8) | {"held_out": sums(6, seed=3), "validation": {"every": 4}}
    unbroken, broken = runs.make("unbroken", rows=sums(30), **spec), runs.make("broken", rows=sums(30), **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_evaluating=step) == "interrupted"
    assert [m["step"] for m in metrics(broken, "validation")] == list(range(4, step, 4))
    assert runs.train(broken) == "succeeded"
    figures = [[(m["step"], m["values"]["loss"]) for m in metrics(run, "validation")] for run in (unbroken, broken)]
    assert figures[0] == figures[1]
    assert same_bits(weights(unbroken.model), weights(broken.model))


def test_dropout_really_drops(runs: Runs) -> None:
    """The control of the test above: without the random state the steps would differ."""
    one = runs.make("one", **spec_of(LORA))
    other = runs.make("other", **spec_of(LORA | {"dropout": 0.0}, dropout=0.0))
    runs.train(one)
    runs.train(other)
    assert not same_bits(weights(one.model), weights(other.model))


def test_another_run_goes_on_from_a_checkpoint(runs: Runs) -> None:
    spec = spec_of(LORA)
    unbroken, parent = runs.make("unbroken", **spec), runs.make("parent", **spec)
    runs.train(unbroken)
    runs.train(parent, stop_after=2)
    child = runs.make("child", **spec, resume_from=str(parent.checkpoints / checkpoints.name_of(2)))
    assert runs.train(child) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(child.model))
    assert metrics(child)[0]["step"] == 3


def test_going_on_from_the_last_step_delivers_the_model(runs: Runs) -> None:
    spec = spec_of(LORA, max_steps=3)
    parent = runs.make("parent", **spec)
    assert runs.train(parent) == "succeeded"
    child = runs.make("child", **spec, resume_from=str(parent.checkpoints / checkpoints.name_of(3)))
    assert runs.train(child) == "succeeded"
    assert same_bits(weights(parent.model), weights(child.model))


def test_the_best_of_before_the_interruption_is_delivered(runs: Runs) -> None:
    spec: dict[str, Any] = {
        "rows": sums(12),
        "held_out": sums(4, seed=9),
        "hyperparameters": {"max_steps": 8, "learning_rate": 0.02, "max_grad_norm": 0.0},
        "validation": {"every": 1},
        "checkpoints": {"every": 100, "keep": 0},
    }
    unbroken, parent = runs.make("unbroken", **spec), runs.make("parent", **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(parent, stop_after=5) == "interrupted"
    best = read_json(unbroken.model / "tuned.json")["step"]
    start = checkpoints.newest_good(parent.checkpoints)
    assert start is not None
    assert best < start.step, "the best must lie before the stop for this test to mean anything"
    child = runs.make("child", **spec, resume_from=str(start.path))
    assert runs.train(child) == "succeeded"
    assert read_json(child.model / "tuned.json")["step"] == best
    assert same_bits(weights(unbroken.model), weights(child.model))
    assert [s.step for s in checkpoints.saved_in(child.checkpoints)] == [best, 8]


def test_a_torn_checkpoint_is_passed_over(runs: Runs) -> None:
    spec = spec_of(LORA) | {"checkpoints": {"every": 2, "keep": 9}}
    unbroken, broken = runs.make("unbroken", **spec), runs.make("broken", **spec)
    runs.train(unbroken)
    runs.train(broken, stop_after=5)
    _tear(broken, 4)
    (broken.checkpoints / checkpoints.name_of(5) / checkpoints.MARKER).unlink()
    assert runs.train(broken) == "succeeded"
    assert "resuming from step 2" in [e["message"] for e in events(broken, "message")]
    assert same_bits(weights(unbroken.model), weights(broken.model))


def _tear(run: RunFolder, step: int) -> None:
    file = run.checkpoints / checkpoints.name_of(step) / checkpoints.STATE
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_best_last_and_others_are_kept(runs: Runs) -> None:
    run = runs.make(
        rows=sums(12),
        held_out=sums(4, seed=9),
        hyperparameters={"epochs": 6, "learning_rate": 0.3, "max_grad_norm": 0.0, "scheduler": "cosine"},
        checkpoints={"every": "epoch", "keep": 1},
    )
    assert runs.train(run) == "succeeded"
    kept = checkpoints.saved_in(run.checkpoints)
    losses = {m["step"]: m["values"]["loss"] for m in metrics(run, "validation")}
    best = min(losses, key=lambda step: losses[step])
    total = read_json(run.status)["total_steps"]
    assert [s.step for s in kept if s.best] == [best]
    assert kept[-1].step == total
    assert len(kept) == 3 - (best == total)
    assert read_json(run.model / "tuned.json")["step"] == best
    assert same_bits(weights(run.model), weights(next(s for s in kept if s.best).weights))


def test_a_checkpoint_of_another_kind_is_refused(runs: Runs) -> None:
    from cloudtune_trainer.problems import TrainingProblem

    parent = runs.make("parent", **spec_of(LORA))
    runs.train(parent, stop_after=2)
    child = runs.make("child", **spec_of(FULL), resume_from=str(parent.checkpoints / checkpoints.name_of(2)))
    with pytest.raises(TrainingProblem, match="adapter full") as caught:
        runs.train(child)
    assert caught.value.code == "bad_checkpoint"


def test_checkpoints_hold_no_pickles(runs: Runs) -> None:
    run = runs.make(rows=texts(8), method="cpt", **spec_of(FULL))
    runs.train(run, stop_after=1)
    files: list[Path] = [file for file in run.checkpoints.rglob("*") if file.is_file()]
    assert files
    assert {file.suffix for file in files} <= {".safetensors", ".json"}
    marker = json.loads((run.checkpoints / checkpoints.name_of(1) / checkpoints.MARKER).read_text())
    assert set(marker["files"]) == {
        str(f.relative_to(run.checkpoints / checkpoints.name_of(1))) for f in files if f.name != checkpoints.MARKER
    }
