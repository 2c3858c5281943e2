"""A network has each of its weights from the files, or it is refused with the names of the tensors."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from cloudtune_trainer import models
from cloudtune_trainer.generate import load_tuned
from cloudtune_trainer.heads import Head
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tiny import write_tiny_model
from cloudtune_trainer.tuned import read_tuned
from cloudtune_trainer.weights import head_weights

from .conftest import Runs, sums
from .families import write_family

if TYPE_CHECKING:
    from torch import Tensor

Weights = dict[str, "Tensor"]
UP = "model.layers.1.mlp.up_proj.weight"


def _without_one(weights: Weights) -> None:
    del weights[UP]


def _with_prefix(weights: Weights) -> None:
    for name in list(weights):
        weights[f"module.{name}"] = weights.pop(name)


def _one_layer_more(weights: Weights) -> None:
    for name in [name for name in weights if ".layers.1." in name]:
        weights[name.replace(".1.", ".2.")] = weights[name].clone()


def _of_a_classifier(weights: Weights) -> None:
    weights["score.weight"] = torch.zeros(2, 64)


def _longer(weights: Weights) -> None:
    weights[UP] = torch.zeros(130, 64)


def _untied(weights: Weights) -> None:
    """The configuration says so below; the weights have no output layer."""


FAULTS: dict[str, tuple[Callable[[Weights], None], str]] = {
    "a tensor is missing": (_without_one, f"missing {UP}"),
    "another prefix": (_with_prefix, r"missing lm_head.weight, .* and \d+ more; unexpected module.model"),
    "one layer too many": (_one_layer_more, r"unexpected model.layers.2.input_layernorm.weight, .* and 4 more"),
    "a classifier": (_of_a_classifier, "unexpected score.weight"),
    "another shape": (_longer, rf"wrong shape: {UP} has shape \[130, 64\], config.json requires \[128, 64\]"),
    "no head": (_untied, "missing lm_head.weight"),
}
HEADS_OF_OTHERS = {"a classifier", "no head"}
"""No fault for a classifier, whose own head is new."""


def damaged(model: Path, to: Path, fault: str) -> Path:
    shutil.copytree(model, to)
    weights = load_file(to / "model.safetensors")
    FAULTS[fault][0](weights)
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    if fault == "no head":
        config = json.loads((to / "config.json").read_text())
        (to / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    return to


@pytest.mark.parametrize("fault", FAULTS)
def test_incomplete_weights_are_refused_by_name(fault: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = damaged(tiny_model, tmp_path / "model", fault)
    whole = models.BaseModel(str(tiny_model))
    network = models.load_model(whole, dtype=torch.float32)
    network.config.tie_word_embeddings = fault != "no head"
    loads: dict[str, Callable[[], object]] = {
        "base": lambda: models.load_model(models.BaseModel(str(folder)), dtype=torch.float32),
        "resumed": lambda: models.restore_weights(folder, network, adapted=False),
        "started from a checkpoint": lambda: models.load_model(
            whole if fault != "no head" else models.BaseModel(str(folder)), dtype=torch.float32, weights=folder
        ),
    }
    for load in loads.values():
        with pytest.raises(TrainingProblem, match=FAULTS[fault][1]) as refused:
            load()
        assert str(folder) in refused.value.message
        assert refused.value.code == "model_not_found"


@pytest.mark.parametrize("fault", FAULTS)
def test_only_the_head_of_a_classifier_is_new(fault: str, tiny_model: Path, tmp_path: Path) -> None:
    base = models.BaseModel(str(damaged(tiny_model, tmp_path / "model", fault)))
    head = Head("sequence_classification", 3, ("a", "b", "c"))
    if fault in HEADS_OF_OTHERS:
        new_head = set[str]()
        network = models.load_model(base, dtype=torch.float32, head=head, new_head=new_head)
        assert head_weights(network) == ["score.weight"] == list(new_head)
    else:
        with pytest.raises(TrainingProblem, match="do not match the model"):
            models.load_model(base, dtype=torch.float32, head=head, new_head=set())
    with pytest.raises(TrainingProblem, match=r"score\.weight|and \d+ more"):
        models.load_model(base, dtype=torch.float32, head=head)


def test_the_head_of_an_encoder_is_new(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForMaskedLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
    AutoModelForMaskedLM.from_config(AutoConfig.for_model("bert", **sizes)).save_pretrained(tmp_path)
    head = Head("sequence_classification", 0, ("a", "b"))
    new_head = set[str]()
    network = models.load_model(models.BaseModel(str(tmp_path)), dtype=torch.float32, head=head, new_head=new_head)
    assert head_weights(network) == [
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias",
    ]  # fmt: skip
    assert new_head == set(head_weights(network))
    network.save_pretrained(tmp_path / "trained")
    again = set[str]()
    models.load_model(models.BaseModel(str(tmp_path / "trained")), dtype=torch.float32, head=head, new_head=again)
    assert not again


def test_the_padding_tokens_embedding_is_restored(tmp_path: Path) -> None:
    base = write_family(tmp_path / "base", "youtu")  # transformers clears this embedding when it loads the model
    network = models.load_model(models.BaseModel(str(base)), dtype=torch.float32)
    embedding = network.get_input_embeddings()
    assert embedding.padding_idx is not None
    with torch.no_grad():
        embedding.weight.fill_(0.5)
    models.save_weights(tmp_path, network, adapted=False)
    folder = tmp_path / models.MODEL
    loaded = models.load_model(models.BaseModel(str(base)), dtype=torch.float32, weights=folder)
    assert torch.equal(loaded.get_input_embeddings().weight, embedding.weight)
    with torch.no_grad():
        loaded.get_input_embeddings().weight.zero_()
    models.restore_weights(folder, loaded, adapted=False)
    assert torch.equal(loaded.get_input_embeddings().weight, embedding.weight)


@pytest.mark.parametrize(("prefix", "hub"), [("", False), ("model.", False), ("", True)], ids=str)
def test_the_base_models_padding_embedding_is_loaded(
    prefix: str, hub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    base = write_family(tmp_path / "models--a--youtu" / "snapshots" / ("0" * 40), "youtu")
    refs = base.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    stored = load_file(base / "model.safetensors")
    stored["model.embed_tokens.weight"][3] = 0.5
    renamed = {name.removeprefix(prefix): tensor for name, tensor in stored.items()}
    save_file(renamed, base / "model.safetensors", metadata={"format": "pt"})
    save_file({name: tensor + 1 for name, tensor in renamed.items()}, base / "other.safetensors")  # is not loaded
    place = models.BaseModel("a/youtu" if hub else str(base))
    embedding = models.load_model(place, dtype=torch.bfloat16).get_input_embeddings()
    assert embedding.padding_idx == 3
    assert torch.equal(embedding.weight, stored["model.embed_tokens.weight"].bfloat16())


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_the_weights_of_an_adapter_are_checked(runs: Runs) -> None:
    run = runs.make(rows=sums(4), hyperparameters={"max_steps": 1})
    runs.train(run)
    file = run.model / "adapter_model.safetensors"
    whole = load_file(file)
    name = min(whole)
    wrong = {
        f"missing {name}": {key: value for key, value in whole.items() if key != name},
        "unexpected base_model.other": {**whole, "base_model.other": torch.zeros(1)},
        f"{name} has shape": {**whole, name: torch.zeros(3, 3)},
    }
    for message, tensors in wrong.items():
        save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(TrainingProblem, match=f"{message}|size mismatch for .*lora_A"):
            load_tuned(run.model, read_tuned(run.model), dtype=torch.float32)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What transformers logs."""
    found: list[str] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    recorder, logger = Recorder(), logging.getLogger("transformers")
    logger.addHandler(recorder)
    yield found
    logger.removeHandler(recorder)


def test_an_expected_new_head_is_not_reported_as_missing(tiny_model: Path, logged: list[str]) -> None:
    new_head = set[str]()
    head = Head("sequence_classification", 0, ("a", "b"))
    models.load_model(models.BaseModel(str(tiny_model)), dtype=torch.float32, head=head, new_head=new_head)
    assert (new_head, logged) == ({"score.weight"}, [])
    AutoModelForSequenceClassification.from_pretrained(tiny_model)  # other loads are still reported
    assert "LOAD REPORT" in logged[0]


def test_no_advice_is_logged_for_an_encoder_that_is_built(tmp_path: Path, logged: list[str]) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    write_tiny_model(tmp_path / "bert", model={"model_type": "bert", **sizes})
    assert logged == []
