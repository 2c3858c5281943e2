"""Check whether several documents can be packed into one row of a network's input, and prepare the network for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.attention import ATTENTION, documents_attention, layout_of
from cloudtune_trainer.influence import influence
from cloudtune_trainer.rope import switch_length

if TYPE_CHECKING:
    from torch import Tensor

_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "attention"}
"""Entries of a configuration's ``layer_types`` that mix tokens by attention alone."""
_REFUSALS = (TypeError, ValueError, RuntimeError, KeyError, AttributeError, IndexError, NotImplementedError)
"""The exceptions of a network that does not support packed documents."""


def enable_packed_attention(model: Any, max_length: int = 0) -> bool:
    """Enable packing (``attention``) if the model keeps documents separate; else leave it unchanged.

    Conditions: no layer mixes tokens other than by attention, no document influences another one, and
    three documents have the same logits packed as alone. ``max_length`` is the length of the longest document.
    """
    from transformers import AttentionInterface

    if _mixes_otherwise(model) or max_length > (switch_length(model.config) or max_length):
        return False
    AttentionInterface.register(ATTENTION, documents_attention)
    before = model.config._attn_implementation
    was_training = model.training
    model.eval()
    try:
        apart = _keeps_documents_apart(model)
    except _REFUSALS:
        apart = False
    if not apart:
        model.set_attn_implementation(before)
    model.train(was_training)
    return apart


def _mixes_otherwise(model: Any) -> bool:
    """Whether a layer has a state or a convolution along the sequence, or attends to fixed blocks of positions.

    A stored causal mask, as in GPT-Neo, also limits the length of a row, and packed rows are longer than records.
    """
    config = model.config.get_text_config()
    if getattr(config, "attention_chunk_size", None) is not None:
        return True
    if not set(getattr(config, "layer_types", None) or ()) <= _ATTENTION_LAYERS:
        return True
    if any(mask.dim() == 4 and mask.dtype == torch.bool for mask in model.buffers()):
        return True
    return any(isinstance(module, torch.nn.Conv1d | torch.nn.RNNBase) for module in model.modules())


def _keeps_documents_apart(model: Any) -> bool:
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
    if influence(model, packed, middle)[~middle].any():
        return False
    with torch.no_grad():
        together: Tensor = model(**packed, use_cache=False).logits[0].float()
    tolerance = 1e-3 if model.dtype == torch.float32 else 5e-2
    return together.shape == alone.shape and bool((together - alone).norm() <= tolerance * alone.norm())
