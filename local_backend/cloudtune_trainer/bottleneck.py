"""Bottleneck adapters: small networks after the sublayers of each layer, whose other weights are frozen.

The output y of a sublayer's last linear layer, before the residual connection, becomes y + up(relu(down(y))). They
follow the attention and the feed-forward sublayer (Houlsby et al., arxiv.org/abs/1902.00751), or only the latter
(Pfeiffer et al., arxiv.org/abs/2005.00247). ``up`` starts at zero, so that training starts from the base model.

peft has no such adapter, so that these adapters load in cloudtune only. They have the same two files.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cloudtune_trainer.adapter_targets import choose_targets
from cloudtune_trainer.layer_schedule import stacks_of
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tuned import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_object
from cloudtune_trainer.weights import check_tensors, head_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cloudtune_trainer.spec_trained import Adapter

PEFT_TYPE = "CLOUDTUNE_BOTTLENECK"


class Bottleneck(torch.nn.Module):
    """A linear layer with an adapter after it."""

    def __init__(self, base_layer: Any, width: int, size: int) -> None:
        super().__init__()
        device = base_layer.weight.device
        self.base_layer = base_layer
        self.down = torch.nn.Linear(width, size, device=device)
        self.up = torch.nn.Linear(size, width, device=device)
        torch.nn.init.zeros_(self.up.weight)
        torch.nn.init.zeros_(self.up.bias)
        self.enabled = True

    @property
    def weight(self) -> Tensor:
        """The linear layer's weight: some models read its type."""
        return self.base_layer.weight  # type: ignore[no-any-return]

    @property
    def bias(self) -> Tensor | None:
        """The linear layer's bias."""
        return self.base_layer.bias  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor) -> Tensor:
        """The linear layer's output, with the adapter's part."""
        output: Tensor = self.base_layer(inputs)
        if not self.enabled:
            return output
        hidden = torch.relu(self.down(output.to(self.down.weight.dtype)))
        change: Tensor = self.up(hidden)
        return output + change.to(output.dtype)


def add_bottlenecks(model: Any, adapter: Adapter, task_type: str) -> Any:
    """Add new adapters to the model, and freeze its other weights. The head of a classifier is trained too."""
    found = _sublayer_ends(model)
    if adapter.placement == "pfeiffer":
        found = [ends[-1:] for ends in found]
    targets = [name for ends in found for name in ends]
    if not targets:
        what = f"the trainer finds no sublayers in {type(model).__name__}"
        raise TrainingProblem("bad_spec", what, "Use another adapter, such as lora.")
    saved = [] if task_type.endswith("_LM") else head_weights(model)  # a language model keeps the head that it has
    return _insert(model, task_type, targets, adapter.bottleneck_size, saved)


def load_bottlenecks(model: Any, folder: Path) -> Any:
    """Add the adapters in that folder to the model, a base model. The folder has been checked."""
    config = read_object(folder / ADAPTER_CONFIG)
    modules = dict(model.named_modules())
    known = {name for name, _ in model.named_parameters()}
    saved = config.get("modules_to_save") or []
    missing = [name for name in config["target_modules"] if not _is_linear(modules.get(name))]
    if missing or not set(saved) <= known:
        what = f"{folder}: the base model has no {(missing or sorted(set(saved) - known))[0]!s:.100}"
        raise TrainingProblem("model_not_found", what, "Use the base model with which the adapter was trained.")
    adapted = _insert(model, config.get("task_type") or "CAUSAL_LM", config["target_modules"], config["size"], saved)
    restore_bottlenecks(adapted, folder)
    return adapted


def save_bottlenecks(model: Any, folder: Path) -> None:
    """Write the adapters' weights and configuration."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in _weights(model).items()}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (folder / ADAPTER_CONFIG).write_text(json.dumps(model.bottlenecks, indent=2) + "\n", encoding="utf-8")


def restore_bottlenecks(model: Any, folder: Path) -> None:
    """Set the adapters' weights to those in the folder. Raises ``model_not_found`` if they do not fit."""
    from safetensors.torch import load_file

    weights, stored = _weights(model), load_file(folder / ADAPTER_WEIGHTS)
    check_tensors(
        str(folder), {name: list(tensor.shape) for name, tensor in weights.items()},
        {name: list(tensor.shape) for name, tensor in stored.items()},
    )  # fmt: skip
    with torch.no_grad():
        for name, value in stored.items():
            weights[name].copy_(value)


def _insert(model: Any, task_type: str, targets: Sequence[str], size: int, saved: Sequence[str]) -> Any:
    model.requires_grad_(False)
    width = model.config.get_text_config().hidden_size
    for name, parameter in model.named_parameters():
        if name in saved:
            parameter.requires_grad_(True)
    for name in targets:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Bottleneck(model.get_submodule(name), width, size))
    model.bottlenecks = {
        "peft_type": PEFT_TYPE, "task_type": task_type, "size": size,
        "target_modules": list(targets), "modules_to_save": list(saved),
    }  # fmt: skip

    @contextlib.contextmanager
    def disable_adapter() -> Iterator[None]:
        layers = [module for module in model.modules() if isinstance(module, Bottleneck)]
        for layer in layers:
            layer.enabled = False
        try:
            yield
        finally:
            for layer in layers:
                layer.enabled = True

    model.disable_adapter = disable_adapter
    return model


def _weights(model: Any) -> dict[str, Tensor]:
    config, targets = model.bottlenecks, set(model.bottlenecks["target_modules"])
    found = {}
    for name, parameter in model.named_parameters():
        owner, _, _ = name.rpartition(".")
        inside, _, part = owner.rpartition(".")
        if (inside in targets and part in ("down", "up")) or name in config["modules_to_save"]:
            found[name] = parameter
    return found


def _sublayer_ends(model: Any) -> list[list[str]]:
    """For each layer, the last linear layer of each sublayer, by name. They write to the residual stream."""
    usable = set(choose_targets(model, not_stacked="").names)
    width = model.config.get_text_config().hidden_size
    layers: dict[tuple[int, int], dict[str, str]] = {}
    modules = dict(model.named_modules())
    for stack in stacks_of(model):
        for name, module in modules.items():
            index = stack.index_of(name)
            if index is None or not _is_linear(module):
                continue
            sublayer = _sublayer_of(name, modules, stack.names)
            ends = layers.setdefault((stack.below, index), {})
            ends.pop(sublayer, None)
            if _width_of(module) == width and name in usable:
                ends[sublayer] = name
    return [list(ends.values()) for _, ends in sorted(layers.items())]


def _sublayer_of(name: str, modules: dict[str, Any], lists: Sequence[str]) -> str:
    """The child of the layer that holds that module; the layer itself for its own linear layers."""
    place = next(prefix for prefix in lists if name.startswith(f"{prefix}."))
    parts = name[len(place) + 1 :].split(".")
    for length in range(2, len(parts)):
        path = f"{place}.{'.'.join(parts[:length])}"
        if not isinstance(modules[path], torch.nn.ModuleList):
            return path
    return f"{place}.{parts[0]}"


def _is_linear(module: Any) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | Conv1D)


def _width_of(module: Any) -> int:
    return int(getattr(module, "out_features", None) or module.nf)
