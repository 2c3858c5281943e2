"""Code that comes with a model or an archive does not run, on any path, unless the user has allowed it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cloudtune.errors import BackendError
from cloudtune.optional import GenerateOptions
from cloudtune.state import TunedModel
from cloudtune_trainer import models
from cloudtune_trainer.checkpoints import read as read_checkpoint
from cloudtune_trainer.fingerprint import fingerprint
from cloudtune_trainer.multi_adapter import MultiAdapterModel
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.sagemaker import serving
from cloudtune_trainer.submit import inference
from cloudtune_trainer.tiny import write_tiny_model
from cloudtune_trainer.tuned import check_adapter

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSALS = (BackendError, TrainingProblem, serving.BadRequest)
LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("clean") / "model")


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that planted code writes. Modules in the working folder can be imported, as with `python -m`."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    path = tmp_path / "ran"
    (work / "planted_module.py").write_text(f"open({str(path)!r}, 'w').close()\n")
    return path


def remote_code(folder: Path, marker: Path) -> None:
    """``auto_map``, as models with code of their own have it."""
    code = (
        f"open({str(marker)!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class C(LlamaConfig):\n    model_type = 'planted'\n"
        "class M(LlamaForCausalLM):\n    config_class = C\n"
    )
    (folder / "planted.py").write_text(code)
    change(folder / "config.json", model_type="planted",
           auto_map={"AutoConfig": "planted.C", "AutoModelForCausalLM": "planted.M"})  # fmt: skip


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.marker),)


def pickled(folder: Path, marker: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()
    torch.save({"weights": Payload(marker)}, folder / "pytorch_model.bin")


def old_pickle(folder: Path, marker: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weights": Payload(marker)}, protocol=2))


def kernel(folder: Path, marker: Path) -> None:
    change(folder / "config.json", attn_implementation="planted/kernel")


def kernel_of_a_part(folder: Path, marker: Path) -> None:
    change(folder / "config.json", attn_implementation={"": "sdpa", "text_config": "planted/kernel"},
           experts_implementation="planted/kernel")  # fmt: skip


def redirect(folder: Path, marker: Path) -> None:
    """transformers loads what an adapter in the model's folder names instead of the model."""
    (folder / "adapter_config.json").write_text(json.dumps(LORA | {"base_model_name_or_path": "planted/model"}))


def template(folder: Path, marker: Path) -> None:
    escape = "{{ cycler.__init__.__globals__.os.system('touch " + str(marker) + "') }}"
    (folder / "chat_template.jinja").write_text(escape)


def template_bomb(folder: Path, marker: Path) -> None:
    """jinja2's own sandbox makes this text of 10 GB."""
    (folder / "chat_template.jinja").write_text("{{ 'x' * 10 ** 10 }}")


ENDLESS = "(([a-z]|_)+)+!"
"""A pattern that the regular-expression engine compares with ``q_proj`` for longer than anyone waits."""
MODELS: dict[str, Callable[[Path, Path], None]] = {
    "remote code": remote_code, "pickle": pickled, "old pickle": old_pickle, "kernel": kernel,
    "kernel of a part": kernel_of_a_part, "redirect": redirect,
    "template": template, "template bomb": template_bomb,
}  # fmt: skip
ADAPTERS: dict[str, dict[str, Any]] = {
    "module to import": {"megatron_config": {"x": 1}, "megatron_core": "planted_module"},
    "class to import": {"auto_mapping": {"base_model_class": "C", "parent_library": "planted_module"}},
    "another kind": {"peft_type": "PROMPT_TUNING", "tokenizer_kwargs": {"trust_remote_code": True},
                     "tokenizer_name_or_path": "planted/model", "prompt_tuning_init": "TEXT"},
    "unknown field": {"planted": {"trust_remote_code": True}},
    "initialization": {"init_lora_weights": "pissa_niter_1000000000"},
    "wrong type": {"r": "8"},
    "huge rank": {"r": 1 << 40},
    "endless pattern of targets": {"target_modules": ENDLESS},
    "huge rank of a module": {"rank_pattern": {"q_proj": 1 << 40}},
}  # fmt: skip


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def note(folder: Path, base: Path, **fields: Any) -> None:
    """A ``tuned.json`` that asks for trust, as an attacker would write it."""
    document = {
        "version": 1, "base": {"source": "folder", "path": str(base), "revision": None}, "base_folder": str(base),
        "adapter": "full", "merged": True, "method": "sft", "step": 1, "metrics": {}, "trust_remote_code": True,
    }  # fmt: skip
    (folder / "tuned.json").write_text(json.dumps(document | fields))


