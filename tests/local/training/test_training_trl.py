"""The losses of pairs and their gradients are those of trl's DPOTrainer on the same batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cloudtune_trainer import models
from cloudtune_trainer.models import BaseModel, load_tokenizer
from cloudtune_trainer.reference import with_reference

from .test_training_preferences import DIALOGUE, loaded, pairs

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune_trainer.tasks.pairs import Pairs

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
KINDS = {"sigmoid": ("dpo", {}), "hinge": ("dpo", {"loss": "hinge"}), "ipo": ("ipo", {})}


def as_trl(found: Pairs) -> dict[str, torch.Tensor]:
    """The very tokens as trl lays them out: all chosen sequences, then all rejected ones, padded to one width."""
    spans = [found.sides(i)[side] for side in (0, 1) for i in range(len(found))]
    width = max(end - begin for begin, end in spans)
    batch = {name: torch.zeros(len(spans), width, dtype=torch.long)
             for name in ("input_ids", "attention_mask", "completion_mask")}  # fmt: skip
    for row, (begin, end) in enumerate(spans):
        cells = slice(0, end - begin)
        batch["input_ids"][row, cells] = torch.from_numpy(found.ids[begin:end].astype("int64"))
        batch["attention_mask"][row, cells] = 1
        batch["completion_mask"][row, cells] = torch.from_numpy(found.learn[begin:end].astype("int64"))
    return batch


def theirs(model: Any, reference: Any, tokenizer: Any, kind: str, folder: Path) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    turns = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    config = DPOConfig(
        str(folder), loss_type=kind, beta=0.2, bf16=False, use_cpu=True, gradient_checkpointing=False, report_to="none",
        per_device_train_batch_size=1, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    return DPOTrainer(
        model=model, ref_model=reference, args=config, train_dataset=Dataset.from_list(turns),
        processing_class=tokenizer,
    )  # fmt: skip


@pytest.mark.parametrize("adapter", [{"type": "lora", "rank": 4}, {"type": "full"}], ids=["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_trl_s(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, adapter: dict[str, Any]
) -> None:
    pytest.importorskip("trl")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    method, changes = KINDS[kind]
    network, model, task = loaded(tiny_model, adapter, method, **changes)
    tokenizer = load_tokenizer(BaseModel(str(tiny_model)))
    found = task.encode([*pairs(6), DIALOGUE], tokenizer)
    start = models.load_model(BaseModel(str(tiny_model)), dtype=torch.float32)
    full = adapter["type"] == "full"
    if full:
        from cloudtune_trainer.devices import Devices

        plain = loaded(tiny_model, adapter, method, **changes)[2]
        plain.packed = False
        found = with_reference(start, plain, found, Devices("cpu", "fp32"), token_budget=200, check=lambda: None)
    sums = task.forward(model, task.collate(found, range(len(found))))
    (sums.loss / sums.count).backward()
    own = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()

    network.set_attn_implementation("sdpa")
    trainer = theirs(model, start if full else None, tokenizer, kind, tmp_path)
    if not full:
        model.delete_adapter("ref")  # where it went on from an adapter, that is its reference; ours is the base model
    loss = trainer.compute_loss(trainer.model.train(), as_trl(found))
    loss.backward()
    torch.testing.assert_close(sums.loss / sums.count, loss, rtol=1e-4, atol=1e-5)
    grads = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert grads.keys() == own.keys()
    for name, gradient in grads.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
    figures = task.metrics(sums.loss.item(), sums.metric_sums.tolist(), sums.count)
    for name, named in (("accuracy", "rewards/accuracies"), ("margin", "rewards/margins"),
                        ("rewards/chosen", "rewards/chosen"), ("rewards/rejected", "rewards/rejected")):  # fmt: skip
        (value,) = trainer._metrics["train"][named]
        assert figures[name] == pytest.approx(value, rel=1e-3, abs=1e-5)


def test_odds_and_margins_are_trl_s(tiny_model: Path) -> None:
    """Of ORPO the part that trl computes apart from the likelihood of the chosen answer; of SimPO the whole."""
    pytest.importorskip("trl")
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    average = -torch.rand(16, generator=torch.Generator().manual_seed(3)) * 4 - 0.01
    good, bad = average[0::2], average[1::2]
    place: Any = SimpleNamespace(device=torch.device("cpu"))
    orpo = loaded(tiny_model, {"type": "lora"}, "orpo")[2]
    terms: Any = SimpleNamespace(beta=0.2, accelerator=place)
    odds = ORPOTrainer.odds_ratio_loss(terms, good, bad)[0]
    torch.testing.assert_close(orpo._losses(average, average, average), -good - odds, rtol=1e-5, atol=1e-6)
    for smoothing in (0.0, 0.1):
        simpo = loaded(tiny_model, {"type": "lora"}, "simpo", beta=2.0, margin=0.7, label_smoothing=smoothing)[2]
        terms = SimpleNamespace(
            beta=2.0, accelerator=place, loss_type="simpo", simpo_gamma=0.7, label_smoothing=smoothing, alpha=0.0
        )
        losses = CPOTrainer.cpo_loss(terms, good, bad)[0]
        torch.testing.assert_close(simpo._losses(average, average, average), losses, rtol=1e-5, atol=1e-6)
