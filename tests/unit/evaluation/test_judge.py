"""A judge model: rubric and pairs, nonsense and time-outs, and rates corrected by labels of people."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cloudtune.backend import Capabilities
from cloudtune.errors import InputError, InvalidRequest, RateLimited, Unavailable
from cloudtune.evaluation.answers import Answers
from cloudtune.evaluation.compare import Answered
from cloudtune.evaluation.judge import Judge, JudgePlan, Label, read_judge
from cloudtune.evaluation.judged import Agreement, Judged, corrected, rate
from cloudtune.evaluation.models import EvaluatedModel
from cloudtune.evaluation.result import JudgeOptions
from cloudtune.evaluation.rows import read_rows
from cloudtune.retry import READ_ATTEMPTS
from cloudtune.spec import Source
from cloudtune.state import Generation, TunedModel
from cloudtune.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cloudtune.optional import GenerateOptions, Prompt

COUNT = 40


class Vendor:
    """Answers what ``rule`` returns for the JSON object of a judge's prompt."""

    name = "vendor"
    capabilities = Capabilities(supports=frozenset())

    def __init__(self, rule: Callable[[dict[str, str]], str]) -> None:
        self._rule = rule
        self.asked: list[str] = []

    def scope(self) -> str:
        return ""

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        for prompt in prompts:
            self.asked.append(str(prompt))
            line = next(line for line in str(prompt).splitlines() if line.startswith("{"))
            yield Generation(text=self._rule(json.loads(line)), prompt_tokens=5, completion_tokens=1)


def by_number(given: dict[str, str]) -> str:
    """Even numbers are good answers."""
    return "PASS" if int(given["answer"]) % 2 == 0 else "FAIL"


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def made(vendor: Vendor, plan: JudgePlan, folder: Path) -> Judge:
    tuned = TunedModel(id="m", base="m", backend="vendor", scope="")
    model = EvaluatedModel("m", vendor, tuned, "identity")  # type: ignore[arg-type]
    answers = Answers(folder / "answers.db", FakeClock())
    return Judge(model, plan, answers, FakeClock(), 4, lambda done, count: None)


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., Judged]:
    def call(vendor: Vendor, labels: list[Any] | None = None, *, pairwise: bool = False) -> Judged:
        _, rows = read_rows(Source(path=lines(
            tmp_path / "test.jsonl", [{"prompt": f"p {n}", "completion": str(n)} for n in range(COUNT)]
        )))  # fmt: skip
        (tmp_path / "rubric.txt").write_text("The number is even.")
        options = JudgeOptions(
            model="vendor=m", rubric=None if pairwise else str(tmp_path / "rubric.txt"),
            human_labels=None if labels is None else lines(tmp_path / "labels.jsonl", labels),
        )  # fmt: skip
        answers = [[str(n) for n in range(COUNT)], [str(2 * n) for n in range(COUNT)]]
        models = [Answered(name, "other", texts) for name, texts in zip(("first", "second"), answers, strict=True)]
        judge = made(vendor, read_judge(options), tmp_path)
        return judge.judge(rows, [models] if pairwise else [[one] for one in models], range(COUNT))

    return call


