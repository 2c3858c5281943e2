"""Rows over a model's limit are found by ``prepare`` with the model's own tokenizer, and reported with their lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from cloudtune.data import prepare
from cloudtune.errors import DataError
from cloudtune.plan import RowLimit
from cloudtune.spec import Data


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """One token a word, and a template that adds two words to each turn."""
    words = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    words.pre_tokenizer = WhitespaceSplit()
    folder = tmp_path / "model"
    folder.mkdir()
    words.save(str(folder / "tokenizer.json"))
    template = "{% for message in messages %}<s> {{ message['content'] }} </s> {% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return str(folder)


def rows(path: Path, lengths: list[int]) -> Data:
    """One row for each answer's length in words."""
    lines = [json.dumps({"prompt": f"say {n}", "completion": "word " * n}) for n in lengths]
    path.write_text("\n".join(lines), encoding="utf-8")
    return Data.model_validate({"train": str(path)})


def test_rows_over_the_limit_are_refused_with_their_lines_and_exact_counts(tmp_path: Path, tokenizer: str) -> None:
    data = rows(tmp_path / "a.jsonl", [94, 95, 3, 400])  # "say n" and four marks are six more tokens
    with pytest.raises(DataError) as reported:
        prepare(data, limit=RowLimit(tokens=100, tokenizer=tokenizer))
    assert [(problem.line, problem.message.split(";")[0]) for problem in reported.value.problems] == [
        (2, "101 tokens"), (4, "406 tokens"),
    ]  # fmt: skip


def test_where_rows_are_cut_the_report_warns(tmp_path: Path, tokenizer: str) -> None:
    data = rows(tmp_path / "a.jsonl", [94, 95])
    report = prepare(data, limit=RowLimit(tokens=100, tokenizer=tokenizer, cut=True))
    found = [problem for problem in report.problems if problem.code == "too_long"]
    assert [(problem.severity, problem.line) for problem in found] == [("warning", 2)]


def test_of_a_pair_the_longer_answer_counts(tmp_path: Path, tokenizer: str) -> None:
    """Each answer is read behind the question by itself: "say n", four marks and its own words."""
    lengths = [(90, 90), (3, 95), (95, 3), (94, 94), (400, 3)]
    lines = [{"prompt": f"say {n}", "chosen": "word " * n, "rejected": "other " * m} for n, m in lengths]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    data = Data.model_validate({"train": str(path)})
    report = prepare(data, method="dpo", limit=RowLimit(tokens=100, tokenizer=tokenizer, cut=True))
    found = [(problem.line, problem.message) for problem in report.problems if problem.code == "too_long"]
    assert found == [
        (2, "101 tokens; the limit is 100; the answer would be truncated"),
        (3, "101 tokens; the limit is 100; the answer would be truncated"),
        (5, "406 tokens; the limit is 100; the answer would be truncated"),
    ]


def test_without_a_limit_nothing_is_counted(tmp_path: Path) -> None:
    report = prepare(rows(tmp_path / "a.jsonl", [5000]))
    assert [problem.code for problem in report.problems] == ["few_rows"]
