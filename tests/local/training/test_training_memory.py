"""A step that runs out of memory is computed in smaller parts, with the same loss and gradient."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cloudtune_trainer.checkpoints import Progress, newest_good
from cloudtune_trainer.micro_batches import attempt
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tasks import causal_lm

from .conftest import Runs, events, metrics, sums, texts, weights

if TYPE_CHECKING:
    from collections.abc import Sequence

ERRORS = (
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 bytes"),
    MemoryError(),
)


def documents(batch: Any) -> int:
    return int((batch.inputs["position_ids"] == 0).sum())


class Memory:
    """A forward pass that has memory for so many rows. Each error is of another kind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int, errors: Sequence[Exception] = ERRORS) -> None:
        self.sizes: list[int] = []
        kinds = itertools.cycle(errors)
        forward = causal_lm.CausalLM.forward

        def limited(task: Any, model: Any, batch: Any) -> Any:
            size = documents(batch)
            self.sizes.append(size)
            if size > rows:
                raise next(kinds)
            return forward(task, model, batch)

        monkeypatch.setattr(causal_lm.CausalLM, "forward", limited)


def spec(**hyper: Any) -> dict[str, Any]:
    usual = {"max_steps": 2, "batch_size": 8, "packing": False, "max_grad_norm": 0.0, "learning_rate": 1e-3}
    return {"rows": sums(8) + texts(8), "adapter": {"type": "full"}, "hyperparameters": usual | hyper}


def test_less_memory_gives_the_same_gradients(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = runs.make("whole", **spec())
    runs.train(whole)
    memory = Memory(monkeypatch, 1)
    split = runs.make("split", **spec())
    assert runs.train(split) == "succeeded"
    assert memory.sizes == [8, 4, 2, *[1] * 8 * 2]
    for one, other in zip(metrics(whole), metrics(split), strict=True):
        assert other["values"]["loss"] == pytest.approx(one["values"]["loss"], rel=1e-6)
        assert other["values"]["grad_norm"] == pytest.approx(one["values"]["grad_norm"], rel=1e-5)
    said = [event["message"] for event in events(split, "warning")]
    assert [message.partition(",")[0] for message in said] == [
        f"step 1 computes at most {size // 2} sequences at once instead of {size}" for size in (8, 4, 2)
    ]
    assert all("memory" in message and "batch of 8" in message for message in said)


def test_half_a_backward_pass_leaves_no_gradient(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = runs.make("whole", **spec(gradient_accumulation_steps=2))
    runs.train(whole)
    forward, calls = causal_lm.CausalLM.forward, []

    def fourth_fails(task: Any, model: Any, batch: Any) -> Any:
        calls.append(documents(batch))
        if len(calls) == 4:  # the second part of the second step
            raise MemoryError
        return forward(task, model, batch)

    monkeypatch.setattr(causal_lm.CausalLM, "forward", fourth_fails)
    split = runs.make("split", **spec(gradient_accumulation_steps=2))
    runs.train(split)
    assert calls == [4, 4, 4, 4, *[2] * 4]
    for name, weight in weights(whole.model).items():
        assert torch.allclose(weight, weights(split.model)[name], atol=1e-4), name


def test_a_resume_keeps_the_smaller_parts(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, 2)
    run = runs.make(**spec(max_steps=3))
    assert runs.train(run, stop_after=2) == "interrupted"
    saved = newest_good(run.checkpoints)
    assert saved is not None
    assert saved.progress.sequences_at_once == 2
    memory.sizes.clear()
    assert runs.train(run) == "succeeded"
    assert set(memory.sizes) == {2}


def test_an_evaluation_uses_smaller_parts_too(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = texts(16, seed=3)
    plain = runs.make("plain", held_out=held_out, **spec(max_steps=1, batch_size=4))
    runs.train(plain)
    forward, sizes = causal_lm.CausalLM.forward, []

    def limited(task: Any, model: Any, batch: Any) -> Any:
        if not model.training:
            sizes.append(batch.tokens)
            if batch.tokens > 200:
                raise MemoryError
        return forward(task, model, batch)

    monkeypatch.setattr(causal_lm.CausalLM, "forward", limited)
    run = runs.make("small", held_out=held_out, **spec(max_steps=1, batch_size=4))
    assert runs.train(run) == "succeeded"
    assert sizes[0] > 200
    assert max(sizes[1:]) <= 200
    (expected,), (found,) = metrics(plain, "validation"), metrics(run, "validation")
    assert found["values"]["loss"] == pytest.approx(expected["values"]["loss"], rel=1e-5)


def test_one_sequence_without_memory_is_one_clear_error(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, 0)
    with pytest.raises(TrainingProblem, match=r"out of memory: .*step 1, with a single sequence at once") as caught:
        runs.train(runs.make(**spec()))
    assert memory.sizes == [8, 4, 2, 1]
    assert caught.value.code == "out_of_memory"
    assert "gradient_accumulation" not in (caught.value.hint or "")


def test_other_errors_are_not_tried_again(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, 0, [RuntimeError("shapes do not match")])
    with pytest.raises(RuntimeError, match="shapes"):
        runs.train(runs.make(**spec()))
    assert memory.sizes == [8]


def test_a_process_that_shares_weights_does_not_try_again() -> None:
    """The other processes are at another layer: this one would get parts of different layers."""
    job: Any = SimpleNamespace(devices=SimpleNamespace(sharded=True), progress=Progress(step=2))

    def compute() -> None:
        raise MemoryError

    with pytest.raises(TrainingProblem, match=r"step 3, with 4 sequences at once") as raised:
        attempt(job, 4, compute)
    assert raised.value.code == "out_of_memory"
    assert "gradient_accumulation_steps" in str(raised.value.hint)
