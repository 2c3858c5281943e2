"""Whatever the file's format, the same rows become the same canonical records."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.property_tests import examples

from cloudtune.data import encode, prepare
from cloudtune.spec import Data

SAMPLES = Path(__file__).parents[2] / "data"


def canonical(path: Path, tmp: Path, method: str = "sft", **source: Any) -> list[Any]:
    data = Data.model_validate({"train": {"path": str(path), **source}})
    report = prepare(data, method=method)
    out = encode(data, split="train", format="cloudtune", to=tmp / "out.jsonl", method=method,
                 expect_sha256=report.splits["train"].sha256)  # fmt: skip
    content = out.path.read_bytes()
    assert (out.bytes, report.splits["train"].bytes) == (len(content), len(content))
    assert out.sha256 == report.splits["train"].sha256  # the canonical format is what is hashed
    rows = [json.loads(line) for line in content.splitlines()]
    assert len(rows) == out.rows == report.splits["train"].rows
    return rows


def turns(*texts: str) -> dict[str, Any]:
    roles = ["user", "assistant"] * (len(texts) // 2)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]}


def test_the_spanish_samples_load_as_they_are(tmp_path: Path) -> None:
    assert canonical(SAMPLES / "bucket_s3.json", tmp_path) == [
        turns("¿Cómo creo un bucket S3?", "Para crear un bucket S3: 1) ...")
    ]
    assert canonical(SAMPLES / "resenas.jsonl", tmp_path) == [
        turns("Reseña: La duración de la batería es terrible.", "Calificación: 2 estrellas")
    ]
    requested = 'Crear una suscripción mensual de $99\n\n{"customer_id":"cus_123","price":99}'
    answer = '{"api_call":"stripe.subscriptions.create","parameters":{"customer":"cus_123"}}'
    assert canonical(SAMPLES / "suscripcion.json", tmp_path) == [turns(requested, answer)]
    assert "ó".encode() in (tmp_path / "out.jsonl").read_bytes()  # written as itself, not escaped


ROWS = [{"prompt": "¿qué?", "completion": 'dijo "sí",\nluego'}, {"prompt": "b", "completion": "línea\u2028dos"}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix in {".csv", ".tsv"}:
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writeheader()
        table.writerows(rows)
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
    elif path.name == "indented.json":
        path.write_text(json.dumps(rows, indent=2))
    elif path.name == "objects.json":
        path.write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    elif path.name == "array.jsonl":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.name == "bom.jsonl":
        path.write_text(lines, encoding="utf-8-sig")
    elif path.name == "crlf.jsonl":
        path.write_bytes(lines.replace("\n", "\r\n").encode())
    else:
        path.write_text(lines, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", [
    "a.jsonl", "a.ndjson", "a.json", "a.dat", "indented.json", "objects.json", "array.jsonl", "bom.jsonl",
    "crlf.jsonl", "a.jsonl.gz", "a.csv", "a.tsv", "a.parquet",
])  # fmt: skip
def test_every_format_gives_the_same_records(tmp_path: Path, name: str) -> None:
    expected = [turns(row["prompt"], row["completion"]) for row in ROWS]
    assert canonical(write(tmp_path / name, ROWS), tmp_path) == expected


def test_a_column_mapping(tmp_path: Path) -> None:
    rows = [{"pregunta": "a", "respuesta": "b", "prompt": "not this", "id": 5}]
    columns = {"pregunta": "prompt", "respuesta": "completion"}
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        path = write(tmp_path / name, rows)
        assert canonical(path, tmp_path, columns=columns) == [turns("a", "b")]
        report = prepare(Data.model_validate({"train": {"path": str(path), "columns": columns}}))
        assert {p.field for p in report.problems if p.code == "unused_key"} == {"prompt", "id"}


def test_chat_in_tables(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}]}
    assert canonical(write(tmp_path / "a.parquet", [chat]), tmp_path) == [chat]
    assert canonical(write(tmp_path / "a.csv", [{"messages": json.dumps(chat["messages"])}]), tmp_path) == [chat]


def test_instructions(tmp_path: Path) -> None:
    rows = [
        {"instruction": "i", "input": "", "output": "o"},
        {"instruction": "i", "input": None, "output": 5, "system": "s"},
        {"instruction": "i", "input": [1, {"a": "é"}], "output": True},
    ]
    found = canonical(write(tmp_path / "a.jsonl", rows), tmp_path)
    assert found[0] == turns("i", "o")
    assert found[1]["messages"][0] == {"role": "system", "content": "s"}
    assert found[1]["messages"][1:] == turns("i", "5")["messages"]
    assert found[2] == turns('i\n\n[1,{"a":"é"}]', "true")


def test_paragraphs_of_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"uno\r\ndos\r\n\r\n\r\ntres\n\n")
    assert canonical(path, tmp_path, method="cpt") == [{"text": "uno\r\ndos"}, {"text": "tres"}]


def test_continued_pre_training_takes_a_conversation_that_ends_with_a_question(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a"}]}
    assert canonical(write(tmp_path / "a.jsonl", [row]), tmp_path, method="cpt") == [row]


def test_several_files_and_patterns(tmp_path: Path) -> None:
    for i, name in enumerate(["b.jsonl", "a.jsonl"]):
        write(tmp_path / name, [{"prompt": str(i), "completion": "x"}])
    both = [turns("1", "x"), turns("0", "x")]
    assert canonical(tmp_path / "*.jsonl", tmp_path) == both
    data = Data.model_validate({"train": [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]})
    (tmp_path / "out.jsonl").unlink()
    assert prepare(data).splits["train"].rows == 2


def test_blocks_are_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": "x" * (i % 7) + '"\\{[]}', "completion": "ñ\n"} for i in range(60)]
    expected = [turns(row["prompt"], row["completion"]) for row in rows]
    for size in (1, 2, 3, 7, 64, 1000):
        monkeypatch.setattr("cloudtune.data.read.blocks.BLOCK_BYTES", size)
        monkeypatch.setattr("cloudtune.data.read.reading._HEAD", size + 2)
        for name in ("a.jsonl", "indented.json", "array.jsonl"):
            assert canonical(write(tmp_path / name, rows), tmp_path) == expected


texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: bool(text.strip()) and not text.isspace())


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8))
@example([("0", "{}"), ("[1]", "[]"), ('["a"]', "[{}")])
def test_canonical_records_read_back_as_themselves(tmp_path_factory: pytest.TempPathFactory, pairs: list[Any]) -> None:
    tmp = tmp_path_factory.mktemp("round")
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
    once = canonical(write(tmp / "a.jsonl", rows), tmp)
    assert once == [turns(*pair) for pair in pairs]
    first = (tmp / "out.jsonl").read_bytes()
    (tmp / "again.jsonl").write_bytes(first)
    assert canonical(tmp / "again.jsonl", tmp) == once
    assert (tmp / "out.jsonl").read_bytes() == first


@settings(max_examples=examples(2), deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8))
@example([("0", "{}"), ("[1]", "[]"), ('["a"]', "[{}")])
def test_texts_of_tables_are_read_as_they_are(tmp_path_factory: pytest.TempPathFactory, pairs: list[Any]) -> None:
    tmp = tmp_path_factory.mktemp("table")
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
    assert canonical(write(tmp / "a.parquet", rows), tmp) == [turns(*pair) for pair in pairs]
