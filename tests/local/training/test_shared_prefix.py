"""Prompts that begin alike: the beginning is computed once, and the answers are those of each prompt alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cloudtune_trainer import generate
from cloudtune_trainer.generate import Model, answer_tokens
from cloudtune_trainer.shared_prefix import LEAST_TOKENS, SharedPrefix, can_share, common_prefix
from cloudtune_trainer.tiny import write_tiny_model

from .test_training_probes import network

SYSTEM = "Answer questions about an order, a delivery or a refund, politely and in one short sentence."


@pytest.mark.parametrize(
    ("family", "fields", "shared"),
    [("llama", {}, True), ("gpt2", {}, True), ("bloom", {}, True), ("qwen2", {}, True), ("mixtral", {}, True),
     ("mamba", {}, False), ("rwkv", {}, False), ("gemma3_text", {}, False), ("mistral", {"sliding_window": 8}, False),
     ("recurrent_gemma", {}, False)],
)  # fmt: skip
def test_a_prefix_is_shared_only_where_answers_stay_equal(family: str, fields: dict[str, Any], shared: bool) -> None:
    assert can_share(network(family, **fields), padding=3) is shared


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "mixtral"])
def test_answers_after_a_shared_prefix_equal_those_alone(family: str) -> None:
    model = network(family, scale=3.0)
    prefix = [5 + number % 60 for number in range(30)]
    rows = [[*prefix, *range(20, 20 + rest)] for rest in (1, 4, 9)]
    settings: Any = {"ends": (2,), "padding": 3, "max_tokens": 12, "sampling": {}}
    with torch.inference_mode():
        together = answer_tokens(model, rows, prefix=SharedPrefix(model, prefix), **settings)
        alone = [answer_tokens(model, [row], **settings)[0] for row in rows]
    assert together == alone
    assert len({*map(tuple, alone)}) == 3


def test_the_common_prefix_leaves_a_token_of_each_row() -> None:
    row = list(range(LEAST_TOKENS + 2))
    assert common_prefix([row, [*row, 5], [*row[:-1], 9]]) == row[:-1]
    assert common_prefix([row, row]) == row[:-1]
    assert common_prefix([row, row[: LEAST_TOKENS - 1]]) == []
    assert common_prefix([row]) == common_prefix([]) == []


@pytest.fixture
def made(tmp_path: Path) -> Model:
    shape = {"hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.3}
    path = write_tiny_model(tmp_path / "model", vocab_texts=[SYSTEM], model=shape)
    return Model(AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path))


def test_prompts_with_one_system_prompt_share_it(made: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{word} order?"}]
               for word in ("my", "a late and lost", "the", "no", "some other")]  # fmt: skip
    lengths: list[int] = []
    own: Callable[..., SharedPrefix] = SharedPrefix

    def counted(model: Any, tokens: list[int]) -> SharedPrefix:
        lengths.append(len(tokens))
        return own(model, tokens)

    monkeypatch.setattr(generate, "SharedPrefix", counted)
    alone = [answer.text for answer in made.generate(prompts, max_tokens=8, batch_size=1)]
    assert not lengths
    assert [answer.text for answer in made.generate(prompts, max_tokens=8, batch_size=2)] == alone
    assert len(lengths) == 1, "once for all batches"
    assert lengths[0] > LEAST_TOKENS
    list(made.generate(prompts[:1], max_tokens=2))
    assert len(lengths) == 1
