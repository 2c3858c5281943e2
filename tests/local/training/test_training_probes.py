"""Whether a network is causal, keeps documents apart and answers in batches is decided by what influences what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cloudtune_trainer.batching import answers_in_batches
from cloudtune_trainer.causality import check_causal
from cloudtune_trainer.packing import enable_packed_attention
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rope import logits_by_length, switch_length

from .families import config_of

PACKING_REFUSED = ["lfm2", "falcon_h1", "recurrent_gemma", "minimax", "llama4_text", "doge", "gpt_neo"]
LONGROPE = {
    "original_max_position_embeddings": 8,
    "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
                        "original_max_position_embeddings": 8},
}  # fmt: skip


def network(family: str, scale: float = 1.0, dtype: torch.dtype = torch.float32, **fields: Any) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config_of(family, vocab_size=97, **{"pad_token_id": 0, **fields}), dtype=torch.float32
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(scale)
    return model.to(dtype).eval()


@pytest.mark.parametrize("family", ["bert", "camembert", "roberta", "electra", "cpmant", "xlm"])
@pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["initial", "tiny"])
def test_a_model_that_sees_later_tokens_is_refused(family: str, scale: float) -> None:
    with pytest.raises(TrainingProblem, match="is not a causal language model") as refused:
        check_causal(network(family, scale))
    assert "method: classification" in str(refused.value.hint)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "mamba", "rwkv", "bart", "ctrl"])
def test_a_causal_model_is_accepted(family: str, dtype: torch.dtype) -> None:
    check_causal(network(family, dtype=dtype))


def test_an_encoder_configured_as_decoder_is_causal() -> None:
    check_causal(network("bert", is_decoder=True))


def test_weights_with_nan_are_named() -> None:
    model = network("llama")
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(TrainingProblem, match=r"not finite; weights with NaN or infinity: model\.norm\.weight$"):
        check_causal(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["initial", "tiny"])
@pytest.mark.parametrize("family", PACKING_REFUSED)
def test_layers_that_cannot_take_packed_rows_get_padded_rows(family: str, scale: float, dtype: torch.dtype) -> None:
    model = network(family, scale, dtype)
    before = model.config._attn_implementation
    assert not enable_packed_attention(model)
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen3_moe"])
def test_attention_keeps_documents_apart(family: str, dtype: torch.dtype) -> None:
    assert enable_packed_attention(network(family, dtype=dtype))


@pytest.mark.parametrize(
    ("family", "together"),
    [("llama", True), ("gpt2", True), ("mixtral", True), ("mamba", True), ("bloom", True),
     ("rwkv", False), ("bart", False), ("minimax", False), ("recurrent_gemma", False), ("xlstm", False)],
)  # fmt: skip
def test_prompts_are_batched_only_where_the_mask_holds(family: str, together: bool) -> None:
    assert answers_in_batches(network(family), padding=3) is together


def test_longrope_rows_do_not_depend_on_their_neighbors() -> None:
    model = network("phi3", **LONGROPE)
    assert switch_length(model.config) == 8
    rows = [torch.arange(3, 3 + length) for length in (5, 12, 8, 9)]
    width = max(map(len, rows))
    inputs = {
        "input_ids": torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }
    with torch.no_grad():
        together = logits_by_length(model, inputs, use_cache=False)
        plain = model(**inputs, use_cache=False).logits
        for place, row in enumerate(rows):
            alone = model(input_ids=row[None], use_cache=False).logits[0]
            torch.testing.assert_close(together[place, : len(row)], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain[0, :5], together[0, :5], atol=1e-3), "the control: a batch changes a short row"


@pytest.mark.parametrize(("longest", "packs"), [(8, True), (9, False)])
def test_longrope_is_packed_within_the_original_context(longest: int, packs: bool) -> None:
    assert enable_packed_attention(network("phi3", **LONGROPE), longest) is packs


def test_longrope_prompts_are_answered_one_by_one() -> None:
    assert not answers_in_batches(network("phi3", **LONGROPE), padding=3)


def test_other_models_have_no_switch_length(tiny_model: Path) -> None:
    from transformers import AutoConfig

    assert switch_length(AutoConfig.from_pretrained(tiny_model)) is None
