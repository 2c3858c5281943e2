"""Reward models: of two answers to one prompt, the chosen one gets the higher score (Bradley-Terry).

A head with one output on the base model gives the score of a conversation, from the hidden state of its last token
that is not the padding token. The loss of a pair is ``-log sigmoid(score(chosen) - score(rejected))``
(arxiv.org/abs/2203.02155, equation 1). It is a sum over pairs, independent of the answers' lengths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rendering import Renderer
from cloudtune_trainer.rope import logits_by_length
from cloudtune_trainer.sequences import Batch
from cloudtune_trainer.tasks.padded import load_with_head, padded
from cloudtune_trainer.tasks.pairs import Pairs, encode_pairs
from cloudtune_trainer.tasks.predictor import Prediction, Predictor, turns_of
from cloudtune_trainer.tasks.task import BestMetric, Sums
from cloudtune_trainer.token_spans import SpanEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.tasks.predictor import Input

OUTPUT = "reward"
"""The name of the model's only output."""


class RewardModeling:
    """See the module. The metric sums: pairs in the right order, and the scores of both sides."""

    best_metric = BestMetric("accuracy", higher_is_better=True)
    metric_sums = 3
    peft_task_type = "SEQ_CLS"
    labels: tuple[str, ...] = (OUTPUT,)
    can_pack = False
    packed = False
    needs_reference = False

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.random_weights: tuple[str, ...] = ()
        self.padding = 0

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`."""
        return load_with_head(self, base, tokenizer, dtype=dtype, weights=weights, dropout=dropout)

    def encode(self, records: Iterable[Record], tokenizer: Any) -> Pairs:
        """See `Task.encode`."""
        return encode_pairs(records, tokenizer, loss_on="assistant", max_length=self.spec.hyperparameters.max_length)

    def collate(self, samples: Pairs, chosen: Sequence[int]) -> Batch:
        """See `Task.collate`. The chosen answer of each pair, then the rejected one, padded on the right."""
        rows = [samples.ids[begin:end] for i in chosen for begin, end in samples.sides(i)]
        return Batch(
            inputs=padded(rows, self.padding), labels=torch.empty(0), tokens=sum(map(len, rows)), count=len(chosen)
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


class RewardModel(Predictor):
    """A trained reward model. ``RewardModel.open(folder).score(conversations)``."""

    def __init__(self, network: Any, tokenizer: Any, tuned: Mapping[str, Any]) -> None:
        """Raises ``bad_spec`` for a model of another method."""
        if tuned["method"] != "reward":
            what = f"this model was trained by {tuned['method']}: it gives no rewards"
            raise TrainingProblem("bad_spec", what, "Use the model of a job with method: reward.")
        super().__init__(network, tokenizer, tuned)

    def score(
        self, conversations: Iterable[Sequence[Mapping[str, Any]]], *,
        tools: Iterable[list[dict[str, Any]] | None] | None = None, batch_size: int = 8,
    ) -> list[float]:  # fmt: skip
        """The score of each conversation's last turn, which is the assistant's. Higher is better.

        A score has no unit and no zero: only differences between answers to one prompt have a meaning. What is longer
        than the ``max_length`` of the training is cut, as in training. ``tools`` are those of each conversation.

        Raises:
            TrainingProblem: ``bad_data``, for a conversation that does not end with an assistant's turn, or that the
                chat template rejects.

        """
        rows: list[dict[str, Any]] = [{"messages": messages} for messages in conversations]
        for row, own in zip(rows, tools, strict=True) if tools is not None else ():
            row["tools"] = own
        return [found.value for found in self.predict(rows, batch_size=batch_size) if found.value is not None]

    def read(self, given: Input) -> list[int]:
        """See `Predictor.read`: a row with the ``messages`` of a conversation, or with its answer in ``completion``."""
        row = given if isinstance(given, dict) else {}
        turns = [turn for name in ("messages", "completion") if row.get(name) for turn in turns_of(row[name], name)]
        if not turns or turns[-1]["role"] != "assistant":
            raise TrainingProblem(
                "bad_data",
                "it has no answer to score: a reward model scores the assistant's turn at the end of a conversation",
                'Give messages that end with {"role": "assistant", "content": ...}.',
            )
        turns[-1] = {**turns[-1], "weight": 1}
        text = Renderer(self.tokenizer, loss_on="last_assistant").render(turns, row.get("tools"))
        ((ids, _),) = SpanEncoder(self.tokenizer).encode(text)
        return ids[: self.max_length]

    def predict_batch(self, rows: Sequence[list[int]]) -> list[Prediction]:
        """See `Predictor.predict_batch`."""
        scores = logits_by_length(self.network, self.moved(padded(rows, self.padding)))[:, 0].float().tolist()
        return [Prediction(f"{score:.4f}", value=score) for score in scores]
