"""Choose the weights that a LoRA adapter changes if the job leaves the choice to the trainer (``all-linear``).

Targets are all linear layers and stacks of experts of the base model, except those that an adapter cannot change
correctly. Omitted weights are reported with the reason.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.heads import ends_of, probe_inputs
from cloudtune_trainer.weights import head_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloudtune_trainer.reporting import Report

_ROUTERS = {"gate", "router"}
"""Names of the layers that assign tokens to experts."""
_SPLIT_NAMES = {"gate", "w1", "w2", "w3", "gate_proj", "up_proj", "down_proj"}
"""Modules that peft treats as the experts of a mixture, also in a shared expert or a dense layer
(peft 0.21, utils/transformers_weight_conversion.py). There the weight is targeted as a parameter instead."""


_LENGTH = 8
"""Tokens of the forward pass that finds the outputs of layers."""
_NOTABLE = 0.1
"""The share of omitted weights from which a warning is reported."""


@dataclass
class Targets:
    """The targets for peft, and the omitted weights."""

    names: list[str] = field(default_factory=list)
    """The linear layers, by their full names."""
    modules: list[str] = field(default_factory=list)
    """The shortest ends of these names that identify them."""
    parameters: list[str] = field(default_factory=list)
    """Weights outside linear layers, e.g. stacks of experts."""
    skipped: dict[str, Skipped] = field(default_factory=dict)
    """Reason -> the weights without an adapter for that reason."""

    def skip(self, name: str, parameter: torch.Tensor, reason: str) -> None:
        """Omit a weight."""
        found = self.skipped.setdefault(reason, Skipped())
        found.names.append(_grouped(name))
        found.size += parameter.numel()


@dataclass
class Skipped:
    """Weights omitted for one reason."""

    names: list[str] = field(default_factory=list)
    """``*`` is a placeholder for the number of a layer."""
    size: int = 0
    """The number of parameters."""


def choose_targets(network: Any, *, not_stacked: str | None = None) -> Targets:
    """Choose the targets in ``network``, a model without adapters.

    ``not_stacked`` is the reason why an adapter is not possible on weights outside linear layers.
    """
    from transformers.pytorch_utils import Conv1D

    linear = {name: m for name, m in network.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)}
    heads = {name.rpartition(".")[0] for name in head_weights(network)}
    output = ends_of(network)[1]
    uses = Counter(id(parameter) for _, parameter in network.named_parameters(remove_duplicate=False))
    outputs = _outputs_of(network, linear)
    targets = Targets()
    chosen, parameters = [], []
    renamed = _renames_experts(network)
    for name, module in linear.items():
        if module is output or name in heads:
            continue
        reason = _reason_against(network, name, module, shared=uses[id(module.weight)] > 1, output=outputs.get(name))
        by_parameter = renamed and name.rpartition(".")[2] in _SPLIT_NAMES
        if reason is None and by_parameter:
            reason = not_stacked
        if reason is not None:
            targets.skip(name, module.weight, reason)
        elif by_parameter:
            parameters.append(f"{name}.weight")
        else:
            chosen.append(name)
    for name, parameter in network.named_parameters():
        if parameter.dim() == 3 and _is_expert(network, name):
            if not_stacked is not None:
                targets.skip(name, parameter, not_stacked)
            else:
                parameters.append(name)
        elif (
            parameter.dim() == 2 and _is_expert(network, name) and not (name.endswith("bias") or _owner(name) in linear)
        ):
            targets.skip(name, parameter, "these experts are stored as one matrix")
    targets.names = chosen
    targets.modules = _shortest_names(chosen, [name for name, _ in network.named_modules()])
    targets.parameters = _shortest_names(parameters, [name for name, _ in network.named_parameters()])
    return targets


@dataclass(frozen=True)
class Coverage:
    """How much of a model an adapter changes, in numbers of parameters."""

    trained: int
    adapted: int
    """Weights of the base model that the adapter changes."""
    total: int
    """Weights of the base model."""
    targets: tuple[str, ...]
    """The adapted weights; ``*`` is a placeholder for the number of a layer."""


def coverage_of(tuned: Any) -> Coverage:
    """The coverage of the adapter of ``tuned``, a peft model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    names, adapted = set(), {}
    for name, module in tuned.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer):
            weight = module.get_param() if hasattr(module, "get_param") else module.get_base_layer().weight
            adapted[id(weight)] = _size(weight)
            suffix = f".{module.parameter_name}" if hasattr(module, "parameter_name") else ""
            names.add(_grouped(name.replace(".base_layer", "") + suffix))
    trained = {id(p): p.numel() for p in tuned.parameters() if p.requires_grad}
    frozen = {id(p): _size(p) for p in tuned.parameters() if not p.requires_grad}
    return Coverage(sum(trained.values()), sum(adapted.values()), sum(frozen.values()), tuple(sorted(names)))


