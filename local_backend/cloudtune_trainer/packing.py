"""Check whether several documents can be packed into one row of a network's input, and prepare the network for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.attention import ATTENTION, documents_attention, layout_of
from cloudtune_trainer.influence import influence
from cloudtune_trainer.problems import recognized
from cloudtune_trainer.rope import switch_length

if TYPE_CHECKING:
    from torch import Tensor

_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "attention"}
"""Entries of a configuration's ``layer_types`` that mix tokens by attention alone."""
_REFUSALS = (TypeError, ValueError, RuntimeError, KeyError, AttributeError, IndexError, NotImplementedError)
"""The exceptions of a network that does not support packed documents."""
_TEXT = 200
"""Characters of an exception's message in the reason."""


def enable_packed_attention(model: Any, max_length: int = 0) -> str | None:
    """Enable packing (``attention``) if the model keeps documents separate; else leave it unchanged.

    Conditions: no layer mixes tokens other than by attention, no document influences another one, and
    three documents have the same logits packed as alone. ``max_length`` is the length of the longest document.

    Returns None if packing is enabled, else the reason against it.
    """
    from transformers import AttentionInterface

    if reason := _reason_in_layers(model):
        return reason
    switch = switch_length(model.config)
    if switch is not None and max_length > switch:
        return f"the model's rotary frequencies change at {switch} tokens, and max_length is {max_length}"
    AttentionInterface.register(ATTENTION, documents_attention)
    before = model.config._attn_implementation
    was_training = model.training
    model.eval()
    reason = "the check was interrupted"
    try:
        reason = _reason_in_outputs(model)
    except _REFUSALS as error:
        if recognized(error) is not None:  # e.g. out of memory, which does not depend on the network's kind
            raise
        reason = f"the model does not support it: {str(error)[:_TEXT]}"
    finally:
        if reason is not None:
            model.set_attn_implementation(before)
        model.train(was_training)
    return reason


def _reason_in_layers(model: Any) -> str | None:
    """A layer that mixes tokens other than by attention, or attends to fixed blocks of positions."""
    config = model.config.get_text_config()
    if getattr(config, "attention_chunk_size", None) is not None:
        return "the model attends to fixed blocks of positions"
    others = set(getattr(config, "layer_types", None) or ()) - _ATTENTION_LAYERS
    if others:
        return f"the model has layers of the type {', '.join(sorted(map(str, others)))}"
    if any(mask.dim() == 4 and mask.dtype == torch.bool for mask in model.buffers()):
        # packed rows are longer than records
        return "the model stores a causal mask, as GPT-Neo does, which limits the length of a row"
    if any(isinstance(module, torch.nn.Conv1d | torch.nn.RNNBase) for module in model.modules()):
        return "the model has a convolution or a recurrent layer along the sequence"
    return None


def _reason_in_outputs(model: Any) -> str | None:
    """A difference between documents packed in one row and each document alone."""
    embeddings = model.get_input_embeddings().weight
    documents = [
        torch.arange(a, b, device=embeddings.device) % embeddings.shape[0] for a, b in ((1, 6), (7, 10), (3, 8))
    ]
    lengths = [len(ids) for ids in documents]
    with torch.no_grad():
        alone = torch.cat([model(input_ids=ids[None], use_cache=False).logits[0] for ids in documents]).float()
    model.set_attn_implementation(ATTENTION)
    packed: dict[str, Any] = {
        "input_ids": torch.cat(documents)[None],
        "position_ids": torch.cat([torch.arange(n, device=embeddings.device) for n in lengths])[None],
        "documents": layout_of(lengths).to(embeddings.device),
        "logits_to_keep": torch.arange(sum(lengths), device=embeddings.device),
    }
    middle = torch.zeros_like(packed["input_ids"], dtype=torch.bool)
    middle[:, lengths[0] : lengths[0] + lengths[1]] = True
    reach = influence(model, packed, middle)
    if not reach.isfinite().all():
        return "the gradients of the check are not finite in this precision"
    if reach[~middle].any():
        return "documents in one row influence one another"
    with torch.no_grad():
        together: Tensor = model(**packed, use_cache=False).logits[0].float()
    tolerance = 1e-3 if model.dtype == torch.float32 else 5e-2
    if together.shape != alone.shape:
        return "the model does not return the logits of each token of a packed row"
    error = float((together - alone).norm() / alone.norm())
    return None if error <= tolerance else f"the logits of packed documents differ by {error:.1%}"
