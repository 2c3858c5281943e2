"""Models that Bedrock would not import are refused before anything is uploaded, with all that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudtune_providers.bedrock import import_rules
from cloudtune_providers.bedrock.model_files import LocalFiles

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 2048}


def write_weights(path: Path, dtype: str = "BF16", size: int = 64) -> None:
    head = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "w": {"dtype": dtype, "shape": [size // 2 if dtype == "BF16" else size], "data_offsets": [0, size]},
        }
    )
    path.write_bytes(len(head).to_bytes(8, "little") + head.encode() + b"x" * size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    write_weights(tmp_path / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    return tmp_path


def codes(folder: Path) -> list[str]:
    return [problem.code for problem in import_rules.problems(LocalFiles(folder))]


def configure(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))


def test_a_model_that_can_be_imported(folder: Path) -> None:
    assert codes(folder) == []


def test_everything_that_is_wrong_at_once(folder: Path) -> None:
    configure(folder, model_type="gpt2", quantization_config={"bits": 4}, max_position_embeddings=200_000)
    write_weights(folder / "model.safetensors", "I8")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert codes(folder) == ["architecture", "quantized", "context", "dtype", "no_tokenizer", "no_tokenizer"]
    assert all(problem.fix for problem in import_rules.problems(LocalFiles(folder)))


def test_an_adapter_alone_is_told_to_be_merged(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (problem,) = import_rules.problems(LocalFiles(tmp_path))
    assert (problem.code, "--merged" in str(problem.fix)) == ("adapter", True)


def test_torn_weights(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for torn in (whole[:-1], whole[:20], b"", b"\xff" * 100):
        (folder / "model.safetensors").write_bytes(torn)
        assert codes(folder) == ["torn"]


def test_weights_of_another_kind_and_missing_parts(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert codes(folder) == ["missing_part"]
    (folder / "model.safetensors.index.json").write_text("{}")
    assert codes(folder) == ["index"]
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert codes(folder) == ["no_weights"]


def test_too_large_for_its_kind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_rules, "MOST_BYTES_MULTIMODAL", 10)
    assert codes(folder) == []
    configure(folder, model_type="mllama")
    assert codes(folder) == ["too_large"]


def test_names_that_transformers_5_changed_are_also_sent_as_they_were() -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0}
    reported = import_rules.older_config({"dtype": "bfloat16", "rope_parameters": rope})
    assert reported["torch_dtype"] == "bfloat16"
    assert reported["rope_theta"] == 500000.0
    assert reported["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0}
    assert reported["rope_parameters"] == rope
    plain = {"rope_theta": 10000.0, "torch_dtype": "float32"}
    assert import_rules.older_config(plain) == plain
    default = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    assert import_rules.older_config(default) == default | {"rope_theta": 1e6}


def test_what_transformers_itself_writes_is_read(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    written = LlamaConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8,
                          rope_parameters={"rope_type": "default", "rope_theta": 123456.0})  # fmt: skip
    written.save_pretrained(tmp_path)
    config = import_rules.config_of(LocalFiles(tmp_path))
    assert config is not None
    assert import_rules.older_config(config)["rope_theta"] == 123456.0


def test_what_an_older_transformers_would_miss_where_nobody_writes_it_anew() -> None:
    usual = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "dtype": "bfloat16"}
    scaled = {"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0}}
    both = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rope_theta": 1e6}
    for config, missed in (
        (usual | {"model_type": "llama"}, []), (usual | {"model_type": "mixtral"}, ["rope_theta"]),
        (scaled | {"model_type": "llama"}, ["rope_scaling"]), (both | {"model_type": "qwen2"}, []), ({}, []),
    ):  # fmt: skip
        assert import_rules.misread(config) == missed, config


def test_a_long_head_is_read_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_rules, "_USUAL_HEADER", 16)
    assert codes(folder) == []
    assert import_rules.header(LocalFiles(folder), "model.safetensors")["w"].dtype == "BF16"
