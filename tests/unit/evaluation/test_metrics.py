"""Each metric equals its library, or a published example. The libraries' values are constants here."""

from __future__ import annotations

import numpy as np
import pytest

from cloudtune.errors import InputError
from cloudtune.evaluation.choosing import chosen_metrics
from cloudtune.evaluation.metrics import METRICS, confusion, task_of

LABELS = ["cat", "dog", "cat", "bird", "dog", "cat", "bird", "cat"]
ANSWERS = ["cat", "cat", "cat", "bird", "dog", "fish", "dog", " bird\n"]
TEXTS = [
    ("The cat sat on the mat, quietly.", "A cat was sitting quietly on the mat."),
    ("Police kill the gunman", "police killed the gunman"),  # Lin (2004), section 3
    ("", "nothing here"),
    ("one two three four five six", "one three five two four six"),
]


def value(name: str, answers: list[str], expected: list[str]) -> float:
    (metric,) = chosen_metrics([name], METRICS[name].tasks[0]) if name in METRICS else chosen_metrics([name], "text")
    rows = metric.rows(answers, expected)
    return float(metric.value(np.ones((1, len(answers))), rows)[0])


@pytest.mark.parametrize(("name", "expected"), [
    ("accuracy", 0.5), ("precision_macro", 0.5555555555555555), ("recall_macro", 0.5),
    ("f1_macro", 0.5238095238095238), ("f1_weighted", 0.5357142857142857), ("f1_micro", 0.5333333333333333),
])  # fmt: skip
def test_label_metrics_equal_scikit_learn(name: str, expected: float) -> None:
    assert value(name, ANSWERS, LABELS) == pytest.approx(expected, abs=1e-12)  # 1.9.1, labels=, zero_division=0


def test_labels_are_compared_as_whole_texts() -> None:
    labels = ["a", "a\0", "b" * 1_000_000] * 30  # as an array of texts: 360 MB
    assert value("f1_micro", ["a\0", "a", "b"] * 30, labels) == 0
    assert value("f1_micro", labels, labels) == 1


def test_confusion_counts_answers_that_are_no_label() -> None:
    labels, counts = confusion(ANSWERS, LABELS)
    assert labels == ["bird", "cat", "dog"]
    assert counts == [[1, 0, 1, 0], [1, 2, 0, 1], [0, 1, 1, 0]]


@pytest.mark.parametrize(("name", "each"), [
    ("rouge1", [2 / 3, 0.75, 0.0, 1.0]), ("rouge2", [4 / 13, 1 / 3, 0.0, 0.0]), ("rouge_l", [8 / 15, 0.75, 0.0, 2 / 3]),
])  # fmt: skip
def test_rouge_equals_rouge_score(name: str, each: list[float]) -> None:
    for (answer, right), score in zip(TEXTS, each, strict=True):
        assert value(name, [answer], [right]) == pytest.approx(score, abs=1e-12)  # 0.1.2


def test_rouge_of_long_texts_takes_seconds() -> None:
    words = [str(number) for number in range(10_000)]  # word by word: half a minute
    swapped = [word for pair in zip(words[1::2], words[::2], strict=True) for word in pair]
    assert value("rouge_l", [" ".join(words)], [" ".join(swapped)]) == 0.5
    assert value("rouge_l", ["a b " * 5_000], ["a " * 5_000]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("name", "expected"), [("bleu", 13.665810087653144), ("chrf", 47.732134449293866)])
def test_corpus_metrics_equal_sacrebleu(name: str, expected: float) -> None:
    assert value(name, [answer for answer, _ in TEXTS], [right for _, right in TEXTS]) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_a_drawn_sample_equals_sacrebleu_on_its_rows(name: str) -> None:
    from sacrebleu.metrics import BLEU, CHRF

    metric = METRICS[name]
    rows = metric.rows([answer for answer, _ in TEXTS], [right for _, right in TEXTS])
    drawn = [TEXTS[number] for number in (0, 0, 1, 3)]
    found = metric.value(np.array([[2.0, 1.0, 0.0, 1.0]]), rows)[0]
    library = {"bleu": BLEU, "chrf": CHRF}[name]()
    assert found == pytest.approx(library.corpus_score([a for a, _ in drawn], [[b for _, b in drawn]]).score)


