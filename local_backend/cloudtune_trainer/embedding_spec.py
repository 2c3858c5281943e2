"""The part ``embedding`` of ``spec.json``: settings of text embedding. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cloudtune_trainer.spec_values import SMALLEST

POOLINGS = ("mean", "cls", "last")
CONTRASTIVE = ("multiple_negatives_ranking", "triplet")
"""Losses of rows with an anchor and a positive. The other losses are of two sentences with a score."""


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Additional settings of text embedding."""

    loss: Literal["multiple_negatives_ranking", "triplet", "cosent", "cosine_similarity"]
    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    """Which token vectors become a text's embedding. auto: as the base model's files say, else by its kind."""
    temperature: float = 0.05
    """What divides cosines in ``multiple_negatives_ranking`` and ``cosent``."""
    margin: float = 0.2
    """By how much the cosine of the positive must exceed that of the negative, for ``triplet``."""

    @property
    def contrastive(self) -> bool:
        """Whether its rows have an anchor and a positive."""
        return self.loss in CONTRASTIVE


def embedding_faults(terms: Embedding) -> list[str]:
    """Checks beyond the types."""
    numbers = {"temperature": terms.temperature, "margin": terms.margin}
    return [
        f"embedding.{name} must be at least {SMALLEST} and finite, not {number}"
        for name, number in numbers.items()
        if not SMALLEST <= number < float("inf")
    ]
