"""Edit distances of transcripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def edits(answer: str, expected: str) -> tuple[int, int, int, int]:
    """The edits and the length of the expected text, in words and in characters."""
    words = expected.split()
    return distance(answer.split(), words), len(words), distance(answer, expected), len(expected)


def distance(one: Sequence[str], other: Sequence[str]) -> int:
    """The smallest number of insertions, deletions and substitutions (Levenshtein)."""
    before = list(range(len(other) + 1))
    for row, left in enumerate(one, 1):
        now = [row]
        for column, right in enumerate(other, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (left != right)))
        before = now
    return before[-1]
