"""KTO: the paper's loss and gradients however a step is divided, exact resumption, and a model that learns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cloudtune_trainer import models
from cloudtune_trainer.models import BaseModel, load_tokenizer
from cloudtune_trainer.packing import enable_packed_attention
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import Adapter, DataFiles, ModelSource, Preference, RunSpec
from cloudtune_trainer.tasks.rated import RatedSamples, encode_rated
from cloudtune_trainer.tasks.table import task_for

from .conftest import Rows, Runs, check_gradients, metrics, same_bits, weights
from .test_training_preferences import DIALOGUE, pairs

if TYPE_CHECKING:
    from pathlib import Path

FULL, LORA = {"type": "full"}, {"type": "lora", "rank": 4, "dropout": 0.2}
TERMS = {"beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.75}


def rated(count: int, *, seed: int = 0, swapped: bool = False) -> Rows:
    """One answer of each pair: the brief ones are good."""
    rows = []
    for number, row in enumerate(pairs(count, seed=seed)):
        side = ("chosen", "rejected")[number % 3 == 1]
        label = (side == "chosen") is not swapped
        rows.append({"messages": row["messages"], "completion": row[side], "label": label})
    return rows


def spec_of(adapter: dict[str, Any], **hyper: Any) -> dict[str, Any]:
    return {
        "method": "kto", "preference": TERMS, "adapter": adapter, "seed": 7, "checkpoints": {"every": 100},
        "hyperparameters": {"packing": False, "batch_size": 4, **hyper},
    }  # fmt: skip


def loaded(folder: Path, adapter: dict[str, Any], *, packed: bool = True) -> tuple[Any, Any, Any]:
    """The tiny model, moved away from its start; what is trained, adapter included; and the task."""
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(folder)), data=DataFiles(train="t"), method="kto",
        adapter=Adapter(**adapter), preference=Preference(**TERMS),
    )  # fmt: skip
    base = BaseModel(str(folder))
    network = models.load_model(base, dtype=torch.float32)
    task = task_for(spec)
    model = models.make_trainable(network, spec, base, None)
    task.packed = packed and enable_packed_attention(network) is None
    torch.manual_seed(8 if adapter is FULL else 11)  # with these, the reference point is above 0
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.sub_(torch.randn_like(parameter) * 0.05)
    return network, model, task


def by_hand(network: Any, found: RatedSamples) -> torch.Tensor:
    """Log-probabilities of the rated and the mismatched answers, [rows, 2], each sequence alone."""
    network.set_attn_implementation("eager")
    rows = []
    for index in range(len(found)):
        sides = []
        for begin, end in found.sides(index):
            ids = torch.from_numpy(found.ids[begin:end].astype("int64"))
            logps = F.log_softmax(network(input_ids=ids[None], use_cache=False).logits[0, :-1].float(), -1)
            learnt = torch.from_numpy(found.learn[begin + 1 : end])
            sides.append(logps.gather(1, ids[1:, None])[:, 0][learnt].sum())
        rows.append(torch.stack(sides))
    return torch.stack(rows)


DATA = [*rated(5), {"messages": DIALOGUE["messages"], "completion": DIALOGUE["rejected"], "label": False}]


def test_prompts_meet_answers_of_other_prompts(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(BaseModel(str(tiny_model)))
    twice = [DATA[0], DATA[0] | {"completion": DATA[1]["completion"], "label": False}, *DATA[1:]]
    found = encode_rated(twice, tokenizer, loss_on="assistant", max_length=999)
    assert found.desirable.tolist() == [row["label"] for row in twice]
    for row, partner in enumerate((6, 6, 1, 2, 3, 4, 5)):
        own, other = (slice(*side) for side in found.sides(row))
        answer = tokenizer.decode(found.ids[own][found.learn[own]])
        assert answer == twice[row]["completion"][0]["content"] + "<|im_end|>"
        mismatched = tokenizer.decode(found.ids[other][found.learn[other]])
        assert mismatched == twice[partner]["completion"][0]["content"] + "<|im_end|>"
        np.testing.assert_array_equal(found.ids[own][~found.learn[own]], found.ids[other][~found.learn[other]])
    alike = [row | {"messages": DATA[0]["messages"]} for row in DATA[:3]]
    found = encode_rated(alike, tokenizer, loss_on="assistant", max_length=999)
    begin, end = found.sides(0)[1]
    assert alike[2]["completion"][0]["content"] in tokenizer.decode(found.ids[begin:end])


def test_long_answers_are_cut_and_named(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(BaseModel(str(tiny_model)))
    mute = DATA[2] | {"completion": [DATA[2]["completion"][0] | {"weight": 0}]}
    whole = encode_rated(DATA, tokenizer, loss_on="assistant", max_length=999)
    longest = int(max(end - begin for i in range(len(whole)) for begin, end in whole.sides(i)[:1]))
    found = encode_rated([*DATA, mute], tokenizer, loss_on="assistant", max_length=longest - 2)
    assert found.cuts.truncated == [6]
    assert found.cuts.lost_tokens == 2
    assert found.cuts.unlearnt == [7]
    assert max(end - begin for i in range(len(found)) for begin, end in found.sides(i)) == longest - 2
    with pytest.raises(TrainingProblem, match="6 rows exceed max_length"):
        encode_rated(DATA, tokenizer, loss_on="assistant", max_length=8)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_loss_and_gradient_are_those_of_the_paper(tiny_model: Path, packed: bool) -> None:
    """Computed in three parts, with one reference point; the paper's formula over all rows at once."""
    network, model, task = loaded(tiny_model, {"type": "lora", "rank": 4}, packed=packed)
    found = task.encode(DATA, load_tokenizer(BaseModel(str(tiny_model))))

    def computed(*parts: list[int]) -> tuple[torch.Tensor, list[float], dict[str, torch.Tensor]]:
        network.zero_grad()
        batches = [task.collate(found, part) for part in parts]
        with torch.no_grad():
            task.step_mean = sum(task.step_sum(model, batch).item() for batch in batches) / len(found)
        sums = [task.forward(model, batch) for batch in batches]
        loss = torch.stack([one.loss for one in sums]).sum()
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.requires_grad}
        return loss.detach(), torch.stack([one.metric_sums for one in sums]).sum(0).tolist(), gradients

    loss, metric_sums, gradients = computed([0], [3, 1, 5], [2, 4])
    whole = computed([0, 1, 2, 3, 4, 5])[0]
    torch.testing.assert_close(loss, whole, rtol=1e-6, atol=0)
    network.zero_grad()

    with model.disable_adapter(), torch.no_grad():
        start = by_hand(network, found)
    now = by_hand(network, found)
    ratio, other = (now - start).unbind(1)
    z = other.mean().clamp(min=0).detach()
    assert z > 0, "the reference point has an effect"
    expected = []
    for row, good in enumerate(found.desirable):
        value = torch.sigmoid(0.2 * (ratio[row] - z)) if good else torch.sigmoid(0.2 * (z - ratio[row]))
        expected.append((1.5 if good else 0.75) * (1 - value))
    torch.stack(expected).sum().backward()
    torch.testing.assert_close(loss, torch.stack(expected).sum().detach(), rtol=1e-5, atol=1e-6)
    check_gradients(network, gradients)
    figures = task.metrics(loss.item(), metric_sums, 6)
    good = torch.from_numpy(found.desirable)
    assert figures["kl"] == pytest.approx(z.item(), rel=1e-4)
    assert figures["rewards/chosen"] == pytest.approx(0.2 * ratio[good].mean().item(), rel=1e-3)
    assert figures["rewards/rejected"] == pytest.approx(0.2 * ratio[~good].mean().item(), rel=1e-3)
    assert figures["margin"] == pytest.approx(figures["rewards/chosen"] - figures["rewards/rejected"])
    assert figures["accuracy"] == pytest.approx(((ratio > z) == good).float().mean().item())


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adapter", [{"type": "lora", "rank": 4}, FULL], ids=["lora", "full"])
def test_loss_and_gradient_are_trl_s(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: dict[str, Any]
) -> None:
    """The same tokens in KTOTrainer, whose mismatched answers are those of the previous row of the batch."""
    pytest.importorskip("trl")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    from cloudtune_trainer.devices import Devices
    from cloudtune_trainer.reference import with_reference

    network, model, task = loaded(tiny_model, adapter, packed=False)
    tokenizer = load_tokenizer(BaseModel(str(tiny_model)))
    found = task.encode(DATA, tokenizer)
    start = None
    if adapter is FULL:
        start = models.load_model(BaseModel(str(tiny_model)), dtype=torch.float32)
        found = with_reference(start, task, found, Devices("cpu", "fp32"), token_budget=200, check=lambda: None)
    batch = task.collate(found, range(len(found)))
    with torch.no_grad():
        task.step_mean = task.step_sum(model, batch).item() / len(found)
    sums = task.forward(model, batch)
    (sums.loss / sums.count).backward()
    own = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()

    config = KTOConfig(
        str(tmp_path), bf16=False, use_cpu=True, gradient_checkpointing=False, report_to="none", disable_tqdm=True,
        per_device_train_batch_size=6, dataloader_pin_memory=False, train_sampling_strategy="sequential", **TERMS,
    )  # fmt: skip
    turns = [{"prompt": f"a{n}", "completion": "b", "label": n % 2 == 0} for n in range(6)]
    trainer = KTOTrainer(
        model=model, ref_model=start, args=config, train_dataset=Dataset.from_list(turns), processing_class=tokenizer
    )
    if start is None:
        model.delete_adapter("ref")  # trl continues from a copy of the adapter; here the base model is the reference
    inputs: dict[str, Any] = {"label": torch.from_numpy(found.desirable)}
    for prefix, side in (("", 0), ("KL_", 1)):
        spans = [found.sides(i)[side] for i in range(len(found))]
        width = max(end - begin for begin, end in spans)
        for name in ("input_ids", "attention_mask", "completion_mask"):
            inputs[prefix + name] = torch.zeros(len(spans), width, dtype=torch.long)
        for row, (begin, end) in enumerate(spans):
            cells = slice(0, end - begin)
            inputs[f"{prefix}input_ids"][row, cells] = torch.from_numpy(found.ids[begin:end].astype("int64"))
            inputs[f"{prefix}attention_mask"][row, cells] = 1
            learnt = torch.from_numpy(found.learn[begin:end].astype("int64"))
            inputs[f"{prefix}completion_mask"][row, cells] = learnt
    loss = trainer.compute_loss(trainer.model.train(), inputs)
    loss.backward()
    torch.testing.assert_close(sums.loss / sums.count, loss, rtol=1e-5, atol=1e-6)
    check_gradients(network, own)
    figures = task.metrics(sums.loss.item(), sums.metric_sums.tolist(), sums.count)
    for name, named in (("kl", "kl"), ("margin", "rewards/margins"), ("rewards/chosen", "rewards/chosen")):
        (value,) = trainer._metrics["train"][named]
        assert figures[name] == pytest.approx(value, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_step_in_parts_has_the_same_loss(runs: Runs, parts: int) -> None:
    """Also the validation loss, which is computed in smaller batches then."""

    def losses(name: str, accumulation: int) -> list[float]:
        hyper = {"max_steps": 3, "gradient_accumulation_steps": accumulation, "max_grad_norm": 0.0, "batch_size": 4}
        held_out = rated(6, seed=3)
        run = runs.make(name, rows=rated(8), held_out=held_out, **spec_of(FULL, **hyper), validation={"every": 1})
        assert runs.train(run) == "succeeded"
        lines = [*metrics(run), *metrics(run, "validation")]
        return [value for line in lines for value in (line["values"]["loss"], line["values"]["kl"])]

    whole = losses("whole", 1)
    assert any(kl > 0 for kl in whole[1::2])
    assert losses("split", parts) == pytest.approx(whole, rel=2e-5, abs=1e-5)


@pytest.mark.parametrize("adapter", [LORA, pytest.param(FULL, marks=pytest.mark.soak)], ids=["lora", "full"])
def test_resumed_in_the_middle_is_equal_to_the_bit(runs: Runs, adapter: dict[str, Any]) -> None:
    hyper = {"epochs": 2, "dropout": 0.1, "gradient_accumulation_steps": 2, "batch_size": 3}
    spec = spec_of(adapter, **hyper) | {"held_out": rated(5, seed=5), "validation": {"every": 4}}
    unbroken, broken = (runs.make(name, rows=rated(9), **spec) for name in ("unbroken", "broken"))
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    for split in ("train", "validation"):
        one, other = ([line["values"]["kl"] for line in metrics(run, split)] for run in (unbroken, broken))
        assert one == other
    first = metrics(unbroken)[0]["values"]
    if adapter is LORA:  # the same weights at first, and no dropout in the reference point
        assert first["kl"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("adapter", [pytest.param(LORA, marks=pytest.mark.soak), FULL], ids=["lora", "full"])
def test_ratings_are_learnt_and_hold_for_new_rows(runs: Runs, adapter: dict[str, Any]) -> None:
    """Swapped ratings are the control."""
    hyper = {"epochs": 4, "batch_size": 8, "learning_rate": 2e-3 if adapter is FULL else 1e-2}
    tested = {}
    for name, swapped in (("right", False), ("swapped", True)):
        run = runs.make(name, rows=rated(32, swapped=swapped), test=rated(12, seed=11), **spec_of(adapter, **hyper))
        assert runs.train(run) == "succeeded"
        (line,) = metrics(run, "test")
        tested[name] = line["values"]
    untrained = (1.5 * 8 + 0.75 * 4) / 12 / 2  # both halves of the loss are 1/2 where the models agree
    assert tested["right"]["margin"] > 0 > tested["swapped"]["margin"]
    assert tested["right"]["loss"] < untrained < tested["swapped"]["loss"]
    assert math.isfinite(tested["right"]["kl"])


def test_ratings_that_cannot_be_learnt_are_refused(runs: Runs) -> None:
    same = [row | {"label": True} for row in rated(4)]
    words = [row | {"label": "good"} for row in rated(4)]
    for name, given, message in (
        ("same", {"rows": same, **spec_of(LORA)}, "all rows have the label true"),
        (
            "words",
            {"rows": words, **spec_of(LORA)},
            'row 1: a rated answer requires .* "label", which is true or false',
        ),
        ("pairs", {"rows": pairs(4), **spec_of(LORA)}, "a rated answer requires"),
        ("sft", {"rows": rated(4), "method": "sft"}, "rated answers require a preference method"),
        ("packed", {"rows": rated(4), **spec_of(LORA, packing=True)}, "cannot be packed"),
        ("weight", {"rows": rated(4), **spec_of(LORA), "preference": {"desirable_weight": -1.0}}, "desirable_weight"),
    ):
        with pytest.raises(TrainingProblem, match=message):
            runs.train(runs.make(name, **given))
