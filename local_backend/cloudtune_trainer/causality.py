"""Check that a network predicts each token from earlier tokens only."""

from __future__ import annotations

from typing import Any

import torch

from cloudtune_trainer.influence import influence
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.weights import listed

_LENGTH = 12
_KNOWN = 6
"""Number of tokens whose logits must not depend on later tokens."""


def check_causal(network: Any) -> None:
    """Refuse a network that attends to later tokens: it could read the labels that it has to predict.

    Raises:
        TrainingProblem: ``bad_spec``, with the methods that such a model is for; ``model_not_found`` if the network's
            outputs are not finite.

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
    other = torch.where(known, ids, (ids + 7) % embeddings.shape[0])  # for effects that depend on the ids themselves
    with torch.no_grad():
        first, second = (network(input_ids=x, use_cache=False).logits[known].float() for x in (ids, other))
    if not (first.isfinite().all() and second.isfinite().all()):
        raise _not_finite(network)
    reach = influence(network, {"input_ids": ids}, known)
    if reach.isfinite().all() and reach[0, _KNOWN:].any():  # a gradient can overflow in fp16 where the logits do not
        return True
    tolerance = 1e-3 if network.dtype == torch.float32 else 5e-2
    return bool((first - second).norm() > tolerance * first.norm())


def _not_finite(network: Any) -> TrainingProblem:
    damaged = [name for name, weight in network.named_parameters() if not weight.isfinite().all()]
    hint = "Download the model again." if damaged else "Use precision bf16 or fp32."
    where = f"; weights with NaN or infinity: {listed(damaged)}" if damaged else ""
    return TrainingProblem("model_not_found", f"the outputs of {type(network).__name__} are not finite{where}", hint)
