"""The layout of sequences for one forward pass: packed into one row without padding, or one per padded row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from cloudtune_trainer.attention import Layout, layout_of
from cloudtune_trainer.rope import logits_by_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune_trainer.samples import Samples

PADDED = -100
"""Label of cells that are not trained on."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The input of one forward pass."""

    inputs: dict[str, Tensor]
    """Arguments of the model's forward pass."""
    labels: Tensor
    tokens: int
    """Real tokens, trained on or not."""
    count: int
    """The number of tokens, rows or pairs in the loss sum."""

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        if device.type == "cpu":
            return self
        return replace(self, **{name: _moved(value, device) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class SequenceBatch(Batch):
    """A language modeling batch. Either documents packed into one row (``layout``), or one per padded row."""

    layout: Layout | None
    kept: Tensor
    """Flat positions whose next token is trained on, document by document; ``labels`` are those next tokens."""


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    return value.to(device) if isinstance(value, Layout | Batch) else value


def lay_out(samples: Samples, documents: Sequence[tuple[int, int]], *, packed: bool) -> SequenceBatch:
    """A batch of documents, given by the start and end of each among all tokens."""
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
        # a position predicts the token after it; a document's last position predicts none
        following = np.where(samples.learn[source][1:], samples.ids[source][1:], PADDED)
        labels[row, begin : begin + length - 1] = following
        place += length
    flat = torch.from_numpy(labels.reshape(-1))
    kept = (flat != PADDED).nonzero()[:, 0]
    inputs = {"input_ids": torch.from_numpy(ids)}
    if packed:
        inputs["position_ids"] = torch.from_numpy(positions)
    else:
        inputs["attention_mask"] = torch.from_numpy(mask)
    return SequenceBatch(
        inputs=inputs,
        labels=flat[kept],
        tokens=sum(lengths),
        count=len(kept),
        layout=layout_of(lengths) if packed else None,
        kept=kept,
    )


def next_token_logits(model: Any, batch: SequenceBatch) -> Tensor:
    """Logits of the trained positions, [positions, vocabulary]: the head does not run on the others."""
    if batch.layout is not None:
        out = model(**batch.inputs, documents=batch.layout, use_cache=False, logits_to_keep=batch.kept)
        return out.logits[0]  # type: ignore[no-any-return]
    return logits_by_length(model, batch.inputs, use_cache=False).flatten(0, 1)[batch.kept]
