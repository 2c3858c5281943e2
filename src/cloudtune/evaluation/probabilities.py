"""Metrics of the probabilities that a classifier gives to the labels, besides its answer.

Each model's rows are an array: the probability of each label, then 1 for the expected label and 0 for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.evaluation.statistics import ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.evaluation.statistics import Array
    from cloudtune.state import Generation

SMALLEST = 1e-15
"""Probabilities of the expected label are not taken as smaller, as a logarithm of 0 is infinite."""
BINS = 15
"""Of the calibration error: Guo et al., "On Calibration of Modern Neural Networks" (2017), section 5."""


def label_probabilities(generations: Sequence[Generation], expected: Sequence[str]) -> Array:
    """The rows. A label without a probability has 0."""
    import numpy as np

    labels = sorted({one.strip() for one in expected})
    found = [[(one.scores or {}).get(label, 0.0) for label in labels] for one in generations]
    actual = np.array([one.strip() for one in expected])[:, None] == np.array(labels)
    return np.concatenate([np.array(found, dtype=np.float64), actual.astype(np.float64)], axis=1)


def surprises(generations: Sequence[Generation], expected: Sequence[str]) -> Array:
    """The negative logarithm of the probability of each row's expected label."""
    import numpy as np

    probabilities, actual = np.split(label_probabilities(generations, expected), 2, axis=1)
    return -np.log(np.clip((probabilities * actual).sum(axis=1, keepdims=True), SMALLEST, 1.0))


def confidence_bins(generations: Sequence[Generation], expected: Sequence[str]) -> Array:
    """For each bin of the largest probability: that probability minus 1 for a right label, in the rows of the bin."""
    import numpy as np

    scores = [max((one.scores or {"": 0.0}).items(), key=lambda pair: pair[1]) for one in generations]
    confidence = np.array([score for _, score in scores])
    right = np.array([label == one.strip() for (label, _), one in zip(scores, expected, strict=True)])
    rows = np.zeros((len(scores), BINS))
    number = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    rows[np.arange(len(scores)), number] = confidence - right
    return rows


def calibration_error(weights: Array, rows: Array) -> Array:
    """The mean distance of confidence and accuracy, weighted by the size of the bins."""
    import numpy as np

    return np.abs(weights @ rows).sum(axis=1) / weights.sum(axis=1)


def roc_auc(weights: Array, rows: Array) -> Array:
    """The area under the ROC curve of each label against the others, averaged over the labels that occur."""
    import numpy as np

    def area(scores: Array, actual: Array) -> Array:
        positive, negative = weights @ actual, weights @ (1 - actual)
        above = (weights * ranks(weights, scores)) @ actual - positive * (positive + 1) / 2
        below = positive * negative
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)

    return _mean_of_labels(rows, area)


def average_precision(weights: Array, rows: Array) -> Array:
    """The average precision of each label against the others, averaged over the labels that occur."""
    import numpy as np

    def precision(scores: Array, actual: Array) -> Array:
        order = np.argsort(-scores, kind="stable")
        first = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # rows with one score come together
        drawn = weights[:, order]
        right = np.add.reduceat(drawn * actual[order], first, axis=1)
        shown = np.cumsum(np.add.reduceat(drawn, first, axis=1), axis=1)
        share = np.divide(np.cumsum(right, axis=1), shown, out=np.zeros_like(shown), where=shown > 0)
        total = right.sum(axis=1)
        return np.divide((right * share).sum(axis=1), total, out=np.full_like(total, np.nan), where=total > 0)

    return _mean_of_labels(rows, precision)


def _mean_of_labels(rows: Array, measure: Callable[[Array, Array], Array]) -> Array:
    """The mean over the labels for which a sample has a value; 0.5, as by chance, if it has none."""
    import numpy as np

    probabilities, actual = np.split(rows, 2, axis=1)
    values = np.stack([measure(probabilities[:, label], actual[:, label]) for label in range(actual.shape[1])])
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(total), 0.5), where=count > 0)
