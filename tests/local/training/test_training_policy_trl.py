"""The losses of policy optimization and their gradients are those of trl's trainers on the same completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from cloudtune_trainer.models import BaseModel, load_tokenizer

from .test_training_policy import loaded, sampled

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune_trainer.completions import Completions

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


def as_trl(made: Completions) -> dict[str, torch.Tensor]:
    """Prompts padded on the left, completions and their figures on the right."""
    prompts = [made.ids[made.starts[i] : made.starts[i + 1] - made.tokens[i]] for i in range(len(made))]
    answers = [made.ids[made.starts[i + 1] - made.tokens[i] : made.starts[i + 1]] for i in range(len(made))]
    before, after = max(map(len, prompts)), max(map(len, answers))
    batch: dict[str, Any] = {
        name: np.zeros((len(made), width), dtype=np.int64)
        for name, width in (("prompt_ids", before), ("prompt_mask", before), ("completion_ids", after),
                            ("completion_mask", after))
    }  # fmt: skip
    figures = {"old_per_token_logps": made.old, "ref_per_token_logps": made.reference}
    batch |= {name: np.zeros((len(made), after), dtype=np.float32) for name in figures}
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        batch["prompt_ids"][i, before - len(prompt) :], batch["prompt_mask"][i, before - len(prompt) :] = prompt, 1
        batch["completion_ids"][i, : len(answer)], batch["completion_mask"][i, : len(answer)] = answer, 1
        for name, figure in figures.items():
            batch[name][i, : len(answer)] = figure[made.bounds[i] : made.bounds[i + 1]]
    batch["advantages"] = made.advantages[made.bounds[:-1]]
    batch["old_logps"] = np.add.reduceat(made.old, made.bounds[:-1])
    return {name: torch.from_numpy(value) for name, value in batch.items()}


@pytest.mark.parametrize("kind", ["tokens", "sequences", "rloo"])
def test_loss_and_gradient_are_trl_s(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    terms: dict[str, Any] = {"beta": 0.3, "clip_range": 0.25, "temperature": 0.7, "steps_per_batch": 2}
    method = "rloo" if kind == "rloo" else "grpo"
    _, model, task = loaded(tiny_model, {"type": "full"}, method, **terms,
                            **({} if kind == "rloo" else {"normalization": kind}))  # fmt: skip
    made = sampled(tiny_model)
    whole = task.forward(model, task.collate(made, range(6)))
    (whole.loss / whole.count).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    common: dict[str, Any] = {
        "beta": 0.3, "epsilon": 0.25, "temperature": 0.7, "num_iterations": 2, "num_generations": 3, "bf16": False,
        "use_cpu": True, "gradient_checkpointing": False, "report_to": "none", "per_device_train_batch_size": 6,
        "disable_tqdm": True, "dataloader_pin_memory": False, "max_completion_length": 8,
    }  # fmt: skip
    config: Any
    if kind == "rloo":
        config, trainer_of = RLOOConfig(str(tmp_path), **common), RLOOTrainer
    else:
        loss = {"tokens": "bnpo", "sequences": "grpo"}[kind]
        config = GRPOConfig(str(tmp_path), loss_type=loss, use_bias_correction_kl=False, **common)  # as in the paper
        trainer_of = GRPOTrainer
    trainer = trainer_of(
        model=model, args=config, reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 6),
        processing_class=load_tokenizer(BaseModel(str(tiny_model))),
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    expected = trainer._compute_loss(trainer.model.train(), as_trl(made))
    expected.backward()
    torch.testing.assert_close(whole.loss / whole.count, expected, rtol=1e-5, atol=1e-6)
    assert gradients
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
