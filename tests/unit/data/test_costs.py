"""Tokens and costs: exact where the vendor's own tokenizer is here, else between two bounds."""

from __future__ import annotations

import gzip
import hashlib
import json
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property_tests import examples

from cloudtune.catalog import load
from cloudtune.cli.main import cli
from cloudtune.data.checks.costs import count, estimates
from cloudtune.data.checks.targets import find_target
from cloudtune.data.records import Chat, Message
from cloudtune.data.report import check
from cloudtune.errors import DataError
from cloudtune.spec import Data
from cloudtune_providers.openai_dialect import targets
from cloudtune_providers.openai_dialect import tokens as openai_tokens
from cloudtune_providers.openai_dialect.tokens import OpenAITokens, encoding_of

pytest.importorskip("bpe_openai")


def chat(question: str, answer: str = "a") -> Chat:
    return Chat([Message("user", question), Message("assistant", answer)])


def rows(path: Path, lines: list[str]) -> str:
    path.write_text("".join(json.dumps({"prompt": one, "completion": "yes"}) + "\n" for one in lines), "utf-8")
    return str(path)


def test_the_encoding_is_the_published_one() -> None:
    # github.com/openai/tiktoken, tiktoken_ext/openai_public.py: expected_hash of o200k_base (seen 2026-11-21).
    packed = (resources.files("bpe_openai.data") / "o200k_base.tiktoken.gz").read_bytes()
    published = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == published


@pytest.mark.parametrize(("model", "encoding"), [
    ("gpt-4.1-mini-2025-04-14", "o200k_base"), ("gpt-4o-2024-08-06", "o200k_base"), ("o4-mini-2025", "o200k_base"),
    ("gpt-4-0613", "cl100k_base"), ("gpt-3.5-turbo-0125", "cl100k_base"), ("ft:gpt-4o-mini:org::id", "o200k_base"),
    ("my-own", None), (None, None),
])  # fmt: skip
def test_models_and_their_encodings(model: str | None, encoding: str | None) -> None:
    assert encoding_of(model) == encoding


def test_counts_are_those_of_the_cookbook() -> None:
    counter = OpenAITokens("o200k_base")
    # Each message has three more, the row three; "hello world" and "bye" are three words of a token each.
    assert counter.count([chat("hello world", "bye")]) == [3 + (3 + 1 + 2) + (3 + 1 + 1)]
    assert counter.count([chat("<|endoftext|>")])[0] > 11  # words, and no token with a meaning of its own
    assert counter.count([]) == []


@settings(max_examples=examples(15), deadline=None)
@given(question=st.text(max_size=200), answer=st.text(min_size=1, max_size=50))
def test_spans_cover_the_words(question: str, answer: str) -> None:
    record = chat(question, answer)
    counter = OpenAITokens("o200k_base")
    text, spans = counter.spans(record)
    assert spans[-1].end == len(text)
    assert all(one.start <= other.start for one, other in pairwise(spans))


def test_rows_over_the_limit_are_counted_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rows(tmp_path / "rows.jsonl", [*(f"row {i}" for i in range(12)), "a " * 40_000, "a " * 70_000])
    found = check(path, target="openai", model="gpt-4.1-mini-2025-04-14")
    (problem,) = [problem for problem in found.problems if "too_long" in problem.code]
    assert (problem.code, problem.line) == ("too_long", 14)
    assert problem.message.startswith("70,0")
    assert found.tokens is None, "only rows that may be too long were counted"
    monkeypatch.setattr(targets, "encoding_of", lambda model: None)
    found = check(path, target="openai", model="gpt-4.1-mini-2025-04-14")
    assert [(p.code, p.line) for p in found.problems if "too_long" in p.code] == [
        ("too_long", 14),
        ("maybe_too_long", 13),
    ]


def test_costs_of_one_pass(tmp_path: Path) -> None:
    path = rows(tmp_path / "rows.jsonl", [f"question number {i}" for i in range(400)])
    data = Data.model_validate({"train": path, "validation": 0.5})
    tokens = count(data)
    exact = tokens.exact["o200k_base"]
    assert 0 < tokens.least < exact < tokens.most
    whole = count(Data.model_validate({"train": path}))
    assert 0.3 < exact / whole.exact["o200k_base"] < 0.7, "what is held out is not learnt"
    found = {(one.backend, one.model): one for one in estimates(tokens, "sft")}
    mini = found["openai", "gpt-4.1-mini-2025-04-14"]
    price = load("openai").price("training", "gpt-4.1-mini-2025-04-14", "sft")
    assert price is not None
    assert mini.usd == (round(exact * price.usd / 1e6, 4),) * 2
    assert mini.counted == "exact"
    assert mini.prices_as_of == str(load("openai").sources[price.source].seen)
    nova = found["bedrock", "amazon.nova-2-lite-v1:0:256k"]
    assert nova.counted == "bounds"
    assert nova.usd[0] < nova.usd[1]
    assert nova.tokens == (tokens.least, tokens.most)
    assert {one.backend for one in estimates(tokens, "sft", backend="bedrock")} == {"bedrock"}
    assert not estimates(tokens, "dpo", backend="bedrock")


def test_without_the_tokenizer_there_are_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "encoding_of", lambda model: None)
    tokens = count(Data.model_validate({"train": rows(tmp_path / "rows.jsonl", ["a b c"] * 3)}))
    assert not tokens.exact
    assert {one.counted for one in estimates(tokens, "sft")} == {"bounds"}
    monkeypatch.setattr(openai_tokens, "_is_here", lambda: False)
    with pytest.raises(DataError, match="openai-tokens"):
        OpenAITokens("o200k_base")


def test_the_profile_shows_costs_and_stats_count_by_name(tmp_path: Path) -> None:
    path = rows(tmp_path / "rows.jsonl", [f"question number {i}" for i in range(120)])
    page = tmp_path / "page.html"
    result = CliRunner().invoke(cli, ["data", "profile", path, "-o", str(page), "--validation", "0.2", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert {one["backend"] for one in report["costs"]} >= {"openai", "azure_openai", "bedrock"}
    text = page.read_text(encoding="utf-8")
    assert "Cost of one pass" in text
    assert "amazon.nova-2-lite" in text
    assert "<h2>Sides</h2>" in text
    assert "<td>validation<td" in text
    result = CliRunner().invoke(cli, ["data", "stats", path, "--tokenizer", "o200k_base", "--json"])
    assert json.loads(result.stdout)["tokens"] > 120 * 9
    result = CliRunner().invoke(cli, ["data", "preview", path, "--tokenizer", "o200k_base", "-n", "1", "--json"])
    (row,) = json.loads(result.stdout)["rows"]
    assert {"text": "yes", "fate": "learnt"} in row["pieces"]
    assert find_target("openai", "gpt-4.1-2025-04-14").tokenizer == "o200k_base"
