"""The emulator's clock: the machine's time, scaled; or paused until a test advances it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloudtune.clock import SystemClock

if TYPE_CHECKING:
    from cloudtune.clock import Clock


class EmulatorClock:
    """Seconds since 1970, at an adjustable rate. Tests can advance it.

    ``base`` is the underlying clock: with a test's fake clock, the client's sleeps advance this clock too. ``scale`` is
    the number of seconds that pass in one second of the base; 0 pauses the clock.
    """

    def __init__(self, base: Clock | None = None, *, scale: float = 1.0) -> None:
        self._base: Clock = base or SystemClock()
        self._lock = threading.Lock()
        self._scale = scale
        self._mark = self._base.monotonic()
        self._time = self._base.now().timestamp()

    def now(self) -> float:
        """The current time."""
        with self._lock:
            return self._read()

    def _read(self) -> float:
        mark = self._base.monotonic()
        self._time += (mark - self._mark) * self._scale
        self._mark = mark
        return self._time

    def advance(self, seconds: float) -> float:
        """Advance the clock, and return the new time."""
        if seconds < 0:
            raise ValueError(f"the clock cannot go backwards: {seconds}")
        with self._lock:
            self._read()
            self._time += seconds
            return self._time

    def reach(self, moment: float) -> None:
        """Advance to that time if it is later: a restarted server continues from its time at shutdown."""
        with self._lock:
            self._time = max(self._read(), moment)

    @property
    def scale(self) -> float:
        """Seconds here in one second of the base."""
        return self._scale

    @scale.setter
    def scale(self, scale: float) -> None:
        if scale < 0:
            raise ValueError(f"the time scale must be zero or more, not {scale}")
        with self._lock:
            self._read()
            self._scale = scale

    def date(self) -> datetime:
        """``now`` as a date."""
        return datetime.fromtimestamp(self.now(), UTC)
