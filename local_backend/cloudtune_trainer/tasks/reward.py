"""Reward models: of two answers to one prompt, the chosen one gets the higher score (Bradley-Terry).

A head with one output on the base model gives the score of a conversation, from the hidden state of its last token
that is not the padding token. The loss of a pair is ``-log sigmoid(score(chosen) - score(rejected))``
(arxiv.org/abs/2203.02155, equation 1). It is a sum over pairs, independent of the answers' lengths.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from cloudtune_trainer import models
from cloudtune_trainer.generate import Answer
from cloudtune_trainer.generation_settings import padding_of
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rendering import Renderer
from cloudtune_trainer.rope import logits_by_length
from cloudtune_trainer.sequences import Batch
from cloudtune_trainer.tasks.head_model import HeadModel, padded
from cloudtune_trainer.tasks.pairs import Pairs, encode_pairs
from cloudtune_trainer.tasks.task import BestMetric, Sums
from cloudtune_trainer.token_spans import SpanEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec

OUTPUT = "reward"
"""The name of the model's only output."""


class RewardModeling:
    """See the module. The metric sums: pairs in the right order, and the scores of both sides."""

    best_metric = BestMetric("accuracy", higher_is_better=True)
    metric_sums = 3
    peft_task_type = "SEQ_CLS"
    labels = (OUTPUT,)
    random_weights: tuple[str, ...] = ()
    can_pack = False
    packed = False
    needs_reference = False

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self._padding = 0

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`."""
        self._padding = padding_of(tokenizer) or 0
        torch.manual_seed(self.spec.seed)  # the same initial head at every start
        head = models.ClassificationHead(self.labels, self._padding, "regression")
        random = set[str]()
        network = models.load_model(
            base, dtype=dtype, weights=weights, dropout=dropout, head=head, new_head=random if weights is None else None
        )
        self.random_weights = tuple(sorted(random))
        return network

    def encode(self, records: Iterable[Record], tokenizer: Any) -> Pairs:
        """See `Task.encode`."""
        return encode_pairs(records, tokenizer, loss_on="assistant", max_length=self.spec.hyperparameters.max_length)

    def collate(self, samples: Pairs, chosen: Sequence[int]) -> Batch:
        """See `Task.collate`. The chosen answer of each pair, then the rejected one, padded on the right."""
        rows = [samples.ids[begin:end] for i in chosen for begin, end in samples.sides(i)]
        return Batch(
            inputs=padded(rows, self._padding), labels=torch.empty(0), tokens=sum(map(len, rows)), count=len(chosen)
        )

    def forward(self, model: Any, batch: Batch) -> Sums:
        """See `Task.forward`."""
        scores = logits_by_length(model, batch.inputs)[:, 0].float()
        good, bad = scores[0::2], scores[1::2]
        with torch.no_grad():
            sums = torch.stack([(good > bad).sum().float(), good.sum(), bad.sum()])
        return Sums(-F.logsigmoid(good - bad).sum(), sums, batch.count)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`."""
        right, good, bad = (value / max(1, count) for value in metric_sums)
        return {
            "loss": loss / max(1, count), "accuracy": right, "margin": good - bad, "rewards/chosen": good,
            "rewards/rejected": bad,
        }  # fmt: skip


class RewardModel(HeadModel):
    """A trained reward model. ``RewardModel.open(folder).score(conversations)``."""

    def score(self, conversations: Iterable[Sequence[Mapping[str, Any]]], *, batch_size: int = 8) -> list[float]:
        """The score of each conversation's last turn, which is the assistant's. Higher is better.

        A score has no unit and no zero: only differences between answers to one prompt have a meaning. What is longer
        than the ``max_length`` of the training is cut, as in training.

        Raises:
            TrainingProblem: ``bad_data``, for a conversation that does not end with an assistant's turn, or that the
                chat template rejects.

        """
        return [score for _, score in self._scored(conversations, batch_size)]

    def generate(
        self, prompts: Sequence[str | Sequence[Mapping[str, Any]]], *, batch_size: int = 8, **_: Any
    ) -> Iterator[Answer]:
        """The score of each conversation, as text and as a number. Sampling options have no effect."""
        for tokens, score in self._scored(prompts, batch_size):
            yield Answer(f"{score:.4f}", "stop", tokens, 0, {OUTPUT: score})

    def _scored(self, conversations: Iterable[Any], batch_size: int) -> Iterator[tuple[int, float]]:
        """Number of tokens and score of each conversation."""
        renderer, spans = Renderer(self._tokenizer, loss_on="last_assistant"), SpanEncoder(self._tokenizer)
        numbered = enumerate(conversations, 1)
        while chunk := list(itertools.islice(numbered, batch_size)):
            texts = [renderer.render(_checked(messages, number))[0] for number, messages in chunk]
            rows = [ids[: self._max_length] for ids, _ in spans.encode(texts)]
            yield from zip(map(len, rows), self._outputs(rows)[:, 0].tolist(), strict=True)


def _checked(messages: Any, number: int) -> list[dict[str, Any]]:
    turns = [] if isinstance(messages, str) else [dict(message) for message in messages]
    if not turns or turns[-1].get("role") != "assistant":
        raise TrainingProblem(
            "bad_data",
            f"conversation {number} has no answer to score: a reward model scores the assistant's turn at its end",
            'Give messages that end with {"role": "assistant", "content": ...}.',
        )
    return [*turns[:-1], {**turns[-1], "weight": 1}]
