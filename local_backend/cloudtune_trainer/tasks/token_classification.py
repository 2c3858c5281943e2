"""Token classification: a tag for each word, such as parts of speech or entities.

A word's first piece carries its tag; its other pieces are not trained on. Rows that are too long are split between
words, so that no word is lost.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cloudtune_trainer.loss import summed_cross_entropy
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.samples import Cuts, Samples
from cloudtune_trainer.sequences import PADDED, Batch
from cloudtune_trainer.tasks.entities import are_entities, counts
from cloudtune_trainer.tasks.padded import (
    PART,
    check_fast,
    fields_of,
    filled,
    groups_of,
    joined,
    load_with_head,
    logits_in_parts,
    padded,
    rows_at_once,
)
from cloudtune_trainer.tasks.predictor import Prediction, Predictor, text_of
from cloudtune_trainer.tasks.task import BestMetric, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.tasks.predictor import Input


@dataclass(frozen=True)
class TaggedSamples(Samples):
    """Words as token ids, and the number of the tag at each word's first token; `PADDED` elsewhere."""

    tags: NDArray[np.int64]
    row_of: NDArray[np.int64]

    @property
    def groups(self) -> list[list[int]]:
        """See `Samples.groups`: the pieces of a row."""
        return groups_of(self.row_of)


@dataclass(frozen=True, kw_only=True)
class TaggedBatch(Batch):
    """Pieces of one forward pass."""

    texts: tuple[tuple[int, ...], ...]
    """The places of pieces that follow each other in a row, for entities that continue in the next piece."""


class TokenClassification:
    """See the module. The metric sums: correct words; if tags mark entities, those right, predicted and actual."""

    peft_task_type = "TOKEN_CLS"
    can_pack = False
    packed = False
    needs_reference = False

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.labels: tuple[str, ...] = ()
        self.random_weights: tuple[str, ...] = ()
        self.best_metric = BestMetric("token_accuracy", higher_is_better=True)
        self.padding = 0
        self._has_entities = False

    @property
    def metric_sums(self) -> int:
        """See `Task.metric_sums`."""
        return 4 if self._has_entities else 1

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`. The tags are those of the training rows, in the order of their names."""
        found: set[str] = set()
        for row, record in enumerate(records(), 1):
            found.update(map(str, fields_of(record, row, "tokens", "tags")[1]))
        self.labels = tuple(sorted(found))
        if len(self.labels) < 2:
            raise TrainingProblem("bad_data", f"train: all words have the tag {self.labels[0]!r}", "Give two tags.")
        self._has_entities = are_entities(self.labels)
        if self._has_entities:
            self.best_metric = BestMetric("f1", higher_is_better=True)
        return load_with_head(self, base, tokenizer, dtype=dtype, weights=weights, dropout=dropout)

    def encode(self, records: Iterable[Record], tokenizer: Any) -> TaggedSamples:
        """See `Task.encode`."""
        pieces = WordPieces(tokenizer, self.spec.hyperparameters.max_length)
        numbers = {tag: number for number, tag in enumerate(self.labels)}
        cuts, ids, tags, row_of = Cuts(), [], [], []
        for row, record in enumerate(records, 1):
            words, named = fields_of(record, row, "tokens", "tags")
            for tag in map(str, named):
                if tag not in numbers:
                    what = f"row {row}: no training row has the tag {tag!r}"
                    raise TrainingProblem("bad_data", what, f"The tags are {', '.join(self.labels)}.")
            parts = pieces.split(words)
            cuts.split += len(parts) > 1
            if not parts:
                cuts.unlearnt.append(row)
            row_of += [row] * len(parts)
            for part in parts:
                ids.append(part.ids)
                tags.append(part.at_words([numbers[str(tag)] for tag in named]))
        rows = joined(ids, cuts, self.spec.hyperparameters.max_length)
        return TaggedSamples(*rows, np.concatenate(tags), np.asarray(row_of))

    def collate(self, samples: TaggedSamples, chosen: Sequence[int]) -> TaggedBatch:
        """See `Task.collate`. The labels are those of the words, row by row; ``inputs`` has no other cells."""
        rows = samples.rows(chosen)
        labels = filled([samples.tags[samples.starts[i] : samples.starts[i + 1]] for i in chosen], PADDED)
        order = enumerate(sorted(range(len(chosen)), key=lambda place: chosen[place]))
        texts = itertools.groupby(order, lambda one: (samples.row_of[chosen[one[1]]], chosen[one[1]] - one[0]))
        return TaggedBatch(
            inputs=padded(rows, self.padding), labels=labels, tokens=sum(map(len, rows)),
            count=int((labels != PADDED).sum()),
            texts=tuple(tuple(place for _, place in pieces) for _, pieces in texts),
        )  # fmt: skip

    def forward(self, model: Any, batch: TaggedBatch) -> Sums:
        """See `Task.forward`."""
        kept = batch.labels != PADDED
        rows = rows_at_once(self.spec, kept.shape[1])
        logits = logits_in_parts(model, batch.inputs, rows)[kept]
        smoothing = self.spec.label_smoothing if model.training else 0.0
        loss, correct = summed_cross_entropy(logits, batch.labels[kept], smoothing)
        sums = [int(correct)]
        if self._has_entities:
            sums += self._entities(logits.detach(), batch, kept)
        return Sums(loss, torch.tensor(sums), batch.count)

    def _entities(self, logits: Tensor, batch: TaggedBatch, kept: Tensor) -> list[int]:
        sizes = kept.sum(1).tolist()
        predicted, actual = (torch.split(numbers.cpu(), sizes) for numbers in (logits.argmax(-1), batch.labels[kept]))
        found = [
            counts(*([self.labels[n] for place in text for n in rows[place].tolist()] for rows in (predicted, actual)))
            for text in batch.texts
        ]
        return [sum(column) for column in zip(*found, strict=True)]

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`."""
        correct, *spans = metric_sums
        found = {"loss": loss / max(1, count), "token_accuracy": correct / max(1, count)}
        if spans:
            right, predicted, actual = spans
            found |= {
                "precision": right / max(1, predicted), "recall": right / max(1, actual),
                "f1": 2 * right / max(1, predicted + actual),
            }  # fmt: skip
        return found


@dataclass(frozen=True)
class Piece:
    """Token ids of some words of a row."""

    ids: list[int]
    words: list[int | None]
    """For each token that is the first of a word: which word of the row."""

    def at_words(self, values: Sequence[int]) -> NDArray[np.int64]:
        """The words' values at their first tokens, and `PADDED` at the others."""
        return np.asarray([PADDED if word is None else values[word] for word in self.words], dtype=np.int64)