def adapter_of(base: Path, folder: Path, **fields: Any) -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    shutil.copy(base / "tokenizer.json", folder)
    shutil.copy(base / "tokenizer_config.json", folder)
    prefix = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    tensors = {prefix.format(n, "A"): torch.ones(2, 64) for n in range(2)}
    tensors |= {prefix.format(n, "B"): torch.zeros(64, 2) for n in range(2)}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(LORA | fields))
    note(folder, base, adapter="lora", merged=False)
    return folder


def tuned(folder: Path, *, trust: bool = False) -> TunedModel:
    return TunedModel(
        id="m", base="b", backend="local", scope="s", uri=str(folder), adapter="full", trust_remote_code=trust
    )


def ask(folder: Path, **options: Any) -> None:
    list(inference.Answering().generate(tuned(folder), ["hello"], GenerateOptions(max_tokens=1, **options)))


def train(folder: Path) -> None:
    base = models.BaseModel(str(folder))
    tokenizer = models.load_tokenizer(base)
    models.load_model(base, dtype=torch.float32)
    with models.found(base):
        tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)


def serve(folder: Path) -> None:
    parts = serving.model_fn(str(folder)).parts({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1})
    list(parts)


def share(folder: Path) -> None:
    model = MultiAdapterModel(folder).model(None)
    list(model.generate(["hello"], max_tokens=1))


PATHS: dict[str, Callable[[Path], None]] = {
    "train": train, "generate": ask, "serve": serve, "share": share,
    "generate from the base": lambda folder: ask(folder, base=True),
}  # fmt: skip


