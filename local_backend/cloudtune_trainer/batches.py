"""The assignment of samples to optimizer steps.

Pure functions of the lengths and the seed: the step number determines the samples, so that a resumed run uses exactly
the same samples as an uninterrupted one.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_WINDOW = 32
"""Steps whose sequences are sorted by length together."""


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Fill bins of ``capacity`` tokens with samples, longest first, each into the fullest bin with enough space."""
    bins: list[list[int]] = []
    spaces: list[int] = []  # distinct free spaces, ascending
    by_space: dict[int, list[int]] = {}
    for sample in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[sample]
        place = bisect_left(spaces, length)
        if place == len(spaces):
            target, space = len(bins), capacity
            bins.append([])
        else:
            space = spaces[place]
            target = by_space[space].pop()
            if not by_space[space]:
                del by_space[space], spaces[place]
        bins[target].append(sample)
        left = space - length
        if left > 0:
            if left not in by_space:
                insort(spaces, left)
                by_space[left] = []
            by_space[left].append(target)
    return bins


@dataclass(frozen=True)
class Schedule:
    """The order of the sequences over the whole run."""

    sequences: tuple[tuple[int, ...], ...]
    """Samples of each sequence: one, or several if packed."""
    batch_size: int
    seed: int
    total_steps: int
    repeats: int = 1
    """How many consecutive steps use the same sequences."""
    lengths: tuple[int, ...] | None = None
    """The length of each sequence, if those of a step have similar lengths."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass; the last one of a pass may be smaller."""
        return math.ceil(len(self.sequences) / self.batch_size) * self.repeats

    def epoch_at(self, step: int) -> float:
        """Completed passes after that many steps."""
        return step / self.steps_per_epoch

    def sequences_of(self, step: int) -> list[tuple[int, ...]]:
        """The sequences of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        place //= self.repeats
        order = self._order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        return [self.sequences[i] for i in order]

    def _order(self, epoch: int) -> list[int]:
        cached = self.__dict__.get("_last")
        if cached is None or cached[0] != epoch:
            random = np.random.default_rng((self.seed, epoch))
            order = random.permutation(len(self.sequences)).tolist()
            if self.lengths is not None:
                order = _grouped(order, self.lengths, self.batch_size, random)
            cached = (epoch, order)
            object.__setattr__(self, "_last", cached)  # the caller uses one pass at a time
        return cached[1]  # type: ignore[no-any-return]


def _grouped(order: list[int], lengths: Sequence[int], size: int, random: np.random.Generator) -> list[int]:
    """The order with sequences of similar length in one step: `_WINDOW` steps at a time are sorted by length.

    The steps are shuffled again. The last one stays, because it may be smaller.
    """
    window = size * _WINDOW
    parts = [sorted(order[at : at + window], key=lambda i: -lengths[i]) for at in range(0, len(order), window)]
    steps = [part[at : at + size] for part in parts for at in range(0, len(part), size)]
    shuffled = [steps[i] for i in random.permutation(len(steps) - 1).tolist()] + steps[-1:]
    return [i for step in shuffled for i in step]


def schedule_of(
    lengths: Sequence[int],
    *,
    batch_size: int,
    capacity: int,
    packing: bool,
    epochs: float,
    max_steps: int | None,
    seed: int,
    repeats: int = 1,
    group_by_length: bool = False,
) -> Schedule:
    """Plan the whole run. ``max_steps`` overrides ``epochs``. Packed sequences are not grouped."""
    bins = pack(lengths, capacity) if packing else [[i] for i in range(len(lengths))]
    sequences = tuple(tuple(samples) for samples in bins)
    grouped = tuple(lengths) if group_by_length and not packing else None
    whole = Schedule(sequences, batch_size, seed, 1, repeats, grouped)
    steps = max_steps if max_steps is not None else math.ceil(epochs * whole.steps_per_epoch - 1e-9)
    return replace(whole, total_steps=max(1, steps))


def chunks_of(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Batches of all samples, grouped by similar length, each within ``token_budget`` tokens; longest first."""
    chunks: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        # counted as padded rows, as the fallback layout needs
        if not chunks or longest * (len(chunks[-1]) + 1) > token_budget:
            chunks.append([])
            longest = lengths[index]
        chunks[-1].append(index)
    return chunks


def parts_of(sequences: Sequence[tuple[int, ...]], parts: int) -> list[list[tuple[int, ...]]]:
    """Split a step's sequences into even, non-empty parts; no part if there is no sequence."""
    if not sequences:
        return []
    parts = min(parts, len(sequences))
    bounds = [round(i * len(sequences) / parts) for i in range(parts + 1)]
    return [list(sequences[a:b]) for a, b in itertools.pairwise(bounds)]
