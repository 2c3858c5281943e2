"""Clocks and counters of the loop: training time without pauses, sums since the last log line, remaining time."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Clock:
    """Training time, including the time before a resume, without pauses."""

    def __init__(self, before: float) -> None:
        self._before = before
        self._start = time.monotonic()

    def seconds(self) -> float:
        """The time so far."""
        return self._before + time.monotonic() - self._start

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """Exclude the time in this block."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._start += time.monotonic() - begin


class Meter:
    """Sums over the steps since the last log line, and the speed of steps."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.metric_sums: list[float] = []
        self.count = 0
        self.tokens = 0
        self.steps = 0
        self._busy = 0.0
        self._begin = 0.0
        self._pace: float | None = None

    def begin(self) -> None:
        """Begin a step."""
        self._begin = time.monotonic()

    def end(self, loss: float, metric_sums: Sequence[float], count: int, tokens: int) -> None:
        """End a step."""
        spent = time.monotonic() - self._begin
        self._busy += spent
        # later steps weigh more: the first one is slow
        self._pace = spent if self._pace is None else 0.9 * self._pace + 0.1 * spent
        self.loss += loss
        self.metric_sums = added(self.metric_sums, metric_sums)
        self.count += count
        self.tokens += tokens
        self.steps += 1

    def tokens_per_s(self) -> float:
        """The time since the last log line, without saving and evaluating."""
        return self.tokens / self._busy if self._busy > 0 else 0.0

    def left(self, steps: int) -> float | None:
        """The estimated seconds of that many steps."""
        return None if self._pace is None else round(self._pace * steps, 1)

    def clear(self) -> None:
        """Reset for a new log line."""
        self.loss, self.metric_sums, self.count, self.tokens, self.steps, self._busy = 0.0, [], 0, 0, 0, 0.0


def added(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Add sums element by element; an empty one adds nothing."""
    return [a + b for a, b in zip(one, other, strict=True)] if one else list(other)
