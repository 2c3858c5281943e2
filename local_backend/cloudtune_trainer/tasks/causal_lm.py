"""Supervised fine-tuning and continued pre-training of causal language models, with next-token prediction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudtune_trainer.loss import summed_cross_entropy
from cloudtune_trainer.models import load_model
from cloudtune_trainer.monitor import entropy
from cloudtune_trainer.samples import Samples, encode_records
from cloudtune_trainer.sequences import SequenceBatch, lay_out, next_token_logits
from cloudtune_trainer.tasks.task import BestMetric, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import torch

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec


class CausalLM:
    """See the module. The metric sum: tokens that are the most likely ones."""

    best_metric = BestMetric("loss", higher_is_better=False)
    metric_sums = 1
    peft_task_type = "CAUSAL_LM"
    labels: tuple[str, ...] = ()
    random_weights: tuple[str, ...] = ()
    can_pack = True
    needs_reference = False

    def __init__(self, spec: RunSpec, *, packed: bool = False) -> None:
        self.spec = spec
        self.packed = packed

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`."""
        return load_model(base, dtype=dtype, weights=weights, dropout=dropout)

    def encode(self, records: Iterable[Record], tokenizer: Any) -> Samples:
        """See `Task.encode`."""
        return encode_records(
            records,
            tokenizer,
            loss_on=self.spec.loss_on,
            max_length=self.spec.hyperparameters.max_length,
            whole=self.spec.method == "cpt",
        )

    def collate(self, samples: Samples, chosen: Sequence[int]) -> SequenceBatch:
        """See `Task.collate`."""
        documents = [(int(samples.starts[i]), int(samples.starts[i + 1])) for i in chosen]
        return lay_out(samples, documents, packed=self.packed)

    def forward(self, model: Any, batch: SequenceBatch) -> Sums:
        """See `Task.forward`."""
        smoothing = self.spec.label_smoothing if model.training else 0.0
        loss, correct = summed_cross_entropy(next_token_logits(model, batch), batch.labels, smoothing)
        return Sums(loss, correct[None], batch.count)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`."""
        return token_metrics(loss, metric_sums[0], count)

    def constant_loss(self, samples: Samples) -> float | None:
        """See `Monitored.constant_loss`."""
        return None if self.spec.label_smoothing else token_entropy(samples)

    def collapsed(self, _: Sequence[float]) -> str | None:
        """See `Monitored.collapsed`. A constant token shows in the loss."""
        return None


def token_entropy(samples: Samples) -> float:
    """The loss of predicting each trained token with its share among all of them."""
    return entropy(np.bincount(samples.ids[samples.learn]).tolist())


def token_metrics(loss: float, correct: float, count: int) -> dict[str, float]:
    """The metrics of predicted tokens."""
    mean = loss / max(1, count)
    return {
        "loss": mean,
        "perplexity": math.exp(min(mean, 700.0)),  # above it, a float overflows
        "token_accuracy": correct / max(1, count),
    }
