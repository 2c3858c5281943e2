"""What is learnt: one small object for each method.

It turns records into samples, samples into batches, and a batch into a loss; the loop knows nothing else of the method.

Losses are sums, over tokens or over pairs: the loop divides by the count of the whole optimizer step, so that a batch
computed in parts, or on several devices, has the same gradient as one computed at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cloudtune_trainer.loss import summed_cross_entropy
from cloudtune_trainer.samples import Samples, encode_records
from cloudtune_trainer.sequences import Batch, lay_out, next_token_logits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec


@dataclass
class Sums:
    """What a batch adds up to; several may be added."""

    loss: Tensor
    metric_sums: Tensor
    """What the objective's figures are made of, in the order that it knows."""
    count: int
    """How many the loss is a sum over."""


class Objective(Protocol):
    """One method."""

    metric_sums: int
    """How many figures are added up beside the loss."""
    needs_reference: bool
    """Whether it needs `Pairs.reference`: what the untrained weights say of every sample."""

    def encode(self, records: Iterable[Record], tokenizer: Any) -> Samples:
        """Samples to learn from."""

    def collate(self, samples: Any, chosen: Sequence[int]) -> Any:
        """One forward pass over those samples: a `Work`."""

    def forward(self, model: Any, batch: Any) -> Sums:
        """Loss and tallies of such a pass."""

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """Figures from sums over a step or a split."""


class NextToken:
    """Supervised fine-tuning and continued pre-training of causal language models."""

    metric_sums = 1
    needs_reference = False

    def __init__(self, spec: RunSpec, *, packed: bool) -> None:
        self._spec = spec
        self._packed = packed

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
        documents = [(int(samples.starts[i]), int(samples.starts[i + 1])) for i in chosen]
        return lay_out(samples, documents, packed=self._packed)

    def forward(self, model: Any, batch: Batch) -> Sums:
        """See `Objective.forward`. The tally: tokens that are the likeliest ones."""
        loss, correct = summed_cross_entropy(next_token_logits(model, batch), batch.targets)
        return Sums(loss, correct[None], batch.count)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Objective.metrics`."""
        mean = loss / max(1, count)
        return {
            "loss": mean,
            "perplexity": math.exp(min(mean, 700.0)),  # beyond it a float overflows
            "token_accuracy": metric_sums[0] / max(1, count),
        }


def objective_for(spec: RunSpec, *, packed: bool, tuned: Any = None) -> Objective:
    """The objective of the spec's method. ``tuned`` is the peft model around the network, where there is one."""
    if spec.preference is None:
        return NextToken(spec, packed=packed)
    from cloudtune_trainer.tasks.preference import Preferences

    return Preferences(spec, spec.preference, packed=packed, tuned=tuned)