def _size(weight: Any) -> int:
    """The number of parameters; a quantized weight stores two in a byte."""
    state = getattr(weight, "quant_state", None)
    return math.prod(weight.shape if state is None else state.shape)


def report_coverage(report: Report, tuned: Any, skipped: Mapping[str, Skipped]) -> None:
    """Report how much of the model the adapter of ``tuned`` changes, and which weights it omits and why."""
    found = coverage_of(tuned)
    report.event(
        "message",
        f"the adapter trains {found.trained} parameters and changes {found.adapted / found.total:.0%} of the model's "
        f"weights: {', '.join(found.targets)}",
        trained=found.trained, adapted=found.adapted, total=found.total, targets=list(found.targets),
    )  # fmt: skip
    for reason, left_out in skipped.items():
        names = list(dict.fromkeys(left_out.names))
        share = left_out.size / found.total
        say = report.warning if share > _NOTABLE else lambda text, **data: report.event("message", text, **data)
        say(f"no adapter on {', '.join(names)} ({share:.0%} of the model's weights): {reason}", weights=names)


def _reason_against(network: Any, name: str, module: Any, *, shared: bool, output: Any) -> str | None:
    """The reason why that linear layer gets no adapter, or None."""
    parts = name.split(".")
    if shared:
        return "several layers share the weight, and it could not be merged"
    if output is not None and not isinstance(output, torch.Tensor):
        return "it returns more than one value"
    if _ROUTERS & set(parts[-2:]) and _chooses_experts(network, module):
        return "it assigns tokens to experts"
    if parts[-1] == "out_proj" and hasattr(network.get_submodule(".".join(parts[:-1])), "A_log"):
        return "kernels for state-space layers read the weight without the adapter"
    if output is None:
        return "the model reads the weight without calling the layer"
    return None


def _chooses_experts(network: Any, module: Any) -> bool:
    config = network.config.get_text_config()
    counts = {getattr(config, name, None) for name in ("num_local_experts", "num_experts", "n_routed_experts")}
    return getattr(module, "out_features", None) in counts - {None} or not hasattr(module, "out_features")


def _outputs_of(network: Any, linear: dict[str, Any]) -> dict[str, Any]:
    """The output of each linear layer in a short forward pass.

    An expert without tokens is treated like its neighbors.
    """
    found: dict[str, Any] = {}
    groups = {module: _grouped(name) for name, module in linear.items()}

    def keep(module: Any, _inputs: Any, output: Any) -> None:
        found.setdefault(groups[module], output)

    hooks = [module.register_forward_hook(keep) for module in groups]
    options = {"use_cache": False} if network.main_input_name == "input_ids" else {}
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(**probe_inputs(network, _LENGTH), **options)
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return {name: found.get(_grouped(name)) for name in linear}


def _is_expert(network: Any, name: str) -> bool:
    owner = _owner(name)
    return "experts" in owner.split(".") or "Expert" in type(network.get_submodule(owner)).__name__


def _owner(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _renames_experts(network: Any) -> bool:
    """Whether peft treats names of linear layers as names of experts in this family."""
    from peft.utils import transformers_weight_conversion as conversion

    family = conversion._MODEL_TO_CONVERSION_PATTERN.get(network.config.model_type)
    return family in conversion._MOE_TARGET_MODULE_MAPPING


def _shortest_names(chosen: Iterable[str], everything: Sequence[str]) -> list[str]:
    """The shortest unique suffixes of those names, split at dots, as peft matches them."""
    wanted, there = Counter[str](), Counter[str]()
    chosen = list(chosen)
    for names, counts in ((chosen, wanted), (everything, there)):
        for name in names:
            parts = name.split(".")
            counts.update(".".join(parts[start:]) for start in range(len(parts)))
    found = set()
    for name in chosen:
        parts = name.split(".")
        ends = (".".join(parts[start:]) for start in reversed(range(len(parts))))
        found.add(next(end for end in ends if wanted[end] == there[end]))
    return sorted(found)


def _grouped(name: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)
