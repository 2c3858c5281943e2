"""Distillation: the divergence from the teacher by its formula, exact resume, and a student that comes to agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from cloudtune_trainer import models
from cloudtune_trainer.models import BaseModel, load_tokenizer
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import Adapter, DataFiles, ModelSource, RunSpec, Teacher
from cloudtune_trainer.tasks.table import task_for
from cloudtune_trainer.tiny import write_tiny_model

from .conftest import Runs, metrics, same_bits, sums, weights

if TYPE_CHECKING:
    from pathlib import Path

FULL, LORA = {"type": "full"}, {"type": "lora", "rank": 4, "dropout": 0.2}


@pytest.fixture(scope="module")
def teacher(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model with the same tokens, whose distributions are not flat."""
    folder = tmp_path_factory.mktemp("teacher")
    network = models.load_model(BaseModel(str(tiny_model)), dtype=torch.float32)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network.save_pretrained(folder)
    load_tokenizer(BaseModel(str(tiny_model))).save_pretrained(folder)
    return folder


def spec_of(teacher: Path, adapter: dict[str, Any], **hyper: Any) -> dict[str, Any]:
    return {
        "method": "distill", "teacher": {"path": str(teacher), "temperature": 2.0}, "adapter": adapter, "seed": 7,
        "checkpoints": {"every": 100}, "hyperparameters": {"packing": False, "batch_size": 4, **hyper},
    }  # fmt: skip


@pytest.mark.parametrize("adapter", [FULL, LORA | {"dropout": 0.0}], ids=["full", "lora"])
def test_loss_and_gradient_are_those_of_the_formula(tiny_model: Path, teacher: Path, adapter: dict[str, Any]) -> None:
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(tiny_model)), data=DataFiles(train="t"),
        method="distill", adapter=Adapter(**adapter), teacher=Teacher(path=str(teacher), temperature=2.0),
    )  # fmt: skip
    base = BaseModel(str(tiny_model))
    task, tokenizer = task_for(spec), load_tokenizer(base)
    network = task.load_model(base, tokenizer, tuple, dtype=torch.float32, weights=None, dropout=0.0)
    model = models.make_trainable(network, spec, base, None)
    samples = task.encode(sums(4), tokenizer)
    whole = task.forward(model, task.collate(samples, range(4)))
    whole.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    larger = models.load_model(BaseModel(str(teacher)), dtype=torch.float32)
    losses, count, agreed = [], 0, 0
    for i in range(4):
        cells = slice(int(samples.starts[i]), int(samples.starts[i + 1]))
        ids, learn = torch.from_numpy(samples.ids[cells].astype("int64"))[None], samples.learn[cells]
        with torch.no_grad():
            wanted = larger(input_ids=ids).logits[0]
        found = model(input_ids=ids).logits[0]
        for place in range(1, ids.shape[1]):
            if learn[place]:
                p, q = (F.softmax(one[place - 1] / 2, -1) for one in (wanted, found))
                losses.append(4 * (p * (p / q).log()).sum())
                agreed += int(wanted[place - 1].argmax() == found[place - 1].argmax())
                count += 1
    torch.stack(losses).sum().backward()
    torch.testing.assert_close(whole.loss, torch.stack(losses).sum(), rtol=1e-5, atol=1e-6)
    assert (whole.count, int(whole.metric_sums[1])) == (count, agreed)
    assert gradients
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)
    parts = [task.forward(model, task.collate(samples, part)).loss.item() for part in ([0], [1, 2], [3])]
    assert sum(parts) == pytest.approx(whole.loss.item(), rel=1e-6)


def test_a_resumed_distillation_is_equal_to_the_bit(runs: Runs, teacher: Path) -> None:
    spec = spec_of(teacher, LORA, max_steps=4, dropout=0.1)
    unbroken, broken = runs.make("unbroken", **spec), runs.make("broken", **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=2) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))


def test_the_student_comes_to_agree_with_its_teacher(runs: Runs, teacher: Path) -> None:
    run = runs.make(rows=sums(12), held_out=sums(6, seed=3), **spec_of(teacher, FULL, epochs=8, learning_rate=3e-3))
    assert runs.train(run) == "succeeded"
    measured = [m["values"] for m in metrics(run, "validation")]
    assert measured[-1]["loss"] < 0.6 * measured[0]["loss"]
    assert measured[-1]["agreement"] > measured[0]["agreement"] + 0.1


def test_a_teacher_that_does_not_fit_is_refused(runs: Runs, teacher: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", vocab_size=300)
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "tokens": (spec_of(other, LORA), "has other tokens than the model"),
        "changed": (spec_of(teacher, LORA) | {"teacher": {"path": str(teacher), "fingerprint": "0"}}, "has changed"),
        "missing": (spec_of(teacher, LORA) | {"teacher": None}, "distill requires it"),
        "needless": (spec_of(teacher, LORA) | {"method": "sft"}, "sft does not use it"),
        "packed": (spec_of(teacher, LORA, packing=True), "rows are not packed for distill"),
    }
    for name, (spec, message) in wrong.items():
        with pytest.raises(TrainingProblem, match=message):
            runs.train(runs.make(name, **spec))
