"""Time, injected: nothing in core calls ``time`` or ``datetime.now`` but through a Clock, so that no test sleeps."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where core gets its time."""

    def now(self) -> datetime:
        """The wall clock, timezone-aware UTC; it may jump."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; for durations."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        time.sleep(seconds)
