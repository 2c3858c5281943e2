"""Metrics of texts: chrF and BLEU as sacrebleu computes them, ROUGE, SQuAD's token F1; and reading numbers and JSON.

sacrebleu splits the texts and counts; the values are computed here, for many bootstrap samples at once. ROUGE is our
own because rouge-score, last released in 2022, brings nltk for an optional stemmer.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.install_command import install_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.evaluation.statistics import Array

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_WORD = re.compile(r"[a-z0-9]+")
_WITH_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{2,3})*,\d{3}(\.\d*)?")
_CHRF_BETA = 2
_MASKS = 1024
"""Words whose places are kept as a bit mask."""


@cache
def _sacrebleu(name: str) -> Any:
    from cloudtune.errors import InputError

    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise InputError(f"{name} requires sacrebleu", hint=f"run: {install_command('evaluate')}") from error
    return {"bleu": BLEU, "chrf": CHRF}[name]()


def _counts(name: str, answers: Sequence[str], expected: Sequence[str]) -> Array:
    import numpy as np

    # What sacrebleu's own bootstrap resamples (sacrebleu/significance.py of 2.6).
    found = _sacrebleu(name)._extract_corpus_statistics(list(answers), [list(expected)])
    return np.array(found, dtype=np.float64)


def chrf_counts(answers: Sequence[str], expected: Sequence[str]) -> Array:
    """For each length of 1 to 6 characters: n-grams of the answer, of the expected answer, and of both."""
    return _counts("chrf", answers, expected)


def chrf(weights: Array, rows: Array) -> Array:
    """The corpus's chrF, from 0 to 100."""
    import numpy as np

    answered, expected, both = np.moveaxis((weights @ rows).reshape(len(weights), -1, 3), 2, 0)
    present = (answered > 0) & (expected > 0)
    orders = np.maximum(present.sum(axis=1), 1)
    precision = np.divide(both, answered, out=np.zeros_like(both), where=present).sum(axis=1) / orders
    recall = np.divide(both, expected, out=np.zeros_like(both), where=present).sum(axis=1) / orders
    factor = _CHRF_BETA**2
    above, below = 100 * (1 + factor) * precision * recall, factor * precision + recall
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def bleu_counts(answers: Sequence[str], expected: Sequence[str]) -> Array:
    """The words of the answer and of the expected answer, and for 1 to 4 words the right and all n-grams."""
    return _counts("bleu", answers, expected)


def bleu(weights: Array, rows: Array) -> Array:
    """The corpus's BLEU with exponential smoothing, from 0 to 100."""
    import numpy as np

    sums = weights @ rows
    answered, expected, right, total = sums[:, 0], sums[:, 1], sums[:, 2:6], sums[:, 6:10]
    defined = (right.sum(axis=1) > 0) & (total > 0).all(axis=1)
    total = np.where(total > 0, total, 1.0)
    halves = 0.5 ** np.cumsum(right == 0, axis=1)  # the first length without a match counts 1/2, the next one 1/4
    precision = np.where(right > 0, right, halves) / total
    brevity = np.exp(np.minimum(0.0, 1 - expected / np.maximum(answered, 1.0)))
    return np.where(defined, 100 * brevity * np.exp(np.log(precision).mean(axis=1)), 0.0)


def _squad_words(text: str) -> list[str]:
    """As SQuAD's evaluation script 1.1: lower case, without punctuation and articles."""
    return _ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def squad_match(answer: str, expected: str) -> bool:
    """Whether both texts have the same words, as SQuAD's exact match."""
    return _squad_words(answer) == _squad_words(expected)


def token_f1(answer: str, expected: str) -> float:
    """F1 of the words of both texts, as SQuAD's evaluation script."""
    found, right = _squad_words(answer), _squad_words(expected)
    if not found or not right:
        return float(found == right)
    return _f1(sum((Counter(found) & Counter(right)).values()), len(found), len(right))


def rouge_n(answer: str, expected: str, n: int) -> float:
    """ROUGE-N: F1 of the runs of ``n`` words, as rouge-score without its stemmer."""
    found, right = (_runs(_ROUGE_WORD.findall(text.lower()), n) for text in (answer, expected))
    return _f1(sum((found & right).values()), found.total(), right.total())


