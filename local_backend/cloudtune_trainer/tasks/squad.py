"""Answers compared as in the SQuAD evaluation: case, punctuation, articles and spaces do not count.

Definition: evaluate-v2.0.py, rajpurkar.github.io/SQuAD-explorer (seen 2026-11-29).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> str:
    """The text without what does not count."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_and_f1(predicted: str, answers: Sequence[str]) -> tuple[float, float]:
    """Whether it is one of the answers, and the best F1 of its words. No answers: the empty text is right."""
    pairs = [(normalized(predicted), normalized(answer)) for answer in answers or ("",)]
    return float(any(one == other for one, other in pairs)), max(_f1(one, other) for one, other in pairs)


def _f1(predicted: str, actual: str) -> float:
    one, other = predicted.split(), actual.split()
    if not one or not other:
        return float(one == other)
    shared = sum((Counter(one) & Counter(other)).values())
    return 2 * shared / (len(one) + len(other))
