"""Answers to questions: each is in the context, at its position."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtune.data.checks.record_checks import faults_of
from cloudtune.data.records import Answers, Question


@pytest.mark.parametrize(("texts", "starts", "codes"), [
    (["Ada"], [0], []), (["Ada", "a box"], [0, 8], []), ([], [], []), (["Größe"], [15], []),
    (["Ada"], [1], ["answer_place"]), (["Bob"], [0], ["answer_place"]), (["Ada"], [-3], ["answer_place"]),
    (["Ada", "box", "Eve"], [0, 3, 99], ["answer_place", "answer_place"]), ([" "], [3], ["answer_place"]),
    (["Ada"], [], ["lengths"]),
])  # fmt: skip
def test_an_answer_is_at_its_place(texts: list[str], starts: list[int], codes: list[str]) -> None:
    row = Question("Who?", "Ada has a box, Größe 3", Answers(texts, starts))
    found: Any = faults_of(row, method="question_answering")
    assert [problem.code for problem in found] == codes
    assert all(problem.field == "answers" and problem.fix for problem in found)
