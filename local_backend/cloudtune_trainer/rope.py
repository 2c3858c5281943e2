"""Rotary position embeddings whose frequencies depend on the longest sequence of a batch.

With ``longrope``, transformers uses one set of frequencies if all sequences of a batch fit into the original context
and another if one does not. Rows of both kinds are therefore computed separately, so that a row's result does not
depend on the other rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from cloudtune_trainer.heads import head_outputs

if TYPE_CHECKING:
    from torch import Tensor


def switch_length(config: Any) -> int | None:
    """The longest sequence, in tokens, before the frequencies change; None if they never do."""
    config = config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or {}
    if not isinstance(parameters, dict):
        return None
    found = []
    for entry in (parameters, *parameters.values()):  # models with several kinds of layers have one entry for each
        if isinstance(entry, dict) and entry.get("rope_type") == "longrope":
            length = entry.get("original_max_position_embeddings")
            found.append(length or getattr(config, "original_max_position_embeddings", None))
    return min((int(length) for length in found if length), default=None)


def logits_by_length(model: Any, inputs: dict[str, Tensor], **options: Any) -> Tensor:
    """The logits of padded rows, each the same as for the row alone. ``inputs`` has an ``attention_mask``."""
    switch = switch_length(model.config)
    lengths = inputs["attention_mask"].sum(1)
    groups = [] if switch is None else [mask for mask in (lengths > switch, lengths <= switch) if mask.any()]
    if len(groups) < 2:
        return head_outputs(model(**inputs, **options))
    full_width = inputs["input_ids"].shape[1]
    parts = []
    for mask in groups:
        width = int(lengths[mask].max())
        logits = head_outputs(model(**{name: value[mask, :width] for name, value in inputs.items()}, **options))
        parts.append(F.pad(logits, (0, 0, 0, full_width - width)) if logits.dim() == 3 else logits)
    order = torch.cat([mask.nonzero()[:, 0] for mask in groups])
    return torch.cat(parts)[order.argsort()]