class WordPieces:
    """Encodes rows of words."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        check_fast(tokenizer, "words")
        # A space before a word makes it the token that it is in a text, unless the tokenizer adds the space itself.
        spaced = tokenizer(["a", " a"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
        self._lead = " " if spaced == tokenizer("a a", add_special_tokens=False)["input_ids"] else ""
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._room = max_length - tokenizer.num_special_tokens_to_add()

    def split(self, words: Sequence[str]) -> list[Piece]:
        """The row as one piece, or as several if it is too long. Words without any token are in no piece."""
        spaced = [word if place == 0 else f"{self._lead}{word}" for place, word in enumerate(words)]
        whole = self._piece(spaced, 0, cut=len(spaced) == 1)
        if len(whole.ids) <= self._max_length:
            return [whole] if any(word is not None for word in whole.words) else []
        sizes = [len(ids) for ids in self._tokenizer(spaced, add_special_tokens=False)["input_ids"]]
        pieces, first, used = [], 0, 0
        for place, size in enumerate([*sizes, self._room + 1]):
            if used and used + size > self._room:
                pieces.append(self._piece(spaced[first:place], first))
                first, used = place, 0
            used += size
        return pieces

    def _piece(self, words: list[str], first: int, *, cut: bool = True) -> Piece:
        limit = {"truncation": True, "max_length": self._max_length} if cut else {}
        encoded = self._tokenizer(words, is_split_into_words=True, verbose=False, **limit)
        seen: set[int | None] = {None}
        places: list[int | None] = []
        for word in encoded.word_ids():
            places.append(None if word in seen else first + word)
            seen.add(word)
        return Piece(list(encoded["input_ids"]), places)


class Tagger(Predictor):
    """A trained token classifier."""

    def read(self, given: Input) -> list[str]:
        """See `Predictor.read`. A text is split at spaces."""
        words = given.get("tokens") if isinstance(given, dict) else None
        if words is None:
            words = text_of(given, rows='"tokens" or "text"').split()
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise TrainingProblem("bad_data", '"tokens" is not a list of words')
        if not words:
            raise TrainingProblem("bad_data", "it has no words", "Enter at least one word.")
        return words

    def predict_batch(self, rows: Sequence[list[str]]) -> list[Prediction]:
        """The most likely tag of each word. A word without any token has the first tag, with the probability 0."""
        pieces = WordPieces(self.tokenizer, self.max_length)
        parts = [(number, piece) for number, words in enumerate(rows) for piece in pieces.split(words)]
        found: list[list[tuple[str, float]]] = [[(self._outside, 0.0)] * len(words) for words in rows]
        if parts:
            inputs = self.moved(padded([piece.ids for _, piece in parts], self.padding))
            logits = logits_in_parts(self.network, inputs, max(PART, len(rows)))
            scores, tags = torch.softmax(logits.float(), -1).max(-1)
            for place, (number, piece) in enumerate(parts):
                for cell, word in enumerate(piece.words):
                    if word is not None:
                        found[number][word] = (self.labels[int(tags[place, cell])], float(scores[place, cell]))
        return [_tagged(words, tags) for words, tags in zip(rows, found, strict=True)]

    @property
    def _outside(self) -> str:
        return "O" if "O" in self.labels else self.labels[0]


def _tagged(words: Sequence[str], tags: Sequence[tuple[str, float]]) -> Prediction:
    listed = tuple({"token": word, "tag": tag, "score": score} for word, (tag, score) in zip(words, tags, strict=True))
    return Prediction(" ".join(tag for tag, _ in tags), tags=listed)
