"""What is learnt: one small object for each method.

It turns records into samples, samples into batches, and a batch into a loss; the loop knows nothing else of the method.

Losses are sums over tokens: the loop divides by the tokens of the whole optimiser step, so that a batch computed in
parts, or on several devices, has the same gradient as one computed at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cloudtune_local.training.attention import Layout, layout_of
from cloudtune_local.training.loss import summed_cross_entropy
from cloudtune_local.training.samples import Samples, encode_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloudtune_local.training.records import Record
    from cloudtune_local.training.run_spec import RunSpec

PADDED = -100
"""Label of cells that are not learnt."""


@dataclass(frozen=True)
class Batch:
    """Tokens of one forward pass. Either documents end to end in one row (``layout``), or one to a padded row."""

    ids: Tensor
    positions: Tensor
    attention_mask: Tensor | None
    layout: Layout | None
    kept: Tensor
    """Flat places whose next token is learnt."""
    targets: Tensor
    """Those next tokens."""
    tokens: int
    """Real tokens, learnt or not."""

    def to(self, device: torch.device) -> Batch:
        """The same batch there."""
        if device.type == "cpu":
            return self
        mask = None if self.attention_mask is None else self.attention_mask.to(device, non_blocking=True)
        layout = None if self.layout is None else self.layout.to(device)
        ids, positions, kept, targets = (
            x.to(device, non_blocking=True) for x in (self.ids, self.positions, self.kept, self.targets)
        )
        return Batch(ids, positions, mask, layout, kept, targets, self.tokens)


@dataclass
class Sums:
    """What a loss adds up to; several may be added."""

    loss: Tensor
    correct: Tensor
    targets: int


class Objective(Protocol):
    """One method."""

    def encode(self, records: Iterable[Record], tokenizer: Any) -> Samples:
        """Samples to learn from."""

    def collate(self, samples: Samples, chosen: Sequence[int]) -> Batch:
        """One forward pass over those samples."""

    def sums(self, model: Any, batch: Batch) -> Sums:
        """Loss and counts of a batch, summed."""

    def metrics(self, loss: float, correct: int, targets: int) -> dict[str, float]:
        """Figures from sums over a step or a split."""


class NextToken:
    """Supervised fine-tuning and continued pre-training of causal language models."""

    def __init__(self, spec: RunSpec, *, end_to_end: bool) -> None:
        self._spec = spec
        self._end_to_end = end_to_end

    def encode(self, records: Iterable[Record], tokenizer: Any) -> Samples:
        """See `Objective.encode`."""
        return encode_records(
            records,
            tokenizer,
            loss_on=self._spec.loss_on,
            max_length=self._spec.hyperparameters.max_length,
            whole=self._spec.method == "cpt",
        )

    def collate(self, samples: Samples, chosen: Sequence[int]) -> Batch:
        """See `Objective.collate`."""
        lengths = [int(samples.starts[i + 1] - samples.starts[i]) for i in chosen]
        width = sum(lengths) if self._end_to_end else max(lengths)
        rows = 1 if self._end_to_end else len(chosen)
        ids = np.zeros((rows, width), dtype=np.int64)
        positions = np.zeros((rows, width), dtype=np.int64)
        labels = np.full((rows, width), PADDED, dtype=np.int64)
        mask = np.zeros((rows, width), dtype=np.int64)
        place = 0
        for order, (i, length) in enumerate(zip(chosen, lengths, strict=True)):
            row, begin = (0, place) if self._end_to_end else (order, 0)
            cells = slice(begin, begin + length)
            source = slice(int(samples.starts[i]), int(samples.starts[i + 1]))
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
            attention_mask=None if self._end_to_end else torch.from_numpy(mask),
            layout=layout_of(lengths) if self._end_to_end else None,
            kept=kept,
            targets=flat[kept],
            tokens=sum(lengths),
        )

    def sums(self, model: Any, batch: Batch) -> Sums:
        """See `Objective.sums`."""
        loss, correct = summed_cross_entropy(next_token_logits(model, batch), batch.targets)
        return Sums(loss, correct, len(batch.targets))

    def metrics(self, loss: float, correct: int, targets: int) -> dict[str, float]:
        """See `Objective.metrics`."""
        mean = loss / max(1, targets)
        return {
            "loss": mean,
            "perplexity": math.exp(min(mean, 700.0)),  # beyond it a float overflows
            "token_accuracy": correct / max(1, targets),
        }


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


def objective_for(spec: RunSpec, *, end_to_end: bool) -> Objective:
    """The objective of the spec's method."""
    return NextToken(spec, end_to_end=end_to_end)
