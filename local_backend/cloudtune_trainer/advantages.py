"""Advantages of sampled completions: how much better each is than expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_EPSILON = 1e-4
"""Added to a group's standard deviation: completions with equal rewards have an advantage of 0."""


def group_advantages(rewards: Floats, *, scaled: bool) -> Floats:
    """Rewards [groups, completions] minus their group's mean; ``scaled``: divided by its standard deviation.

    arxiv.org/abs/2402.03300, section 4.1.2. The deviation is that of a sample (n - 1), as in trl.
    """
    centered: Floats = rewards - rewards.mean(1, keepdims=True)
    if scaled:
        centered /= rewards.std(1, ddof=1, keepdims=True) + _EPSILON
    return centered


def generalized_advantages(
    rewards: Floats, values: Floats, bounds: NDArray[np.int64], *, discount: float, decay: float
) -> Floats:
    """Advantages of all tokens from rewards and values of each: arxiv.org/abs/1506.02438, equation 16.

    Completion i is ``bounds[i]:bounds[i + 1]``; nothing has a value after its last token.
    """
    following = np.append(values[1:], 0.0)
    following[bounds[1:] - 1] = 0.0
    errors = rewards + discount * following - values
    found, last = np.empty_like(errors), set((bounds[1:] - 1).tolist())
    carried = 0.0
    for place in range(len(errors) - 1, -1, -1):
        carried = errors[place] + (0.0 if place in last else discount * decay * carried)
        found[place] = carried
    return found


def leave_one_out_advantages(rewards: Floats) -> Floats:
    """Rewards [groups, completions] minus the mean of the group's other rewards: arxiv.org/abs/2402.14740."""
    count = rewards.shape[1]
    centered: Floats = rewards - rewards.mean(1, keepdims=True)
    centered *= count / (count - 1)
    return centered
