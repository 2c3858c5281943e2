"""An adapter answers only on the base model that it was trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cloudtune_trainer.export import export
from cloudtune_trainer.fingerprint import weights_fingerprint
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.generate import Model
from cloudtune_trainer.multi_adapter import MultiAdapterModel
from cloudtune_trainer.problems import TrainingProblem

from .conftest import Runs

FEW = {"max_steps": 2}


def change_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] += 1.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_changed_base_is_refused_wherever_it_is_used(runs: Runs, tiny_model: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    run = runs.make(model={"source": "folder", "path": str(base)}, hyperparameters=FEW)
    runs.train(run)
    export(run.model, tmp_path / "adapter")
    was = weights_fingerprint(base)
    (base / "README.md").write_text("no part of the model")
    answer = next(Model.open(run.model, device="cpu").generate(["What is 1 plus 1?"], max_tokens=3))
    assert answer.completion_tokens

    change_weights(base)
    uses: dict[str, Callable[[], object]] = {
        "generate": lambda: Model.open(run.model, device="cpu"),
        "the base": lambda: Model.open(run.model, base=True, device="cpu"),
        "an export": lambda: Model.open(tmp_path / "adapter", device="cpu"),
        "merge": lambda: export(run.model, tmp_path / "merged", merged=True),
        "serve": lambda: MultiAdapterModel(base, device="cpu").add("a", run.model),
    }
    for name, use in uses.items():
        with pytest.raises(TrainingProblem, match="has changed since this adapter was trained") as refused:
            use()
        assert refused.value.code == "base_changed", name
        assert was in refused.value.message
        assert weights_fingerprint(base) in refused.value.message


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_a_refused_adapter_leaves_no_layers(first: bool, runs: Runs, tiny_model: Path, tmp_path: Path) -> None:
    run = runs.make(hyperparameters=FEW)
    runs.train(run)
    shared = MultiAdapterModel(tiny_model, device="cpu")
    if not first:
        shared.add("good", run.model)
    layers = [name for name, _ in shared._network.named_modules()]
    whole = load_file(run.model / "adapter_model.safetensors")
    name = min(whole)
    files = {
        "missing": {key: tensor + 1 for key, tensor in whole.items() if key != name},
        "mismatch": {**whole, name: torch.zeros(3, 3)},
    }
    for fault, tensors in files.items():
        bad = Path(shutil.copytree(run.model, tmp_path / fault))
        save_file(tensors, bad / "adapter_model.safetensors", metadata={"format": "pt"})
        with pytest.raises(TrainingProblem, match=fault):
            shared.add("bad", bad)
        assert [name for name, _ in shared._network.named_modules()] == layers
    assert shared.names == (frozenset() if first else {"good"})
    asked = ["What is 1 plus 1?"]
    shared.add("again", run.model)
    for model, expected in {
        shared.model("again"): Model.open(run.model, device="cpu"),
        shared.model(None): Model.open(run.model, base=True, device="cpu"),
    }.items():
        assert list(model.generate(asked, max_tokens=4)) == list(expected.generate(asked, max_tokens=4))


def test_a_base_that_changed_while_the_job_waited_is_refused(runs: Runs, tiny_model: Path) -> None:
    run = runs.make(model={"source": "folder", "path": str(tiny_model), "fingerprint": "0" * 32})
    with pytest.raises(TrainingProblem, match="has changed since the job was submitted"):
        runs.train(run)


def test_an_exported_adapter_brings_a_base_that_was_built(runs: Runs, tmp_path: Path) -> None:
    """Its job may be deleted, and with it the base."""
    described = tmp_path / "tiny.json"
    described.write_text(json.dumps({"model": {"hidden_size": 32}}))
    run = runs.make(model={"source": "config", "path": str(described)}, hyperparameters=FEW)
    runs.train(run)
    ask = ["What is 1 plus 1?"]
    before = list(Model.open(run.model, device="cpu").generate(ask, max_tokens=5))
    files = export(run.model, tmp_path / "adapter")
    assert tmp_path / "adapter" / "base" / "config.json" in files
    shutil.rmtree(run.path)
    assert list(Model.open(tmp_path / "adapter", device="cpu").generate(ask, max_tokens=5)) == before
    export(tmp_path / "adapter", tmp_path / "again")
    shutil.rmtree(tmp_path / "adapter")
    export(tmp_path / "again", tmp_path / "merged", merged=True)
    assert read_json(tmp_path / "merged" / "tuned.json")["merged"]
    assert torch.isfinite(load_file(tmp_path / "merged" / "model.safetensors")["model.norm.weight"]).all()
