"""LoRA targets are chosen for each family; a merged model has the logits of its adapter, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cloudtune_trainer import merging, weights
from cloudtune_trainer.adapter_targets import choose_targets, coverage_of
from cloudtune_trainer.merging import merge_into
from cloudtune_trainer.models import BaseModel, add_adapter, load_model
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.spec_trained import Adapter

from .conftest import Runs, events, metrics, sums
from .families import write_family

ATTENTION = {"k_proj", "o_proj", "q_proj", "v_proj"}
CHOSEN: dict[str, tuple[set[str], set[str]]] = {
    "llama": (ATTENTION | {"down_proj", "gate_proj", "up_proj"}, set()),
    "gpt2": ({"c_attn", "c_fc", "c_proj"}, set()),
    "mixtral": (ATTENTION, {"gate_up_proj", "down_proj"}),
    "gpt_oss": (ATTENTION, {"gate_up_proj", "down_proj"}),
    "qwen2_moe": (
        ATTENTION | {"down_proj", "gate_proj", "up_proj", "shared_expert_gate"}, {"gate_up_proj", "down_proj"}
    ),
    "dots1": (
        ATTENTION,
        {"gate_up_proj", "down_proj", "down_proj.weight", "gate_proj.weight", "up_proj.weight"},
    ),
    "mamba": ({"in_proj", "x_proj"}, set()),
    "rwkv": ({"key", "output", "receptance", "value"}, set()),
}  # fmt: skip
"""Family -> names of the modules and of the parameters that get an adapter by default."""


def base(folder: Path, family: str, **fields: Any) -> tuple[BaseModel, Any]:
    found = BaseModel(str(write_family(folder, family, **fields)))
    return found, load_model(found, dtype=torch.float32)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.arange(20, 40)[None]).logits
    return found


def changed(model: Any) -> Any:
    """With an adapter that changes the answers; a new one does not."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("family", CHOSEN)
def test_targets_fit_the_family(family: str, tmp_path: Path) -> None:
    place, network = base(tmp_path / "base", family)
    targets = choose_targets(network)
    assert (set(targets.modules), set(targets.parameters)) == CHOSEN[family]
    tuned = changed(add_adapter(network, Adapter(), place, "CAUSAL_LM"))
    expected = logits(tuned)
    merge_into(tmp_path / "merged", tuned, torch.float32)
    torch.testing.assert_close(
        logits(load_model(BaseModel(str(tmp_path / "merged")), dtype=torch.float32)), expected, rtol=1e-3, atol=1e-3
    )


def test_layers_that_an_adapter_cannot_change_are_named(tmp_path: Path) -> None:
    skipped = choose_targets(base(tmp_path / "mamba", "mamba")[1]).skipped
    assert {reason: left.names[0] for reason, left in skipped.items()} == {
        "kernels for state-space layers read the weight without the adapter": "backbone.layers.*.mixer.out_proj",
        "the model reads the weight without calling the layer": "backbone.layers.*.mixer.dt_proj",
    }
    skipped = choose_targets(base(tmp_path / "llama4", "llama4_text")[1]).skipped
    assert skipped["it returns more than one value"].names[0] == "model.layers.*.feed_forward.router"


def test_dropout_leaves_experts_out_with_a_warning(tmp_path: Path, runs: Runs) -> None:
    folder = write_family(tmp_path / "base", "mixtral")
    run = runs.make(
        rows=sums(4), model={"source": "folder", "path": str(folder)}, adapter={"type": "lora", "dropout": 0.1},
        hyperparameters={"max_steps": 1},
    )  # fmt: skip
    assert runs.train(run) == "succeeded"
    (warning,) = [event for event in events(run, "warning") if event["message"].startswith("no adapter on")]
    assert "experts.gate_up_proj" in warning["message"]
    assert "adapter.dropout is not possible there" in warning["message"]
    (covered,) = [event for event in events(run, "message") if event["message"].startswith("the adapter trains")]
    assert 0 < covered["data"]["adapted"] < 0.5 * covered["data"]["total"]


def test_an_embedding_is_a_target(tiny_model: Path, runs: Runs) -> None:
    adapter = {"type": "lora", "targets": ["embed_tokens", "q_proj"]}
    run = runs.make(rows=sums(4), adapter=adapter, hyperparameters={"max_steps": 3, "batch_size": 4})
    assert runs.train(run) == "succeeded"
    losses = [line["values"]["loss"] for line in metrics(run)]
    assert losses[-1] < losses[0]
    assert any("a merged export stores both" in event["message"] for event in events(run, "warning"))


def test_targets_that_peft_refuses_name_those_that_work(tmp_path: Path) -> None:
    place, network = base(tmp_path, "mamba")
    with pytest.raises(TrainingProblem, match="out_proj") as refused:
        add_adapter(network, Adapter(targets=("in_proj", "out_proj")), place, "CAUSAL_LM")
    assert refused.value.hint == "Targets that this model has: in_proj, x_proj; or use all-linear."


@pytest.mark.parametrize("targets", [("lm_head",), ("embed_tokens",), ("q_proj", "lm_head", "embed_tokens")], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_merging_unties_shared_weights(
    targets: tuple[str, ...], dtype: torch.dtype, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    place = BaseModel(str(tiny_model))
    network = load_model(place, dtype=torch.float32)
    tuned = changed(add_adapter(network, Adapter(targets=targets), place, "CAUSAL_LM"))
    expected = logits(tuned)
    merge_into(tmp_path / "merged", tuned, dtype)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert not plain.config.tie_word_embeddings
    error = (logits(plain) - expected).norm() / expected.norm()
    assert error < (1e-4 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_merge_rounds_weights_and_not_buffers(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, network = base(tmp_path / "base", "llama", initializer_range=0.15, head_dim=64)
    network.register_buffer("kept", torch.tensor([1 / 3]))  # is written to the file
    tuned = changed(add_adapter(network, Adapter(), place, "CAUSAL_LM"))

    def load(*args: Any, **options: Any) -> Any:
        assert all(parameter.is_meta for parameter in network.parameters()), "two networks are in memory"
        return load_model(BaseModel(str(tmp_path / "merged")), dtype=torch.float32)

    monkeypatch.setattr(weights, "is_old_buffer", lambda name: name == "kept")
    monkeypatch.setattr(merging, "load_checked", load)
    merge_into(tmp_path / "merged", tuned, dtype)
    stored = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for name, tensor in stored.items() if name != "kept"} == {dtype}
    assert torch.equal(stored["kept"], torch.tensor([1 / 3]))


def test_targets_that_are_given_need_no_forward_pass(tmp_path: Path) -> None:
    place, network = base(tmp_path, "llama")
    calls: list[Any] = []
    network.register_forward_pre_hook(lambda module, _: calls.append(module))
    add_adapter(network, Adapter(targets=("q_proj",)), place, "CAUSAL_LM")
    assert not calls


def test_a_merge_that_changes_the_answers_is_refused(tmp_path: Path) -> None:
    place, network = base(tmp_path / "base", "zamba2")
    assert all("shared_transformer" not in name for name in coverage_of(
        add_adapter(network, Adapter(), place, "CAUSAL_LM")).targets)  # fmt: skip
    network = load_model(place, dtype=torch.float32)
    tuned = changed(add_adapter(network, Adapter(targets=("q_proj", "v_proj")), place, "CAUSAL_LM"))
    with pytest.raises(TrainingProblem, match="would not answer as the adapter does"):
        merge_into(tmp_path / "merged", tuned, torch.float32)
