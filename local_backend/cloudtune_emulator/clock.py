"""The emulator's own time: the machine's, scaled; or standing still until a test moves it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloudtune.clock import SystemClock

if TYPE_CHECKING:
    from cloudtune.clock import Clock


class EmulatorClock:
    """Seconds since 1970 that may run faster than the world, or be moved by hand.

    ``base`` is where time comes from: with a test's fake clock in it, what the client sleeps passes here too. ``scale``
    is how many seconds pass in one of the base's; 0 stands still.
    """

    def __init__(self, base: Clock | None = None, *, scale: float = 1.0) -> None:
        self._base: Clock = base or SystemClock()
        self._lock = threading.Lock()
        self._scale = scale
        self._mark = self._base.monotonic()
        self._time = self._base.now().timestamp()

    def now(self) -> float:
        """What time it is here."""
        with self._lock:
            return self._read()

    def _read(self) -> float:
        mark = self._base.monotonic()
        self._time += (mark - self._mark) * self._scale
        self._mark = mark
        return self._time

    def advance(self, seconds: float) -> float:
        """Let that much time pass at once, and say what time it is then."""
        if seconds < 0:
            raise ValueError(f"the clock cannot go backwards: {seconds}")
        with self._lock:
            self._read()
            self._time += seconds
            return self._time

    def reach(self, moment: float) -> None:
        """Be no earlier than that: a server that comes back goes on from the time at which it went down."""
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
