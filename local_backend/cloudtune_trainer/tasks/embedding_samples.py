"""Rows of several texts as token ids, and batches of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.samples import Samples
from cloudtune_trainer.sequences import Batch
from cloudtune_trainer.tasks.padded import encoded, fields_of, joined, padded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from cloudtune_trainer.embedding_spec import Embedding
    from cloudtune_trainer.records import Record

ANCHOR, POSITIVE, NEGATIVE = 0, 1, 2
"""The roles of a row's texts. Two sentences with a score are an anchor and a positive."""


@dataclass(frozen=True)
class TextRows(Samples):
    """A sample is a row: its anchor, its positive and its negatives, as texts ``first[i]`` to ``first[i + 1] - 1``."""

    bounds: NDArray[np.int64]
    """The first token of each text, and the number of all tokens."""
    first: NDArray[np.int64]
    numbers: NDArray[np.int64]
    """[texts]: the same number for equal texts."""
    scores: NDArray[np.float64]
    """[rows]; 0 for rows without a score."""


@dataclass(frozen=True, kw_only=True)
class TextBatch(Batch):
    """The texts of some rows, for one forward pass. ``labels`` [texts, 3]: the row, the role and the number of each."""

    scores: Tensor
    """[texts]: those of their rows."""


def encode_rows(records: Iterable[Record], tokenizer: Any, terms: Embedding, max_length: int) -> TextRows:
    """Tokens of all rows. A text that is too long is truncated; a row with a text without tokens is left out."""
    rows, scores = [], []
    for row, record in enumerate(records, 1):
        texts, score = _contrastive(record, row, terms) if terms.contrastive else _scored(record, row, terms)
        rows.append(texts)
        scores.append(score)
    ids, cuts = encoded([text for texts in rows for text in texts], tokenizer, max_length)
    row_of = np.repeat(np.arange(len(rows)), [len(texts) for texts in rows])
    cuts.truncated = sorted({int(row_of[place - 1]) + 1 for place in cuts.truncated})
    empty = {int(row_of[place]) for place, tokens in enumerate(ids) if not tokens}
    cuts.unlearnt += sorted(row + 1 for row in empty)
    kept = [row for row in range(len(rows)) if row not in empty]
    texts = [text for row in kept for text in rows[row]]
    ids = [tokens for tokens, row in zip(ids, row_of, strict=True) if row not in empty]
    known: dict[str, int] = {}
    flat, learn, bounds, cuts = joined(ids, cuts, max_length)
    first = np.zeros(len(kept) + 1, dtype=np.int64)
    np.cumsum([len(rows[row]) for row in kept], out=first[1:])
    return TextRows(
        flat, learn, bounds[first], cuts, bounds=bounds, first=first,
        numbers=np.asarray([known.setdefault(text, len(known)) for text in texts]), scores=np.asarray(scores)[kept],
    )  # fmt: skip


def collate_rows(samples: TextRows, chosen: Sequence[int], padding: int) -> TextBatch:
    """A batch of those rows."""
    texts = [text for row in chosen for text in range(samples.first[row], samples.first[row + 1])]
    tokens = [samples.ids[samples.bounds[text] : samples.bounds[text + 1]] for text in texts]
    about = [
        (row, min(place, NEGATIVE), samples.numbers[samples.first[row] + place])
        for row in chosen
        for place in range(samples.first[row + 1] - samples.first[row])
    ]
    return TextBatch(
        inputs=padded(tokens, padding), labels=torch.tensor(about), count=len(chosen), tokens=sum(map(len, tokens)),
        scores=torch.tensor([samples.scores[row] for row, *_ in about], dtype=torch.float32),
    )  # fmt: skip


def _contrastive(record: Record, row: int, terms: Embedding) -> tuple[list[str], float]:
    anchor, positive = fields_of(record, row, "anchor", "positive")
    negatives = record.get("negatives") or []
    if terms.loss == "triplet" and not negatives:
        what = f"row {row}: it has no negatives, which the loss triplet compares with"
        raise TrainingProblem("bad_data", what, "Add them, or use the loss multiple_negatives_ranking.")
    return [anchor, positive, *negatives], 0.0


def _scored(record: Record, row: int, terms: Embedding) -> tuple[list[str], float]:
    one, other, score = fields_of(record, row, "sentence1", "sentence2", "score")
    if terms.loss == "cosine_similarity" and not -1 <= score <= 1:
        what = f"row {row}: the score {score:g} is no cosine: it is not from -1 to 1"
        raise TrainingProblem("bad_data", what, "Divide the scores by the highest one, or use the loss cosent.")
    return [one, other], float(score)
