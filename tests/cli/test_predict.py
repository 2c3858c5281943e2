"""``cloudtune predict``: what it reads and prints, without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloudtune.cli.generate import _with_scores, read_prompts
from cloudtune.cli.predict import lines_of, read_inputs, shown
from cloudtune.errors import InputError
from cloudtune.optional import GenerateOptions, check_generation, check_inputs
from cloudtune.state import Generation, Prediction, Tag

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Desk

TAGS = (Tag(token="see", tag="O", score=1.0), Tag(token="Ada", tag="B-PER", score=0.5))
FOUND = {
    "scores": (Prediction(text="up", score=0.9, scores={"up": 0.9, "down": 0.1}), "up  (up 0.900, down 0.100)"),
    "tags": (Prediction(text="O B-PER", tags=TAGS), "see  O  1.000\nAda  B-PER  0.500"),
    "answer": (Prediction(text="Ada", score=0.5, start=4, end=7), "Ada  (0.500, characters 4 to 7)"),
    "nothing": (Prediction(text="", score=0.5), "(no answer)  (0.500)"),
    "no words": (Prediction(text="", tags=()), ""),
    "text": (Prediction(text="dos"), "dos"),
}


@pytest.mark.parametrize("kind", FOUND)
def test_a_prediction_is_shown_with_its_scores(kind: str) -> None:
    found, expected = FOUND[kind]
    assert lines_of(found) == expected


def test_labels_and_words_cannot_control_a_terminal() -> None:
    evil = "a\x1b[2J\nb"
    escaped = "a\\x1b[2J\\nb"
    label = f"{escaped}  ({escaped} 1.000)"
    assert lines_of(Prediction(text=evil, score=1.0, scores={evil: 1.0})) == label
    assert (
        lines_of(Prediction(text=evil, tags=(Tag(token=evil, tag=evil, score=1.0),))) == f"{escaped}  {escaped}  1.000"
    )
    assert _with_scores(Generation(text=evil, scores={evil: 1.0})) == label


def test_inputs_are_lines_or_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert read_inputs(tmp_path / "a.txt") == ["one", "two"]
    rows = tmp_path / "a.jsonl"
    rows.write_text('{"tokens": ["a", "b"]}\n"text"\n{"question": "Who?", "context": "Ada"}\n{"other": 1}\n')
    found = read_inputs(rows)
    assert [shown(one) for one in found] == ["a b", "text", "Who?", '{"other": 1}']
    rows.write_text('{"tokens"\n[1]\n')
    with pytest.raises(InputError) as refused:
        read_inputs(rows)
    assert [problem.line for problem in refused.value.problems] == [1, 2]


def test_an_exported_folder_is_no_job(desk: Desk, tmp_path: Path) -> None:
    done = desk.run("predict", str(tmp_path), "one")
    assert done.code == 2
    assert f"{tmp_path} is a folder, not a job" in done.err
    assert "transformers loads the folder" in done.err
    assert "no job named" in desk.run("predict", "a" * 5000, "one").err


def test_halves_of_surrogate_pairs_are_refused(tmp_path: Path) -> None:
    """No tokenizer takes them. JSON can escape them."""
    rows = tmp_path / "a.jsonl"
    rows.write_text('"fine"\n{"tokens": ["\\ud800"]}\n{"messages": [{"role": "user", "content": ["\\udc00"]}]}\n')
    for check in (check_inputs, lambda given: check_generation([[one] for one in given], GenerateOptions())):
        with pytest.raises(InputError) as refused:
            check(read_inputs(rows)[1:])
        assert [problem.code for problem in refused.value.problems] == ["not_utf8"] * 2


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\u2028two\x0cthree\r\nfour\x85\n".encode())
    rows = tmp_path / "a.jsonl"
    rows.write_text('"one\u2028two"\n\n{"text": "three\u2029"}\n', encoding="utf-8")
    for read in (read_inputs, read_prompts):
        assert read(tmp_path / "a.txt") == ["one\u2028two\x0cthree", "four\x85"]
    assert read_inputs(rows) == ["one\u2028two", {"text": "three\u2029"}]
    rows.write_text('"one\u2028two"\n5\n', encoding="utf-8")
    for read in (read_inputs, read_prompts):
        with pytest.raises(InputError) as refused:
            read(rows)
        assert [problem.line for problem in refused.value.problems] == [2]


def test_models_that_only_generate_are_refused(desk: Desk) -> None:
    ref = desk.submit()
    desk.finish(ref)
    done = desk.run("predict", ref, "hello")
    assert done.code == 2
    assert "only models that generate text" in done.err
    assert "use generate" in done.err
    assert desk.run("predict", ref).code == 2
