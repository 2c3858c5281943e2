"""Layer schedules: frozen layers, gradual unfreezing, and a learning rate for each layer, as in a plain torch loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from cloudtune_trainer import checkpoints, models
from cloudtune_trainer.batches import parts_of, schedule_of
from cloudtune_trainer.layer_schedule import LayerSchedule, levels_of, plain_name
from cloudtune_trainer.optimizer import rate_at
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import read_spec
from cloudtune_trainer.spec_trained import Layers, Stage
from cloudtune_trainer.tasks.table import task_for

from .conftest import Runs, events, metrics, same_bits, sums, weights
from .families import config_of

FULL: dict[str, Any] = {"type": "full"}
LORA: dict[str, Any] = {"type": "lora", "rank": 2}
STEPS = schedule_of([1] * 12, batch_size=2, capacity=1, packing=False, epochs=2, max_steps=None, seed=0)


def network(family: str, auto: Any = AutoModelForCausalLM, **fields: Any) -> Any:
    with torch.device("meta"):
        return auto.from_config(config_of(family, vocab_size=64, **fields))


def grouped(model: Any) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for name, level in levels_of(model).of.items():
        found.setdefault(level, set()).add(plain_name(name))
    return found


@pytest.mark.parametrize(("family", "embeddings", "end"), [
    ("llama", {"model.embed_tokens.weight"}, {"lm_head.weight", "model.norm.weight"}),
    ("gpt2", {"transformer.wte.weight", "transformer.wpe.weight"},
     {"transformer.ln_f.weight", "transformer.ln_f.bias"}),
    ("opt", {"model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"},
     {"model.decoder.final_layer_norm.weight", "model.decoder.final_layer_norm.bias"}),
    ("mamba", {"backbone.embeddings.weight"}, {"backbone.norm_f.weight"}),
])  # fmt: skip
def test_levels_are_embeddings_layers_and_end(family: str, embeddings: set[str], end: set[str]) -> None:
    found = grouped(network(family))
    assert set(found) == {0, 1, 2, 3}
    assert (found[0], found[3]) == (embeddings, end)
    assert all(".0." in name for name in found[1])
    assert all(".1." in name for name in found[2])


def test_an_encoder_is_below_its_decoder() -> None:
    found = grouped(network("t5", AutoModelForSeq2SeqLM, num_decoder_layers=3))
    assert found[0] == {"shared.weight"}
    assert "encoder.final_layer_norm.weight" in found[2]
    assert all(name.startswith("encoder.") for name in found[1] | found[2])
    assert all(name.startswith(f"decoder.block.{level - 3}.") for level in (3, 4, 5) for name in found[level])
    assert found[6] == {"decoder.final_layer_norm.weight"}, "the head shares the embeddings' weight"
    bart = grouped(network("bart", AutoModelForSeq2SeqLM))
    assert "model.encoder.layernorm_embedding.weight" in bart[0]
    assert set(bart) == {0, 1, 2, 3, 4}, "its last layer is followed by nothing with weights of its own"


def test_a_classifier_ends_in_its_head() -> None:
    found = grouped(network("bert", AutoModelForSequenceClassification))
    assert "bert.embeddings.LayerNorm.weight" in found[0]
    assert found[3] == {f"{part}.{kind}" for part in ("classifier", "bert.pooler.dense") for kind in ("weight", "bias")}


@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_updates_are_those_of_a_plain_loop(runs: Runs, tiny_model: Path, adapter: dict[str, Any]) -> None:
    layers = {
        "freeze_depth": 0, "decay": 0.5, "learning_rates": {"layers.1.*.q_proj": 1e-3, "*q_proj*": 7e-3},
        "unfreeze": [{"layers": 1, "epochs": 0.5}],
    }  # fmt: skip
    hyper = {"batch_size": 4, "max_steps": 7, "scheduler": "linear", "weight_decay": 0.1, "learning_rate": 5e-3}
    run = runs.make(rows=sums(16), adapter=adapter, layers=layers, seed=3, hyperparameters={"packing": False, **hyper})
    assert runs.train(run) == "succeeded"

    spec = read_spec(checkpoints.read_json(run.spec))
    place = models.BaseModel(str(tiny_model))
    task, tokenizer = task_for(spec), models.load_tokenizer(place)
    torch.manual_seed(spec.seed)
    base = task.load_model(place, tokenizer, list, dtype=torch.float32, weights=None, dropout=None)
    before = {name: p.clone() for name, p in base.named_parameters()}
    model = models.make_trainable(base, spec, place, None, task.peft_task_type)
    samples = task.encode(sums(16), tokenizer)
    steps = schedule_of(
        samples.lengths.tolist(), batch_size=4, capacity=96, packing=False, epochs=1, max_steps=7, seed=spec.seed
    )
    optimizers: dict[str, torch.optim.AdamW] = {}
    for step in range(7):
        (part,) = parts_of(steps.sequences_of(step), 1)
        batch = task.collate(samples, [i for sequence in part for i in sequence])
        trained = {}
        for name, parameter in model.named_parameters():
            plain = plain_name(name)
            level = 3 if ".layers." not in plain else 1 + int(plain.split(".layers.")[1][0])
            idle = level == 1 and step < 2  # half an epoch of four steps
            if "embed_tokens" not in plain and (adapter is FULL or "lora_" in name) and not idle:
                own = {1: 7e-3, 2: 1e-3}[level] if "q_proj" in plain else 5e-3 * 0.5 ** (3 - level)
                trained[name] = (parameter, own)
        loss = task.forward(model, batch).loss / batch.count
        gradients = torch.autograd.grad(loss, [p for p, _ in trained.values()])
        norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
        for (name, (parameter, own)), gradient in zip(trained.items(), gradients, strict=True):
            decay = 0.1 if parameter.ndim > 1 else 0.0
            one = optimizers.setdefault(name, torch.optim.AdamW([parameter], weight_decay=decay))
            one.param_groups[0]["lr"] = own / 5e-3 * rate_at(step, 7, spec.hyperparameters)
            parameter.grad = gradient * min(1.0, 1.0 / (float(norm) + 1e-6))
            one.step()
            one.zero_grad()

    found = weights(run.model)
    expected = {name.replace(".default", ""): p for name, p in model.named_parameters()}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=2e-4, atol=2e-6, msg=name)
    assert len(optimizers) > 10
    if adapter is FULL:
        assert torch.equal(found["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
        assert not torch.equal(found["model.norm.weight"], before["model.norm.weight"])


DROPPED = LORA | {"dropout": 0.1}


@pytest.mark.parametrize(("stop", "adapter"), [
    pytest.param(3, DROPPED, id="3-lora"), pytest.param(4, FULL, id="4-full"), pytest.param(6, DROPPED, id="6-lora"),
    pytest.param(3, FULL, id="3-full", marks=pytest.mark.soak),
    pytest.param(4, DROPPED, id="4-lora", marks=pytest.mark.soak),
    pytest.param(6, FULL, id="6-full", marks=pytest.mark.soak),
])  # fmt: skip
def test_a_resume_at_any_stage_is_equal_to_the_bit(runs: Runs, adapter: dict[str, Any], stop: int) -> None:
    first = 0 if adapter is FULL else 1
    spec = {
        "adapter": adapter, "seed": 5,
        "layers": {"unfreeze": [{"layers": first, "epochs": 1}, {"layers": first + 1, "share": 0.2}], "decay": 0.7},
        "hyperparameters": {"packing": False, "batch_size": 3, "max_steps": 9, "dropout": 0.1},
    }  # fmt: skip
    unbroken, broken = runs.make("unbroken", rows=sums(12), **spec), runs.make("broken", rows=sums(12), **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=stop) == "interrupted"
    (saved,) = checkpoints.saved_in(broken.checkpoints)
    assert (saved.step, saved.progress.stage) == (stop, {3: 0, 4: 0, 6: 1}[stop])
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    assert [m["values"]["loss"] for m in metrics(unbroken)] == [m["values"]["loss"] for m in metrics(broken)]
    stages = [event["data"] for event in events(unbroken, "message") if "stage" in event["data"]]
    assert [(stage["step"], stage["stage"]) for stage in stages] == [(0, 0), (4, 1), (6, 2)]
    assert [stage["trained"] for stage in stages] == sorted(stage["trained"] for stage in stages)


def test_frozen_weights_keep_their_bits(runs: Runs, tiny_model: Path) -> None:
    run = runs.make(
        rows=sums(8), adapter=FULL, hyperparameters={"max_steps": 3, "weight_decay": 0.5},
        layers={"freeze": ["layers.0", "*norm*", "self_attn.[kv]_proj"]},
    )  # fmt: skip
    assert runs.train(run) == "succeeded"
    found, before = weights(run.model), weights(tiny_model)
    same = {name for name in found if torch.equal(found[name], before[name])}
    assert same == {
        name for name in found if ".layers.0." in name or "norm" in name or "k_proj" in name or "v_proj" in name
    }
    (event,) = [event for event in events(run, "message") if event["message"].startswith("training ")]
    assert event["data"]["trained"] == sum(value.numel() for name, value in found.items() if name not in same)


def test_a_preference_method_leaves_frozen_adapters_alone(runs: Runs) -> None:
    from .test_training_preferences import pairs
    from .test_training_preferences import spec_of as preference_spec

    run = runs.make(rows=pairs(8), layers={"freeze": ["layers.0"]}, **preference_spec(LORA, method="dpo", max_steps=2))
    assert runs.train(run) == "succeeded"
    updates = {name: bool(value.any()) for name, value in weights(run.model).items() if "lora_B" in name}
    assert updates == {name: ".layers.1." in name for name in updates}


def test_one_stage_is_made_for_each_layer() -> None:
    model = network("llama")
    schedule = LayerSchedule(model, Layers(unfreeze=(Stage(epochs=0.5),)), 1e-3, STEPS)
    counts = [len(schedule.trained_at(step)) for step in range(12)]
    assert [schedule.stage_at(step) for step in range(12)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert counts[::3] == [2, 11, 20, 21]


@pytest.mark.parametrize(("layers", "message"), [
    ({"freeze": ["layers.7"]}, r"layers.freeze\[0\]: no trained weight matches 'layers.7'"),
    ({"freeze": ["*"]}, "no weight is left to train"),
    ({"freeze_depth": 3}, "the model has 2 layers, not 3"),
    ({"freeze_depth": -1}, "freeze_depth must be at least 0"),
    ({"unfreeze": [{"layers": 4, "epochs": 1}]}, "the model has 2 layers, not 4"),
    ({"unfreeze": [{"layers": 1, "epochs": 1}, {"layers": 1, "epochs": 1}]}, "trains more layers than the one before"),
    ({"unfreeze": [{"layers": 1}]}, "a stage has epochs or share"),
    ({"unfreeze": [{"layers": "all"}]}, "layers.unfreeze"),
    ({"decay": 1.5}, "layers.decay must be"),
    ({"learning_rates": {"nothing": 1e-3}}, "no trained weight matches 'nothing'"),
    ({"learning_rates": {"lm_head": "high"}}, "layers.learning_rates"),
])  # fmt: skip
def test_a_schedule_that_does_not_fit_is_refused(runs: Runs, layers: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingProblem, match=message):
        runs.train(runs.make(rows=sums(4), adapter=FULL, layers=layers, hyperparameters={"max_steps": 1}))


def test_a_stage_without_weights_is_refused(runs: Runs) -> None:
    run = runs.make(rows=sums(4), adapter=LORA, layers={"unfreeze": [{"layers": 0, "epochs": 1}]})
    with pytest.raises(TrainingProblem, match="stage 1 trains 0 layers, where no weight is trained"):
        runs.train(run)
    prefix = {"type": "prefix", "virtual_tokens": 3}
    with pytest.raises(TrainingProblem, match="no trained weight is in a numbered layer"):
        runs.train(runs.make("prefix", adapter=prefix, layers={"decay": 0.9}, hyperparameters={"packing": False}))


@pytest.mark.soak
def test_every_family_has_its_layers() -> None:
    from .families import FAMILIES

    wrong = {}
    for family in FAMILIES:
        model = network(family, pad_token_id=3, bos_token_id=0, eos_token_id=2)
        found = grouped(model)
        layers = {level for level in found if 0 < level <= levels_of(model).layers}
        if not layers or 0 not in found or not any(p in found[0] for p in _embeddings(model)):
            wrong[family] = {level: sorted(names)[:3] for level, names in found.items()}
    assert not wrong


def _embeddings(model: Any) -> list[str]:
    weight = model.get_input_embeddings().weight
    return [name for name, parameter in model.named_parameters() if parameter is weight]
