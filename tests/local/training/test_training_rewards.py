"""Reward models: the formula's loss and gradients, exact resumption, scores, and plain peft and transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from cloudtune_trainer import models
from cloudtune_trainer.export import export
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import Adapter, DataFiles, ModelSource, RunSpec
from cloudtune_trainer.tasks.reward import RewardModel
from cloudtune_trainer.tasks.table import open_model, task_for

from .conftest import Runs, check_gradients, metrics, same_bits, weights
from .test_training_preferences import DIALOGUE, pairs

FULL, LORA = {"type": "full"}, {"type": "lora", "rank": 4, "dropout": 0.1}


def spec_of(adapter: dict[str, Any], **hyper: Any) -> dict[str, Any]:
    return {
        "method": "reward", "adapter": adapter, "seed": 7, "checkpoints": {"every": 100},
        "hyperparameters": {"packing": False, "batch_size": 4, **hyper},
    }  # fmt: skip


def conversation(row: dict[str, Any], side: str) -> list[dict[str, Any]]:
    return [*row["messages"], *row[side]]


@pytest.mark.parametrize("adapter", [FULL, LORA | {"dropout": 0.0}], ids=["full", "lora"])
def test_loss_and_gradient_are_those_of_bradley_terry(tiny_model: Path, adapter: dict[str, Any]) -> None:
    """Each answer alone, without padding, in plain transformers."""
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(tiny_model)), data=DataFiles(train="t"),
        method="reward", adapter=Adapter(**adapter),
    )  # fmt: skip
    place = models.BaseModel(str(tiny_model))
    task, tokenizer = task_for(spec), models.load_tokenizer(place)
    data = [*pairs(4), DIALOGUE]
    network = task.load_model(place, tokenizer, lambda: data, dtype=torch.float32, weights=None, dropout=0.0)
    model = models.make_trainable(network, spec, place, None, task.peft_task_type)
    samples = task.encode(data, tokenizer)
    sums = task.forward(model, task.collate(samples, range(5)))
    sums.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()

    def score(row: dict[str, Any], side: str) -> torch.Tensor:
        text = tokenizer.apply_chat_template(conversation(row, side), tokenize=False).rstrip("\n")
        return model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0]

    scores = [(score(row, "chosen"), score(row, "rejected")) for row in data]
    loss = torch.stack([torch.log(1 + torch.exp(bad - good)) for good, bad in scores]).sum()
    loss.backward()
    torch.testing.assert_close(sums.loss, loss, rtol=1e-5, atol=1e-6)
    check_gradients(model, gradients)
    found = task.metrics(sums.loss.item(), sums.metric_sums.tolist(), sums.count)
    assert found["accuracy"] == sum(bool(good > bad) for good, bad in scores) / 5
    assert found["margin"] == pytest.approx(sum((good - bad).item() for good, bad in scores) / 5, abs=1e-5)

    with torch.no_grad():
        parts = [task.forward(model, task.collate(samples, part)).loss for part in ([0], [1, 2], [3, 4])]
    torch.testing.assert_close(torch.stack(parts).sum(), sums.loss.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("adapter", [pytest.param(LORA, marks=pytest.mark.soak), FULL], ids=["lora", "full"])
def test_a_resumed_reward_model_is_equal_to_the_bit(runs: Runs, adapter: dict[str, Any]) -> None:
    spec = spec_of(adapter, epochs=2, dropout=0.1, gradient_accumulation_steps=2) | {
        "held_out": pairs(5, seed=5), "validation": {"every": 2},
    }  # fmt: skip
    unbroken, broken = (runs.make(name, rows=pairs(10), **spec) for name in ("unbroken", "broken"))
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    assert [m["values"]["margin"] for m in metrics(unbroken)] == [m["values"]["margin"] for m in metrics(broken)]


@pytest.mark.parametrize("adapter", [LORA, FULL], ids=["lora", "full"])
def test_a_reward_model_learns_and_its_files_are_plain(runs: Runs, tmp_path: Path, adapter: dict[str, Any]) -> None:
    """It orders new pairs; swapped pairs give the opposite; peft and transformers compute the same scores."""
    hyper = {"epochs": 4, "batch_size": 8, "learning_rate": 2e-3 if adapter is FULL else 1e-2}
    tests = pairs(12, seed=11)
    accuracy = {}
    for name, swapped in (("right", False), ("swapped", True)):
        run = runs.make(name, rows=pairs(32, swapped=swapped), held_out=pairs(8, seed=9, swapped=swapped),
                        test=tests, **spec_of(adapter, **hyper))  # fmt: skip
        assert runs.train(run) == "succeeded"
        (tested,) = metrics(run, "test")
        accuracy[name] = tested["values"]["accuracy"]
    assert accuracy == {"right": 1.0, "swapped": 0.0}

    folder = tmp_path / "right" / "model"
    tuned = read_json(folder / "tuned.json")
    assert tuned["labels"] == ["reward"]
    assert tuned["metrics"]["validation_accuracy"] == 1.0
    found = RewardModel.open(folder)
    conversations = [conversation(row, side) for row in tests for side in ("chosen", "rejected")]
    scores = found.score(conversations)
    assert scores == pytest.approx([found.score([one])[0] for one in conversations], abs=1e-5)
    assert all(good > bad for good, bad in zip(scores[0::2], scores[1::2], strict=True))
    rated = {"messages": tests[0]["messages"], "completion": tests[0]["chosen"], "label": True}
    (predicted,) = open_model(folder).predict([rated])
    assert predicted.value == pytest.approx(scores[0], abs=1e-5)
    assert float(predicted.text) == pytest.approx(scores[0], abs=1e-4)

    export(folder, tmp_path / "merged", merged=True)
    assert RewardModel.open(tmp_path / "merged").score(conversations) == pytest.approx(scores, abs=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    texts = [tokenizer.apply_chat_template(one, tokenize=False).rstrip("\n") for one in conversations]
    inputs = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    networks = [plain]
    if adapter is not FULL:
        base = AutoModelForSequenceClassification.from_pretrained(
            runs.base, num_labels=1, pad_token_id=tokenizer.pad_token_id
        )
        networks.append(PeftModel.from_pretrained(base, folder))
    for network in networks:
        with torch.no_grad():
            theirs = network.eval()(**inputs).logits[:, 0].tolist()
        assert theirs == pytest.approx(scores, abs=1e-4)


def test_the_first_loss_is_that_of_equal_scores(runs: Runs) -> None:
    """One pair with two nearly equal answers, and a head that knows nothing."""
    run = runs.make(rows=pairs(16), **spec_of(LORA, max_steps=1, batch_size=16))
    assert runs.train(run) == "succeeded"
    assert metrics(run)[0]["values"]["loss"] == pytest.approx(math.log(2), abs=0.15)


def test_what_a_reward_model_cannot_take_is_refused(runs: Runs) -> None:
    run = runs.make(rows=pairs(4), **spec_of(LORA, max_steps=1))
    assert runs.train(run) == "succeeded"
    model = open_model(run.model)
    for given in ("2 + 2?", {"messages": [{"role": "user", "content": "2 + 2?"}]}):
        with pytest.raises(TrainingProblem, match="input 1: it has no answer to score"):
            list(model.predict([given]))
    with pytest.raises(TrainingProblem, match="writes no text"):
        list(model.generate(["2 + 2?"]))
    with pytest.raises(TrainingProblem, match="is not trained for reward"):
        open_model(run.model, base=True)
    with pytest.raises(TrainingProblem, match="not packed"):
        runs.train(runs.make("packed", rows=pairs(4), **spec_of(LORA, packing=True)))
    other = runs.make("sft", method="sft", adapter={"type": "lora"}, hyperparameters={"max_steps": 1})
    assert runs.train(other) == "succeeded"
    with pytest.raises(TrainingProblem, match="was trained by sft: it gives no rewards"):
        RewardModel.open(other.model)
