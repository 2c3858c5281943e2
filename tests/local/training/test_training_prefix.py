"""Prefix tuning: only the prefix is trained, exactly as transformers and peft compute it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from cloudtune_trainer import checkpoints, models
from cloudtune_trainer.export import export
from cloudtune_trainer.generate import Model
from cloudtune_trainer.multi_adapter import MultiAdapterModel
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import DataFiles, ModelSource, RunSpec
from cloudtune_trainer.spec_trained import Adapter
from cloudtune_trainer.tasks.table import task_for
from cloudtune_trainer.tuned import check_adapter

from .conftest import Runs, events, metrics, same_bits, sums, weights
from .test_training_preferences import pairs
from .test_training_preferences import spec_of as preference_spec

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = {"type": "prefix", "virtual_tokens": 5}
HYPER = {"packing": False, "learning_rate": 2e-2}


def test_only_the_prefix_has_the_gradient_of_peft(tiny_model: Path) -> None:
    base = models.BaseModel(str(tiny_model))
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(tiny_model)), data=DataFiles(train="t"),
        adapter=Adapter(**PREFIX),
    )  # fmt: skip
    task, tokenizer = task_for(spec), models.load_tokenizer(base)
    network = task.load_model(base, tokenizer, list, dtype=torch.float32, weights=None, dropout=None)
    model = models.make_trainable(network, spec, base, None)
    samples = task.encode(sums(4), tokenizer)
    sums_of_batch = task.forward(model, task.collate(samples, range(4)))
    sums_of_batch.loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert list(trained) == ["prompt_encoder.default.embedding.weight"]
    (parameter,) = trained.values()
    own = parameter.grad.clone()
    assert own.abs().sum() > 0
    model.zero_grad()

    expected = torch.zeros(())
    for i in range(4):  # one row at a time, without padding, and with the library's own loss
        begin, end = int(samples.starts[i]), int(samples.starts[i + 1])
        ids = torch.from_numpy(samples.ids[begin:end].astype("int64"))
        labels = torch.where(torch.from_numpy(samples.learn[begin:end]), ids, -100)
        logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).logits[0]
        expected = expected + F.cross_entropy(logits[:-1], labels[1:], reduction="sum", ignore_index=-100)
    expected.backward()
    torch.testing.assert_close(sums_of_batch.loss, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(own, parameter.grad, rtol=1e-3, atol=1e-5)


def test_a_resumed_prefix_is_equal_to_the_bit(runs: Runs) -> None:
    spec = {"adapter": PREFIX, "seed": 7, "hyperparameters": {**HYPER, "batch_size": 3, "dropout": 0.1}}
    unbroken, broken = runs.make("unbroken", rows=sums(30), **spec), runs.make("broken", rows=sums(30), **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert [saved.step for saved in checkpoints.saved_in(broken.checkpoints)] == [3]
    assert runs.train(broken) == "succeeded"
    assert weights(broken.model).keys() == {"prompt_embeddings"}
    assert same_bits(weights(unbroken.model), weights(broken.model))
    assert [m["values"]["loss"] for m in metrics(unbroken)] == [m["values"]["loss"] for m in metrics(broken)]

    child = runs.make(
        "child", **spec | {"adapter": {"type": "lora"}}, resume_from=str(broken.checkpoints / checkpoints.name_of(10))
    )
    with pytest.raises(TrainingProblem, match="was not created with the adapter lora"):
        runs.train(child)


def test_a_prefix_learns_and_answers(runs: Runs, tmp_path: Path) -> None:
    requested = {"role": "user", "content": "What is 1 plus 1?"}
    hyper = {"packing": False, "epochs": 25, "batch_size": 8}
    base = runs.make(
        "base", rows=[{"messages": [requested, {"role": "assistant", "content": "2."}]}] * 8, adapter={"type": "full"},
        hyperparameters=hyper,
    )  # fmt: skip
    assert runs.train(base) == "succeeded"
    run = runs.make(
        rows=[{"messages": [requested, {"role": "assistant", "content": "11 follows."}]}] * 8, adapter=PREFIX,
        model={"source": "folder", "path": str(base.model)}, hyperparameters=hyper | {"learning_rate": 0.5},
    )  # fmt: skip
    assert runs.train(run) == "succeeded"
    losses = [m["values"]["loss"] for m in metrics(run)]
    assert losses[-1] < 0.6 * losses[0], losses
    model = Model.open(run.model, device="cpu")
    prompts = ["What is 1 plus 1?", "What?"]
    together = [answer.text for answer in model.generate(prompts, max_tokens=4)]
    alone = [answer.text for prompt in prompts for answer in model.generate([prompt], max_tokens=4)]
    assert together == alone
    without = [a.text for a in Model.open(run.model, base=True, device="cpu").generate(prompts, max_tokens=4)]
    assert without[0] == "2."
    assert without != together

    with pytest.raises(TrainingProblem, match="cannot be merged"):
        export(run.model, tmp_path / "merged", merged=True)
    assert {file.name for file in export(run.model, tmp_path / "out")} >= {"adapter_model.safetensors"}
    with pytest.raises(TrainingProblem, match="cannot be merged"):
        MultiAdapterModel(base.model, device="cpu").add("one", run.model)

    config = run.model / "adapter_config.json"
    for name, value in {"auto_mapping": {"a": 1}, "num_virtual_tokens": -1, "token_dim": "64"}.items():
        config.write_text(json.dumps(json.loads(config.read_text()) | {name: value}))
        with pytest.raises(TrainingProblem, match="cannot use"):
            check_adapter(run.model)


@pytest.mark.parametrize("method", ["cpt", "dpo", "orpo"])
def test_every_method_trains_a_prefix(runs: Runs, method: str) -> None:
    if method == "cpt":
        run = runs.make(method="cpt", adapter=PREFIX, hyperparameters={**HYPER, "max_steps": 3})
    else:
        spec = preference_spec(PREFIX, method=method, max_steps=3, **HYPER)
        run = runs.make(rows=pairs(8), **spec)
    assert runs.train(run) == "succeeded"
    assert weights(run.model).keys() == {"prompt_embeddings"}


@pytest.mark.parametrize(("changes", "message"), [
    ({"hyperparameters": {"packing": True}}, "rows with a prefix adapter are not packed"),
    ({"hyperparameters": {"packing": False, "gradient_checkpointing": True}}, "not possible with a prefix adapter"),
    ({"adapter": PREFIX | {"virtual_tokens": 0}, "hyperparameters": {"packing": False}}, "virtual_tokens"),
    ({"adapter": {"type": "suffix"}}, "'suffix' is not one of full, head_only, lora"),
    ({"adapter": PREFIX | {"virtual_tokens": 5000}, "hyperparameters": {"packing": False}}, "model's positions"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(runs: Runs, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingProblem, match=message):
        runs.train(runs.make(**{"adapter": PREFIX} | changes))


def test_rows_leave_positions_to_the_prefix(runs: Runs) -> None:
    tokenizer = models.load_tokenizer(models.BaseModel(str(runs.base)))
    text = "12 follows. "
    while (length := len(tokenizer(text)["input_ids"])) <= 1024:  # as many positions as the model has
        text += "12 follows. "
    run = runs.make(
        rows=[{"text": text}], method="cpt", adapter=PREFIX, hyperparameters={**HYPER, "max_length": 2000, "epochs": 1}
    )
    assert runs.train(run) == "succeeded"
    (warning,) = events(run, "warning")
    assert warning["data"]["max_length"] == 1019
    (made,) = [event["data"] for event in events(run, "message") if "samples" in event["data"]]
    assert made["samples"] == 2, length
