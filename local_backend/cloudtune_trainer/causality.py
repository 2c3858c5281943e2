"""Check that a network predicts each token from earlier tokens only."""

from __future__ import annotations

from typing import Any

import torch

from cloudtune_trainer.influence import influence
from cloudtune_trainer.problems import TrainingProblem

_LENGTH = 12
_KNOWN = 6
"""Number of tokens whose logits must not depend on later tokens."""


def check_causal(network: Any) -> None:
    """Refuse a network that attends to later tokens: it could read the labels that it has to predict.

    Raises:
        TrainingProblem: ``bad_spec``, with the methods that such a model is for.

    """
    was_training = network.training
    network.eval()
    try:
        causal = not _sees_later_tokens(network)
    finally:
        network.train(was_training)
    if not causal:
        kind = network.config.model_type
        raise TrainingProblem(
            "bad_spec",
            f"{type(network).__name__} is not a causal language model: its outputs depend on later tokens",
            f"Use a decoder for this method. A {kind} model can be trained with method: classification.",
        )


def _sees_later_tokens(network: Any) -> bool:
    embeddings = network.get_input_embeddings().weight
    ids = (torch.arange(_LENGTH, device=embeddings.device) + 3)[None] % embeddings.shape[0]
    known = torch.zeros_like(ids, dtype=torch.bool)
    known[:, :_KNOWN] = True
    if influence(network, {"input_ids": ids}, known)[0, _KNOWN:].any():
        return True
    other = torch.where(known, ids, (ids + 7) % embeddings.shape[0])  # for effects that depend on the ids themselves
    with torch.no_grad():
        first, second = (network(input_ids=x, use_cache=False).logits[known].float() for x in (ids, other))
    tolerance = 1e-3 if network.dtype == torch.float32 else 5e-2
    return bool((first - second).norm() > tolerance * first.norm())
