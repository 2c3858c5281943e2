"""Intervals and paired tests, by resampling of groups of rows.

A metric is a function of weights: ``measure(weights)`` takes an array (samples, rows) and returns one value for each
sample. A weight of 1 for each row gives the value itself; a bootstrap sample gives each row the number of times that it
was drawn. Rows of one group, such as questions about one document, are drawn together.

References: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 14 (BCa); Hesterberg, "What
Teachers Should Know About the Bootstrap" (2015), section 5 (expanded percentiles); Agresti and Min, "Simple improved
confidence intervals for comparing matched proportions" (2005).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Array = Any
    """A numpy array. Core is checked without numpy's types."""
    Measure = Callable[[Array], Array]

SAMPLES = 4000
"""Bootstrap samples, and random swaps of a permutation test."""
LEVEL = 0.95
POWER = 0.8
_CHUNK = 1 << 21
"""Weights that are in memory at a time."""
_BLOCKS = 200
"""Most parts that the jackknife leaves out."""
_NORMAL = NormalDist()
Z = _NORMAL.inv_cdf((1 + LEVEL) / 2)
"""The half width of a 95% interval in standard errors."""


class Interval(NamedTuple):
    """A value with its confidence interval."""

    value: float
    low: float
    high: float


class Groups:
    """Which rows are drawn together. ``names`` has the group of each row."""

    def __init__(self, names: Sequence[object]) -> None:
        import numpy as np

        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self.of_row = np.array([numbers[name] for name in names], dtype=np.int64)
        self.count = len(numbers)
        self.rows = len(names)

    @property
    def are_rows(self) -> bool:
        """Whether each row is a group of its own."""
        return self.count == self.rows

    def samples(self, count: int, seed: int) -> Iterator[Array]:
        """Bootstrap weights of the rows, in chunks."""
        import numpy as np

        random = np.random.default_rng(seed)
        for size in self._sizes(count):
            drawn = random.integers(0, self.count, (size, self.count)) + np.arange(size)[:, None] * self.count
            weights = np.bincount(drawn.ravel(), minlength=size * self.count).reshape(size, self.count)
            yield weights.astype(np.float64) if self.are_rows else weights.astype(np.float64)[:, self.of_row]

    def swaps(self, count: int, seed: int) -> Iterator[Array]:
        """1 for the rows of randomly chosen groups and 0 for the others, in chunks."""
        import numpy as np

        random = np.random.default_rng(seed)
        for size in self._sizes(count):
            yield random.integers(0, 2, (size, self.count)).astype(np.float64)[:, self.of_row]

    def without_parts(self) -> Iterator[Array]:
        """Weights that leave out one part of the groups at a time: each group if there are few."""
        import numpy as np

        parts = min(self.count, _BLOCKS)
        of_row = self.of_row % parts
        for numbers in np.array_split(np.arange(parts), max(1, parts * self.rows // _CHUNK)):
            yield (of_row[None, :] != numbers[:, None]).astype(np.float64)

    def _sizes(self, count: int) -> Iterator[int]:
        size = max(1, _CHUNK // self.rows)
        for start in range(0, count, size):
            yield min(size, count - start)


def interval(measure: Measure, groups: Groups, values: Array) -> Interval:
    """The value with its bootstrap interval: bias-corrected and accelerated (BCa), with expanded percentiles.

    ``values`` are those in bootstrap samples. They must differ.
    """
    import numpy as np

    value = float(measure(np.ones((1, groups.rows)))[0])
    below = float(np.mean(values < value) + np.mean(values == value) / 2)
    bias = _NORMAL.inv_cdf(min(max(below, 1 / len(values)), 1 - 1 / len(values)))
    left = np.concatenate([measure(weights) for weights in groups.without_parts()])
    distance = left.mean() - left
    spread = float((distance**2).sum())
    skew = float((distance**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    wide = math.sqrt(groups.count / (groups.count - 1)) * t_quantile((1 + LEVEL) / 2, groups.count - 1)
    levels = [_NORMAL.cdf(bias + (bias + z) / (1 - skew * (bias + z))) for z in (-wide, wide)]
    low, high = (float(one) for one in np.quantile(values, levels))
    return Interval(value, min(low, value), max(high, value))


def t_quantile(level: float, freedom: int) -> float:
    """The quantile of Student's t distribution.

    Exact for 1 and 2 degrees of freedom, otherwise its expansion around the normal one (Abramowitz-Stegun 26.7.5).
    """
    if freedom == 1:
        return math.tan(math.pi * (level - 0.5))
    if freedom == 2:
        return (2 * level - 1) / math.sqrt(2 * level * (1 - level))
    z = _NORMAL.inv_cdf(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(freedom) ** power for power, term in enumerate(terms, 1))


def wilson(successes: float, rows: float) -> Interval:
    """A share of independent rows with Wilson's score interval, which is right at 0 and 1 too."""
    share, z = successes / rows, Z
    scale = 1 + z * z / rows
    center = (share + z * z / (2 * rows)) / scale
    half = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows)) / scale
    return Interval(share, max(0.0, min(center - half, share)), min(1.0, max(center + half, share)))


def matched_shares(gained: int, lost: int, rows: int) -> Interval:
    """The difference of two shares of the same independent rows, with Agresti and Min's interval.

    Args:
        gained: Rows that only the first one has right.
        lost: Rows that only the second one has right.
        rows: All rows.
    """
    difference, z = (gained - lost) / rows, Z
    more, fewer, count = gained + 0.5, lost + 0.5, rows + 2
    center = (more - fewer) / count
    half = z * math.sqrt(more + fewer - (more - fewer) ** 2 / count) / count
    return Interval(difference, max(-1.0, min(center - half, difference)), min(1.0, max(center + half, difference)))


def mcnemar(gained: int, lost: int) -> float:
    """The p-value of McNemar's exact test: two-sided, from the rows on which the two models differ."""
    rows = gained + lost
    tail = sum(math.comb(rows, number) for number in range(min(gained, lost) + 1))
    return float(min(1.0, 2 * tail / 2**rows))


def permutation(difference: Measure, groups: Groups, *, seed: int, samples: int = SAMPLES) -> float:
    """The p-value of a paired permutation test: the answers of random groups are swapped between the two models.

    ``difference(swapped)`` returns the differences of the metric when rows with 1 are swapped. With few groups all
    swaps are counted, otherwise ``samples`` random ones.
    """
    import numpy as np

    observed = abs(float(difference(np.zeros((1, groups.rows)))[0]))
    limit = observed - 1e-9 * max(observed, 1e-3)  # rounding must not separate equal differences
    if 2**groups.count <= samples:
        every = (np.arange(2**groups.count)[:, None] >> np.arange(groups.count)) & 1
        return float(np.mean(np.abs(difference(every[:, groups.of_row].astype(np.float64))) >= limit))
    found = sum(int(np.sum(np.abs(difference(swapped)) >= limit)) for swapped in groups.swaps(samples, seed))
    return (found + 1) / (samples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of p-values for the number of comparisons."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = largest
    return adjusted


def detectable(error: float, groups: int, span: float | None) -> float | None:
    """The smallest difference that a test at 5% shows in 4 of 5 cases. None if no difference of so few groups is shown.

    Args:
        error: The standard error of the difference. If it is 0 and there is no span, the result is None too.
        groups: The number of groups. Six differing ones are the fewest with p < 0.05.
        span: The largest difference that one group can make, if there is one.
    """
    fewest = math.ceil(math.log2(2 / (1 - LEVEL)))
    if groups < fewest or (span is None and error == 0):
        return None
    return max(fewest / groups * (span or 0.0), (Z + _NORMAL.inv_cdf(POWER)) * error)


def ranks(weights: Array, values: Array) -> Array:
    """The mean rank of equal values, in each sample."""
    import numpy as np

    order = np.argsort(values, kind="stable")
    is_first = np.diff(values[order], prepend=np.nan) != 0
    counts = np.add.reduceat(weights[:, order], np.flatnonzero(is_first), axis=1)
    number = np.empty(len(values), dtype=np.int64)
    number[order] = np.cumsum(is_first) - 1
    return (np.cumsum(counts, axis=1) - counts / 2 + 0.5)[:, number]
