"""Check whether a network gives the same answers to prompts in a batch as to each prompt alone."""

from __future__ import annotations

from typing import Any

import torch

from cloudtune_trainer.influence import influence
from cloudtune_trainer.problems import recognized
from cloudtune_trainer.rope import switch_length

_SHORT, _LONG, _NEW = 6, 10, 3
"""Numbers of tokens of the two prompts and of their answers."""


def answers_in_batches(network: Any, padding: int) -> bool:
    """Whether prompts padded on the left with the token ``padding`` have the same logits in a batch as alone.

    This is false for models that ignore the attention mask or count positions from the padding, and for models whose
    rotary frequencies depend on the longest prompt.
    """
    if switch_length(network.config) is not None:
        return False
    embeddings = network.get_input_embeddings().weight
    ids = (torch.arange(_LONG, device=embeddings.device) + 3).repeat(2, 1) % embeddings.shape[0]
    mask = torch.ones_like(ids)
    ids[1, : _LONG - _SHORT] = padding
    mask[1, : _LONG - _SHORT] = 0
    try:
        return _ignores_padding(network, ids, mask) and _writes_the_same(network, ids, mask, padding)
    except Exception as error:  # a network that cannot take a padded batch raises any exception
        if recognized(error) is not None:  # e.g. out of memory, which does not depend on the network's kind
            raise
        return False


def _ignores_padding(network: Any, ids: torch.Tensor, mask: torch.Tensor) -> bool:
    inputs = {"input_ids": ids, "attention_mask": mask}
    prepared = network.prepare_inputs_for_generation(ids, attention_mask=mask, use_cache=False, is_first_iteration=True)
    if prepared.get("position_ids") is not None:
        inputs["position_ids"] = prepared["position_ids"]
    real = mask.bool()
    real[0] = False
    return not influence(network, inputs, real)[~real].any()


def _writes_the_same(network: Any, ids: torch.Tensor, mask: torch.Tensor, padding: int) -> bool:
    from transformers import GenerationConfig

    config = GenerationConfig(
        do_sample=False, min_new_tokens=_NEW, max_new_tokens=_NEW, pad_token_id=padding, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip

    def write(rows: torch.Tensor, attention: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            out = network.generate(input_ids=rows, attention_mask=attention, generation_config=config)
        return out.sequences[-1, -_NEW:], torch.stack(out.logits)[:, -1].float()

    tokens, together = write(ids, mask)
    tokens_alone, alone = write(ids[1:, _LONG - _SHORT :], mask[1:, _LONG - _SHORT :])
    # rounding can decide between two equally likely tokens; the logits after different tokens are not comparable
    steps = 1 + int((tokens == tokens_alone)[:-1].long().cumprod(0).sum())
    together, alone = together[:steps], alone[:steps]
    tolerance = 1e-3 if network.dtype == torch.float32 else 5e-2
    return bool((together - alone).norm() <= tolerance * alone.norm())
