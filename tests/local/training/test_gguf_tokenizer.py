"""Tokens are counted with the tokenizer that a GGUF file holds, as with the one that its model came with."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.local.training.test_training_models import gguf_file  # noqa: F401 - a fixture

from cloudtune.data.checks.tokens import counter_of
from cloudtune.data.records import Chat, Message, Text
from cloudtune.errors import DataError


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
