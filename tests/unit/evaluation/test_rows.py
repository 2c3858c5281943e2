"""Held-out rows as prompts, examples before a prompt, and rows that are in the training data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cloudtune.evaluation.rows import examples_of, overlap, read_rows, with_examples
from cloudtune.spec import Data, Source

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
