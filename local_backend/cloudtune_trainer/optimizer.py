"""AdamW and the learning rate schedule. The rate is a pure function of the step, so resuming needs no state for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from cloudtune_trainer.layer_schedule import LayerSchedule
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


def optimizer_for(layers: LayerSchedule, hyper: Hyperparameters, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over the trained weights. Vectors, that is norms and biases, have no weight decay."""
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for name, parameter in layers.trained.items():
        decays, factor = parameter.ndim >= 2, layers.factor(name)
        decay = hyper.weight_decay if decays else 0.0
        group = groups.setdefault((decays, factor), {"params": [], "weight_decay": decay, "rate_factor": factor})
        group["params"].append((name, parameter))
    return torch.optim.AdamW(
        sorted(groups.values(), key=lambda group: group["weight_decay"] == 0.0),
        lr=hyper.learning_rate,
        betas=(hyper.adam_beta1, hyper.adam_beta2),
        eps=hyper.adam_epsilon,
        fused=device.type in ("cpu", "cuda"),
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all weights, each with its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as named tensors, for safetensors: ``<parameter>.<name of the value>``."""
    names = _names(optimizer)
    state = optimizer.state_dict()["state"]
    return {f"{names[index]}.{name}": value for index, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Restore the state from `optimizer_tensors`. Weights that had no state, or are not trained now, start without."""
    numbers = {name: index for index, name in enumerate(_names(optimizer))}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        parameter, _, name = key.rpartition(".")
        if parameter in numbers:
            state.setdefault(numbers[parameter], {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _names(optimizer: torch.optim.Optimizer) -> list[str]:
    """The parameters' names, in the order of the optimizer's state."""
    return [name for group in optimizer.param_groups for name in group["param_names"]]
