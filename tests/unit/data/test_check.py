"""Checks of words, of limits, and of all rows together."""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.data import encode, prepare
from cloudtune.data.checks.limits import hold
from cloudtune.data.checks.targets import Target, find_target
from cloudtune.data.problem_list import Faults
from cloudtune.data.report import check, convert
from cloudtune.data.row_rules import DataFacts
from cloudtune.errors import DataError
from cloudtune.spec import Data

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.data.report import CheckReport


def pair(prompt: str, completion: str = "x y z", system: str | None = None) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion} | ({"system": system} if system else {})


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def found(report: CheckReport, code: str) -> list[tuple[int | None, str | None]]:
    return [(problem.line, problem.field) for problem in report.problems if problem.code == code]


FILLER = [pair(f"question {i}", f"a long enough answer to question number {i}, no label") for i in range(200)]


def test_words_that_should_not_be_there(tmp_path: Path) -> None:
    rows = [pair("a <|im_start|> b"), pair("see [/INST]"), pair("bell \x07"), pair("caf\ufffd"), pair("cafÃ©"),
            pair("x", "done </s>"), pair("plain < | text [ok] Ã")]  # fmt: skip
    report = check(write(tmp_path / "a.jsonl", [*FILLER, *rows]))
    assert report.ok
    user, answer = "messages[0].content", "messages[1].content"
    assert found(report, "template_token") == [(201, user), (202, user), (206, answer)]
    assert found(report, "control_character") == [(203, user)]
    assert found(report, "broken_text") == [(204, user), (205, user)]
    assert set(report.counts) == {"template_token", "control_character", "broken_text"}


def test_words_that_a_vendor_forbids(tmp_path: Path) -> None:
    rows = [*FILLER, pair("User: hi"), pair("hi", "User: ok in an answer"), pair("a", system="You are a Bot: x")]
    path = write(tmp_path / "a.jsonl", rows)
    assert check(path).ok
    report = check(path, target="bedrock")
    assert not report.ok
    content = [(201, "messages[0].content"), (202, "messages[1].content"), (203, "messages[0].content")]
    assert found(report, "reserved_word") == content
    assert check(path, target="bedrock", model="meta.llama3-3-70b-instruct-v1:0:128k").ok


def test_secrets_and_personal_data(tmp_path: Path) -> None:
    rows = [
        pair("my key is AKIAIOSFODNN7EXAMPLE"), pair("sk-proj-abcdefghijklmnopqrstuvwx"),
        pair("card 4111 1111 1111 1111"), pair("number 4111 1111 1111 1112"), pair("mail ana.diaz@example.org"),
        pair("IBAN DE89 3704 0044 0532 0130 00"), pair("IBAN DE88 3704 0044 0532 0130 00"), pair("a @ b"),
    ]  # fmt: skip
    path = write(tmp_path / "a.jsonl", [*FILLER, *rows])
    assert check(path).ok
    report = check(path, private=True)
    place = "messages[0].content"
    assert found(report, "secret") == [(201, place), (202, place)]
    assert found(report, "card_number") == [(203, place)]
    assert found(report, "email") == [(205, place)]
    assert found(report, "iban") == [(206, place)]
    shown = " ".join(str(problem) for problem in report.problems)
    assert "AKIA" not in shown
    assert "4111" not in shown  # a report must not spread what it found


def test_duplicates_conflicts_and_leaks(tmp_path: Path) -> None:
    rows = [*FILLER, FILLER[3], pair("question 7", "another answer to number seven, with many words in it"), FILLER[3]]
    path = write(tmp_path / "a.jsonl", rows)
    report = check(path)
    assert found(report, "duplicate") == [(201, None), (203, None)]
    assert found(report, "conflict") == [(202, None)]
    assert (report.duplicates, report.conflicts, report.leaks) == (2, 1, 0)
    assert f"{path}:4" in next(p.message for p in report.problems if p.code == "duplicate")
    held = write(tmp_path / "b.jsonl", [pair("new"), FILLER[9]])
    report = check(Data.model_validate({"train": path, "validation": held}))
    assert found(report, "leak") == [(2, None)]
    assert report.leaks == 1


