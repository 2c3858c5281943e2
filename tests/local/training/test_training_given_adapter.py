"""Training continues from an adapter that another job or program made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cloudtune.errors import SpecError
from cloudtune.spec import JobSpec
from cloudtune_trainer.fingerprint import base_fingerprint, check_same_base, fingerprint
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import ModelSource
from cloudtune_trainer.submit.adapter_facts import find_adapter
from cloudtune_trainer.tiny import write_tiny_model

from .conftest import Runs, metrics, same_bits, sums, weights
from .test_training_classification import rows as labelled


def of(folder: Path, kind: str = "lora") -> dict[str, Any]:
    spec = JobSpec.model_validate(
        {"model": "m", "data": {"train": "t"}, "adapter": {"type": kind, "path": str(folder)}}
    )
    facts = find_adapter(spec)
    assert facts is not None
    return {"type": kind, "path": facts["path"], "fingerprint": facts["fingerprint"]}


@pytest.fixture
def foreign(tiny_model: Path, tmp_path: Path) -> Path:
    """An adapter by plain peft, with a rank and targets of its own."""
    torch.manual_seed(5)
    config = LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(tmp_path / "foreign")
    return tmp_path / "foreign"


def test_a_foreign_adapter_is_where_training_starts(runs: Runs, foreign: Path) -> None:
    hyper = {"max_steps": 4, "learning_rate": 1e-9, "dropout": 0.1}
    still = runs.make("still", rows=sums(6), adapter=of(foreign), hyperparameters=hyper)
    assert runs.train(still) == "succeeded"
    start, end = weights(foreign), weights(still.model)
    assert start.keys() == end.keys()
    for name in start:
        torch.testing.assert_close(end[name], start[name], rtol=0, atol=1e-6)
    config = json.loads((still.model / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], sorted(config["target_modules"])) == (3, 7, ["q_proj", "up_proj"])

    spec = {"rows": sums(6), "adapter": of(foreign), "hyperparameters": hyper | {"learning_rate": 1e-2}}
    unbroken, broken = runs.make("unbroken", **spec), runs.make("broken", **spec)
    assert runs.train(unbroken) == "succeeded"
    assert metrics(unbroken)[0]["values"]["loss"] == metrics(still)[0]["values"]["loss"]
    assert runs.train(broken, stop_after=2) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    assert not same_bits(weights(unbroken.model), start)


@pytest.mark.parametrize("adapter", [
    {"type": "dora", "rank": 2}, {"type": "ia3"}, {"type": "bottleneck", "bottleneck_size": 3},
], ids=lambda one: one["type"])  # fmt: skip
def test_an_adapter_of_another_job_is_continued(runs: Runs, adapter: dict[str, Any]) -> None:
    hyper = {"packing": False, "max_steps": 2, "learning_rate": 1e-2}
    first = runs.make("first", rows=sums(6), test=sums(3), adapter=adapter, hyperparameters=hyper)
    assert runs.train(first) == "succeeded"
    given = of(first.model, adapter["type"])
    second = runs.make(
        "second", rows=sums(6), test=sums(3), adapter=given,
        hyperparameters=hyper | {"learning_rate": 1e-12, "max_steps": 1},
    )  # fmt: skip
    assert runs.train(second) == "succeeded"
    (before,), (after,) = metrics(first, "test"), metrics(second, "test")
    assert after["values"]["loss"] == pytest.approx(before["values"]["loss"], rel=1e-6)


def test_an_adapter_of_a_hub_model_needs_the_same_revision(runs: Runs, tiny_model: Path, tmp_path: Path) -> None:
    hyper = {"max_steps": 1}
    hub = {"source": "hub", "path": str(tiny_model), "revision": "a" * 40}
    first = runs.make("first", rows=sums(4), adapter={"type": "lora"}, hyperparameters=hyper, model=hub)
    assert runs.train(first) == "succeeded"
    spec = {"rows": sums(4), "adapter": of(first.model), "hyperparameters": hyper}
    assert runs.train(runs.make("same", model=hub, **spec)) == "succeeded"
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    for number, model in enumerate((
        {**hub, "revision": "b" * 40}, {**hub, "path": str(copy)}, {"source": "folder", "path": str(tiny_model)},
    )):  # fmt: skip
        with pytest.raises(TrainingProblem, match=f"trained on the hub model {tiny_model} at revision a") as refused:
            runs.train(runs.make(f"other-{number}", model=model, **spec))
        assert refused.value.code == "base_changed"


def test_bases_are_compared_by_content_or_by_revision(tmp_path: Path) -> None:
    (tmp_path / "one.gguf").write_bytes(b"1")
    (tmp_path / "two.gguf").write_bytes(b"2")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(f'{{"name": "{name}"}}')
    places = {"gguf": ("one.gguf", "two.gguf"), "folder": ("one", "two"), "config": ("one", "two")}
    sources = {
        (kind, name): ModelSource(source=kind, path=str(tmp_path / name))  # type: ignore[arg-type]
        for kind, names in places.items()
        for name in names
    }
    sources[("hub", "one")] = ModelSource(source="hub", path="org/one", revision="a")
    sources[("hub", "two")] = ModelSource(source="hub", path="org/one", revision="b")

    def tuned(kind: str, name: str) -> dict[str, Any]:
        source = sources[kind, name]
        base = {"source": kind, "path": source.path, "revision": source.revision}
        return {"base": base | ({} if kind == "hub" else {"fingerprint": base_fingerprint(Path(source.path))})}

    for trained in sources:
        for given, source in sources.items():
            content = [(one[1], one[0] == "hub", one[0] == "gguf") for one in (trained, given)]
            folder = tmp_path / given[1].removesuffix(".gguf")
            if content[0] == content[1]:
                check_same_base(tuned(*trained), source, folder)
                continue
            with pytest.raises(TrainingProblem) as refused:
                check_same_base(tuned(*trained), source, folder)
            assert refused.value.code == "base_changed"


def test_an_adapter_that_does_not_fit_is_refused(runs: Runs, foreign: Path, tiny_model: Path, tmp_path: Path) -> None:
    wide = write_tiny_model(tmp_path / "wide", model={"hidden_size": 32})
    elsewhere = {"adapter": of(foreign), "model": {"source": "folder", "path": str(wide)}}
    with pytest.raises(TrainingProblem, match=r"do not match the model|size mismatch"):
        runs.train(runs.make("wide", rows=sums(4), **elsewhere))
    own = runs.make("own", rows=sums(4), adapter={"type": "lora"}, hyperparameters={"max_steps": 1})
    assert runs.train(own) == "succeeded"
    other = write_tiny_model(tmp_path / "other", vocab_texts=["other"], seed=3)
    with pytest.raises(TrainingProblem, match="has changed since this adapter was trained") as refused:
        runs.train(runs.make(
            "other", rows=sums(4), adapter=of(own.model), model={"source": "folder", "path": str(other)}
        ))  # fmt: skip
    assert refused.value.code == "base_changed"
    spec = {"method": "classification", "hyperparameters": {"packing": False}, "adapter": of(foreign)}
    with pytest.raises(TrainingProblem, match="was trained for CAUSAL_LM, and this job trains SEQ_CLS"):
        runs.train(runs.make("classes", rows=labelled(6), **spec))
    given = of(foreign)
    config = foreign / "adapter_config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(TrainingProblem, match="has changed since the job was submitted"):
        runs.train(runs.make("changed", rows=sums(4), adapter=given))


def test_a_folder_without_a_safe_adapter_is_refused_when_planned(foreign: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no tuned model"):
        of(tmp_path / "nothing")
    path = foreign / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"auto_mapping": {"base_model_class": "C", "parent_library": "planted"}}))
    with pytest.raises(SpecError, match="is not allowed"):
        of(foreign)
    path.write_text(json.dumps(config))
    files = [foreign / "adapter_config.json", foreign / "adapter_model.safetensors"]
    assert of(foreign)["fingerprint"] == fingerprint(files)
