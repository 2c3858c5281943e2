"""Losses and ranks of text embeddings. All compare cosines.

- ``multiple_negatives_ranking``: the cross-entropy of the positive among the positives and negatives of all rows, with
  cosines divided by the temperature (arxiv.org/abs/1807.03748, equation 4; arxiv.org/abs/1705.00652, section 4.4).
- ``triplet``: ``max(0, margin - cos(anchor, positive) + cos(anchor, negative))``, the mean over a row's negatives
  (arxiv.org/abs/1503.03832, equation 3, with cosines).
- ``cosent``: ``log(1 + sum(exp((cos(i) - cos(j)) / temperature)))`` over all rows with ``score(i) < score(j)``
  (https://kexue.fm/archives/8847, read 2026-11-29).
- ``cosine_similarity``: ``(cos - score)^2``.

A text that occurs in several rows is never a negative of an anchor that it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F

from cloudtune_trainer.tasks.embedding_samples import ANCHOR, NEGATIVE, POSITIVE

if TYPE_CHECKING:
    from torch import Tensor

    from cloudtune_trainer.embedding_spec import Embedding


@dataclass(frozen=True)
class Texts:
    """Embedded texts, ordered by row: in each row the anchor, the positive and the negatives."""

    about: Tensor
    """[texts, 3]: row, role and number. See `TextBatch`."""
    row_scores: Tensor
    """[texts]"""
    vectors: Tensor
    """[texts, size], of length 1."""

    @classmethod
    def of(cls, about: Tensor, row_scores: Tensor, vectors: Tensor) -> Self:
        """The texts in the order of their rows."""
        order = about[:, 0].argsort(stable=True)
        return cls(about[order], row_scores[order], vectors[order])

    def with_vectors(self, own: Texts) -> Texts:
        """The same texts, with the vectors of ``own``, which are some of them."""
        places = torch.isin(self.about[:, 0], own.about[:, 0]).nonzero()[:, 0]
        return replace(self, vectors=self.vectors.index_copy(0, places, own.vectors))

    @property
    def rows(self) -> Tensor:
        """The number of each row, in order."""
        return self.about[self.about[:, 1] == ANCHOR, 0]

    @property
    def scores(self) -> Tensor:
        """[rows]."""
        return self.row_scores[self.about[:, 1] == ANCHOR]

    def side(self, role: int) -> Tensor:
        """The vectors of the texts of that role: one for each row, or all negatives."""
        return self.vectors[self.about[:, 1] == role]

    @property
    def cosines(self) -> Tensor:
        """[rows]: of the anchor and the positive."""
        return (self.side(ANCHOR) * self.side(POSITIVE)).sum(1)


@dataclass(frozen=True)
class Candidates:
    """The anchors of some rows, compared with the positives and negatives of all rows."""

    cosines: Tensor
    """[rows, candidates]; -inf for a text that belongs to the anchor, other than the row's own positive."""
    own: Tensor
    """[rows]: the candidate that is the row's positive."""
    repeated: Tensor
    """[candidates]: equal to an earlier candidate."""

    @classmethod
    def of(cls, texts: Texts, rows: Tensor) -> Self:
        """Compare these rows."""
        about = texts.about
        anchor = about[:, 1] == ANCHOR
        chosen = torch.isin(texts.rows, rows)
        numbers, roles = about[~anchor, 2], about[~anchor, 1]
        positives = (roles == POSITIVE).nonzero()[:, 0]
        own, asked = positives[chosen], about[anchor, 2][chosen]
        size = about[:, 2].max() + 1  # one number for an anchor and a text
        pairs = (about[anchor, 2] * size + numbers[positives]).sort().values
        keys = asked[:, None] * size + numbers
        belongs = pairs[torch.searchsorted(pairs, keys).clamp(max=len(pairs) - 1)] == keys
        belongs |= numbers == asked[:, None]
        belongs[torch.arange(len(own), device=own.device), own] = False
        with torch.autocast(about.device.type, enabled=False):  # in bf16, different cosines are equal
            cosines = texts.side(ANCHOR)[chosen] @ texts.vectors[~anchor].T
        _, group = torch.unique(numbers, return_inverse=True)
        places = torch.arange(len(numbers), device=numbers.device)
        firsts = torch.full_like(places, len(places)).scatter_reduce(0, group, places, "amin")
        return cls(cosines.masked_fill(belongs, -torch.inf), own, places != firsts[group])

    def losses(self, temperature: float) -> Tensor:
        """[rows]: multiple_negatives_ranking."""
        return F.cross_entropy(self.cosines / temperature, self.own, reduction="none")

    def ranks(self) -> Tensor:
        """[rows]: how many different texts are at least as close to the anchor as its positive."""
        close = self.cosines >= self.cosines.gather(1, self.own[:, None])
        close &= ~self.repeated
        close[torch.arange(len(self.own), device=self.own.device), self.own] = False
        return close.sum(1)


def triplet_losses(texts: Texts, margin: float) -> Tensor:
    """[rows]."""
    negative = texts.about[:, 1] == NEGATIVE
    row = torch.searchsorted(texts.rows, texts.about[negative, 0].contiguous())
    cosines = (texts.side(ANCHOR)[row] * texts.side(NEGATIVE)).sum(1)
    each = F.relu(margin - texts.cosines[row] + cosines)
    count = torch.bincount(row, minlength=len(texts.rows))
    return torch.zeros_like(texts.cosines).index_add(0, row, each) / count


def cosent_loss(cosines: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """One number for all rows. Sorted by score, the inner sums are sums over the rows before, so that it is fast."""
    order = scores.argsort(stable=True)
    scaled, scores = cosines[order] / temperature, scores[order]
    lower = torch.searchsorted(scores, scores)  # how many rows have a lower score
    before = torch.cat([scaled.new_full((1,), -torch.inf), torch.logcumsumexp(scaled, 0)])[lower]
    terms = (before - scaled)[lower > 0]
    return torch.logsumexp(torch.cat([terms.new_zeros(1), terms]), 0)


def losses(texts: Texts, rows: Tensor, terms: Embedding) -> Tensor:
    """The loss of each of these rows, in order."""
    if terms.loss == "multiple_negatives_ranking":
        return Candidates.of(texts, rows).losses(terms.temperature)
    chosen = torch.isin(texts.rows, rows)
    if terms.loss == "triplet":
        return triplet_losses(texts, terms.margin)[chosen]
    if terms.loss == "cosent":
        return cosent_loss(texts.cosines, texts.scores, terms.temperature).expand(int(chosen.sum()))
    return ((texts.cosines - texts.scores) ** 2)[chosen]
