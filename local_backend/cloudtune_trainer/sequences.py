"""Sequences laid out for one forward pass: end to end in one row without padding, or one to a padded row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from cloudtune_trainer.attention import Layout, layout_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune_trainer.samples import Samples

PADDED = -100
"""Label of cells that are not learnt."""


class Work(Protocol):
    """What one forward pass works on: an objective makes it, and takes it back to compute its sums."""

    @property
    def tokens(self) -> int:
        """Real tokens, learnt or not."""

    @property
    def count(self) -> int:
        """How many the loss is a sum over: tokens, or pairs."""

    def to(self, device: torch.device) -> Self:
        """The same there."""


@dataclass(frozen=True)
class Batch:
    """Tokens of one forward pass. Either documents end to end in one row (``layout``), or one to a padded row."""

    ids: Tensor
    positions: Tensor
    attention_mask: Tensor | None
    layout: Layout | None
    kept: Tensor
    """Flat places whose next token is learnt, document by document."""
    targets: Tensor
    """Those next tokens."""
    tokens: int
    """Real tokens, learnt or not."""

    @property
    def count(self) -> int:
        """Tokens to learn: the loss is their sum."""
        return len(self.targets)

    def to(self, device: torch.device) -> Self:
        """The same batch there."""
        if device.type == "cpu":
            return self
        mask = None if self.attention_mask is None else self.attention_mask.to(device, non_blocking=True)
        layout = None if self.layout is None else self.layout.to(device)
        ids, positions, kept, targets = (
            x.to(device, non_blocking=True) for x in (self.ids, self.positions, self.kept, self.targets)
        )
        return type(self)(ids, positions, mask, layout, kept, targets, self.tokens)


def lay_out(samples: Samples, documents: Sequence[tuple[int, int]], *, packed: bool) -> Batch:
    """The documents, given by where each begins and ends among all tokens, as one batch."""
    lengths = [end - begin for begin, end in documents]
    width = sum(lengths) if packed else max(lengths)
    rows = 1 if packed else len(documents)
    ids = np.zeros((rows, width), dtype=np.int64)
    positions = np.zeros((rows, width), dtype=np.int64)
    labels = np.full((rows, width), PADDED, dtype=np.int64)
    mask = np.zeros((rows, width), dtype=np.int64)
    place = 0
    for order, (span, length) in enumerate(zip(documents, lengths, strict=True)):
        row, begin = (0, place) if packed else (order, 0)
        cells, source = slice(begin, begin + length), slice(*span)
        ids[row, cells] = samples.ids[source]
        positions[row, cells] = np.arange(length)
        mask[row, cells] = 1
        # the place of a token learns the token after it; a document's last place learns nothing
        following = np.where(samples.learn[source][1:], samples.ids[source][1:], PADDED)
        labels[row, begin : begin + length - 1] = following
        place += length
    flat = torch.from_numpy(labels.reshape(-1))
    kept = (flat != PADDED).nonzero()[:, 0]
    return Batch(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        attention_mask=None if packed else torch.from_numpy(mask),
        layout=layout_of(lengths) if packed else None,
        kept=kept,
        targets=flat[kept],
        tokens=sum(lengths),
    )


def next_token_logits(model: Any, batch: Batch) -> Tensor:
    """Logits of the places that learn, [places, vocabulary]: the head does not run on the others."""
    if batch.layout is not None:
        out = model(
            input_ids=batch.ids,
            position_ids=batch.positions,
            documents=batch.layout,
            use_cache=False,
            logits_to_keep=batch.kept,
        )
        return out.logits[0]  # type: ignore[no-any-return]
    out = model(input_ids=batch.ids, attention_mask=batch.attention_mask, use_cache=False)
    return out.logits.flatten(0, 1)[batch.kept]  # type: ignore[no-any-return]
