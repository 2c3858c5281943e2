"""Text classification and regression: labels of texts, from a head on the base model. See ``label_problems``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cloudtune_trainer.generate import Answer
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rope import logits_by_length
from cloudtune_trainer.samples import Samples
from cloudtune_trainer.sequences import Batch
from cloudtune_trainer.tasks.correlation import correlations
from cloudtune_trainer.tasks.label_problems import PROBLEMS, LabelProblem
from cloudtune_trainer.tasks.padded import encoded, joined, load_with_head, padded
from cloudtune_trainer.tasks.predictor import Prediction, Predictor, text_of
from cloudtune_trainer.tasks.task import Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.tasks.predictor import Input


@dataclass(frozen=True)
class LabelledSamples(Samples):
    """Texts, and the label of each as a number: see `LabelProblem.target`."""

    labels: NDArray[Any]


class SequenceClassification:
    """See the module."""

    peft_task_type: str | None = "SEQ_CLS"
    can_pack = False
    packed = False
    needs_reference = False

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self._problem: LabelProblem = PROBLEMS[spec.classification.problem](spec.classification)
        self.best_metric = self._problem.best_metric
        self.row_values = 2 if spec.classification.problem == "regression" else 0
        self.random_weights: tuple[str, ...] = ()
        self.padding = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """See `Task.labels`."""
        return self._problem.labels

    @property
    def metric_sums(self) -> int:
        """See `Task.metric_sums`."""
        return self._problem.metric_sums

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`."""
        self._problem.learn(self._checked(records()))
        return load_with_head(self, base, tokenizer, dtype=dtype, weights=weights, dropout=dropout)

    def encode(self, records: Iterable[Record], tokenizer: Any) -> LabelledSamples:
        """See `Task.encode`. A text that is too long is truncated."""
        texts, labels = [], []
        for row, record in enumerate(self._checked(records), 1):
            texts.append(record["text"])
            labels.append(self._problem.target(record, row))
        max_length = self.spec.hyperparameters.max_length
        ids, cuts = encoded(texts, tokenizer, max_length)
        kept = [place for place, row in enumerate(ids) if row]
        cuts.unlearnt += [place + 1 for place, row in enumerate(ids) if not row]
        rows = joined([ids[place] for place in kept], cuts, max_length)
        targets = np.asarray(labels)[kept]
        if targets.dtype == np.float64:
            targets = targets.astype(np.float32)  # MPS has no fp64
        return LabelledSamples(*rows, targets)

    def collate(self, samples: LabelledSamples, chosen: Sequence[int]) -> Batch:
        """See `Task.collate`. Rows are padded on the right."""
        rows = samples.rows(chosen)
        return Batch(
            inputs=padded(rows, self.padding), labels=torch.from_numpy(samples.labels[np.asarray(chosen)]),
            tokens=sum(map(len, rows)), count=len(rows),
        )  # fmt: skip

    def forward(self, model: Any, batch: Batch) -> Sums:
        """See `Task.forward`."""
        logits = self._logits(model, batch).float()
        loss = self._problem.loss(logits, batch.labels)
        with torch.no_grad():
            sums = self._problem.sums(logits, batch.labels)
            values = [logits[:, 0], batch.labels] if self.row_values else []
            rows = torch.stack([each.cpu().double() for each in values], 1) if values else None
        return Sums(loss, sums, batch.count, rows)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`."""
        return {"loss": loss / max(1, count), **self._problem.metrics(metric_sums, count)}

    def constant_loss(self, samples: Samples) -> float | None:
        """See `Monitored.constant_loss`."""
        return self._problem.constant_loss(samples.labels)  # type: ignore[attr-defined]

    def collapsed(self, metric_sums: Sequence[float]) -> str | None:
        """See `Monitored.collapsed`."""
        return self._problem.collapsed(metric_sums)

    def _logits(self, model: Any, batch: Batch) -> Tensor:
        return logits_by_length(model, batch.inputs)

    @staticmethod
    def _checked(records: Iterable[Record]) -> Iterator[Record]:
        """The records. Raises ``bad_data`` for one without a text or a label."""
        for row, record in enumerate(records, 1):
            if not isinstance(record.get("text"), str) or "label" not in record:
                raise TrainingProblem("bad_data", f'row {row}: a row to classify has "text" and "label"')
            yield record

    def row_metrics(self, rows: Tensor) -> dict[str, float]:
        """See `MeasuresRows`: how well the predicted numbers correlate with the labels."""
        return correlations(rows[:, 0].numpy(), rows[:, 1].numpy())


class Classifier(Predictor):
    """A trained classifier, or a model that predicts numbers."""

    def __init__(self, network: Any, tokenizer: Any, tuned: Mapping[str, Any]) -> None:
        super().__init__(network, tokenizer, tuned)
        self._problem = PROBLEMS[tuned.get("problem") or "single_label"]

    def read(self, given: Input) -> list[int]:
        """See `Predictor.read`."""
        ((ids,), _) = encoded([text_of(given)], self.tokenizer, self.max_length)
        if not ids:
            raise TrainingProblem("bad_data", "the text is empty", "Enter at least one word.")
        return ids

    def predict_batch(self, rows: Sequence[list[int]]) -> list[Prediction]:
        """See `Predictor.predict_batch`."""
        logits = logits_by_length(self.network, self.moved(padded(rows, self.padding)))
        return self._problem.predictions(logits.float(), self.labels)

    def generate(
        self, prompts: Sequence[str | Sequence[Mapping[str, Any]]], *, batch_size: int = 8, **_: Any
    ) -> Iterator[Answer]:
        """The predictions as answers. Sampling options have no effect."""
        rows = self.read_all(prompts)
        for row, found in zip(rows, self.predict_rows(rows, batch_size), strict=True):
            yield Answer(found.text, "stop", len(row), 0, found.scores)
