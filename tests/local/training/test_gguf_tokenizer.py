"""Tokens are counted with the tokenizer that a GGUF file holds, as with the one that its model came with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.local.training.test_training_models import gguf_file  # noqa: F401 - a fixture

from cloudtune.data.checks.tokens import counter_of
from cloudtune.data.records import Chat, Message, Text
from cloudtune.errors import DataError
from cloudtune_trainer.gguf_cache import dequantised


def test_a_gguf_file_counts_as_its_model_does(gguf_file: Path, tiny_model: Path) -> None:  # noqa: F811
    records = [Text("the cat sat on the mat"), Chat([Message("user", "who sat?"), Message("assistant", "the cat")])]
    from_gguf, from_folder = counter_of(str(gguf_file)), counter_of(str(tiny_model))
    text = records[:1]
    assert from_gguf.count(text) == from_folder.count(text)
    assert from_gguf.spans(records[0])[0] == "the cat sat on the mat"
    assert all(count > 2 for count in from_gguf.count(records))  # type: ignore[arg-type]


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF no")
    for name in ("broken.gguf", "nowhere.gguf"):
        with pytest.raises(DataError) as refused:
            counter_of(str(tmp_path / name))
        assert refused.value.problems[0].code == "no_tokenizer"


def test_files_beside_a_gguf_file_decide_nothing(gguf_file: Path, tmp_path: Path) -> None:  # noqa: F811
    """As in an unpacked archive: code of a tokenizer, an adapter that names another model, another template."""
    path = tmp_path / "model.gguf"
    shutil.copy(gguf_file, path)
    ran = tmp_path / "ran"
    (tmp_path / "planted.py").write_text(
        f"open({str(ran)!r}, 'w').close()\nfrom transformers import PreTrainedTokenizerFast as T\n"
    )
    planted = {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["planted.T", "planted.T"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(planted))
    lora = {"peft_type": "LORA", "base_model_name_or_path": "planted/model", "r": 2}
    (tmp_path / "adapter_config.json").write_text(json.dumps(lora))
    (tmp_path / "chat_template.jinja").write_text("planted")
    text = [Text("the cat sat on the mat")]
    assert counter_of(str(path)).count(text) == counter_of(str(gguf_file)).count(text)
    folder = dequantised(path)
    expected = dequantised(gguf_file)
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()
    assert not ran.exists()
