"""The part ``classification`` of ``spec.json``: how texts or images are classified. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Additional settings of the classification of texts or images."""

    problem: Literal["single_label", "multi_label", "regression"] = "single_label"
    """What the label of a text is: one class, a list of classes, or a number."""
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    """Factors of the losses of the rows of a class, for a single label; 1 for a class that is not named. ``balanced``:
    all classes have the same sum."""
    label_smoothing: float = 0.0
    """The share of the target probability that is divided among all classes, for a single label."""


def classification_faults(terms: Classification) -> list[str]:
    """Checks beyond the types."""
    found = []
    if terms.problem != "single_label" and (terms.class_weights is not None or terms.label_smoothing):
        found.append(f"classification.class_weights and label_smoothing do not apply to {terms.problem}")
    if not 0 <= terms.label_smoothing < 1:
        found.append(f"classification.label_smoothing must be at least 0 and less than 1, not {terms.label_smoothing}")
    weights = terms.class_weights if isinstance(terms.class_weights, dict) else {}
    found += [
        f"classification.class_weights.{label} must be a positive, finite number, not {weight}"
        for label, weight in weights.items()
        if not 0 < weight < float("inf")
    ]
    return found