@pytest.mark.parametrize(("answer", "right", "f1", "same"), [
    ("The Eiffel Tower!", "eiffel tower", 1.0, 1.0),
    ("in the year 1066", "1066", 0.5, 0.0),
    ("Paris", "London", 0.0, 0.0),
    ("", "London", 0.0, 0.0),
    ("saw a b b", "b b saw", 1.0, 0.0),
])  # fmt: skip
def test_squad_metrics_follow_its_script(answer: str, right: str, f1: float, same: float) -> None:
    assert value("token_f1", [answer], [right]) == pytest.approx(f1)
    assert value("squad_exact_match", [answer], [right]) == same


def test_spearman_equals_scipy_with_and_without_ties() -> None:
    iq, hours = [86, 97, 99, 100, 101, 103, 106, 110, 112, 113], [2, 20, 28, 27, 50, 29, 7, 17, 6, 12]
    assert value("spearman", list(map(str, iq)), list(map(str, hours))) == pytest.approx(-29 / 165)
    tied = value("spearman", list("1223555"), list("2133465"))
    assert tied == pytest.approx(0.8779838352573822)
    metric = METRICS["spearman"]
    drawn = metric.value(np.array([[1.0, 2, 0, 1, 1, 0, 2]]), metric.rows(list("1223555"), list("2133465")))[0]
    assert drawn == pytest.approx(value("spearman", list("1223555"), list("2113455")))


def test_unreadable_numbers_are_never_an_advantage() -> None:
    expected = ["1", "2", "11"]
    assert value("mean_absolute_error", ["2", "1,002", "11%"], expected) == pytest.approx((1 + 1000 + 0) / 3)
    assert value("mean_absolute_error", ["1", "none", "11"], expected) == pytest.approx(10 / 3)
    assert value("mean_absolute_error", ["none", "7"], ["7", "7"]) == 3.5
    assert value("mean_absolute_error", ["none"], ["0"]) == 1.0
    assert value("number_match", ["1.0", "two", "11"], expected) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("answer", "right", "same"), [
    ("1,234,567.50", "1234567.5", 1), ("12,34,567", "1234567", 1), ("+1e3", "1,000", 1), ("5 %", "5.0", 1),
    ("1,5", "15", 0), ("1,2,3", "123", 0), ("1,000,00", "100000", 0), ("1,0000", "10000", 0),
    ("12345678901234567891", "12345678901234567890", 0), ("1e999", "1", 0), ("nan", "1", 0), ("sNaN", "1", 0),
])  # fmt: skip
def test_equal_numbers_have_equal_digits(answer: str, right: str, same: int) -> None:
    assert value("number_match", [answer], [right]) == same


def test_json_is_compared_by_value() -> None:
    expected = ['{"a": 1, "b": [2]}'] * 4
    answers = ['{"b":[2],"a":1}', '{"a": 1}', "```json", '{"a": 1,}']
    assert value("json_match", answers, expected) == 0.25
    assert value("json_valid", answers, expected) == 0.5


