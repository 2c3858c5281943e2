"""Whatever bytes a file holds: problems or records, never another exception, and never a hang."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property_tests import examples

from cloudtune.data.checks.scanning import Scanner
from cloudtune.data.report import check
from cloudtune.data.scanned import Task
from cloudtune.data.write.formats_table import find_format, format_names
from cloudtune.errors import DataError, Problem
from cloudtune.spec import Data

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.parquet", "a.arrow", "a.jsonl.gz", "a.jsonl.zst", "a"]
SCRAPS = st.sampled_from([
    b'{"messages":[', b'{"role":"user","content":"a"}', b'{"role":"assistant","content":"b"}', b"]}", b",", b"\n", b"[",
    b"]", b"{", b"}", b'"', b"\\", b"\\ud800", b"\\u0000", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc3", b"NaN", b"1e999",
    b"prompt,completion\n", b'"prompt","completion"', b'"a","b"\r\n', b"\t", b"PAR1", b"ARROW1\0\0", b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd", b'{"prompt":"a","completion":"b"}', b'"weight":', b'"tool_calls":[{}]', b"null", b"-", b"\r",
])  # fmt: skip
CONTENT = st.one_of(st.binary(max_size=200), st.lists(SCRAPS, max_size=25).map(b"".join))


@settings(max_examples=examples(30), deadline=None)
@given(name=st.sampled_from(NAMES), content=CONTENT, packed=st.booleans())
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes, packed: bool) -> None:
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(gzip.compress(content) if packed and name.endswith(".gz") else content)
    report = check(str(path))
    assert report.rows or not report.ok
    for problem in report.problems:
        assert isinstance(problem, Problem)
        str(problem)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["role", "content", "text", "type", "toolUse", "image", "name", "x"]), inner, max_size=3
        ),
    ),
    max_leaves=8,
)
KEYS = st.sampled_from([
    "messages", "prompt", "completion", "chosen", "rejected", "system", "tools", "conversations", "dialog",
    "instruction", "input", "output", "context", "response", "text", "label", "tokens", "tags", "question",
    "answers", "source", "target", "image", "audio", "transcript", "schemaVersion", "preferred_output",
    "non_preferred_output", "reward_model", "fields", "reference_answer", "weird",
])  # fmt: skip


@settings(max_examples=examples(30), deadline=None)
@given(rows=st.lists(st.dictionaries(KEYS, VALUES, max_size=5), min_size=1, max_size=4))
def test_any_json_in_every_shape(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    path.write_bytes(b"\n".join(json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass") for row in rows))
    check(str(path), private=True)


@settings(max_examples=examples(8), deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from(["a", "prompt", "completion"]), VALUES, min_size=1), max_size=3))
def test_any_table(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path_factory.mktemp("fuzz") / "a.parquet"
    try:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    except (pyarrow.ArrowException, UnicodeEncodeError, OverflowError):
        return  # Arrow itself cannot hold it
    check(str(path))


def test_a_gzip_bomb_ends_soon_and_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudtune.data.read.blocks.MAX_ROW_BYTES", 1 << 20)
    monkeypatch.setattr("cloudtune.data.read.blocks.MAX_SKIP_BYTES", 8 << 20)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b" " + b"0" * (256 << 20), 1))
    report = check(str(path))
    assert [problem.code for problem in report.problems] == ["row_too_long"]


def test_every_format_has_a_scanner() -> None:
    for name in format_names():
        assert Scanner(Task(format=name)).format is find_format(name)
    with pytest.raises(DataError):
        Scanner(Task(format="none"))
    assert Data.model_validate({"train": "x"}).train.path == "x"
