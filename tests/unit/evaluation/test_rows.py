"""Held-out rows as prompts, examples before a prompt, and rows that are in the training data."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from cloudtune.errors import DataError, InputError
from cloudtune.evaluation.contamination import overlap, places_text
from cloudtune.evaluation.prepared import is_regression
from cloudtune.evaluation.rows import examples_of, group_names, read_rows, with_examples
from cloudtune.prompts import ToolPrompt
from cloudtune.spec import Data, JobSpec, MixedIn, Source

if TYPE_CHECKING:
    from pathlib import Path

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi?"}


def source(folder: Path, name: str, rows: list[dict[str, object]]) -> Source:
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return Source(path=str(path))


@pytest.mark.parametrize(("row", "prompt", "expected"), [
    ({"text": "good film", "label": 1}, "good film", "1"),
    ({"source": "bonjour", "target": "hello"}, "bonjour", "hello"),
    ({"prompt": "2+2", "completion": "4"}, [{"role": "user", "content": "2+2"}], "4"),
    ({"messages": [SYSTEM, USER, {"role": "assistant", "content": "Hello"}]}, [SYSTEM, USER], "Hello"),
])  # fmt: skip
def test_a_row_is_a_prompt_and_its_last_answer(
    tmp_path: Path, row: dict[str, object], prompt: object, expected: str
) -> None:
    _, (found,) = read_rows(source(tmp_path, "test.jsonl", [row]))
    assert (found.prompt, found.expected, found.line) == (prompt, expected, 1)


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLS = [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}]


def test_a_row_with_tools_has_their_calls_as_its_answer(tmp_path: Path) -> None:
    called = {"role": "assistant", "content": None, "tool_calls": CALLS}
    result = {"role": "tool", "content": "Sunny.", "tool_call_id": "1"}
    rows: list[dict[str, object]] = [
        {"messages": [USER, called], "tools": [TOOL]},
        {"messages": [USER, called, result, {"role": "assistant", "content": "Sun."}], "tools": [TOOL]},
    ]
    _, (first, second) = read_rows(source(tmp_path, "test.jsonl", rows))
    answer = '<tool_call>\n{"name":"weather","arguments":{"city":"Bonn"}}\n</tool_call>'
    assert (first.expected, second.expected) == (answer, "Sun.")
    assert first.prompt == ToolPrompt(messages=(USER,), tools=(TOOL,))
    assert second.prompt == ToolPrompt(messages=(USER, called | {"content": ""}, result), tools=(TOOL,))
    assert first.prompt_text == "Hi?\n(tools: weather)"
    with pytest.raises(DataError, match="calls a tool, and the row has no tools"):
        read_rows(source(tmp_path, "bad.jsonl", [{"messages": [USER, called]}]))
    called["tool_calls"] = [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "[1]"}}]
    with pytest.raises(DataError, match="the arguments of the call of 'weather' are no JSON object"):
        read_rows(source(tmp_path, "bad.jsonl", [{"messages": [USER, called], "tools": [TOOL]}]))


def test_rows_with_several_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows with several labels are not evaluated yet"):
        read_rows(source(tmp_path, "test.jsonl", [{"text": "a", "label": ["x", "y"]}]))


def test_labels_with_fractions_and_of_a_regression_are_numbers(tmp_path: Path) -> None:
    _, fractions = read_rows(source(tmp_path, "a.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 0.5}]))
    _, whole = read_rows(source(tmp_path, "b.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 2}]))
    method = {"name": "classification", "problem": "regression"}
    spec = JobSpec.model_validate({"model": "m", "method": method, "data": {"train": "a"}})
    assert is_regression(None, fractions)
    assert is_regression(spec, whole)
    assert not is_regression(None, whole)


def test_examples_follow_the_system_turn_and_precede_the_prompt() -> None:
    found = with_examples([SYSTEM, USER], [("a", "b"), ([SYSTEM, {"role": "user", "content": "c"}], "d")])
    assert [(turn["role"], turn["content"]) for turn in found] == [  # type: ignore[index]
        ("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "Hi?"),
    ]  # fmt: skip


def test_examples_are_seeded_and_never_test_rows(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"source": f"s{n}", "target": f"t{n}"} for n in range(500)]
    training = Data(train=source(tmp_path, "train.jsonl", rows))
    _, tested = read_rows(source(tmp_path, "test.jsonl", rows[:490]))
    first, second = (examples_of(training, 4, seed, tested) for seed in (1, 2))
    assert first == examples_of(training, 4, 1, tested) != second
    assert {str(asked) for asked, _ in (*first, *second)} <= {f"s{n}" for n in range(490, 500)}


def test_only_rows_of_the_training_split_count_as_seen(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"source": f"s{n}", "target": f"t{n}"} for n in range(400)]
    training = source(tmp_path, "train.jsonl", rows)
    _, tested = read_rows(training)
    assert len(overlap(tested, Data(train=training)).equal) == 400
    assert 150 < len(overlap(tested, Data(train=training, test=0.5)).equal) < 250


def test_rows_that_are_mixed_in_count_as_training_rows(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"source": f"s{n}", "target": f"t{n}"} for n in range(100)]
    first = source(tmp_path, "train.jsonl", rows[:50])
    mixed_in = MixedIn(path=source(tmp_path, "general.jsonl", rows[50:]).path, weight=0.1)
    _, tested = read_rows(source(tmp_path, "test.jsonl", rows))
    assert len(overlap(tested, Data(train=first, mix=(mixed_in,))).equal) == 100
    held_out = Data(train=first, mix=(mixed_in,), test=0.5)
    assert 30 < len(overlap(tested, held_out).equal) < 70  # equal rows of the test split are never mixed in


def test_the_validation_file_as_test_file_is_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, other = (source(tmp_path, name, [{"source": name, "target": "b"}]) for name in ("a.jsonl", "b.jsonl"))
    monkeypatch.chdir(tmp_path)
    _, tested = read_rows(Source(path="b.jsonl"))
    assert overlap(tested, Data(train=train, validation=other)).validation
    assert not overlap(tested, Data(train=train, validation=train)).validation
    assert not overlap(tested, Data(train=train, validation=0.5)).validation


def test_groups_are_read_from_files_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text('{"source": "a", "target": "b", "doc": 1}\n' * 2, encoding="utf-8-sig")
    _, rows = read_rows(Source(path=str(path)))
    assert group_names(rows, "doc") == ["1", "1"]


@pytest.mark.parametrize("suffix", ["json", "csv", "jsonl.gz"])
def test_other_formats_are_refused_once_for_groups(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"test.{suffix}"
    row = '{"source": "a", "target": "b"}'
    content = {"json": f"[{row},\n{row},\n{row}]", "csv": "source,target\n" + "a,b\n" * 3, "jsonl.gz": f"{row}\n" * 3}
    path.write_bytes(gzip.compress(content[suffix].encode()) if suffix == "jsonl.gz" else content[suffix].encode())
    _, rows = read_rows(Source(path=str(path)))
    with pytest.raises(InputError, match="groups need an uncompressed JSONL file") as refused:
        group_names(rows, "doc")
    assert len(refused.value.problems) == 1


@pytest.mark.parametrize(("trained", "tested", "is_similar"), [
    ("Well-known: «yes»!", "well known yes", True), ("What is 2 + 3?", "what is 2 + 3", True),
    ("2 + 3", "2 * 3", False), ("2 * 3", "2 / 3", False), ("2 - 3", "2 % 3", False), ("-5 + 3", "5 + 3", False),
    ("2 < 3", "2 > 3", False), ("I feel \U0001f600", "I feel \U0001f622", False), ("5 $", "5 €", False),
    ("\u0939\u093f", "\u0939\u0940", False), ("e\u0301te\u0301", "\u00e9t\u00e9", True),
])  # fmt: skip
def test_rows_are_similar_only_with_equal_symbols(tmp_path: Path, trained: str, tested: str, is_similar: bool) -> None:
    training = source(tmp_path, "train.jsonl", [{"source": trained, "target": "t"}])
    _, rows = read_rows(source(tmp_path, "test.jsonl", [{"source": tested, "target": "t"}]))
    assert bool(overlap(rows, Data(train=training)).similar) is is_similar


def test_rows_of_several_files_are_named_with_their_file(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"source": f"s{n}", "target": "t"} for n in range(4)]
    training = Data(train=source(tmp_path, "train.jsonl", rows))
    files = [source(tmp_path, "a.jsonl", rows[:2]), source(tmp_path, "b.jsonl", rows[2:])]
    _, tested = read_rows(Source(path=tuple(one.paths[0] for one in files)))
    found = overlap(tested, training).equal
    assert places_text(found, 3) == "a.jsonl:1, a.jsonl:2, b.jsonl:1, ..."
    assert places_text(found[:2], 3) == "1, 2"