def test_duplicates_are_found_however_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudtune.data.checks.dataset_stats._AT_ONCE", 100)
    monkeypatch.setattr("cloudtune.data.checks.dataset_stats._IN_MEMORY", 1000)
    chooser = random.Random(1)
    numbers = [chooser.randrange(2000) for _ in range(3000)]
    # Blank lines between: the places must be right all the same.
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(pair(f"q{n}")) + "\n" * (1 + n % 2) for n in numbers))
    report = check(str(path), problems=5000)
    assert report.duplicates == 3000 - len(set(numbers))
    lines = path.read_text().splitlines()
    for problem in report.problems:
        if problem.code == "duplicate":
            assert problem.line is not None
            first = int(problem.message.rsplit(":", 1)[1])
            assert lines[problem.line - 1] == lines[first - 1] != ""


def test_limits_of_a_vendor(tmp_path: Path) -> None:
    few = write(tmp_path / "few.jsonl", [pair(str(i)) for i in range(9)])
    assert "too_few_rows" in check(few, target="openai").counts
    assert "too_few_rows" not in check(few, target="bedrock").counts
    assert "few_rows" in check(few).counts
    many = write(tmp_path / "many.jsonl", [pair(str(i)) for i in range(20_001)])
    assert "too_many_rows" in check(many, target="bedrock").counts
    long = write(tmp_path / "long.jsonl", [*FILLER, pair("x" * 40_000)])
    assert found(check(long, target="bedrock"), "maybe_too_long") == [(201, None)]
    with pytest.raises(DataError, match="bedrock"):
        check(few, target="bedrok")
    with pytest.raises(DataError, match="dpo"):
        check(few, target="bedrock", method="dpo")


def test_numbers_of_rows_and_bytes_by_side() -> None:
    def codes(place: Target, rows: dict[str, int], sizes: dict[str, int]) -> list[tuple[str, str | None]]:
        faults = Faults()
        hold(place, DataFacts(rows, {}), sizes, faults)
        return [(problem.code, problem.field) for problem in faults.listed("error")]

    azure = find_target("azure_openai", "gpt-4.1-2025-04-14", "sft")
    assert azure.max_bytes == 512_000_000
    sizes = {"train": 511_999_999, "validation": 512_000_001, "test": 1 << 40}
    assert codes(azure, {"train": 10}, sizes) == [("too_large", "data.validation")]
    assert codes(azure, {"train": 9}, {}) == [("too_few_rows", "data.train")]
    assert find_target("openai", "gpt-4.1-2025-04-14", "sft").max_bytes == 8_000_000_000
    llama = find_target("bedrock", "meta.llama3-3-70b-instruct-v1:0:128k", "sft")
    assert codes(llama, {"train": 90, "validation": 10}, {}) == []
    assert codes(llama, {"train": 9_990, "validation": 11}, {}) == [("too_many_rows", "data.train")]
    nova = find_target("bedrock", "amazon.nova-lite-v1:0:300k", "sft")
    assert codes(nova, {"train": 7, "validation": 100}, {}) == [("too_few_rows", "data.train")]
    faults = Faults()
    hold(nova, DataFacts({"train": 20_001}, {}), {}, faults)
    assert "seen 2026-" in faults.listed("error")[0].message, "the number names its source"


def test_labels_out_of_balance(tmp_path: Path) -> None:
    rows = [pair(f"text {i}", "negative" if i % 40 == 0 else "positive") for i in range(400)]
    report = check(write(tmp_path / "a.jsonl", rows))
    assert report.labels == {"positive": 390, "negative": 10}
    assert "imbalance" in report.counts
    assert check(write(tmp_path / "b.jsonl", FILLER)).labels is None


def test_the_method_comes_from_the_kind_of_rows(tmp_path: Path) -> None:
    pairs = write(tmp_path / "a.jsonl", [{"prompt": f"q{i}", "chosen": "a", "rejected": "b"} for i in range(120)])
    assert check(pairs, target="openai").format == "openai-preference"
    assert check(pairs, target="openai").ok
    assert "kind_not_for_method" in check(pairs, method="sft").counts


