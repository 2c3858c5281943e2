"""Finds out within 200 steps that a model does not learn, and names the likeliest causes.

A model that has learned nothing does not predict better than a constant: the share of each label or token in the
training rows, for every input. A loss at that level that does not decrease is reported, and so are a model that
predicts the same for all rows, and a loss or gradients that grow.
"""

from __future__ import annotations

import math
from statistics import fmean, median, variance
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cloudtune_trainer.meters import added

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloudtune_trainer.samples import Samples

CHECKED_AT = 200
"""The step of the check; a shorter run is checked at its end."""
_FEWEST = 60
"""Steps of the shortest run that is checked."""
_WINDOW = 50
"""The last steps, over which predictions are counted."""
_CLOSE = 0.98
"""Losses above this share of the constant prediction's are at its level."""
_SURE = 3.0
"""Standard errors by which the mean loss must decrease."""
_CERTAIN = 5.0
"""The same for a loss that has grown, which is checked at every step."""
_GROWN = 3.0
"""Factor of the first loss, with which the last one has grown."""
_EXPLODED = 100.0
"""Factor of the median of the first gradient norms."""
_FIRST = 10
_DATA = "labels or transcripts that do not belong to their rows, inputs that do not show the answer"


@runtime_checkable
class Monitored(Protocol):
    """A task that knows what a model without knowledge does."""

    def constant_loss(self, samples: Samples) -> float | None:
        """The loss of the best prediction that does not depend on the input; None if it is unknown."""

    def collapsed(self, metric_sums: Sequence[float]) -> str | None:
        """What the model predicts for all rows, if it predicts the same; from the sums of several training steps."""


class LearningMonitor:
    """Watches the training steps of one run, from the first step on."""

    def __init__(self, task: object, samples: Samples, *, total_steps: int, learning_rate: float) -> None:
        self._task = task if isinstance(task, Monitored) else None
        self._constant = self._task.constant_loss(samples) if self._task is not None else None
        self._check_at = min(CHECKED_AT, total_steps) if total_steps >= _FEWEST else None
        self._rate = learning_rate
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._sums: list[Sequence[float]] = []
        self._said = False

    def step(self, loss: float, metric_sums: Sequence[float], norm: float) -> str | None:
        """Add a step with its mean loss. Returns a warning at most once."""
        if self._said or self._check_at is None or len(self._losses) >= self._check_at:
            return None
        self._losses.append(loss)
        self._norms.append(norm)
        self._sums = [*self._sums[1 - _WINDOW :], metric_sums]
        found = self._growing()
        if found is None and len(self._losses) == self._check_at:
            found = self._collapsed() or self._at_constant()
        self._said = found is not None
        return None if found is None else f"not learning: {found}"

    def _growing(self) -> str | None:
        """Whether the gradients or the loss have grown far above their first values."""
        causes = f"the likeliest cause is the learning rate, {self._rate:g}; lower it, or raise warmup_ratio"
        recent = fmean(self._losses[-_FIRST // 2 :])
        if (
            self._constant
            and len(self._losses) > _FIRST // 2
            and recent > _GROWN * max(self._losses[0], self._constant)
        ):
            return f"the loss has grown from {self._losses[0]:.3g} to {recent:.3g}; {causes}"
        if len(self._losses) < 3 * _FIRST:
            return None
        first, last = median(self._norms[:_FIRST]), median(self._norms[-_FIRST:])
        before, now = self._losses[:_FIRST], self._losses[-_FIRST:]
        begin, end = fmean(before), fmean(now)
        if end > (self._constant or 0.0) and _has_grown(before, now):
            return f"the loss has grown from {begin:.3g} to {end:.3g}; {causes}"
        if first > 0 and last > _EXPLODED * first and end >= begin:
            return f"the gradient norm has grown from {first:.3g} to {last:.3g}; {causes}"
        return None

    def _collapsed(self) -> str | None:
        total: Sequence[float] = []
        for sums in self._sums:
            total = added(total, sums)
        what = self._task.collapsed(total) if self._task is not None else None
        if what is None or self._decreases():
            return None
        return f"the model predicts {what} for all rows; the likeliest causes are {_DATA}, {self._of_rate()}"

    def _at_constant(self) -> str | None:
        if self._constant is None or self._decreases():
            return None
        last = fmean(self._losses[-len(self._losses) // 3 :])
        if last < _CLOSE * self._constant:
            return None
        level = f"the loss, {last:.3g}, is not below that of a constant prediction, {self._constant:.3g}"
        return f"{level}; the likeliest causes are {_DATA}, {self._of_rate()}, and layers that are frozen"

    def _of_rate(self) -> str:
        return f"a learning rate, {self._rate:g}, that is far too high or too low"

    def _decreases(self) -> bool:
        """Whether the last third of the losses is below the second third by more than chance."""
        third = len(self._losses) // 3
        middle, last = self._losses[third : 2 * third], self._losses[-third:]
        error = math.sqrt(variance(middle) / third + variance(last) / third)
        return fmean(middle) - fmean(last) > _SURE * error


def _has_grown(before: Sequence[float], now: Sequence[float]) -> bool:
    """Whether losses are several times those before, by more than chance: losses of single rows differ by factors."""
    if min(*before, *now) <= 0:
        return False
    old, new = ([math.log(loss) for loss in losses] for losses in (before, now))
    error = math.sqrt(variance(old) / len(old) + variance(new) / len(new))
    return fmean(new) - fmean(old) > max(math.log(_GROWN), _CERTAIN * error)


def entropy(counts: Iterable[float]) -> float:
    """The loss, in nats, of predicting each value with its share."""
    numbers = [count for count in counts if count > 0]
    total = math.fsum(numbers)
    return -math.fsum(count / total * math.log(count / total) for count in numbers) if total else 0.0
