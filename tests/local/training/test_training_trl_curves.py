"""The loss of 50 optimizer steps on the same batches, here and in trl's trainers, from the same weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cloudtune_trainer import models
from cloudtune_trainer.models import BaseModel, load_tokenizer
from cloudtune_trainer.run_spec import Adapter, DataFiles, ModelSource, Preference, RunSpec
from cloudtune_trainer.tasks.table import task_for

from .test_training_kto import TERMS, rated
from .test_training_preferences import pairs, terms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore")]
STEPS, BATCH, RATE = 50, 4, 2e-3
QUIET: dict[str, Any] = {
    "bf16": False, "use_cpu": True, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True,
    "per_device_train_batch_size": BATCH, "dataloader_pin_memory": False,
}  # fmt: skip
PAIR = [{"prompt": "a", "chosen": "b", "rejected": "c"}] * BATCH
SETTINGS: dict[str, dict[str, Any]] = {"dpo": terms(), "kto": TERMS, "reward": {}}


def opened(folder: Path, method: str) -> tuple[Any, Any]:
    """The task of a method, and the tiny model with a LoRA adapter."""
    spec = RunSpec(
        version=2, model=ModelSource(source="folder", path=str(folder)), data=DataFiles(train="t"), method=method,
        adapter=Adapter(type="lora", rank=4, dropout=0.0),
        preference=Preference(**SETTINGS[method]) if SETTINGS[method] else None,
    )  # fmt: skip
    base, task = BaseModel(str(folder)), task_for(spec)
    torch.manual_seed(5)
    network = task.load_model(base, load_tokenizer(base), list, dtype=torch.float32, weights=None, dropout=0.0)
    task.packed = False
    return task, models.make_trainable(network, spec, base, None, task.peft_task_type)


def trainer_of(method: str, model: Any, tokenizer: Any, folder: Path) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

    rated_rows = [{"prompt": f"a{n}", "completion": "b", "label": n % 2 == 0} for n in range(6)]
    make, config, rows = {
        "dpo": (DPOTrainer, lambda: DPOConfig(str(folder), beta=0.2, **QUIET), PAIR),
        "kto": (KTOTrainer, lambda: KTOConfig(str(folder), train_sampling_strategy="sequential", **TERMS, **QUIET),
                rated_rows),
        "reward": (RewardTrainer, lambda: RewardConfig(str(folder), **QUIET), PAIR),
    }[method]  # fmt: skip
    own: Any = make
    trainer = own(model=model, args=config(), train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")  # trl continues from a copy of the adapter; here the base model is the reference
    return trainer


def padded(samples: Any, spans: Sequence[tuple[int, int]], prefix: str = "") -> dict[str, torch.Tensor]:
    width = max(end - begin for begin, end in spans)
    found = {name: torch.zeros(len(spans), width, dtype=torch.long)
             for name in ("input_ids", "attention_mask", "completion_mask")}  # fmt: skip
    for row, (begin, end) in enumerate(spans):
        cells = slice(0, end - begin)
        found["input_ids"][row, cells] = torch.from_numpy(samples.ids[begin:end].astype("int64"))
        found["attention_mask"][row, cells] = 1
        found["completion_mask"][row, cells] = torch.from_numpy(samples.learn[begin:end].astype("int64"))
    return {prefix + name: tensor for name, tensor in found.items()}


def as_trl(method: str, samples: Any, rows: Sequence[int], padding: int) -> dict[str, Any]:
    """The same tokens as trl's collators arrange them."""
    first, second = ([samples.sides(i)[side] for i in rows] for side in (0, 1))
    if method == "kto":
        label = torch.from_numpy(samples.desirable[list(rows)])
        return padded(samples, first) | padded(samples, second, "KL_") | {"label": label}
    both = padded(samples, [*first, *second])
    if method == "reward":  # its score is that of the last token that is not padding
        both["input_ids"][both["attention_mask"] == 0] = padding
        del both["completion_mask"]
    return both


def own_loss(method: str, task: Any, model: Any, samples: Any, rows: Sequence[int]) -> torch.Tensor:
    batch = task.collate(samples, rows)
    if method == "kto":
        with torch.no_grad():
            task.step_mean = task.step_sum(model, batch).item() / len(rows)
    sums = task.forward(model, batch)
    loss: torch.Tensor = sums.loss / sums.count
    return loss


@pytest.mark.parametrize("method", SETTINGS)
def test_the_loss_curve_is_that_of_trl(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    pytest.importorskip("trl")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tokenizer = load_tokenizer(BaseModel(str(tiny_model)))
    task, model = opened(tiny_model, method)
    samples = task.encode((rated if method == "kto" else pairs)(STEPS * BATCH), tokenizer)
    theirs = copy.deepcopy(model)
    trainer = trainer_of(method, theirs, tokenizer, tmp_path)

    def trl_loss(rows: Sequence[int]) -> torch.Tensor:
        return trainer.compute_loss(trainer.model, as_trl(method, samples, rows, tokenizer.pad_token_id))  # type: ignore[no-any-return]

    def loss(rows: Sequence[int]) -> torch.Tensor:
        return own_loss(method, task, model, samples, rows)

    curves = []
    for trained, loss_of in ((model.train(), loss), (trainer.model.train(), trl_loss)):
        parameters = [one for one in trained.parameters() if one.requires_grad]
        optimizer, losses = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0), []
        for step in range(STEPS):
            now = loss_of(range(step * BATCH, (step + 1) * BATCH))
            optimizer.zero_grad()
            now.backward()
            optimizer.step()
            losses.append(now.item())
        curves.append(losses)
    assert curves[0][0] == pytest.approx(curves[1][0], rel=1e-5)
    assert curves[0] == pytest.approx(curves[1], rel=2e-3, abs=1e-4)
    assert sum(curves[0][-10:]) < 0.8 * sum(curves[0][:10]), "it learns"