def test_convert_writes_nothing_on_errors(tmp_path: Path) -> None:
    good = write(tmp_path / "a.jsonl", FILLER)
    out = tmp_path / "out.jsonl"
    report = convert(good, to="bedrock-converse", out=out, target="bedrock")
    assert report.ok
    assert report.out_bytes == out.stat().st_size
    assert len(out.read_bytes().splitlines()) == 200
    before = out.read_bytes()
    bad = write(tmp_path / "b.jsonl", [*FILLER, pair("")])
    assert not convert(bad, to="openai", out=out).ok
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "out.jsonl"]


def test_rows_that_are_held_out_are_not_written(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"q{n}", "completion": f"a{n}"}) + "\n" for n in range(200)))
    data, out = Data(train=str(rows), validation=0.25), tmp_path / "out.jsonl"
    report = convert(data, to="openai", out=out)
    assert report.ok
    written = len(out.read_text().splitlines())
    assert written == report.splits["train"].rows == prepare(data).splits["train"].rows
    assert 0 < written < 200


def test_near_duplicates_are_found_when_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    text = " ".join(f"word{i}" for i in range(80))
    rows = [
        pair(text),
        pair("something else entirely, in other words"),
        pair(text.replace("word79", "end")),
        pair(text),
    ]
    path = write(tmp_path / "a.jsonl", rows)
    assert "near_duplicate" not in check(path).counts
    report = check(path, near=0.8)
    assert found(report, "near_duplicate") == [(3, None)]
    assert found(report, "duplicate") == [(4, None)]
    assert any(problem.message.endswith(f"{path}:1") for problem in report.problems if problem.code == "near_duplicate")


def test_what_not_every_place_can_take_is_noted(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    question, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    tooled = [question, {"role": "assistant", "tool_calls": [call]},
              {"role": "tool", "content": "r", "tool_call_id": "1"}, answer | {"weight": 1}]  # fmt: skip
    seen = [{"role": "user", "content": [{"type": "text", "text": "what?"}, image]}, answer]
    path = write(tmp_path / "a.jsonl", [{"messages": tooled}, {"messages": seen}, {"messages": [question, answer]}])
    assert check(path).features == {"tools": 1, "weights": 1, "images": 1}
    report = prepare(Data.model_validate({"train": path}))
    notes = {problem.field: problem for problem in report.problems if problem.code == "feature"}
    assert set(notes) == {"tools", "weights", "images"}
    assert notes["images"].severity == "info"


@pytest.mark.parametrize("form", ["openai", "azure-openai", "bedrock-converse", "cloudtune"])
def test_the_hash_is_the_files_even_where_only_some_batches_are_canonical(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudtune.data.read.blocks.BLOCK_BYTES", 2000)
    monkeypatch.setattr("cloudtune.data.read.reading._HEAD", 2000)
    thoughtful = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 1,
                                                                  "reasoning_content": "hm"}]}  # fmt: skip
    plain = [
        {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "a"}]} for i in range(90)
    ]
    path = write(tmp_path / "a.jsonl", [*plain, thoughtful, *plain[:50], thoughtful])
    out = tmp_path / "out.jsonl"
    report = convert(path, to=form, out=out, allow_dropped=["thoughts", "weights"])
    assert report.ok
    assert report.out_sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert report.out_bytes == out.stat().st_size
    data = Data.model_validate({"train": path})
    done = encode(data, split="train", format=form, to=tmp_path / "again.jsonl", allow_dropped=["thoughts", "weights"],
                  expect_sha256=prepare(data).splits["train"].sha256)  # fmt: skip
    assert done.sha256 == hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert done.bytes == done.path.stat().st_size


def test_a_file_whose_rows_are_counted_is_not_empty(tmp_path: Path) -> None:
    """A tokenizer lets the reader look ahead: it decodes the last block of a file after the file's end."""
    row = '{"prompt": "What is {}?", "completion": "It is {}."}'
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jsonl").write_text(f"{row.replace('{}', name)}\n", encoding="utf-8")
    (tmp_path / "blank.jsonl").write_text("\n \n", encoding="utf-8")
    paths = [str(tmp_path / f"{name}.jsonl") for name in ("a", "b", "blank", "c")]
    found = check(paths, tokenizer="o200k_base")
    assert (found.rows, found.counts.get("empty_file")) == (3, 1)
    held_out = Data.model_validate({"train": paths[0], "validation": paths[1]})
    assert "empty_file" not in check(held_out, tokenizer="o200k_base").counts
