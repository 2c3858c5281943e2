"""Text classification: one label for each text, from a classification head on the base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from cloudtune_trainer import models
from cloudtune_trainer.generate import Answer
from cloudtune_trainer.generation_settings import padding_of
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rope import logits_by_length
from cloudtune_trainer.samples import Cuts, Samples, nothing_left
from cloudtune_trainer.sequences import Batch
from cloudtune_trainer.tasks.head_model import HeadModel, padded
from cloudtune_trainer.tasks.task import BestMetric, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec


@dataclass(frozen=True)
class LabelledSamples(Samples):
    """Texts, and the number of each one's label."""

    labels: NDArray[np.int64]


class SequenceClassification:
    """See the module. The metric sums, for each label: correct rows, predicted rows, actual rows."""

    best_metric = BestMetric("macro_f1", higher_is_better=True)
    peft_task_type = "SEQ_CLS"
    can_pack = False
    packed = False
    needs_reference = False

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.labels: tuple[str, ...] = ()
        self.random_weights: tuple[str, ...] = ()
        self._padding = 0

    @property
    def metric_sums(self) -> int:
        """See `Task.metric_sums`."""
        return 3 * len(self.labels)

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`. The labels are those of the training rows, in the order of their names."""
        self.labels = tuple(sorted({_label(record, row) for row, record in enumerate(records(), 1)}))
        if len(self.labels) < 2:
            raise TrainingProblem("bad_data", f"train: all rows have the label {self.labels[0]!r}", "Give two labels.")
        self._padding = padding_of(tokenizer) or 0
        torch.manual_seed(self.spec.seed)  # the same initial head at every start
        head = models.ClassificationHead(self.labels, self._padding)
        random = set[str]()
        network = models.load_model(
            base, dtype=dtype, weights=weights, dropout=dropout, head=head, new_head=random if weights is None else None
        )
        self.random_weights = tuple(sorted(random))
        return network

    def encode(self, records: Iterable[Record], tokenizer: Any) -> LabelledSamples:
        """See `Task.encode`. A text that is too long is truncated."""
        texts, labels = [], []
        for row, record in enumerate(records, 1):
            label = _label(record, row)
            if label not in self.labels:
                what = f"row {row}: no training row has the label {label!r}"
                raise TrainingProblem("bad_data", what, f"The labels are {', '.join(self.labels)}.")
            texts.append(record["text"])
            labels.append(self.labels.index(label))
        ids, cuts = _encoded(texts, tokenizer, self.spec.hyperparameters.max_length)
        kept = [place for place, row in enumerate(ids) if row]
        if not kept:
            raise nothing_left(cuts, self.spec.hyperparameters.max_length)
        cuts.unlearnt += [place + 1 for place, row in enumerate(ids) if not row]
        starts = np.zeros(len(kept) + 1, dtype=np.int64)
        np.cumsum([len(ids[place]) for place in kept], out=starts[1:])
        tokens = np.concatenate([np.asarray(ids[place], dtype=np.int32) for place in kept])
        return LabelledSamples(tokens, np.zeros(len(tokens), dtype=np.bool_), starts, cuts, np.asarray(labels)[kept])

    def collate(self, samples: LabelledSamples, chosen: Sequence[int]) -> Batch:
        """See `Task.collate`. Rows are padded on the right."""
        rows = [samples.ids[samples.starts[i] : samples.starts[i + 1]] for i in chosen]
        return Batch(
            inputs=padded(rows, self._padding), labels=torch.from_numpy(samples.labels[np.asarray(chosen)]),
            tokens=sum(map(len, rows)), count=len(rows),
        )  # fmt: skip

    def forward(self, model: Any, batch: Batch) -> Sums:
        """See `Task.forward`."""
        logits = logits_by_length(model, batch.inputs).float()
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        predicted = F.one_hot(logits.detach().argmax(-1), len(self.labels))
        actual = F.one_hot(batch.labels, len(self.labels))
        sums = torch.cat([(predicted * actual).sum(0), predicted.sum(0), actual.sum(0)])
        return Sums(loss, sums, batch.count)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`. Macro F1 is the mean over the labels that any row has or is predicted to have."""
        right, predicted, actual = np.asarray(metric_sums, dtype=float).reshape(3, -1)
        seen = predicted + actual > 0
        f1 = 2 * right[seen] / (predicted + actual)[seen]
        return {
            "loss": loss / max(1, count), "accuracy": float(right.sum()) / max(1, count),
            "macro_f1": float(f1.mean()) if seen.any() else 0.0,
        }  # fmt: skip


class Classifier(HeadModel):
    """A trained classifier."""

    def generate(
        self, prompts: Sequence[str | Sequence[Mapping[str, Any]]], *, batch_size: int = 8, **_: Any
    ) -> Iterator[Answer]:
        """The most likely label of each text, with the probability of every label. Sampling options have no effect."""
        texts = [_text(prompt) for prompt in prompts]
        for first in range(0, len(texts), batch_size):
            yield from self._batch(texts[first : first + batch_size])

    def _batch(self, texts: Sequence[str]) -> list[Answer]:
        ids, _ = _encoded(texts, self._tokenizer, self._max_length)
        if not all(ids):
            raise TrainingProblem("bad_data", "a text is empty", "Give at least one word.")
        answers = []
        for row, scores in zip(ids, torch.softmax(self._outputs(ids), -1).tolist(), strict=True):
            by_label = dict(sorted(zip(self._labels, scores, strict=True), key=lambda item: -item[1]))
            answers.append(Answer(next(iter(by_label)), "stop", len(row), 0, by_label))
        return answers


def _encoded(texts: Sequence[str], tokenizer: Any, max_length: int) -> tuple[list[list[int]], Cuts]:
    """Token ids of each text with the tokenizer's own special tokens, and which texts were cut."""
    cuts = Cuts()
    ids = [list(row) for row in tokenizer(list(texts), return_attention_mask=False, verbose=False)["input_ids"]]
    for place, row in enumerate(ids):
        if len(row) > max_length:
            cuts.truncated.append(place + 1)
            ids[place] = list(tokenizer(texts[place], truncation=True, max_length=max_length)["input_ids"])
    return ids, cuts


def _label(record: Record, row: int) -> str:
    label = record.get("label")
    if not isinstance(record.get("text"), str) or not isinstance(label, str | int) or isinstance(label, bool):
        raise TrainingProblem("bad_data", f'row {row}: a row to classify has "text" and "label", a string or a number')
    return str(label)


def _text(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(prompt, str):
        return prompt
    if len(prompt) != 1 or not isinstance(prompt[0].get("content"), str):
        raise TrainingProblem("bad_data", "a classifier takes one text, not a conversation")
    return str(prompt[0]["content"])
