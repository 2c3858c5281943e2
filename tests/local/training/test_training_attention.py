"""Documents laid end to end never see one another: logits and gradients equal those of each document alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property_tests import examples

from cloudtune_trainer.attention import layout_of
from cloudtune_trainer.packing import enable_packed_attention
from cloudtune_trainer.run_spec import DataFiles, ModelSource, RunSpec
from cloudtune_trainer.samples import Cuts, Samples
from cloudtune_trainer.sequences import next_token_logits
from cloudtune_trainer.tasks.causal_lm import CausalLM

SPEC = RunSpec(version=1, model=ModelSource(source="folder", path="/m"), data=DataFiles(train="t"))

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "llama without shared heads": {"model_type": "llama", "num_key_value_heads": 4},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": 6},
    "gemma3_text": {"head_dim": 16, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "gpt_neox": {},
    "phi3": {"pad_token_id": 0},
    "olmo2": {},
    "starcoder2": {"sliding_window": 6},
}
PADDED_FAMILIES: dict[str, dict[str, Any]] = {
    "gemma2": {"head_dim": 16},  # caps its logits inside attention
    "mamba": {"state_size": 4},  # does not attend at all
    "bloom": {},  # adds a bias by distance
}


def network(family: str, fields: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    size = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97,
        "num_key_value_heads": 2,
    }  # fmt: skip
    if family.startswith(("gpt", "mamba", "bloom")):
        del size["num_key_value_heads"]
    config = AutoConfig.for_model(**{"model_type": family, **size, **fields})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def samples_of(lengths: list[int]) -> Samples:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 97, (sum(lengths),), generator=generator).numpy().astype("int32")
    learn = (torch.rand(sum(lengths), generator=generator) < 0.7).numpy()
    starts = torch.tensor([0, *lengths]).cumsum(0).numpy()
    learn[starts[:-1] + 1] = True
    return Samples(ids, learn, starts, Cuts())


@pytest.mark.parametrize("lengths", [[5, 9, 2, 17, 8, 30], [7, 7, 7], [12]], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_alone(family: str, lengths: list[int]) -> None:
    model = network(family, FAMILIES[family]).eval()  # some have dropout by default
    samples = samples_of(lengths)
    alone = CausalLM(SPEC, packed=False)
    one_by_one = [alone.collate(samples, [i]) for i in range(len(lengths))]
    expected = torch.cat([next_token_logits(model, batch) for batch in one_by_one])
    loss = sum(alone.forward(model, batch).loss for batch in one_by_one)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    assert enable_packed_attention(model) is None
    packed = CausalLM(SPEC, packed=True)
    batch = packed.collate(samples, list(range(len(lengths))))
    torch.testing.assert_close(next_token_logits(model, batch), expected, rtol=1e-4, atol=1e-5)
    sums = packed.forward(model, batch)
    sums.loss.backward()
    torch.testing.assert_close(sums.loss, loss, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-4, msg=name)


def test_without_the_layout_documents_do_see_one_another() -> None:
    """The control: the comparison above can tell."""
    model = network("llama", {})
    samples = samples_of([5, 9])
    assert enable_packed_attention(model) is None
    batch = CausalLM(SPEC, packed=True).collate(samples, [0, 1])
    right = next_token_logits(model, batch)
    mixed = model(**batch.inputs, documents=layout_of([14]), logits_to_keep=batch.kept).logits[0]
    assert (right - mixed).abs().max() > 1e-3


@pytest.mark.parametrize("family", PADDED_FAMILIES)
def test_what_cannot_be_shown_to_keep_documents_apart_gets_padded_rows(family: str) -> None:
    model = network(family, PADDED_FAMILIES[family])
    before = model.config._attn_implementation
    assert enable_packed_attention(model) is not None
    assert model.config._attn_implementation == before
    samples = samples_of([5, 9, 2])
    objective = CausalLM(SPEC, packed=False)
    model.eval()
    together = next_token_logits(model, objective.collate(samples, [0, 1, 2]))
    alone = torch.cat([next_token_logits(model, objective.collate(samples, [i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_every_token_has_its_own_cell(lengths: list[int]) -> None:
    layout = layout_of(lengths)
    gather = torch.cat([box.gather for box in layout.rectangles])
    assert torch.equal(gather[layout.scatter], torch.arange(sum(lengths)))
    assert len(gather) <= 1.5 * sum(lengths) + 1
    assert sum(box.count * box.length for box in layout.rectangles) == len(gather)
    begins = torch.tensor([0, *lengths]).cumsum(0)
    document = torch.bucketize(torch.arange(sum(lengths)), begins[1:], right=True)
    for box in layout.rectangles:
        rows = document[box.gather].view(box.count, box.length)
        assert (rows == rows[:, :1]).all(), "a row holds one document"