def test_a_regular_expression_is_a_metric() -> None:
    assert value(r"regex:^\d{4}$", ["2024", "x2024", "199"], ["a", "b", "c"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("kind", "expected", "task"), [
    ("text_label", ["1", "2"], "labels"),
    ("chat", ["yes", "no"] * 5, "labels"),
    ("chat", ["1", "2.5", "-3"], "numbers"),
    ("chat", ['{"a": 1}', "[2]"], "json"),
    ("chat", ["a sentence", "another one", "a third one"], "text"),
    ("question", ['["a"]', "[]"], "answers"),
    ("tags", ['["O","B-PER"]'], "entities"),
    ("tags", ['["NOUN","VERB"]'], "tags"),
    ("pair", ["a sentence that is longer than labels usually are, which is text"] * 9, "text"),
])  # fmt: skip
def test_the_task_follows_from_the_expected_answers(kind: str, expected: list[str], task: str) -> None:
    assert task_of(kind, expected) == task


def test_labels_of_a_regression_are_numbers_if_all_are() -> None:
    assert task_of("text_label", ["1", "2.5"], regression=True) == "numbers"
    assert task_of("text_label", ["1", "high"], regression=True) == "labels"


def test_metrics_that_do_not_fit_are_refused_together() -> None:
    with pytest.raises(InputError) as refused:
        chosen_metrics(["accuracy", "f2", "regex:(", "chrf"], "text")
    assert len(refused.value.problems) == 3
    assert "accuracy is for labels, and the expected answers are text" in str(refused.value)


def test_entities_equal_seqeval() -> None:
    # The example of seqeval's README, https://github.com/chakki-works/seqeval (seen 2026-11-29): F1 0.50.
    expected = ['["O","O","O","B-MISC","I-MISC","I-MISC","O"]', '["B-PER","I-PER","O"]']
    answers = ['["O","O","B-MISC","I-MISC","I-MISC","I-MISC","O"]', '["B-PER","I-PER","O"]']
    assert value("entity_f1", answers, expected) == 0.5
    assert value("tag_accuracy", answers, expected) == pytest.approx(0.8)


@pytest.mark.parametrize(("answer", "right", "f1", "same"), [
    ("the Rhine", '["Danube", "Rhine"]', 1.0, 1.0),
    ("river Rhine", '["Danube", "Rhine"]', 2 / 3, 0.0),
    ("", "[]", 1.0, 1.0),
    ("Rhine", "[]", 0.0, 0.0),
])  # fmt: skip
def test_the_best_of_several_right_answers_counts(answer: str, right: str, f1: float, same: float) -> None:
    assert value("answer_f1", [answer], [right]) == pytest.approx(f1)
    assert value("answer_match", [answer], [right]) == same


RIGHT: dict[str, str] = {
    "labels": "yes", "numbers": "5", "json": '{"a": 1}', "text": "some words", "answers": '["a"]', "tags": '["X","Y"]',
    "entities": '["B-X","O"]', "tools": '<tool_call>{"name": "f", "arguments": {}}</tool_call>',
}  # fmt: skip
HOSTILE = ["5", '"x"', "[[1]]", "[1]", '["O", 5]', "{}", '{"0": "O"}', "null", "true", "", "\ud800", "[" * 9999, "nan"]


@pytest.mark.parametrize(
    "name", [name for name, metric in METRICS.items() if not (metric.of_scores or metric.of_likelihoods)]
)
@pytest.mark.parametrize("answer", HOSTILE, ids=repr)
def test_any_answer_has_a_value(name: str, answer: str) -> None:
    for task in METRICS[name].tasks:
        assert np.isfinite(value(name, [answer], [RIGHT[task]])), task


def test_true_is_not_one_in_json() -> None:
    expected = ['{"a": [1, true, null, "x"]}'] * 6
    answers = ['{"a": [1.0, true, null, "x"]}', '{"a": [true, true, null, "x"]}', '{"a": [1, 1, null, "x"]}',
               '{"a": [1, true, null]}', '{"a": [1, true, false, "x"]}', '{"b": [1, true, null, "x"]}']  # fmt: skip
    assert [value("json_match", [one], expected[:1]) for one in answers] == [1, 0, 0, 0, 0, 0]


def test_ranks_of_many_values_use_little_memory() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=50_000)  # as a table of values by values: 20 GB
    numbers = [str(one) for one in values]
    assert value("spearman", numbers, numbers) == pytest.approx(1.0)
