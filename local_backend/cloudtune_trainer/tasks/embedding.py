"""Text embedding: vectors whose cosines say how similar texts are. The losses: ``embedding_losses``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from cloudtune_trainer.pooling import check_modules_of, pooled, pooling_of
from cloudtune_trainer.pooling_files import POOLING, read_pooling, write_pooling
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rope import logits_by_length
from cloudtune_trainer.tasks.correlation import correlations
from cloudtune_trainer.tasks.embedding_losses import Candidates, Texts, losses
from cloudtune_trainer.tasks.embedding_samples import TextBatch, TextRows, collate_rows, encode_rows
from cloudtune_trainer.tasks.padded import encoded, load_with_head, padded
from cloudtune_trainer.tasks.predictor import Prediction, Predictor, text_of
from cloudtune_trainer.tasks.task import BestMetric, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.tasks.predictor import Input

_RECALLS = (1, 10)
_PAIR = ("sentence1", "sentence2")
_SHOWN = 4
"""Numbers of a vector in the text of a prediction."""


def embed(model: Any, inputs: dict[str, Tensor], pooling: str) -> Tensor:
    """The vectors of padded texts, of length 1."""
    return pooled(logits_by_length(model, inputs), inputs["attention_mask"], pooling)


class TextEmbedding:
    """See the module. In training, a positive is ranked among the texts of its step; in evaluation, of the split."""

    peft_task_type = "FEATURE_EXTRACTION"
    labels: tuple[str, ...] = ()
    can_pack = False
    packed = False
    needs_reference = False
    notes: tuple[str, ...] = ()
    """What loading chose, for the job's events."""

    def __init__(self, spec: RunSpec) -> None:
        assert spec.embedding is not None  # `read_spec` checks it
        self.spec = spec
        self._terms = spec.embedding
        self._pooling: str = spec.embedding.pooling
        by_rank = self._terms.contrastive
        self.best_metric = BestMetric("mrr@10" if by_rank else "spearman", higher_is_better=True)
        self.metric_sums = len(_RECALLS) + 1 if by_rank else 0
        self.row_values = 0 if by_rank else 2
        self.random_weights: tuple[str, ...] = ()
        self.padding = 0
        self._step: Texts | None = None

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`."""
        check_modules_of(base)
        network = load_with_head(self, base, tokenizer, dtype=dtype, weights=weights, dropout=dropout)
        if self._pooling == "auto":
            self._pooling, why = pooling_of(base, network.config)
            self.notes = (f"pooling: {self._pooling}, {why}",)
        return network

    def encode(self, records: Iterable[Record], tokenizer: Any) -> TextRows:
        """See `Task.encode`."""
        return encode_rows(records, tokenizer, self._terms, self.spec.hyperparameters.max_length)

    def collate(self, samples: TextRows, chosen: Sequence[int]) -> TextBatch:
        """See `Task.collate`."""
        return collate_rows(samples, chosen, self.padding)

    def row_values_of(self, model: Any, batch: TextBatch) -> Tensor:
        """See `ComparesRows`: what `Texts` holds, for each text."""
        vectors = embed(model, batch.inputs, self._pooling)
        return torch.cat([part.cpu().double() for part in (batch.labels, batch.scores[:, None], vectors)], 1)

    def set_step(self, values: Tensor | None, device: torch.device) -> None:
        """See `ComparesRows`."""
        self._step = None
        if values is not None:
            parts = values[:, :3].long(), values[:, 3].float(), values[:, 4:].float()
            self._step = Texts.of(*(part.to(device) for part in parts))

    def forward(self, model: Any, batch: TextBatch) -> Sums:
        """See `Task.forward`."""
        learns, rows, every = torch.is_grad_enabled(), batch.labels[:, 0], self._step
        if learns or every is None:
            own = Texts.of(batch.labels, batch.scores, embed(model, batch.inputs, self._pooling))
            every = own if every is None else every.with_vectors(own)
        found = losses(every, every.rows if learns else rows, self._terms)
        mine = torch.isin(every.rows, rows)
        loss = (found[mine] if learns else found).sum()
        if learns:  # this batch's vectors also change the losses of the step's other rows
            others = found[~mine].sum()
            loss = loss + others - others.detach()
        with torch.no_grad():
            if not self._terms.contrastive:
                values = torch.stack([every.cosines[mine], every.scores[mine]], 1).double().cpu()
                return Sums(loss, loss.new_zeros(0), batch.count, values)
            ranks = Candidates.of(every, rows).ranks()
            hits = [(ranks < count).sum().float() for count in _RECALLS]
            return Sums(loss, torch.stack([*hits, (1 / (ranks[ranks < 10] + 1)).sum()]), batch.count)

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`. recall@k: positives among the k texts that are closest to their anchor."""
        means = [value / max(1, count) for value in metric_sums]
        names = [*(f"recall@{number}" for number in _RECALLS), "mrr@10"]
        return {"loss": loss / max(1, count), **dict(zip(names, means, strict=False))}

    def row_metrics(self, rows: Tensor) -> dict[str, float]:
        """See `MeasuresRows`: how well the cosines correlate with the scores."""
        return correlations(rows[:, 0].numpy(), rows[:, 1].numpy())

    def write_files(self, folder: Path, model: Any) -> None:
        """See `WritesFiles`: the files of sentence-transformers."""
        size = model.config.get_text_config().hidden_size
        write_pooling(folder, self._pooling, size, self.spec.hyperparameters.max_length)


class Embedder(Predictor):
    """A trained embedding model: the vector of a text, or the similarity of two."""

    has_base = True

    pooling: str
    """See `Embedding.pooling`. `open` sets it."""

    @classmethod
    def open(cls, folder: Path | str, **options: Any) -> Self:
        """See `Predictor.open`."""
        opened = super().open(folder, **options)
        opened.pooling = read_pooling(Path(folder) / POOLING)
        return opened

    def read(self, given: Input) -> list[list[int]]:
        """See `Predictor.read`: the tokens of a text, or of ``sentence1`` and ``sentence2``."""
        if isinstance(given, dict) and all(isinstance(given.get(name), str) for name in _PAIR):
            texts = [given[name] for name in _PAIR]
        else:
            texts = [text_of(given, rows='"text" or with "sentence1" and "sentence2"')]
        ids, _ = encoded(texts, self.tokenizer, self.max_length)
        if not all(ids):
            raise TrainingProblem("bad_data", "a text is empty", "Give at least one word.")
        return ids

    def predict_batch(self, rows: Sequence[list[list[int]]]) -> list[Prediction]:
        """See `Predictor.predict_batch`."""
        ids = [tokens for row in rows for tokens in row]
        vectors = iter(embed(self.network, self.moved(padded(ids, self.padding)), self.pooling).cpu())
        found = []
        for row in rows:
            own = [next(vectors) for _ in row]
            if len(own) == 1:
                vector = tuple(own[0].tolist())
                shown = ", ".join(f"{value:.4f}" for value in vector[:_SHOWN])
                found.append(Prediction(f"[{shown}, ...]  ({len(vector)} numbers)", vector=vector))
            else:
                cosine = float(own[0] @ own[1])
                found.append(Prediction(f"{cosine:.4f}", value=cosine))
        return found
