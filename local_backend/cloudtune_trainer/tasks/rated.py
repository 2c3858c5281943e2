"""Rated answers as token ids, each beside the same prompt with another row's answer, in the arrays of `Pairs`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.samples import Cuts, nothing_left, starts_of
from cloudtune_trainer.tasks.pairs import Pairs, encoded_answers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from cloudtune_trainer.records import Record


@dataclass(frozen=True, kw_only=True)
class RatedSamples(Pairs):
    """A sample has two sides: the prompt with its rated answer, and the prompt with another row's answer."""

    desirable: NDArray[np.bool_]
    """Whether the answer is rated good."""


def rating(record: Record, row: int) -> bool:
    """The rating of a row. Raises `TrainingProblem` that names the row."""
    label = record.get("label")
    if not isinstance(label, bool) or "completion" not in record:
        what = f'row {row}: a rated answer requires "messages", "completion", and "label", which is true or false'
        raise TrainingProblem("bad_data", what)
    return label


def encode_rated(records: Iterable[Record], tokenizer: Any, *, loss_on: str, max_length: int) -> RatedSamples:
    """Tokens of all rows, in a single pass over the records. Only the answers are trained on.

    Prompts are kept and answers are cut at ``max_length``; a row without any token of its answer is dropped.
    """
    cuts = Cuts()
    prompts: list[NDArray[np.int32]] = []
    answers: list[tuple[NDArray[np.int32], NDArray[np.bool_]]] = []
    ratings = []
    for row, record, [(ids, learn)] in encoded_answers(records, tokenizer, ("completion",), cuts, loss_on=loss_on):
        desirable = rating(record, row)
        if not learn.any():
            cuts.unlearnt.append(row)
            continue
        if not learn[:max_length].any():
            cuts.dropped.append(row)
            continue
        if len(ids) > max_length:
            cuts.truncated.append(row)
            cuts.lost_tokens += int(learn[max_length:].sum())
        begin = int(learn.argmax())
        prompts.append(ids[:begin])
        answers.append((ids[begin:max_length], learn[begin:max_length]))
        ratings.append(desirable)
    if not prompts:
        raise nothing_left(cuts, max_length)
    cuts.unlearnt.sort()
    ids_of_sides, learn_of_sides = [], []
    for prompt, own, partner in zip(prompts, answers, _partners(prompts), strict=True):
        for answer, learnt in (own, answers[partner]):
            ids_of_sides.append(np.concatenate([prompt, answer])[:max_length])
            learn_of_sides.append(np.concatenate([np.zeros(len(prompt), dtype=np.bool_), learnt])[:max_length])
    bounds = starts_of(ids_of_sides)
    return RatedSamples(
        np.concatenate(ids_of_sides), np.concatenate(learn_of_sides), bounds[0::2].copy(), cuts, bounds[1::2].copy(),
        desirable=np.asarray(ratings),
    )  # fmt: skip


def _partners(prompts: Sequence[NDArray[np.int32]]) -> list[int]:
    """For each row, the previous row with another prompt, or the previous row if all prompts are equal.

    The first row follows the last one.
    """
    count = len(prompts)
    different = [not np.array_equal(prompts[i], prompts[i - 1]) for i in range(count)]
    if not any(different[1:]):
        return [(i - 1) % count for i in range(count)]
    found = [next(i for i in range(count - 1, 0, -1) if not np.array_equal(prompts[i], prompts[0]))]
    for i in range(1, count):
        found.append(i - 1 if different[i] else found[-1])
    return found
