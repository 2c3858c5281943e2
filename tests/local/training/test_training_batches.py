"""Packing and the order of the data: against naive references."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from cloudtune_trainer.batches import pack, parts_of, schedule_of
from cloudtune_trainer.optimizer import rate_at
from cloudtune_trainer.run_spec import Hyperparameters


def naive_best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        room = [(capacity - sum(lengths[j] for j in b), k) for k, b in enumerate(bins)]
        fitting = [entry for entry in room if entry[0] >= lengths[i]]
        if fitting:
            bins[min(fitting)[1]].append(i)
        else:
            bins.append([i])
    return bins


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 50))
def test_packing_is_best_fit(lengths: list[int], capacity: int) -> None:
    bins = pack(lengths, capacity)
    assert sorted(i for b in bins for i in b) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in b) <= capacity for b in bins)
    # which of several equally full bins is taken is free; how many bins it takes is not
    fills = sorted(sum(lengths[i] for i in b) for b in bins)
    assert fills == sorted(sum(lengths[i] for i in b) for b in naive_best_fit(lengths, capacity))


def test_packing_wastes_little_on_real_lengths() -> None:
    lengths = [5 + (i * 7919) % 120 for i in range(20_000)]
    bins = pack(lengths, 256)
    assert len(bins) * 256 < 1.02 * sum(lengths)


@given(st.integers(1, 40), st.integers(1, 8), st.floats(0.1, 4.0), st.integers(0, 5), st.none() | st.integers(1, 50))
def test_every_sample_once_an_epoch(samples: int, batch: int, epochs: float, seed: int, max_steps: int | None) -> None:
    schedule = schedule_of(
        [3] * samples, batch_size=batch, capacity=3, packing=False, epochs=epochs, max_steps=max_steps, seed=seed
    )
    per_epoch = math.ceil(samples / batch)
    assert schedule.total_steps == (max_steps or max(1, math.ceil(epochs * per_epoch - 1e-9)))
    for epoch in range(2):
        seen = [s for step in range(per_epoch) for (s,) in schedule.sequences_of(epoch * per_epoch + step)]
        assert sorted(seen) == list(range(samples))


@given(st.lists(st.integers(1, 90), min_size=1, max_size=300), st.integers(1, 8), st.integers(0, 5))
def test_grouped_rows_are_all_seen_once_an_epoch(lengths: list[int], batch: int, seed: int) -> None:
    schedules = [schedule_of(lengths, batch_size=batch, capacity=90, packing=False, epochs=2, max_steps=None, seed=seed,
                             group_by_length=grouped) for grouped in (True, False)]  # fmt: skip
    assert schedules[0].total_steps == schedules[1].total_steps
    for epoch in range(2):
        steps = [[schedule.sequences_of(epoch * schedule.steps_per_epoch + step)
                  for step in range(schedule.steps_per_epoch)] for schedule in schedules]  # fmt: skip
        assert [len(step) for step in steps[0]] == [len(step) for step in steps[1]]
        assert sorted(i for step in steps[0] for (i,) in step) == list(range(len(lengths)))


def test_grouped_rows_need_less_padding() -> None:
    lengths = [5 + (i * 7919) % 120 for i in range(2_000)]

    def padded(*, grouped: bool) -> list[int]:
        found = schedule_of(lengths, batch_size=8, capacity=128, packing=False, epochs=1, max_steps=None, seed=3,
                            group_by_length=grouped)  # fmt: skip
        steps = [found.sequences_of(step) for step in range(found.total_steps)]
        return [max(lengths[i] for (i,) in step) * len(step) for step in steps]

    assert sum(padded(grouped=False)) > 1.5 * sum(lengths)
    assert sum(padded(grouped=True)) < 1.05 * sum(lengths)
    widths = padded(grouped=True)
    assert widths != sorted(widths), "steps are in random order"
    assert widths == padded(grouped=True)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def orders(seed: int) -> list[list[tuple[int, ...]]]:
        schedule = schedule_of([1] * 50, batch_size=50, capacity=1, packing=False, epochs=2, max_steps=None, seed=seed)
        return [schedule.sequences_of(1), schedule.sequences_of(0)]

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)
    assert orders(1)[0] != orders(1)[1]


@given(st.integers(1, 30), st.integers(1, 40))
def test_parts_are_even_and_never_empty(count: int, parts: int) -> None:
    split = parts_of([(i,) for i in range(count)], parts)
    assert [s for part in split for (s,) in part] == list(range(count))
    sizes = [len(part) for part in split]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


def test_rates() -> None:
    linear = Hyperparameters(learning_rate=1.0, scheduler="linear", warmup_steps=4)
    rates = [rate_at(step, 14, linear) for step in range(14)]
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert math.isclose(rates[-1], 0.1)
    cosine = Hyperparameters(learning_rate=1.0, scheduler="cosine", warmup_ratio=0.0)
    assert math.isclose(rate_at(5, 10, cosine), 0.5)
    constant = Hyperparameters(learning_rate=1.0, scheduler="constant", warmup_ratio=0.1)
    assert [rate_at(step, 10, constant) for step in (0, 1, 9)] == [0.5, 1.0, 1.0]