def test_a_rubric_gives_the_share_of_good_answers(judged: Callable[..., Judged]) -> None:
    vendor = Vendor(by_number)
    found = judged(vendor)
    assert [(one.model, one.good, one.judged, one.unclear) for one in found.models] == [
        ("first", COUNT // 2, COUNT, 0), ("second", COUNT, COUNT, 0)
    ]  # fmt: skip
    assert all("not checked against people" in text for text in found.sentences())
    asked = len(vendor.asked)
    assert judged(vendor) == found
    assert len(vendor.asked) == asked == len(set(vendor.asked))


@pytest.mark.parametrize("pairwise", [False, True])
def test_stored_judgments_are_no_part_of_the_estimate(
    judged: Callable[..., Judged], tmp_path: Path, pairwise: bool
) -> None:
    _, rows = read_rows(Source(path=lines(tmp_path / "rows.jsonl", [
        {"prompt": f"p {n}", "completion": str(n)} for n in range(COUNT)
    ])))  # fmt: skip
    plan = JudgePlan(None if pairwise else "The number is even.", (), "")
    judge = made(Vendor(by_number), plan, tmp_path)
    answers: list[list[Generation | None]] = [
        [Generation(text=str(factor * n)) for n in range(COUNT)] for factor in (1, 2)
    ]
    models = [answers] if pairwise else [[one] for one in answers]
    unknown = judge.questions(rows, [[[None] * COUNT for _ in some] for some in models], 100)
    assert unknown.asked == 2 * COUNT
    assert unknown.more_prompt_bytes >= 2 * COUNT * 100
    known = judge.questions(rows, models, 100)
    vendor = Vendor(lambda given: "A" if pairwise else by_number(given))
    judged(vendor, pairwise=pairwise)
    assert (known.asked, known.more_prompt_bytes) == (len(vendor.asked), 0)
    assert known.prompt_bytes == sum(map(len, vendor.asked))
    assert judge.questions(rows, models, 100).asked == 0


@pytest.mark.parametrize(("rubric", "models", "expected"), [
    ("It is short.", 3, 2 + 30), (None, 3, 4 + 20), (None, 1, 4),
])  # fmt: skip
def test_a_plan_counts_the_questions_to_the_judge(rubric: str | None, models: int, expected: int) -> None:
    labels = tuple(Label(n, True, "p", None, ("a", "b")) for n in range(2))
    assert JudgePlan(rubric, labels, "labels.jsonl").questions_about(10, models) == expected


def test_only_an_answer_that_is_better_in_both_orders_wins(judged: Callable[..., Judged]) -> None:
    found = judged(Vendor(lambda given: "A" if int(given["A"]) < int(given["B"]) else "B"), pairwise=True)
    (one,) = found.models
    assert (one.good, one.worse, one.order_decided, one.judged) == (COUNT - 1, 0, 0, COUNT)  # equal answers are a tie
    assert (one.model, one.against) == ("first", "second")


def test_a_judge_that_prefers_a_place_decides_nothing(judged: Callable[..., Judged]) -> None:
    (one,) = judged(Vendor(lambda given: "A"), pairwise=True).models
    assert (one.good, one.worse, one.order_decided, one.judged) == (0, 0, COUNT - 1, COUNT)
    (one,) = judged(Vendor(lambda given: "B"), pairwise=True).models  # the stored answers
    assert one.order_decided == COUNT - 1


@pytest.mark.parametrize("nonsense", ["PASS, because", "pass", "", "PASS FAIL", "I cannot say.", "\x1b[31m"])
def test_nonsense_is_listed_and_never_counted(judged: Callable[..., Judged], nonsense: str) -> None:
    found = judged(Vendor(lambda given: nonsense if given["answer"] == "6" else by_number(given)))
    assert [(one.judged, one.unclear) for one in found.models] == [(COUNT - 1, 1), (COUNT - 1, 1)]
    assert [(one.model, one.line) for one in found.unclear] == [("first", 7), ("second", 4)]
    assert "2 judgments are missing" in found.sentences()[-1]


def test_a_cut_answer_is_named(judged: Callable[..., Judged], monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Generation(text="", finish_reason="length")
    monkeypatch.setattr(Vendor, "generate", lambda self, model, prompts, options=None: iter([cut] * len(prompts)))
    found = judged(Vendor(by_number))
    assert {one.reason for one in found.unclear} == {"the judge's answer was cut at 512 tokens"}


@pytest.mark.parametrize("error", [Unavailable("timed out"), InvalidRequest("too long")])
def test_a_judge_that_fails_for_a_row_is_listed(judged: Callable[..., Judged], error: Exception) -> None:
    def rule(given: dict[str, str]) -> str:
        if given["answer"] == "6":
            raise error
        return by_number(given)

    vendor = Vendor(rule)
    found = judged(vendor)
    assert {one.reason for one in found.unclear} == {str(error)}
    assert (found.models[0].judged, found.models[0].good) == (COUNT - 1, COUNT // 2 - 1)
    assert not judged(Vendor(by_number)).unclear  # a failure is not stored: it is asked again


def test_throttling_is_retried_in_one_place(judged: Callable[..., Judged], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vendor, "capabilities", Capabilities(supports=frozenset(), remote=True))

    def rule(given: dict[str, str]) -> str:
        raise RateLimited("slow down")

    vendor = Vendor(rule)
    with pytest.raises(RateLimited):
        judged(vendor)
    assert max(Counter(vendor.asked).values()) == READ_ATTEMPTS


def test_a_judge_that_always_fails_is_an_error(judged: Callable[..., Judged]) -> None:
    def rule(given: dict[str, str]) -> str:
        raise Unavailable("timed out")

    vendor = Vendor(rule)
    with pytest.raises(InvalidRequest, match="timed out"):
        judged(vendor)
    assert len(set(vendor.asked)) < 2 * COUNT


def test_a_judge_that_answers_only_nonsense_has_no_rate(judged: Callable[..., Judged]) -> None:
    found = judged(Vendor(lambda given: "Hm."))
    assert [one.rate for one in found.models] == [None, None]
    assert "no answer of first is judged" in found.sentences()[0]


def test_labels_of_people_correct_the_rate(judged: Callable[..., Judged]) -> None:
    # The judge calls 18 of 20 good answers good, and 15 of 20 bad ones bad.
    good = [{"prompt": "q", "answer": str(100 + 2 * n + (n < 2)), "good": True} for n in range(20)]
    bad = [{"prompt": "q", "answer": str(201 + 2 * n - (n < 5)), "good": False} for n in range(20)]
    found = judged(Vendor(by_number), good + bad)
    assert found.agreement == Agreement(good=20, found_good=18, bad=20, found_bad=15)
    score = found.models[0].corrected
    assert score is not None
    assert score.value == pytest.approx((0.5 + 0.75 - 1) / (0.9 + 0.75 - 1))
    text = found.sentences()[0]
    assert "38.5%" in text
    assert "by the judge's count" in text
    assert "33 of 40 labels of people (sensitivity 90.0%, specificity 75.0%)" in text


@pytest.mark.parametrize(("labels", "message"), [
    ([{"prompt": "q", "answer": "2", "good": True}], "which are all good. So the rate cannot be corrected"),
    ([{"prompt": "q", "answer": "2", "good": n % 2 == 0} for n in range(4)], "no better than chance"),
])  # fmt: skip
def test_labels_that_allow_no_correction_are_named(
    judged: Callable[..., Judged], labels: list[Any], message: str
) -> None:
    found = judged(Vendor(by_number), labels)
    assert found.models[0].corrected is None
    assert message in found.sentences()[0]


def test_the_correction_equals_a_calculation_by_hand() -> None:
    # 90 of 200 by the judge; sensitivity 40/50, specificity 45/50: (0.45 + 0.9 - 1) / (0.8 + 0.9 - 1) = 0.5.
    # Lang and Reiczigel: p' = (90 + 1.9207) / 203.8415 = 0.45094, se' = 41/52 = 0.78846, sp' = 46/52 = 0.88462,
    # (p' + sp' - 1) / (se' + sp' - 1) = 0.33556 / 0.67308 = 0.49854,
    # shift = 7.6829 (0.49854 * 0.0032075 - 0.50146 * 0.0019629) = 0.0045...,
    # error = 1.96 sqrt(0.0012147 + 0.24854 * 0.0032075 + 0.25146 * 0.0019629) / 0.67308 = 0.1456.
    found = corrected(0.45, 200, Agreement(good=50, found_good=40, bad=50, found_bad=45))
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.3577, 0.6488), abs=5e-4)


@pytest.mark.soak
def test_corrected_intervals_cover_the_truth() -> None:
    random = np.random.default_rng(0)
    for truth, sensitivity, specificity in ((0.6, 0.9, 0.85), (0.3, 0.8, 0.9), (0.9, 0.95, 0.7)):
        shares = random.binomial(200, truth * sensitivity + (1 - truth) * (1 - specificity), 2000) / 200
        labels = zip(random.binomial(50, sensitivity, 2000), random.binomial(50, specificity, 2000), strict=True)
        found = [corrected(share, 200, Agreement(good=50, found_good=int(one), bad=50, found_bad=int(other)))
                 for share, (one, other) in zip(shares, labels, strict=True)]  # fmt: skip
        covered = sum(one is not None and (one.low or 0) <= truth <= (one.high or 0) for one in found) / 2000
        assert 0.93 <= covered <= 0.99


def test_answers_of_one_group_count_as_one() -> None:
    alone, count = rate([True, False] * 10, range(20))
    grouped, fewer = rate([True] * 10 + [False] * 10, [n // 10 for n in range(20)])
    assert (alone.value, count, grouped.value) == (0.5, 20, 0.5)
    assert fewer <= 2
    assert (grouped.high or 0) > (alone.high or 0)
    assert rate([True] * 20, [n // 10 for n in range(20)])[1] == 2


@pytest.mark.parametrize(("labels", "message"), [
    ("{", "labels.jsonl:1"), ('{"prompt": "a", "answer": "b"}', "good"), ("\n", "there are no labels"),
    ('{"prompt": "a", "answer": "b", "good": 1}', "bool"), ("[" * 9999, "labels.jsonl:1"), (None, "No such file"),
    ('{"prompt": "a", "first": "b", "second": "c", "better": "first"}', "first"),
])  # fmt: skip
def test_labels_that_cannot_be_read_are_refused(tmp_path: Path, labels: str | None, message: str) -> None:
    file, rubric = tmp_path / "labels.jsonl", tmp_path / "rubric.txt"
    rubric.write_text("Good.")
    if labels is not None:
        file.write_text(labels)
    with pytest.raises(InputError) as refused:
        read_judge(JudgeOptions(model="m", rubric=str(rubric), human_labels=str(file)))
    assert message in str(refused.value)


@pytest.mark.parametrize(("content", "message"), [(b" \n", "empty"), (b"\xff", "utf-8"), (None, "No such file")])
def test_a_rubric_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "rubric.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_judge(JudgeOptions(model="m", rubric=str(file)))
