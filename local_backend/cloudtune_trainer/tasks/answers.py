"""Log-probabilities of answers by the trained model and by the initial one, for methods that compare the two.

If an adapter is trained, the initial model is the same network with the adapter disabled, run on the same batch: no
second copy in memory, one more forward pass per step. If all weights are trained, its log-probabilities are computed
once before the first step (8 bytes per row, one pass over the rows at every start of the program), since a frozen copy
would double the weights in memory.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cloudtune_trainer.loss import log_probabilities
from cloudtune_trainer.sequences import SequenceBatch, lay_out, next_token_logits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune_trainer.samples import Samples


@dataclass(frozen=True, kw_only=True)
class AnswerBatch(SequenceBatch):
    """Prompts with their answers, for one forward pass. Only the answers are trained on."""

    answers: tuple[int, ...]
    """Number of trained tokens of each sequence."""
    reference: Tensor | None
    """Log-probability of each answer by the initial weights, if computed beforehand."""


def lay_out_answers(
    samples: Samples, documents: Sequence[tuple[int, int]], reference: Tensor | None, *, count: int, packed: bool
) -> AnswerBatch:
    """A batch of documents, given by the start and end of each among all tokens. ``count``: rows or pairs."""
    sequences = lay_out(samples, documents, packed=packed)
    answers = tuple(int(samples.learn[begin:end].sum()) for begin, end in documents)
    return AnswerBatch(**vars(sequences) | {"count": count, "answers": answers, "reference": reference})


def answer_likelihoods(model: Any, batch: AnswerBatch) -> Tensor:
    """Log-probability of each sequence's answer."""
    logps, _ = log_probabilities(next_token_logits(model, batch), batch.labels)
    # one by one instead of index_add, whose order on a GPU varies, so that runs would not be reproducible
    return torch.stack([part.sum() for part in torch.split(logps, list(batch.answers))])


def initial_likelihoods(model: Any, batch: AnswerBatch) -> Tensor:
    """The same by the initial weights: computed beforehand, or with the adapter disabled.

    Call this before the graph of the trained model is built: peft changes ``requires_grad`` meanwhile.
    """
    if batch.reference is not None:
        return batch.reference
    with _as_it_was(model):
        return answer_likelihoods(model, batch)


@contextlib.contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
    """The initial model: the adapter disabled, and no dropout."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), model.disable_adapter():
            yield
    finally:
        model.train(was_training)
