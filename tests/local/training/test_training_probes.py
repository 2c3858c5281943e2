"""Whether a network is causal, keeps documents apart and answers in batches is decided by what influences what."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cloudtune_trainer.batching import answers_in_batches
from cloudtune_trainer.causality import check_causal
from cloudtune_trainer.influence import influence
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


@pytest.mark.parametrize(("family", "causal"), [("llama", True), ("bert", False)])
def test_a_gradient_that_overflows_is_no_damage(family: str, causal: bool) -> None:
    model = network(family, scale=5.0, tie_word_embeddings=False)
    norm = model.model.norm if family == "llama" else model.cls.predictions.transform.LayerNorm
    with torch.no_grad():
        norm.weight.fill_(1e-4)
        model.get_output_embeddings().weight.sign_().mul_(6e4)
    model.half()
    ids = torch.arange(12)[None]
    known = torch.ones_like(ids, dtype=torch.bool)
    assert not influence(model, {"input_ids": ids}, known).isfinite().all()
    with contextlib.nullcontext() if causal else pytest.raises(TrainingProblem, match="is not a causal"):
        check_causal(model)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=repr)
def test_no_memory_is_no_property_of_a_model(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    model = network("llama").train()
    before = model.config._attn_implementation
    monkeypatch.setattr(model.model, "forward", full)
    with pytest.raises(type(error)):
        answers_in_batches(model, padding=3)
    with pytest.raises(type(error)):
        enable_packed_attention(model)
    assert model.training
    assert model.config._attn_implementation == before


def test_the_reason_against_packing_is_the_true_one() -> None:
    reasons = {
        family: enable_packed_attention(network(family)) for family in ("lfm2", "llama4_text", "gpt_neo", "doge")
    }
    assert reasons == {
        "lfm2": "the model has layers of the type conv",
        "llama4_text": "the model attends to fixed blocks of positions",
        "gpt_neo": "the model stores a causal mask, as GPT-Neo does, which limits the length of a row",
        "doge": "the model does not support it: this attention does not support masks that the model computes from its "
        "input",
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["initial", "tiny"])
@pytest.mark.parametrize("family", PACKING_REFUSED)
def test_layers_that_cannot_take_packed_rows_get_padded_rows(family: str, scale: float, dtype: torch.dtype) -> None:
    model = network(family, scale, dtype)
    before = model.config._attn_implementation
    assert enable_packed_attention(model) is not None
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen3_moe"])
def test_attention_keeps_documents_apart(family: str, dtype: torch.dtype) -> None:
    assert enable_packed_attention(network(family, dtype=dtype)) is None


@pytest.mark.parametrize(
    ("family", "together"),
    [("llama", True), ("gpt2", True), ("mixtral", True), ("mamba", True), ("bloom", True),
     ("rwkv", False), ("bart", False), ("minimax", False), ("recurrent_gemma", False), ("xlstm", False)],
)  # fmt: skip
def test_prompts_are_batched_only_where_the_mask_holds(family: str, together: bool) -> None:
    assert answers_in_batches(network(family), padding=3) is together


def test_an_early_end_of_an_answer_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("gpt2", scale=2.0, pad_token_id=3)
    rows = torch.arange(3, 13).repeat(2, 1)
    rows[1, :4] = 3
    mask = torch.ones_like(rows)
    mask[1, :4] = 0
    first = model.generate(input_ids=rows, attention_mask=mask, do_sample=False, max_new_tokens=1)[:, -1].tolist()
    assert first[0] != first[1]
    model.generation_config.eos_token_id = first[1]
    generate, lengths = model.generate, []

    def write(**options: Any) -> Any:
        out = generate(**options)
        lengths.append(len(out.logits))
        return out

    monkeypatch.setattr(model, "generate", write)
    assert answers_in_batches(model, padding=3)
    assert lengths == [3, 3]


@pytest.mark.parametrize(("last", "same"), [(5, True), (4, False)])
def test_logits_are_compared_up_to_different_tokens(last: int, same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("llama")

    def write(input_ids: torch.Tensor, **_: Any) -> Any:
        count = len(input_ids)
        logits = torch.ones(3, count, 97)
        logits[2] = count  # not the same in a batch as alone
        tokens = torch.tensor([[4, 4 if count == 1 else last, 6]]).expand(count, -1)
        return SimpleNamespace(sequences=torch.cat([input_ids, tokens], 1), logits=tuple(logits))

    monkeypatch.setattr(model, "generate", write)
    assert answers_in_batches(model, padding=3) is same


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
    assert (enable_packed_attention(network("phi3", **LONGROPE), longest) is None) is packs


def test_longrope_prompts_are_answered_one_by_one() -> None:
    assert not answers_in_batches(network("phi3", **LONGROPE), padding=3)


def test_other_models_have_no_switch_length(tiny_model: Path) -> None:
    from transformers import AutoConfig

    assert switch_length(AutoConfig.from_pretrained(tiny_model)) is None
