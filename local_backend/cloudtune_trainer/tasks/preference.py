"""Preference methods: of two answers to one prompt, the chosen one becomes more likely than the rejected one.

DPO and IPO compare the model with a reference, the initial model: see ``answers``. ORPO and SimPO have no reference.

Losses are sums over pairs, independent of the answers' lengths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cloudtune_trainer.adapters import is_whole_model
from cloudtune_trainer.models import load_model
from cloudtune_trainer.tasks.answers import AnswerBatch, answer_likelihoods, initial_likelihoods, lay_out_answers
from cloudtune_trainer.tasks.pairs import Pairs, encode_pairs
from cloudtune_trainer.tasks.task import BestMetric, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec

_WITHOUT_REFERENCE = ("orpo", "simpo")
_CERTAIN = -1e-6
"""An average log-probability closer to 0 than this has no finite odds."""


class Preferences:
    """DPO and related methods, as a `Task`."""

    best_metric = BestMetric("loss", higher_is_better=False)
    peft_task_type = "CAUSAL_LM"
    labels: tuple[str, ...] = ()
    random_weights: tuple[str, ...] = ()
    can_pack = True

    def __init__(self, spec: RunSpec) -> None:
        terms = spec.preference
        assert terms is not None  # `read_spec` checks it
        self.spec = spec
        self._terms = terms
        self.packed = False
        self._kind = terms.loss if spec.method == "dpo" else spec.method
        self._uses_reference = self._kind not in _WITHOUT_REFERENCE
        self.metric_sums = 5 if self._uses_reference else 4
        self.needs_reference = self._uses_reference and is_whole_model(spec.adapter.type)

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`."""
        return load_model(base, dtype=dtype, weights=weights, dropout=dropout)

    def encode(self, records: Iterable[Record], tokenizer: Any) -> Pairs:
        """See `Task.encode`."""
        return encode_pairs(
            records, tokenizer, loss_on=self.spec.loss_on, max_length=self.spec.hyperparameters.max_length
        )

    def collate(self, samples: Pairs, chosen: Sequence[int]) -> AnswerBatch:
        """See `Task.collate`. The chosen answer of each pair, then the rejected one; ``count`` is that of pairs."""
        documents = [side for i in chosen for side in samples.sides(i)]
        reference = None
        if samples.reference is not None:
            reference = torch.from_numpy(samples.reference[np.asarray(chosen)].reshape(-1))
        return lay_out_answers(samples, documents, reference, count=len(chosen), packed=self.packed)

    def likelihoods(self, model: Any, batch: AnswerBatch) -> Tensor:
        """Log-probability of each sequence's answer, [2 x pairs]."""
        return answer_likelihoods(model, batch)

    def forward(self, model: Any, batch: AnswerBatch) -> Sums:
        """See `Task.forward`. The metric sums: pairs won, both rewards, pairs preferred now and at the start."""
        reference = initial_likelihoods(model, batch) if self._uses_reference else None
        found = self.likelihoods(model, batch)
        lengths = torch.tensor(batch.answers, dtype=found.dtype, device=found.device)
        gained = found if reference is None else found - reference
        losses = self._losses(found / lengths, gained, gained / lengths)
        with torch.no_grad():
            rewards = self._terms.beta * (gained if self._uses_reference else found / lengths)
            good, bad = rewards[0::2], rewards[1::2]
            metric_sums = [(good > bad).sum(), good.sum(), bad.sum(), _preferred(found / lengths)]
            if reference is not None:
                metric_sums.append(_preferred(reference / lengths))
        return Sums(losses.sum(), torch.stack([value.float() for value in metric_sums]), batch.count)

    def _losses(self, average: Tensor, gained: Tensor, gained_average: Tensor) -> Tensor:
        """The loss of each pair, from log-probabilities: the average per token, and the gain over the reference."""
        beta, terms = self._terms.beta, self._terms
        if self._kind == "ipo":
            # per token, as in the paper (arxiv.org/abs/2310.12036, equation 17)
            return (_gap(gained_average) - 1 / (2 * beta)) ** 2
        if self._kind == "hinge":
            return torch.relu(1 - beta * _gap(gained))
        if self._kind == "orpo":
            # arxiv.org/abs/2403.07691, equation 6; the first term is the mean over the answer's tokens
            return -average[0::2] - beta * F.logsigmoid(_gap(average - _log_of_rest(average)))
        inner = beta * (_gap(average) if self._kind == "simpo" else _gap(gained)) - terms.margin
        smoothing = terms.label_smoothing
        return -(1 - smoothing) * F.logsigmoid(inner) - smoothing * F.logsigmoid(-inner)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`."""
        right, good, bad, preferred, *before = (value / max(1, count) for value in metric_sums)
        found = {
            "loss": loss / max(1, count), "accuracy": right, "margin": good - bad, "rewards/chosen": good,
            "rewards/rejected": bad, "preferred": preferred,
        }  # fmt: skip
        return found | ({"base_preferred": before[0]} if before else {})


def _gap(values: Tensor) -> Tensor:
    """For each pair, the value of the chosen answer minus that of the rejected one."""
    return values[0::2] - values[1::2]


def _preferred(average: Tensor) -> Tensor:
    """Pairs whose chosen answer is more likely per token: in total, a short answer is almost always more likely."""
    return (_gap(average) > 0).sum()


def _log_of_rest(average: Tensor) -> Tensor:
    """log(1 - p) from log(p)."""
    return torch.log(-torch.expm1(average.clamp(max=_CERTAIN)))
