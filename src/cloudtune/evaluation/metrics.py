"""The table of metrics: for which tasks, from what each row contributes, and how the contributions make the value.

Most metrics are a function of sums over rows, so that a bootstrap sample is one matrix product.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cloudtune.errors import InputError, Problem
from cloudtune.evaluation import likelihoods, probabilities, text_metrics, tool_calls
from cloudtune.evaluation.patterns import SlowPattern
from cloudtune.evaluation.statistics import ranks
from cloudtune.evaluation.text_metrics import exact_number, json_value, number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.evaluation.statistics import Array
    from cloudtune.state import Generation

Task = Literal["labels", "numbers", "json", "text", "answers", "tags", "entities", "tools", "passages"]
"""What the expected answers are. JSON lists of all right answers in a context, or of a tag for each word; ``entities``
are tags such as B-PER, I-PER and O; ``tools`` are answers to prompts with tools: calls, texts or both;
``passages`` are texts without a prompt."""
ANY: tuple[Task, ...] = ("labels", "numbers", "json", "text", "tools")
_ENTITY_TAG = re.compile(r"O|[BIESLU]-.+", re.DOTALL)
MOST_LABELS = 100
_ROWS_PER_LABEL = 3
_LONGEST_LABEL = 60
LARGEST = 1e100
"""Of a row's error or score, so that sums of its cube are finite."""


class Metric(NamedTuple):
    """One metric."""

    name: str
    tasks: tuple[Task, ...]
    rows: Callable[[Sequence[Any], Sequence[str]], Array]
    """From the answers and the expected answers, an array (rows, contributions)."""
    value: Callable[[Array, Array], Array]
    """From weights (samples, rows) and contributions, the value of each sample."""
    span: float | None = 1.0
    """The largest value, if there is one: 1 for shares, which are shown in percent."""
    lowest: float = 0.0
    """The smallest value, if there is a largest one."""
    is_share: bool = False
    """It is the share of rows with contribution 1; the others have 0."""
    higher_is_better: bool = True
    of_scores: bool = False
    """``rows`` takes generations with the probability of each label, and not texts."""
    of_likelihoods: bool = False
    """``rows`` takes the likelihood of each expected text, and not answers."""

    def shown(self, value: float, *, signed: bool = False) -> str:
        """The value as text."""
        sign = "+" if signed else ""
        if self.span == 1.0:
            return f"{100 * value:{sign}.1f}"
        return f"{value:{sign}.1f}" if self.span else f"{value:{sign}.4g}"


def _mean(weights: Array, rows: Array) -> Array:
    return (weights @ rows)[:, 0] / weights.sum(axis=1)


def share(name: str, tasks: tuple[Task, ...], is_right: Callable[[str, str], bool]) -> Metric:
    """The share of rows whose answer is right."""

    def rows(answers: Sequence[str], expected: Sequence[str]) -> Array:
        found: list[float] = []
        for answer, right in zip(answers, expected, strict=True):
            try:
                found.append(float(is_right(answer, right)))
            except SlowPattern as error:
                message = f"{name}: {error} in the answer to row {len(found) + 1}, {answer[:60]!r}"
                fix = "use a pattern without nested repetition"
                raise InputError([Problem(code="slow_pattern", field="metric", message=message, fix=fix)]) from error
        return _column(found)

    return Metric(name, tasks, rows, _mean, is_share=True)


def average(
    name: str, tasks: tuple[Task, ...], score: Callable[[str, str], float], *, span: float | None = 1.0
) -> Metric:
    """The average of the scores of the answers."""

    def rows(answers: Sequence[str], expected: Sequence[str]) -> Array:
        return _column([score(answer, right) for answer, right in zip(answers, expected, strict=True)])

    return Metric(name, tasks, rows, _mean, span=span)


def _column(values: Sequence[float]) -> Array:
    import numpy as np

    return np.array(values, dtype=np.float64)[:, None]


