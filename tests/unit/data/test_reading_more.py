"""Readers beyond JSON and CSV: zstd, Arrow, folders of the datasets library, standard input."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import pytest

from cloudtune.data import prepare
from cloudtune.errors import DataError
from cloudtune.spec import Data

if TYPE_CHECKING:
    from pathlib import Path

pyarrow = pytest.importorskip("pyarrow")
ROWS = [{"prompt": f"¿{i}?", "completion": "b"} for i in range(2500)]


def fingerprint(path: Path | str) -> str:
    return prepare(Data.model_validate({"train": str(path)})).fingerprint


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_zstd(tmp_path: Path, lines: Path) -> None:
    packed = tmp_path / "rows.jsonl.zst"
    with pyarrow.output_stream(str(packed), compression="zstd") as stream:
        stream.write(lines.read_bytes())
    assert fingerprint(packed) == fingerprint(lines)
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(DataError) as caught:
        fingerprint(packed)
    assert caught.value.problems[-1].code in {"broken_zstd", "invalid_json"}
    packed.write_bytes(b"not zstd at all")
    with pytest.raises(DataError) as caught:
        fingerprint(packed)
    assert caught.value.problems[0].code == "broken_zstd"


def test_arrow_files_and_streams(tmp_path: Path, lines: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    path = tmp_path / "rows.arrow"
    for make in (pyarrow.ipc.new_file, pyarrow.ipc.new_stream):
        with make(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
        assert fingerprint(path) == fingerprint(lines)
    path.write_bytes(b"nonsense" * 10)
    with pytest.raises(DataError) as caught:
        fingerprint(path)
    assert caught.value.problems[0].code == "broken_arrow"


def test_a_folder_of_the_datasets_library(tmp_path: Path, lines: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list(ROWS)
    made.save_to_disk(str(tmp_path / "one"))
    assert fingerprint(tmp_path / "one") == fingerprint(lines)
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "dict"))
    assert fingerprint(tmp_path / "dict" / "train") == fingerprint(lines)
    with pytest.raises(DataError) as caught:
        fingerprint(tmp_path / "dict")
    assert "train" in (caught.value.problems[0].fix or "")


def test_standard_input(lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fingerprint(lines)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.read_bytes())))
    assert fingerprint("-") == expected
