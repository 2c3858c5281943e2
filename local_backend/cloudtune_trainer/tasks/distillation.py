"""Distillation: on every trained token, the model learns the whole distribution of a larger teacher.

The loss of a token is the divergence KL(teacher || model) of both distributions at a temperature, times the square of
the temperature, so that the size of the gradient does not depend on it (arxiv.org/abs/1503.02531, section 2).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.fingerprint import check_fingerprint
from cloudtune_trainer.loss import summed_divergence
from cloudtune_trainer.models import BaseModel, load_model, load_tokenizer
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.sequences import SequenceBatch, next_token_logits
from cloudtune_trainer.tasks.causal_lm import CausalLM
from cloudtune_trainer.tasks.task import Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec


class Distillation(CausalLM):
    """See the module. The metric sums: tokens that are most likely, tokens on whose most likely one both agree."""

    metric_sums = 2
    can_pack = False

    def __init__(self, spec: RunSpec) -> None:
        super().__init__(spec)
        assert spec.teacher is not None  # `read_spec` checks it
        self._terms = spec.teacher

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`. Raises ``bad_spec`` for a teacher with other tokens."""
        place = BaseModel(self._terms.path)
        check_fingerprint(Path(place.path), self._terms.fingerprint, since="the job was submitted")
        if load_tokenizer(place).get_vocab() != tokenizer.get_vocab():
            what = f"the teacher {place.path} has other tokens than the model"
            raise TrainingProblem("bad_spec", what, "Use a larger model of the same family, or train with sft on the "
                                  "teacher's answers.")  # fmt: skip
        self._teacher = load_model(place, dtype=dtype).requires_grad_(False).eval()
        return super().load_model(base, tokenizer, records, dtype=dtype, weights=weights, dropout=dropout)

    def forward(self, model: Any, batch: SequenceBatch) -> Sums:
        """See `Task.forward`."""
        with torch.no_grad():
            wanted = next_token_logits(self._teacher.to(batch.labels.device), batch)
        found = next_token_logits(model, batch)
        width, temperature = min(found.shape[-1], wanted.shape[-1]), self._terms.temperature  # some pad their outputs
        found, wanted = found[:, :width], wanted[:, :width]
        loss = temperature**2 * summed_divergence(found, wanted, temperature)
        best = found.detach().argmax(-1)
        return Sums(loss, torch.stack([(best == batch.labels).sum(), (best == wanted.argmax(-1)).sum()]), batch.count)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`. ``agreement`` is the share of tokens on whose most likely one both models agree."""
        right, agreed = (value / max(1, count) for value in metric_sums)
        return {"loss": loss / max(1, count), "token_accuracy": right, "agreement": agreed}