# -- labels ------------------------------------------------------------------------------------------------------------


def labels_of(expected: Sequence[str]) -> list[str]:
    """The labels, sorted."""
    return sorted({one.strip() for one in expected})


def _label_counts(answers: Sequence[str], expected: Sequence[str]) -> Array:
    """For each label, whether the row is a true positive, a predicted and an actual one."""
    import numpy as np

    # numbers, because an array of texts has the longest one's size for each row, and ends texts at NUL
    number = {label: place for place, label in enumerate(labels_of(expected))}
    labels = np.arange(len(number))
    predicted = np.array([number.get(one.strip(), -1) for one in answers])[:, None] == labels
    actual = np.array([number[one.strip()] for one in expected])[:, None] == labels
    return np.concatenate([predicted & actual, predicted, actual], axis=1).astype(np.float64)


def _of_labels(name: str, average: str, part: str) -> Metric:
    """Precision, recall or F1. Answers that are no label are wrong and count for no label's precision."""

    def value(weights: Array, rows: Array) -> Array:
        import numpy as np

        right, predicted, actual = np.split(weights @ rows, 3, axis=1)
        if average == "micro":
            right, predicted, actual = (one.sum(axis=1, keepdims=True) for one in (right, predicted, actual))
        above, below = {
            "precision": (right, predicted), "recall": (right, actual), "f1": (2 * right, predicted + actual),
        }[part]  # fmt: skip
        scores = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
        shares = actual if average == "weighted" else (actual > 0).astype(np.float64)
        return (scores * shares).sum(axis=1) / shares.sum(axis=1)

    return Metric(name, ("labels",), _label_counts, value)


def _of_scores(
    name: str, rows: Callable[[Sequence[Generation], Sequence[str]], Array], value: Callable[[Array, Array], Array]
) -> Metric:
    return Metric(name, ("labels",), rows, value, of_scores=True)


