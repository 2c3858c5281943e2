"""Text classification: one label for each text, from a classification head on the base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from cloudtune_trainer.generate import Answer
from cloudtune_trainer.generation_settings import padding_of
from cloudtune_trainer.heads import Head
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rope import logits_by_length
from cloudtune_trainer.samples import Samples
from cloudtune_trainer.sequences import Batch
from cloudtune_trainer.tasks.padded import encoded, joined, load_with_head, padded
from cloudtune_trainer.tasks.predictor import Prediction, Predictor, text_of
from cloudtune_trainer.tasks.task import BestMetric, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.tasks.predictor import Input


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
        head = Head("sequence_classification", self._padding, self.labels)
        network, self.random_weights = load_with_head(
            base, head, seed=self.spec.seed, dtype=dtype, weights=weights, dropout=dropout
        )
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
        max_length = self.spec.hyperparameters.max_length
        ids, cuts = encoded(texts, tokenizer, max_length)
        kept = [place for place, row in enumerate(ids) if row]
        cuts.unlearnt += [place + 1 for place, row in enumerate(ids) if not row]
        rows = joined([ids[place] for place in kept], cuts, max_length)
        return LabelledSamples(*rows, np.asarray(labels)[kept])

    def collate(self, samples: LabelledSamples, chosen: Sequence[int]) -> Batch:
        """See `Task.collate`. Rows are padded on the right."""
        rows = samples.rows(chosen)
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


class Classifier(Predictor):
    """A trained classifier."""

    def read(self, given: Input) -> str:
        """See `Predictor.read`."""
        return text_of(given)

    def predict_batch(self, rows: Sequence[str]) -> list[Prediction]:
        """The most likely label of each text, with the probability of every label."""
        ids, _ = encoded(rows, self.tokenizer, self.max_length)
        if not all(ids):
            raise TrainingProblem("bad_data", "a text is empty", "Give at least one word.")
        logits = logits_by_length(self.network, self.moved(padded(ids, self.padding)))
        found = []
        for scores in torch.softmax(logits.float(), -1).tolist():
            by_label = dict(sorted(zip(self.labels, scores, strict=True), key=lambda item: -item[1]))
            label = next(iter(by_label))
            found.append(Prediction(label, by_label[label], by_label))
        return found

    def generate(
        self, prompts: Sequence[str | Sequence[Mapping[str, Any]]], *, batch_size: int = 8, **_: Any
    ) -> Iterator[Answer]:
        """The predictions as answers. Sampling options have no effect."""
        texts = [text_of(prompt) for prompt in prompts]
        for text, found in zip(texts, self.predict(texts, batch_size=batch_size), strict=True):
            length = len(encoded([text], self.tokenizer, self.max_length)[0][0])
            yield Answer(found.text, "stop", length, 0, found.scores)


def _label(record: Record, row: int) -> str:
    label = record.get("label")
    if not isinstance(record.get("text"), str) or not isinstance(label, str | int) or isinstance(label, bool):
        raise TrainingProblem("bad_data", f'row {row}: a row to classify has "text" and "label", a string or a number')
    return str(label)
