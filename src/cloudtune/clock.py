"""Time, injected: nothing in core calls ``time`` or ``datetime.now`` but through a Clock, so that no test sleeps."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Protocol

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def duration(text: str) -> float:
    """Seconds, from 90s, 45m, 1h30m or 2d; a bare number is seconds. Raises ValueError."""
    found = _DURATION.fullmatch(text.replace(" ", ""))
    if not found or not any(found.groups()):
        raise ValueError(f"{text!r} is not a duration; write 90s, 45m, 1h30m or 2d (a plain number is seconds)")
    return sum(float(n or 0) * unit for n, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


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