def confusion(answers: Sequence[str], expected: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """The labels, and for each expected label the number of answers with each label; the last counts other answers."""
    labels = labels_of(expected)
    number = {label: place for place, label in enumerate(labels)}
    counts = [[0] * (len(labels) + 1) for _ in labels]
    for answer, right in zip(answers, expected, strict=True):
        counts[number[right.strip()]][number.get(answer.strip(), len(labels))] += 1
    return labels, counts


# -- numbers -----------------------------------------------------------------------------------------------------------


def _numbers(answers: Sequence[str], expected: Sequence[str]) -> Array:
    """The answered and the expected number of each row. An answer without a number is NaN."""
    import numpy as np

    found = [(number_of(one), number_of(right)) for one, right in zip(answers, expected, strict=True)]
    return np.array([[np.nan if value is None else value for value in pair] for pair in found], dtype=np.float64)


def _errors(answers: Sequence[str], expected: Sequence[str]) -> Array:
    """The absolute error of each row.

    An answer without a number has the distance of the two extremes expected. If all expected numbers are equal, it has
    the size of that number, and at least 1. No error is larger than `LARGEST`: a model can repeat a digit endlessly.
    """
    import numpy as np

    pairs = _numbers(answers, expected)
    right = pairs[:, 1]
    worst = np.ptp(right) or max(1.0, float(np.abs(right).max()))
    errors = np.where(np.isnan(pairs[:, 0]), worst, np.abs(pairs[:, 0] - right))
    return np.minimum(errors, LARGEST)[:, None]


def _with_median(answers: Sequence[str], expected: Sequence[str]) -> Array:
    """As `_numbers`; an answer without a number is replaced by the median, which tells nothing about the order."""
    import numpy as np

    pairs = _numbers(answers, expected)
    return np.where(np.isnan(pairs), np.median(pairs[:, 1]), pairs)


def _spearman(weights: Array, pairs: Array) -> Array:
    """Pearson's correlation of the ranks. A weight is the number of times that a row occurs."""
    import numpy as np

    first, second = (ranks(weights, pairs[:, column]) for column in (0, 1))
    total = weights.sum(axis=1, keepdims=True)
    first, second = (one - (weights * one).sum(axis=1, keepdims=True) / total for one in (first, second))
    above = (weights * first * second).sum(axis=1)
    below = np.sqrt((weights * first**2).sum(axis=1) * (weights * second**2).sum(axis=1))
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


# -- answers in a context, and tags of words ---------------------------------------------------------------------------


def _best(score: Callable[[str, str], float]) -> Callable[[str, str], float]:
    """The score against the right answer that suits the answer most. Without one, the answer must be empty."""

    def best(answer: str, right: str) -> float:
        return max(score(answer, one) for one in json_value(right) or [""])

    return best


def tags_of(text: str) -> list[str]:
    """The tags that the text lists; none if it is no JSON list of texts."""
    found = json_value(text)
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else []


def _tag_counts(answers: Sequence[str], expected: Sequence[str]) -> Array:
    """The number of right tags and of words."""
    import numpy as np

    pairs = [(tags_of(answer), tags_of(right)) for answer, right in zip(answers, expected, strict=True)]
    counts = [(sum(a == b for a, b in zip(found, right, strict=False)), len(right)) for found, right in pairs]
    return np.array(counts, dtype=np.float64)


def _entity_counts(answers: Sequence[str], expected: Sequence[str]) -> Array:
    """The number of right, predicted and actual entities."""
    import numpy as np

    pairs = [(entities(tags_of(one)), entities(tags_of(right))) for one, right in zip(answers, expected, strict=True)]
    return np.array([(len(one & other), len(one), len(other)) for one, other in pairs], dtype=np.float64)


def _ratio(weights: Array, rows: Array) -> Array:
    """Twice the first sum by the other two, or the first by the second one."""
    import numpy as np

    sums = weights @ rows
    above, below = (sums[:, 0], sums[:, 1]) if rows.shape[1] == 2 else (2 * sums[:, 0], sums[:, 1] + sums[:, 2])
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Type, first and last word of each entity, as in the CoNLL evaluation and by default in seqeval.

    Tags are O, or a type after the prefix B or I (also E, S, L and U).
    """
    found = set()
    before, kind, start = "O", "", 0
    for place, tag in enumerate([*tags, "O"]):
        is_inside = before != "O"
        has_ended = before[:1] in "ESLU" or tag[:1] in "BSUO" or tag[2:] != kind
        if is_inside and has_ended:
            found.add((kind, start, place - 1))
        if tag != "O" and (not is_inside or has_ended):
            kind, start = tag[2:], place
        before = tag
    return found


# -- the table ---------------------------------------------------------------------------------------------------------


def _is_equal(answer: str, right: str) -> bool:
    return answer.strip() == right.strip()


def _same_number(answer: str, right: str) -> bool:
    return exact_number(answer) == exact_number(right)


METRICS: dict[str, Metric] = {metric.name: metric for metric in (
    share("accuracy", ("labels",), _is_equal),
    _of_labels("f1_macro", "macro", "f1"),
    _of_labels("f1_weighted", "weighted", "f1"),
    _of_labels("f1_micro", "micro", "f1"),
    _of_labels("precision_macro", "macro", "precision"),
    _of_labels("recall_macro", "macro", "recall"),
    _of_scores("roc_auc", probabilities.label_probabilities, probabilities.roc_auc),
    _of_scores("average_precision", probabilities.label_probabilities, probabilities.average_precision),
    _of_scores("log_loss", probabilities.surprises, _mean)._replace(span=None, higher_is_better=False),
    _of_scores("calibration_error", probabilities.confidence_bins, probabilities.calibration_error)._replace(
        higher_is_better=False
    ),
    share("number_match", ("numbers",), _same_number),
    Metric("mean_absolute_error", ("numbers",), _errors, _mean, span=None, higher_is_better=False),
    Metric("spearman", ("numbers",), _with_median, _spearman, lowest=-1.0),
    share("json_match", ("json",), text_metrics.same_json),
    share("json_valid", ("json",), lambda answer, _: json_value(answer) is not None),
    share("tool_call_match", ("json", "text", "tools"), tool_calls.match),
    share("tool_name_match", ("json", "text", "tools"), tool_calls.same_names),
    Metric("chrf", ("text",), text_metrics.chrf_counts, text_metrics.chrf, span=100.0),
    Metric("bleu", ("text",), text_metrics.bleu_counts, text_metrics.bleu, span=100.0),
    average("token_f1", ("text",), text_metrics.token_f1),
    average("rouge1", ("text",), lambda answer, right: text_metrics.rouge_n(answer, right, 1)),
    average("rouge2", ("text",), lambda answer, right: text_metrics.rouge_n(answer, right, 2)),
    average("rouge_l", ("text",), text_metrics.rouge_l),
    Metric("wer", ("text",), text_metrics.word_edits, _ratio, span=None, higher_is_better=False),
    Metric("cer", ("text",), text_metrics.character_edits, _ratio, span=None, higher_is_better=False),
    share("exact_match", ANY, _is_equal),
    share("squad_exact_match", ("text",), text_metrics.squad_match),
    average("answer_f1", ("answers",), _best(text_metrics.token_f1)),
    share("answer_match", ("answers",), lambda answer, right: _best(text_metrics.squad_match)(answer, right) > 0),
    *(Metric(name, (*ANY, "passages"), rows, likelihoods.perplexity, span=None, higher_is_better=False,
             of_likelihoods=True)
      for name, rows in (("byte_perplexity", likelihoods.byte_counts), ("perplexity", likelihoods.token_counts))),
    Metric("entity_f1", ("entities",), _entity_counts, _ratio),
    Metric("tag_accuracy", ("tags", "entities"), _tag_counts, _ratio),
)}  # fmt: skip
"""By name."""
DEFAULTS: dict[Task, tuple[str, ...]] = {
    "labels": ("accuracy", "f1_macro"),
    "numbers": ("number_match", "mean_absolute_error", "spearman"),
    "json": ("json_match", "json_valid"),
    "text": ("chrf", "rouge_l", "token_f1", "exact_match"),
    "answers": ("answer_f1", "answer_match"),
    "tags": ("tag_accuracy",),
    "entities": ("entity_f1", "tag_accuracy"),
    "tools": ("tool_call_match", "tool_name_match"),
    "passages": ("byte_perplexity", "perplexity"),
}
"""The metrics of a task. The verdict is about the first one.

chrF comes first for text: it counts characters, so it needs no words and suits every language and short answers.
"""


def task_of(kind: str, expected: Sequence[str], *, regression: bool = False, tools: bool = False) -> Task:
    """What the expected answers are: labels, numbers, JSON, or other text. Labels of a regression are numbers.

    ``tools``: some prompt has tools.
    """
    if tools:
        return "tools"
    if kind == "speech":
        return "text"
    if kind == "image_label":
        return "labels"
    if kind == "text_label":
        return "numbers" if regression and all(number_of(one) is not None for one in expected) else "labels"
    if kind in ("question", "text"):
        return "answers" if kind == "question" else "passages"
    if kind == "tags":
        tags = {tag for row in expected for tag in json_value(row)}
        marked = any(tag[:2] in ("B-", "I-") for tag in tags)
        return "entities" if marked and all(_ENTITY_TAG.fullmatch(tag) for tag in tags) else "tags"
    if all(number_of(one) is not None for one in expected):
        return "numbers"
    if all(isinstance(json_value(one), dict | list) for one in expected):
        return "json"
    labels = labels_of(expected)
    few = len(labels) <= min(MOST_LABELS, len(expected) / _ROWS_PER_LABEL)
    return "labels" if few and max(map(len, labels)) <= _LONGEST_LABEL else "text"