@pytest.mark.parametrize("plant", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("use", PATHS.values(), ids=PATHS)
def test_code_in_a_model_does_not_run(
    clean: Path, tmp_path: Path, marker: Path, plant: Callable[..., None], use: Callable[[Path], None]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(clean, folder)
    plant(folder, marker)
    note(folder, folder)
    with pytest.raises(REFUSALS):
        use(folder)
    assert not marker.exists()


@pytest.mark.parametrize("plant", [plant for plant in MODELS.values() if "template" not in plant.__name__])
def test_code_in_the_base_does_not_run_in_a_merge(
    clean: Path, tmp_path: Path, marker: Path, plant: Callable[..., None]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(clean, base)
    plant(base, marker)
    adapter = adapter_of(clean, tmp_path / "adapter")
    note(adapter, base, adapter="lora", merged=False)
    with pytest.raises(REFUSALS):
        inference.export(tuned(adapter), tmp_path / "out", merged=True)
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_code_runs_where_a_person_has_said_so(clean: Path, tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(clean, folder)
    remote_code(folder, marker)
    note(folder, folder)
    (answer,) = inference.Answering().generate(tuned(folder, trust=True), ["hello"], GenerateOptions(max_tokens=1))
    assert answer.completion_tokens is not None
    assert marker.exists()


@pytest.mark.parametrize("value", ["", "0", "true", None])
def test_only_the_deployment_s_variable_lets_code_run_behind_an_endpoint(
    clean: Path, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(clean, folder)
    remote_code(folder, marker)
    note(folder, folder)
    if value is not None:
        monkeypatch.setenv(serving.TRUST_VARIABLE, value)
    with pytest.raises(TrainingProblem):
        serve(folder)
    assert not marker.exists()
    monkeypatch.setenv(serving.TRUST_VARIABLE, "1")
    serve(folder)
    assert marker.exists()


def test_plain_adapter_is_loaded(clean: Path, tmp_path: Path) -> None:
    adapter = adapter_of(clean, tmp_path / "adapter", base_model_name_or_path="/nowhere/else")
    ask(adapter)
    shared = MultiAdapterModel(clean)
    shared.add("one", adapter)
    assert inference.export(tuned(adapter), tmp_path / "out", merged=True)


@pytest.mark.parametrize("fields", ADAPTERS.values(), ids=ADAPTERS)
def test_adapter_that_does_more_than_lora_is_refused(
    clean: Path, tmp_path: Path, marker: Path, fields: dict[str, Any]
) -> None:
    adapter = adapter_of(clean, tmp_path / "adapter", **fields)
    for use in (ask, serve, lambda folder: inference.export(tuned(folder), tmp_path / "out", merged=True)):
        with pytest.raises(REFUSALS, match=r"adapter_config\.json"):
            use(adapter)
    shared = MultiAdapterModel(clean)
    with pytest.raises(TrainingProblem, match=r"adapter_config\.json"):
        shared.add("one", adapter)
    assert not marker.exists()


@pytest.mark.parametrize("fields", [
    {"target_modules": ENDLESS}, {"exclude_modules": ENDLESS}, {"modules_to_save": [ENDLESS]},
    {"layers_pattern": ENDLESS}, {"layers_pattern": [ENDLESS]}, {"target_parameters": [ENDLESS]},
    {"rank_pattern": {ENDLESS: 4}}, {"alpha_pattern": {ENDLESS: 4}}, {"target_modules": ["a" * 301]},
    {"target_modules": ["q_proj", 1]}, {"rank_pattern": {"q_proj": 0}}, {"rank_pattern": {"q_proj": 2.5}},
    {"rank_pattern": {"q_proj": True}}, {"rank_pattern": {"q_proj": 65537}}, {"alpha_pattern": {"q_proj": "4"}},
    {"alpha_pattern": {"q_proj": float("inf")}},
], ids=str)  # fmt: skip
def test_module_names_in_an_adapter_are_plain(tmp_path: Path, fields: dict[str, Any]) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    path = tmp_path / "adapter_config.json"
    plain = {
        "target_modules": "all-linear", "exclude_modules": ["model.layers.0.q_proj"], "modules_to_save": ["lm_head"],
        "rank_pattern": {"^model.layers.0.q_proj": 65536, r".*\.gate_up-proj": 1}, "alpha_pattern": {"q_proj": 0.5},
    }  # fmt: skip
    path.write_text(json.dumps(LORA | plain))
    check_adapter(tmp_path)
    path.write_text(json.dumps(LORA | plain | fields))
    with pytest.raises(TrainingProblem, match=f"adapter_config.json: {next(iter(fields))} "):
        check_adapter(tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "tuned.json"])
def test_an_adapter_with_a_fifo_is_refused(tmp_path: Path, name: str) -> None:
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / file).write_text(json.dumps(LORA))
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(TrainingProblem, match="not a regular file"):
        check_adapter(tmp_path)
    with pytest.raises(OSError, match="not a regular file"):
        fingerprint([tmp_path / name])


def test_pickled_adapter_is_refused(clean: Path, tmp_path: Path, marker: Path) -> None:
    adapter = adapter_of(clean, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"weights": Payload(marker)}, adapter / "adapter_model.bin")
    with pytest.raises(REFUSALS, match=r"adapter_model\.safetensors, are missing"):
        ask(adapter)
    assert not marker.exists()


NOTES: dict[str, str] = {
    "not JSON": "{", "a list": "[]", "deep": "[" * 100_000, "no base": '{"adapter": "full"}',
    "base text": '{"base": "x"}',
    "other source": '{"base": {"source": "pickle", "path": "x"}}',
    "path number": '{"base": {"source": "hub", "path": 1}, "adapter": "full", "method": "sft", "base_folder": "x"}',
    "merged text": '{"base": {"source": "hub", "path": "a"}, "adapter": "full", "method": "sft", "base_folder": "x", '
                   '"merged": "no"}',
    "NUL": '{"base": {"source": "hub", "path": "a\\u0000"}, "adapter": "full", "method": "sft", "base_folder": "x"}',
    "huge number": '{"base": ' + "9" * 10_000 + "}",
}  # fmt: skip


@pytest.mark.parametrize("text", NOTES.values(), ids=NOTES)
def test_damaged_note_is_a_clear_error(clean: Path, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(clean, folder)
    (folder / "tuned.json").write_text(text)
    for use in (ask, serve, lambda place: inference.export(tuned(place), tmp_path / "out", merged=True)):
        with pytest.raises(REFUSALS, match=r"tuned\.json"):
            use(folder)


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../out", ""])
def test_checkpoint_that_names_files_elsewhere_is_torn(tmp_path: Path, name: str) -> None:
    marker = {"step": 1, "epoch": 1.0, "best": True, "metrics": {}, "progress": {}, "files": {name: "0"}}
    (tmp_path / "checkpoint.json").write_text(json.dumps(marker))
    assert read_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint.json").write_text(json.dumps(marker | {"files": {"model/config.json": "0"}}))
    assert read_checkpoint(tmp_path) is not None


@pytest.mark.parametrize("plant", [pickled, redirect, kernel])
def test_code_in_a_checkpoint_does_not_run(
    clean: Path, tmp_path: Path, marker: Path, plant: Callable[..., None]
) -> None:
    base, folder = models.BaseModel(str(clean)), tmp_path / "model"
    shutil.copytree(clean, folder)
    plant(folder, marker)
    model = models.load_model(base, dtype=torch.float32)
    for restore in (
        lambda: models.restore_weights(folder, model, adapted=False),
        lambda: models.load_model(base, dtype=torch.float32, weights=folder),
    ):
        if plant is kernel:
            restore()  # the base model's configuration counts
        else:
            with pytest.raises((TrainingProblem, OSError)):
                restore()
    assert not marker.exists()


def test_a_tokenizer_that_panics_is_a_damaged_model(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(clean, folder)
    change(folder / "tokenizer.json", normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    with pytest.raises(TrainingProblem) as reported:
        models.load_tokenizer(models.BaseModel(str(folder)))
    assert reported.value.code == "model_not_found"
