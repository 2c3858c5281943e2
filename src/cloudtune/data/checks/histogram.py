"""A histogram of row lengths with buckets of doubling size, in constant memory."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Histogram:
    """Counts of positive whole numbers."""

    def __init__(self) -> None:
        self.count = self.total = self.largest = 0
        self._buckets: Counter[int] = Counter()

    def add(self, values: Iterable[int]) -> None:
        """Count values."""
        values = list(values)
        if not values:
            return
        self.count += len(values)
        self.total += sum(values)
        self.largest = max(self.largest, *values)
        self._buckets.update(map(int.bit_length, values))

    def join(self, other: Histogram) -> None:
        """Add the counts of another histogram."""
        self.count += other.count
        self.total += other.total
        self.largest = max(self.largest, other.largest)
        self._buckets.update(other._buckets)

    @property
    def mean(self) -> float:
        """The average."""
        return self.total / self.count if self.count else 0.0

    def buckets(self) -> list[tuple[int, int]]:
        """(upper bound, count of values from the previous bound up to this one)."""
        if not self._buckets:
            return []
        return [(1 << bits, self._buckets[bits]) for bits in range(min(self._buckets), max(self._buckets) + 1)]
