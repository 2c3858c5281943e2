"""KTO (arxiv.org/abs/2402.01306): answers that are rated good become more likely, and those rated bad less likely.

With the log ratio r of the trained and the initial model's probability of an answer, the loss of an answer is
``desirable_weight * (1 - sigmoid(beta * (r - z)))`` if it is rated good, and
``undesirable_weight * (1 - sigmoid(beta * (z - r)))`` if it is rated bad (equations 7 and 8).
Losses are sums over rows.

The reference point z estimates the KL divergence between the two models: the mean of the log ratios of mismatched
answers, at least 0, without a gradient. Each prompt is paired with the answer of the previous row of the file that has
another prompt; these pairs never change, so that the initial model's log-probabilities can be computed beforehand. In
training the mean is over all rows of the optimizer step, and in evaluation over all rows of the split. Therefore the
loss does not depend on how a step is divided into parts or over processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cloudtune_trainer.adapters import is_whole_model
from cloudtune_trainer.models import load_model
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tasks.answers import AnswerBatch, answer_likelihoods, initial_likelihoods, lay_out_answers
from cloudtune_trainer.tasks.rated import RatedSamples, encode_rated, rating
from cloudtune_trainer.tasks.task import BestMetric, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec


@dataclass(frozen=True, kw_only=True)
class RatedBatch(AnswerBatch):
    """Rated answers."""

    mismatched: AnswerBatch
    """The same prompts with other rows' answers."""
    desirable: Tensor
    """Whether each answer is rated good."""


class UnpairedPreferences:
    """See the module. The metric sums: for good and for bad answers, the rewards and the rows; correct rows; z."""

    best_metric = BestMetric("loss", higher_is_better=False)
    metric_sums = 6
    peft_task_type = "CAUSAL_LM"
    labels: tuple[str, ...] = ()
    random_weights: tuple[str, ...] = ()
    can_pack = True

    def __init__(self, spec: RunSpec) -> None:
        assert spec.preference is not None  # `read_spec` checks it
        self.spec = spec
        self._terms = spec.preference
        self.packed = False
        self.needs_reference = is_whole_model(spec.adapter.type)
        self.step_mean = 0.0
        """See `UsesStepMean`: the mean log ratio of mismatched answers."""

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`. Refuses training rows that all have the same rating."""
        found = {rating(record, row) for row, record in enumerate(records(), 1)}
        if len(found) == 1:
            what = f"train: all rows have the label {str(found.pop()).lower()}"
            raise TrainingProblem("bad_data", what, "Give both good and bad answers.")
        return load_model(base, dtype=dtype, weights=weights, dropout=dropout)

    def encode(self, records: Iterable[Record], tokenizer: Any) -> RatedSamples:
        """See `Task.encode`."""
        return encode_rated(
            records, tokenizer, loss_on=self.spec.loss_on, max_length=self.spec.hyperparameters.max_length
        )

    def collate(self, samples: RatedSamples, chosen: Sequence[int]) -> RatedBatch:
        """See `Task.collate`."""
        rows = np.asarray(chosen)
        own, other = (
            lay_out_answers(
                samples,
                [samples.sides(i)[side] for i in chosen],
                None if samples.reference is None else torch.from_numpy(samples.reference[rows, side]),
                count=len(chosen),
                packed=self.packed,
            )
            for side in (0, 1)
        )
        return RatedBatch(**vars(own), mismatched=other, desirable=torch.from_numpy(samples.desirable[rows]))

    def likelihoods(self, model: Any, batch: RatedBatch) -> Tensor:
        """Log-probability of each row's own and mismatched answer, [2 x rows]."""
        sides = [answer_likelihoods(model, batch), answer_likelihoods(model, batch.mismatched)]
        return torch.stack(sides, 1).flatten()

    def step_sum(self, model: Any, batch: RatedBatch) -> Tensor:
        """See `UsesStepMean`."""
        return (answer_likelihoods(model, batch.mismatched) - initial_likelihoods(model, batch.mismatched)).sum()

    def forward(self, model: Any, batch: RatedBatch) -> Sums:
        """See `Task.forward`."""
        reference = initial_likelihoods(model, batch)
        gained = answer_likelihoods(model, batch) - reference
        z, good = max(0.0, self.step_mean), batch.desirable
        signed = self._terms.beta * torch.where(good, gained - z, z - gained)
        weights = torch.where(good, self._terms.desirable_weight, self._terms.undesirable_weight)
        losses = weights * (1 - torch.sigmoid(signed))
        with torch.no_grad():
            rewards = self._terms.beta * gained
            sums = [rewards[good].sum(), rewards[~good].sum(), good.sum(), (~good).sum(), (signed > 0).sum()]
            metric_sums = torch.stack([*(value.float() for value in sums), torch.tensor(z * batch.count).to(rewards)])
        return Sums(losses.sum(), metric_sums, batch.count)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`. Accuracy: answers whose log ratio is on the right side of the reference point."""
        chosen, rejected, good, bad, right, z = metric_sums
        found = {"loss": loss / max(1, count), "accuracy": right / max(1, count), "kl": z / max(1, count)}
        if good:
            found["rewards/chosen"] = chosen / good
        if bad:
            found["rewards/rejected"] = rejected / bad
        if good and bad:
            found["margin"] = found["rewards/chosen"] - found["rewards/rejected"]
        return found