def rouge_l(answer: str, expected: str) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words, as rouge-score without its stemmer."""
    found, right = (_ROUGE_WORD.findall(text.lower()) for text in (answer, expected))
    return _f1(_common_length(found, right), len(found), len(right))


def _common_length(found: Sequence[str], right: Sequence[str]) -> int:
    """The length of the longest common subsequence.

    Bit-parallel, so that texts of 100,000 words take seconds: see Hyyrö, "Bit-parallel LCS-length computation
    revisited", 2004.
    """
    places: dict[str, list[int]] = {}
    for place, word in enumerate(right):
        places.setdefault(word, []).append(place)

    @lru_cache(_MASKS)
    def mask(word: str) -> int:
        bits = bytearray(len(right) // 8 + 1)
        for place in places[word]:
            bits[place >> 3] |= 1 << (place & 7)
        return int.from_bytes(bits, "little")

    everywhere = (1 << len(right)) - 1
    unmatched = everywhere
    for word in found:
        if word in places:
            matches = unmatched & mask(word)
            unmatched = ((unmatched + matches) | (unmatched - matches)) & everywhere
    return len(right) - unmatched.bit_count()


def _runs(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


def _f1(both: int, found: int, right: int) -> float:
    return 2 * both / (found + right) if both else 0.0


def number_of(text: str) -> float | None:
    """The number that the text is, with thousands separators or a percent sign; None for other text."""
    found = exact_number(text)
    return None if found is None else float(found)


def exact_number(text: str) -> Decimal | None:
    """The same with all digits. A comma only separates thousands: ``1,5`` and ``1,2,3`` are other text."""
    plain = text.strip().removesuffix("%").strip()
    if "," in plain and not _WITH_THOUSANDS.fullmatch(plain):
        return None
    try:
        value = Decimal(plain.replace(",", "").replace("_", "x"))
    except InvalidOperation:
        return None
    return value if value.is_finite() and math.isfinite(float(value)) else None


def json_value(text: str) -> Any:
    """The JSON value of the text; None if it is none."""
    try:
        return msgspec.json.decode(text.strip())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def same_json(answer: str, right: str) -> bool:
    """Whether both texts are the same JSON value."""
    found = json_value(answer)
    return found is not None and is_same_value(found, json_value(right))


def is_same_value(one: object, other: object) -> bool:
    """Whether two JSON values are equal: 1 is 1.0, and unlike in Python, true is not 1."""
    try:
        return _is_same(one, other)
    except RecursionError:
        return False


def _is_same(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


# -- edit distances ----------------------------------------------------------------------------------------------------
# Our own: jiwer brings rapidfuzz and click for what is one function here.


def word_edits(answers: Sequence[str], expected: Sequence[str]) -> Array:
    """Each row's edits of words, and its expected words: their ratio is the word error rate."""
    return _edits([one.split() for one in answers], [one.split() for one in expected])


def character_edits(answers: Sequence[str], expected: Sequence[str]) -> Array:
    """Each row's edits of characters, and its expected characters: their ratio is the character error rate."""
    return _edits([one.strip() for one in answers], [one.strip() for one in expected])


def _edits(answers: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> Array:
    import numpy as np

    pairs = zip(answers, expected, strict=True)
    return np.array([[_edit_distance(answer, right), len(right)] for answer, right in pairs], dtype=np.float64)


def _edit_distance(answer: Sequence[str], right: Sequence[str]) -> int:
    """The smallest number of insertions, deletions and substitutions (Levenshtein)."""
    import numpy as np

    numbers = {item: number for number, item in enumerate(dict.fromkeys((*answer, *right)))}
    columns = np.array([numbers[item] for item in right], dtype=np.int64)
    places = np.arange(len(right) + 1)
    row = places
    for number, item in enumerate(answer, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (columns != numbers[item]))
        row = np.minimum.accumulate(np.concatenate([[number], changed]) - places) + places  # insertions, from the left
    return int(row[-1])
