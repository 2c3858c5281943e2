"""Merge an adapter into the weights of its base model, and check that the logits are the same."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.heads import ends_of, head_outputs, probe_inputs
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.weights import cast_parameters, load_checked

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_LENGTH = 24
_TOLERANCE = 1e-3
"""Limit of the logits' relative error: additions in fp32 differ by about 1e-6."""


def merge_into(folder: Path, network: Any, dtype: torch.dtype) -> None:
    """Write ``network``, a peft model in fp32, to ``folder`` as a plain model in ``dtype``.

    If the embeddings and the output layer share a weight and one of them has an adapter, the merged model stores
    both.

    Raises:
        TrainingProblem: ``bad_spec``, if the merged model has other logits than the adapter.

    """
    network.eval()
    expected = _probe_logits(network)
    _untie(network)
    merged = network.merge_and_unload()
    _compare(expected, _probe_logits(merged), "the merged weights")
    cast_parameters(merged, dtype)
    merged.save_pretrained(folder)
    cast_parameters(merged, torch.float32)
    rounded = _probe_logits(merged)
    merged.to("meta")  # frees its memory: the caller still holds the network
    saved = load_checked(type(merged), str(folder), dtype=torch.float32)
    _compare(rounded, _probe_logits(saved), "the saved model")


def adapted_shared_layers(network: Any) -> list[Any]:
    """The adapted layers of a peft model that share their weight with another layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = network.get_base_model()
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return [
        module
        for module in model.modules()
        if isinstance(module, BaseTunerLayer)
        and not hasattr(module, "get_param")
        and uses[id(getattr(module.get_base_layer(), "weight", None))] > 1
    ]


def remove_adapter_layers(model: Any) -> None:
    """Put the model's own layers back in place of peft's, e.g. after peft failed while it added an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper  # of modules_to_save, among others

    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            own = layer.original_module if isinstance(layer, AuxiliaryTrainingWrapper) else layer
            own = own.get_base_layer() if isinstance(own, BaseTunerLayer) else own
            if own is not layer:
                setattr(parent, name, own)
    if hasattr(model, "peft_config"):
        del model.peft_config


def _untie(network: Any) -> None:
    """Untie the adapted one of the embeddings and the output layer."""
    model = network.get_base_model()
    shared = adapted_shared_layers(network)
    ends = ends_of(model)
    if not all(module in ends for module in shared):
        raise _refusal("several layers share a weight that the adapter changes")
    for module in shared:
        layer = module.get_base_layer()
        layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    if shared:
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def _probe_logits(network: Any) -> Tensor:
    """Logits of a fixed row, on the CPU, in fp32."""
    with torch.no_grad():
        out = network(**probe_inputs(network, _LENGTH))
    return head_outputs(out).float().cpu()


def _compare(expected: Tensor, found: Tensor, what: str) -> None:
    error = float((expected - found).norm() / expected.norm())
    if not error <= _TOLERANCE:
        raise _refusal(f"the logits of {what} differ from the adapter's by {error:.1%}")


def _refusal(reason: str) -> TrainingProblem:
    return TrainingProblem(
        "bad_spec", f"a merged model would not answer as the adapter does: {reason}", "Export the adapter as it is."
    )
