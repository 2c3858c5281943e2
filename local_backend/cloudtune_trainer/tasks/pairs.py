"""Pairs of answers as token ids: both sides of a pair, the chosen one first, in the flat arrays of `Samples`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rendering import Rendered, Renderer
from cloudtune_trainer.samples import Cuts, Samples, nothing_left, rendered, starts_of
from cloudtune_trainer.token_spans import Encoded, SpanEncoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cloudtune_trainer.records import Record

SIDES = ("chosen", "rejected")
"""The fields of a pair's answers."""
_BATCH = 500

Answer = tuple["NDArray[np.int32]", "NDArray[np.bool_]"]
"""Token ids of a prompt with its answer, and the mask of the trained tokens."""


@dataclass(frozen=True)
class Pairs(Samples):
    """A sample is a pair: ``ids[starts[i]:middles[i]]`` is chosen, ``ids[middles[i]:starts[i + 1]]`` is rejected."""

    middles: NDArray[np.int64]
    reference: NDArray[np.float32] | None = None
    """[pairs, 2]: log-probabilities of both answers by the initial weights, once computed."""

    def sides(self, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The start and the end of both sequences of a pair."""
        begin, middle, end = int(self.starts[index]), int(self.middles[index]), int(self.starts[index + 1])
        return (begin, middle), (middle, end)

    def with_reference(self, values: NDArray[np.float32]) -> Pairs:
        """The same pairs with their log-probabilities by the initial weights."""
        return replace(self, reference=values)


class _Collector:
    """Adds pairs one by one. The prompt is kept and the answers are cut; a pair without both answers is dropped."""

    def __init__(self, max_length: int) -> None:
        self._max = max_length
        self._ids: list[NDArray[np.int32]] = []
        self._learn: list[NDArray[np.bool_]] = []
        self.cuts = Cuts()

    def add(self, row: int, sides: Sequence[Answer]) -> None:
        """Add a pair, or record it in the cuts."""
        ids, learn = [side[0] for side in sides], [side[1] for side in sides]
        kept = [part[: self._max] for part in learn]
        left = [part[: self._max] for part in ids]
        if not all(part.any() for part in learn) or np.array_equal(ids[0], ids[1]):
            self.cuts.unlearnt.append(row)
            return
        self.cuts.lost_tokens += int(sum(a.sum() - b.sum() for a, b in zip(learn, kept, strict=True)))
        if not all(part.any() for part in kept) or np.array_equal(left[0], left[1]):
            self.cuts.dropped.append(row)
            return
        if any(len(part) > self._max for part in ids):
            self.cuts.truncated.append(row)
        self._ids += left
        self._learn += kept

    def finish(self) -> Pairs:
        """All pairs. Raises `TrainingProblem` if none is left."""
        if not self._ids:
            raise nothing_left(self.cuts, self._max)
        self.cuts.unlearnt.sort()
        bounds = starts_of(self._ids)
        return Pairs(
            np.concatenate(self._ids), np.concatenate(self._learn), bounds[0::2].copy(), self.cuts, bounds[1::2].copy()
        )


def encode_pairs(records: Iterable[Record], tokenizer: Any, *, loss_on: str, max_length: int) -> Pairs:
    """Tokens of all pairs, in a single pass over the records. Only the answers are trained on."""
    collector = _Collector(max_length)
    for row, _, sides in encoded_answers(records, tokenizer, SIDES, collector.cuts, loss_on=loss_on):
        collector.add(row, sides)
    return collector.finish()


def encoded_answers(
    records: Iterable[Record], tokenizer: Any, names: tuple[str, ...], cuts: Cuts, *, loss_on: str
) -> Iterator[tuple[int, Record, list[Answer]]]:
    """Each row's number and record, and its prompt with each of the answers in the fields ``names``.

    A row with an answer that has no trained tokens is left out, and recorded in the cuts.
    """
    renderer, spans = Renderer(tokenizer, loss_on=loss_on), SpanEncoder(tokenizer)
    left, first = iter(records), 0
    while chunk := list(itertools.islice(left, _BATCH)):
        rows, texts = [], []
        for row, record in enumerate(chunk, first + 1):
            sides = [_side(renderer, record, name, names, row, cuts) for name in names]
            if None in sides:
                cuts.unlearnt.append(row)
            else:
                rows.append((row, record))
                texts += sides
        encoded = spans.encode([text for text in texts if text is not None])
        for row, record in rows:
            yield row, record, [_answer(next(encoded)) for _ in names]
        first += len(chunk)


def _side(
    renderer: Renderer, record: Record, name: str, names: tuple[str, ...], row: int, cuts: Cuts
) -> Rendered | None:
    """The prompt with one of its answers, or None if no token of the answer is trained on."""
    if name not in record:
        kind = "a preference pair" if names == SIDES else "a rated answer"
        required = " and ".join(f'"{one}"' for one in names)
        raise TrainingProblem("bad_data", f'row {row}: {kind} requires "messages", {required}')
    prompt_messages = [message | {"weight": 0} for message in record["messages"]]
    samples = rendered(renderer, {**record, "messages": [*prompt_messages, *record[name]]}, cuts, row=row)
    if len(samples) > 1:
        raise TrainingProblem(
            "bad_data",
            f"row {row}: the chat template rewrites earlier turns, so an answer of several turns is not one sequence",
            "Use loss_on: last_assistant, or answers of one turn.",
        )
    return samples[0] if samples else None


def _answer(encoded: Encoded) -> Answer:
    ids, ranges = encoded
    found = np.zeros(len(ids), dtype=np.bool_)
    for begin, end in ranges:
        found[begin:end] = True
    found[:1] = False
    return np.asarray(ids, dtype=np.int32), found
