"""Rows for text embedding: their shapes, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from cloudtune.data import check
from cloudtune.data.checks.record_checks import faults_of
from cloudtune.data.read.kinds_other import recognise
from cloudtune.data.records import Contrastive, Record, Similarity
from cloudtune.spec import Data

if TYPE_CHECKING:
    from pathlib import Path

TWO = Contrastive("q", "a", ["b", "c"])


@pytest.mark.parametrize(("row", "expected"), [
    ({"anchor": "q", "positive": "a"}, Contrastive("q", "a")),
    ({"query": "q", "positive": "a"}, Contrastive("q", "a")),
    ({"anchor": "q", "positive": "a", "negatives": ["b", "c"]}, TWO),
    ({"anchor": "q", "positive": "a", "negative_1": "b", "negative_2": "c"}, TWO),
    ({"anchor": "q", "positive": "a", "negative": "b", "negative_1": "c"}, TWO),
    ({"query": "q", "pos": ["a"], "neg": ["b", "c"]}, TWO),
    ({"query": "q", "pos": "a", "negative_120": "c", "negative_11": "b"}, TWO),
    ({"query": "q", "pos": "a", "negative_1": "", "negative_2": None, "neg": "", "negative_3": "b",
      "negative_11": "c"}, TWO),
    ({"anchor": "q", "positive": "a", "negatives": None}, Contrastive("q", "a")),
    ({"anchor": "q", "positive": "a", "negatives": []}, Contrastive("q", "a")),
    ({"query": "q", "positive": "a", "negative": ["b", "c"]}, TWO),
    ({"sentence1": "a", "sentence2": "b", "score": 0.5}, Similarity("a", "b", 0.5)),
    ({"sentence1": "a", "sentence2": "b", "label": 1}, Similarity("a", "b", 1.0)),
])  # fmt: skip
def test_rows_of_common_data_sets_are_read(tmp_path: Path, row: dict[str, Any], expected: Record) -> None:
    kind = recognise(row)
    assert kind is not None
    assert kind.makes is type(expected)
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (read,) = records_of(file)
    assert read == expected


def records_of(file: Path) -> list[Record]:
    from cloudtune.data.problem_list import Faults
    from cloudtune.data.read.reading import read
    from cloudtune.spec import Source

    faults = Faults()
    found = [record for batch in read(Source(path=str(file)), faults) for record in batch.records]
    faults.raise_errors()
    return found


@pytest.mark.parametrize(("record", "field", "message"), [
    (Contrastive(" ", "a"), "anchor", "is empty"),
    (Contrastive("q", "q"), "positive", "the positive is the anchor"),
    (Contrastive("q", "a", ["b", "a"]), "negatives[1]", "the negative is the positive"),
    (Contrastive("q", "a", ["q"]), "negatives[0]", "the negative is the anchor"),
    (Contrastive("q", "a", ["b", " "]), "negatives[1]", "the negative is empty"),
    (Similarity("a", "", 0.5), "sentence2", "is empty"),
    (Similarity("a", "b", float("inf")), "score", "inf is no finite number"),
])  # fmt: skip
def test_rows_that_teach_nothing_are_refused(record: Record, field: str, message: str) -> None:
    (problem,) = faults_of(record, method="embedding")
    assert problem.field == field
    assert message in problem.message


@pytest.mark.parametrize(("row", "message"), [
    ({"query": "q", "pos": ["a", "b"]}, "exactly one"), ({"anchor": "q", "positive": "a", "negative": 3}, "text"),
    ({"sentence1": "a", "sentence2": "b", "score": "high"}, "score"),
])  # fmt: skip
def test_rows_of_wrong_values_are_refused_with_their_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    file = tmp_path / "rows.jsonl"
    good = {name: "x" if isinstance(value, str) else value for name, value in row.items()}
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    report = check(Data(train=str(file)), method="embedding")
    assert not report.ok, good
    assert message in " ".join(f"{problem.field} {problem.message}" for problem in report.problems)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("key", ["negatives", "negative", "neg", "negative_3"])
def test_an_empty_cell_is_no_negative(tmp_path: Path, form: str, key: str) -> None:
    file, name = tmp_path / f"rows.{form}", "anchor" if key == "negatives" else "query"
    if form == "csv":
        file.write_text(f"{name},positive,{key}\nq,a,\n", encoding="utf-8")
    elif form == "jsonl":
        file.write_text(json.dumps({name: "q", "positive": "a", key: None}) + "\n", encoding="utf-8")
    else:
        columns = {name: ["q"], "positive": ["a"], key: pa.array([None], pa.string())}
        pyarrow.parquet.write_table(pa.table(columns), file)
    assert records_of(file) == [Contrastive("q", "a")]


@pytest.mark.parametrize("score", ["nan", "inf", "-inf"])
def test_scores_that_are_not_finite_are_refused_in_csv(tmp_path: Path, score: str) -> None:
    (tmp_path / "rows.csv").write_text(f"sentence1,sentence2,score\na,b,0.5\nc,d,{score}\n", encoding="utf-8")
    (problem,) = [one for one in check(Data(train=str(tmp_path / "rows.csv")), method="embedding").problems
                  if one.severity == "error"]  # fmt: skip
    assert (problem.code, problem.field, problem.line) == ("score", "score", 3)
