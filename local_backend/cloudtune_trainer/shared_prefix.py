"""Computes the beginning that prompts have in common once: a system prompt, or the examples of a few-shot prompt.

The keys and values of the prefix are repeated for each prompt of a batch. Padding is between the prefix and the rest.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.problems import recognized

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_TOKENS = 16
"""Shorter prefixes are not worth a call of their own."""
_PROBED = (20, 3, 6)
"""Numbers of tokens of the prefix of the probe, and of the rest of its two prompts."""


class SharedPrefix:
    """The keys and values of the tokens with which all prompts begin."""

    def __init__(self, network: Any, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)
        device = network.get_input_embeddings().weight.device
        with torch.inference_mode():
            ids = torch.tensor([self.tokens], device=device)
            self._cache = network(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True).past_key_values

    def repeated(self, count: int) -> Any:
        """A copy for a batch of so many prompts."""
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(count)
        return cache


def common_prefix(rows: Sequence[list[int]]) -> list[int]:
    """The tokens with which all rows begin. At least one token of each row is left."""
    if len(rows) < 2:
        return []
    first, last = min(rows), max(rows)  # the other rows are between them
    most = min(map(len, rows)) - 1
    length = next((place for place in range(most) if first[place] != last[place]), most)
    return first[:length] if length >= LEAST_TOKENS else []


def padded(rows: Sequence[Sequence[int]], padding: int, shared: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows as one tensor, with its attention mask. Padding is after the first ``shared`` tokens."""
    width = max(map(len, rows))
    fills = [width - len(row) for row in rows]
    ids = [[*row[:shared], *([padding] * fill), *row[shared:]] for row, fill in zip(rows, fills, strict=True)]
    mask = [[1] * shared + [0] * fill + [1] * (width - shared - fill) for fill in fills]
    return torch.tensor(ids), torch.tensor(mask)


def can_share(network: Any, padding: int) -> bool:
    """Whether prompts have the same logits after a shared prefix as alone.

    This is false for models with a window of attention, which padding would fill, with a state instead of keys and
    values, or with tokens of an adapter before the prompt.
    """
    config = network.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    has_window = getattr(config, "sliding_window", None) if kinds is None else {*kinds} - {"full_attention"}
    if has_window or getattr(getattr(network, "active_peft_config", None), "num_virtual_tokens", None):
        return False
    prefix, *rests = _PROBED
    vocabulary = network.get_input_embeddings().weight.shape[0]
    rows = [[(token + 3) % vocabulary for token in range(prefix + rest)] for rest in rests]
    try:
        together = _next_logits(network, rows, padding, SharedPrefix(network, rows[0][:prefix]))
        alone = torch.cat([_next_logits(network, [row], padding, None) for row in rows])
    except Exception as error:  # a network without such a cache raises any exception
        if recognized(error) is not None:  # e.g. out of memory, which does not depend on the network's kind
            raise
        return False
    tolerance = 1e-3 if network.dtype == torch.float32 else 5e-2
    return bool((together - alone).norm() <= tolerance * alone.norm())


def _next_logits(network: Any, rows: list[list[int]], padding: int, prefix: SharedPrefix | None) -> torch.Tensor:
    """The logits of the first two tokens after each row."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        do_sample=False, min_new_tokens=2, max_new_tokens=2, pad_token_id=padding, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    ids, mask = (one.to(network.device) for one in padded(rows, padding, len(prefix.tokens) if prefix else 0))
    cached = {"past_key_values": prefix.repeated(len(rows))} if prefix else {}
    with torch.inference_mode():
        out = network.generate(input_ids=ids, attention_mask=mask, generation_config=config, **cached)
    return torch.stack(out.logits, dim=1).float()
