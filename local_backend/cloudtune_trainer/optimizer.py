"""AdamW and the learning rate schedule. The rate is a pure function of the step, so resuming needs no state for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from cloudtune_trainer.run_spec import Hyperparameters


def rate_at(step: int, total_steps: int, hyper: Hyperparameters) -> float:
    """The learning rate of that optimizer step, counted from 0: linear warmup, then decay to zero by the schedule."""
    warmup = hyper.warmup_steps if hyper.warmup_steps is not None else math.ceil(hyper.warmup_ratio * total_steps)
    if step < warmup:
        return hyper.learning_rate * (step + 1) / (warmup + 1)
    if hyper.scheduler == "constant":
        return hyper.learning_rate
    done = (step - warmup) / max(1, total_steps - warmup)
    share = 1.0 - done if hyper.scheduler == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return hyper.learning_rate * max(0.0, share)


def optimizer_for(model: torch.nn.Module, hyper: Hyperparameters, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over the trained weights. Vectors, that is norms and biases, have no weight decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": hyper.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=hyper.learning_rate,
        betas=(hyper.adam_beta1, hyper.adam_beta2),
        eps=hyper.adam_epsilon,
        fused=device.type in ("cpu", "cuda"),
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as named tensors, for safetensors."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Restore the state from `optimizer_tensors`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
