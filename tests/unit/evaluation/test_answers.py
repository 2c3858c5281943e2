"""The store of answers: a question is asked once, whatever happens in between."""

from __future__ import annotations

import math
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cloudtune.errors import BackendError, InputError, InvalidRequest, LedgerError, RateLimited
from cloudtune.evaluation.answers import Answers
from cloudtune.optional import GenerateOptions
from cloudtune.state import Generation
from cloudtune.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PROMPTS = [f"question {number % 40}" for number in range(60)]


class Model:
    """Answers, and fails after a number of answers."""

    def __init__(self, fail_after: int | None = None, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self._left = fail_after
        self._error = error or RateLimited("slow down")

    def ask(self, prompts: Sequence[str]) -> Iterator[Generation]:
        """The answers in order."""
        for prompt in prompts:
            if self._left == 0:
                self._left = 7
                raise self._error
            if self._left is not None:
                self._left -= 1
            self.asked.append(prompt)
            yield Generation(text=prompt.upper(), finish_reason="stop")


def texts(store: Answers, model: Model, options: GenerateOptions | None = None, name: str = "m") -> list[str]:
    return [one.text for one in store.get_or_generate(name, PROMPTS, options or GenerateOptions(), model.ask)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "answers.db"


def test_equal_prompts_are_asked_once_and_never_again(path: Path) -> None:
    model = Model()
    expected = [prompt.upper() for prompt in PROMPTS]
    assert texts(Answers(path, FakeClock()), model) == expected
    assert texts(Answers(path, FakeClock()), model) == expected
    assert len(model.asked) == len(set(PROMPTS))


def test_another_model_or_setting_is_asked_again(path: Path) -> None:
    model, store = Model(), Answers(path, FakeClock())
    for options, name in ((GenerateOptions(), "m"), (GenerateOptions(max_tokens=9), "m"), (GenerateOptions(), "n")):
        texts(store, model, options, name)
    assert len(model.asked) == 3 * len(set(PROMPTS))


def test_throttling_is_retried_from_the_first_missing_answer(path: Path) -> None:
    model = Model(fail_after=5)
    assert texts(Answers(path, FakeClock()), model) == [prompt.upper() for prompt in PROMPTS]
    assert len(model.asked) == len(set(PROMPTS))


def test_an_interrupted_run_continues(path: Path) -> None:
    model = Model(fail_after=11, error=KeyboardInterrupt())  # type: ignore[arg-type]
    interruptions = 0
    while True:
        try:
            texts(Answers(path, FakeClock()), model)
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions > 2
    assert len(model.asked) == len(set(PROMPTS))


def test_an_existing_store_becomes_private(path: Path) -> None:
    texts(Answers(path, FakeClock()), Model())
    path.chmod(0o644)
    texts(Answers(path, FakeClock()), Model())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("damaged", [b"{", b'{"text": 1}', b"\xff", b'{"text": "\xff"}', 5])
def test_a_damaged_answer_is_asked_for_again(path: Path, damaged: object) -> None:
    texts(Answers(path, FakeClock()), Model())
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE answers SET answer = ? WHERE key = (SELECT min(key) FROM answers)", (damaged,))
    model = Model()
    for _ in range(2):
        assert texts(Answers(path, FakeClock()), model) == [prompt.upper() for prompt in PROMPTS]
    assert len(model.asked) == 1


@pytest.mark.parametrize("score", [math.nan, -math.inf])
def test_a_probability_that_is_no_number_is_an_error(path: Path, score: float) -> None:
    asked = []

    def ask(prompts: Sequence[str]) -> Iterator[Generation]:
        asked.extend(prompts)
        yield Generation(text="yes", scores={"yes": score})

    with pytest.raises(InvalidRequest, match="not a finite number"):
        Answers(path, FakeClock()).get_or_generate("m", ["a"], GenerateOptions(), ask)
    assert asked == ["a"]


def test_prompts_and_answers_that_are_no_text_are_refused(path: Path) -> None:
    store = Answers(path, FakeClock())
    with pytest.raises(InputError, match="a prompt is no Unicode text"):
        store.get_or_generate("m", ["\ud800"], GenerateOptions(), Model().ask)
    with pytest.raises(BackendError, match="the answer of the model is no Unicode text"):
        store.get_or_generate("m", ["a"], GenerateOptions(), lambda _: iter([Generation(text="\ud800")]))


@pytest.mark.parametrize(("count", "message"), [(1, "1 of 2 are missing"), (3, "more answers than prompts")])
def test_each_prompt_needs_one_answer(path: Path, count: int, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        Answers(path, FakeClock()).get_or_generate(
            "m", ["a", "b"], GenerateOptions(), lambda _: iter([Generation(text="x")] * count)
        )


def test_the_store_is_private_and_damage_is_reported(path: Path) -> None:
    texts(Answers(path, FakeClock()), Model())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.write_bytes(b"not a database" * 99)
    with pytest.raises(LedgerError, match=r"answers\.db"):
        texts(Answers(path, FakeClock()), Model())
