"""Correlation of predicted numbers with labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def correlations(predicted: NDArray[Any], actual: NDArray[Any]) -> dict[str, float]:
    """Pearson's and Spearman's correlation; 0 if all predictions, or all labels, are equal."""
    return {"pearson": _pearson(predicted, actual), "spearman": _pearson(_ranks(predicted), _ranks(actual))}


def _pearson(one: NDArray[Any], other: NDArray[Any]) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / norm if norm > 0 else 0.0


def _ranks(values: NDArray[Any]) -> NDArray[Any]:
    """Ranks; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[Any] = (counts.cumsum() - (counts - 1) / 2)[places]
    return ranks
