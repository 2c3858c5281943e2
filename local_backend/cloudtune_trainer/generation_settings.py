"""Generation settings: the request, documented defaults, and the tokens that end an answer.

A base model's ``generation_config.json`` often sets more, such as a repetition penalty, beams or forced tokens.
transformers applies these settings if a request leaves them out, so that the most likely token would not be picked.
Only the special tokens of that file are used here, and a run saves only these.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.rendering import turn_end

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def keep_special_tokens(network: Any) -> None:
    """Remove every generation setting of the base model except its special tokens. Classifiers have none."""
    from transformers import GenerationConfig

    base = getattr(network, "generation_config", None)
    if base is not None:
        kept = {name: _valid(getattr(base, name, None)) for name in _TOKENS}
        network.generation_config = GenerationConfig(do_sample=False, **kept)  # otherwise pipelines sample


def _valid(token: int | list[int] | None) -> int | list[int] | None:
    """The id or ids without negative ones: some models write -1 for a token that they do not have."""
    if isinstance(token, int):
        return token if token >= 0 else None
    return [one for one in token or () if one >= 0] or None


def padding_of(tokenizer: Any, ends: Sequence[int] = ()) -> int | None:
    """The padding token: the tokenizer's, else the first one that ends an answer. None if there is neither."""
    found = (tokenizer.pad_token_id, *ends, tokenizer.eos_token_id)
    return next((int(token) for token in found if token is not None), None)


def answer_ends(network: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the model's, the tokenizer's, and the chat template's end of a turn."""
    own = network.generation_config.eos_token_id
    found = [own] if isinstance(own, int) else list(own or [])
    found += [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    ending = turn_end(tokenizer)
    found += [tokenizer.convert_tokens_to_ids(ending)] if ending else []
    return list(dict.fromkeys(found))


def end_where_answers_end(network: Any, tokenizer: Any) -> None:
    """Set the special tokens so that other programs end the saved model's answers at the same tokens."""
    keep_special_tokens(network)
    config = getattr(network, "generation_config", None)
    if config is None:
        return
    ends = answer_ends(network, tokenizer)
    if ends:
        config.eos_token_id = network.config.eos_token_id = ends if len(ends) > 1 else ends[0]
    if config.pad_token_id is None:
        config.pad_token_id = padding_of(tokenizer, ends)
    if config.bos_token_id is None:
        config.bos_token_id = tokenizer.bos_token_id


def save_for_answers(network: Any, tokenizer: Any, folder: Path, *, continues: bool) -> None:
    """Write ``generation_config.json`` and the tokenizer, for programs that run the saved model.

    The tokenizer's ``eos_token`` is the one that ends an answer, unless the model ``continues`` texts or the chat
    template uses that token elsewhere. Padding is on the left, so that answers of a batch begin at the same position.
    """
    tokenizer = copy.deepcopy(tokenizer)
    ending = turn_end(tokenizer)
    if ending and not continues and "eos_token" not in str(tokenizer.chat_template):
        tokenizer.eos_token = ending
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.init_kwargs["padding_side"] = tokenizer.padding_side = "left"  # only the former is saved
    tokenizer.save_pretrained(folder)
    network.generation_config.save_pretrained(folder)
