"""Intervals and tests: worked examples, and their error rates in simulations."""

from __future__ import annotations

import numpy as np
import pytest

from cloudtune.evaluation import statistics
from cloudtune.evaluation.statistics import Groups, holm, interval, matched_shares, mcnemar, permutation, wilson

SIMULATIONS = 2000


def mean_of(rows):
    return lambda weights: weights @ rows / weights.sum(axis=1)


def values_of(measure, groups, seed, samples):
    return np.concatenate([measure(weights) for weights in groups.samples(samples, seed)])


def covered(draw, names, truth, samples=400, simulations=SIMULATIONS):
    """The share of simulations whose interval has the true value."""
    random, groups, hits = np.random.default_rng(7), Groups(names), 0
    for number in range(simulations):
        measure = mean_of(draw(random))
        found = interval(measure, groups, values_of(measure, groups, number, samples))
        hits += found.low <= truth <= found.high
    return hits / simulations


def test_intervals_of_a_mean_cover_the_truth() -> None:
    assert 0.93 <= covered(lambda random: random.beta(0.5, 1.0, 60), range(60), 1 / 3) <= 0.97


def clustered(random):
    return np.repeat(random.normal(0, 1, 30), 4) + random.normal(0, 1, 120)


def test_intervals_of_grouped_rows_cover_the_truth() -> None:
    assert 0.93 <= covered(clustered, np.repeat(np.arange(30), 4).tolist(), 0.0) <= 0.97


def test_ignoring_groups_makes_intervals_too_narrow() -> None:
    assert covered(clustered, range(120), 0.0, simulations=200) < 0.85


@pytest.mark.parametrize(("share", "rows"), [(0.5, 40), (0.9, 60), (0.97, 200), (0.7, 300)])
def test_intervals_of_a_share_cover_the_truth(share: float, rows: int) -> None:
    drawn = np.random.default_rng(1).binomial(rows, share, SIMULATIONS)
    found = [wilson(int(one), rows) for one in drawn]
    assert 0.93 <= np.mean([one.low <= share <= one.high for one in found]) <= 0.97


@pytest.mark.parametrize(("gained", "lost", "rows"), [(0.2, 0.1, 100), (0.15, 0.15, 60), (0.4, 0.05, 200)])
def test_intervals_of_matched_shares_cover_the_truth(gained: float, lost: float, rows: int) -> None:
    drawn = np.random.default_rng(2).multinomial(rows, [gained, lost, 1 - gained - lost], SIMULATIONS)
    found = [matched_shares(int(one[0]), int(one[1]), rows) for one in drawn]
    assert 0.93 <= np.mean([one.low <= gained - lost <= one.high for one in found]) <= 0.97


def test_equal_models_are_rarely_called_different() -> None:
    random, groups, p_values = np.random.default_rng(3), Groups(range(40)), []
    for number in range(SIMULATIONS):
        ability = random.normal(0, 1, 40)
        gap = random.normal(0, 1, 40) + ability - random.normal(0, 1, 40) - ability
        p_values.append(permutation(lambda swapped, gap=gap: ((1 - 2 * swapped) * gap).mean(axis=1), groups,
                                    seed=number, samples=199))  # fmt: skip
    assert 0.03 <= np.mean(np.array(p_values) < 0.05) <= 0.06  # both directions: "helped" is half of it
    counts = random.multinomial(80, [0.15, 0.15, 0.7], SIMULATIONS)
    assert np.mean([mcnemar(int(one[0]), int(one[1])) < 0.05 for one in counts]) <= 0.05


@pytest.mark.parametrize(("gained", "lost", "p_value"), [
    (15, 4, 0.0192108154296875), (2, 8, 0.109375), (0, 6, 0.03125), (7, 7, 1.0), (40, 22, 0.030015864349067285),
    (0, 0, 1.0),
])  # fmt: skip
def test_mcnemar_equals_statsmodels(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p_value, abs=1e-12)  # 0.15, exact=True


def test_permutation_equals_scipy() -> None:
    # Hollander and Wolfe (1973), page 29: depression before and after therapy. scipy 1.17, all permutations.
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])

    def difference(swapped):
        return ((1 - 2 * swapped) * (before - after)).mean(axis=1)

    assert permutation(difference, Groups(range(9)), seed=0) == pytest.approx(0.02734375)
    assert permutation(difference, Groups(range(9)), seed=0, samples=500) == pytest.approx(0.02734375, abs=0.02)


def test_holm_equals_statsmodels() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@pytest.mark.parametrize(("successes", "rows", "low", "high"), [
    (81, 263, 0.2552885198782742, 0.36620957698280004),  # Newcombe (1998), table I
    (15, 148, 0.06238639953073628, 0.16048724172330803),
    (0, 20, 0.0, 0.1611251580528194),
    (20, 20, 0.8388748419471804, 1.0),
])  # fmt: skip
def test_wilson_equals_statsmodels(successes: int, rows: int, low: float, high: float) -> None:
    assert wilson(successes, rows)[1:] == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706205), (2, 4.302653), (5, 2.570582), (9, 2.262157), (39, 2.022691), (199, 1.971957)],
)
def test_t_quantiles_equal_scipy(freedom: int, quantile: float) -> None:
    assert statistics.t_quantile(0.975, freedom) == pytest.approx(quantile, abs=2e-3)


def test_the_detectable_difference_has_the_promised_power() -> None:
    random, rows, error = np.random.default_rng(5), 200, 1 / np.sqrt(200)
    limit = statistics.detectable(error, rows, None)
    assert limit is not None
    means = random.normal(limit, error, 4000)
    assert np.mean(np.abs(means) / error > 1.96) == pytest.approx(0.8, abs=0.02)
    assert statistics.detectable(0.0, 100, 1.0) == 0.06
    assert mcnemar(6, 0) < 0.05 < mcnemar(5, 0)
    assert statistics.detectable(0.0, 5, 1.0) is None
    assert statistics.detectable(0.0, 100, None) is None


def test_the_same_seed_draws_the_same_samples() -> None:
    groups, measure = Groups(range(50)), mean_of(np.random.default_rng(0).random(50))
    first, second, other = (interval(measure, groups, values_of(measure, groups, seed, 500)) for seed in (1, 1, 2))
    assert first == second != other
