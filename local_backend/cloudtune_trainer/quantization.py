"""Base models in 4 bits, for QLoRA (arxiv.org/abs/2305.14314): NF4 with double quantization, by bitsandbytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.adapter_targets import choose_targets
from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from types import ModuleType


def quantize(network: Any) -> None:
    """Replace the linear layers of the network, except its head, by layers with 4 bits for each weight.

    Raises:
        TrainingProblem: ``bad_spec``, without bitsandbytes or without such layers.

    """
    library = import_library()
    for name, layer in _layers(network).items():
        quantized = library.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=layer.weight.dtype,
            quant_type="nf4", compress_statistics=True, device="meta",
        )  # fmt: skip
        quantized.weight = _quantized(library, layer.weight)
        quantized.bias = layer.bias
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, quantized.to(layer.weight.device))
    network.is_loaded_in_4bit = True  # peft asks for it


def round_weights(network: Any) -> None:
    """Set the weights of the same layers to the values that they have after `quantize`."""
    library = import_library()
    with torch.no_grad():
        for layer in _layers(network).values():
            weight = _quantized(library, layer.weight).to(layer.weight.device)
            layer.weight.copy_(library.functional.dequantize_4bit(weight.data, weight.quant_state))


def import_library() -> ModuleType:
    """bitsandbytes, or a problem that says how to install it."""
    try:
        import bitsandbytes
    except ImportError as error:
        what = "adapter.type qlora requires bitsandbytes, which is not installed"
        raise TrainingProblem("bad_spec", what, "Run: pip install bitsandbytes") from error
    return bitsandbytes  # type: ignore[no-any-return]


def _quantized(library: Any, weight: Any) -> Any:
    return library.nn.Params4bit(
        weight.detach().clone(), requires_grad=False, quant_type="nf4", compress_statistics=True
    )


def _layers(network: Any) -> dict[str, Any]:
    modules = {name: network.get_submodule(name) for name in choose_targets(network, not_stacked="").names}
    found = {name: module for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    if not found:
        what = f"{type(network).__name__} has no linear layers that can be quantized"
        raise TrainingProblem("bad_spec", what, "Use adapter: lora.")
    return found
