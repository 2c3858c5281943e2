"""Injected time: core uses ``time`` and ``datetime.now`` only through a Clock, so tests never sleep."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Protocol

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def duration(text: str) -> float:
    """Parse 90s, 45m, 1h30m or 2d to seconds. A plain number is seconds. Raises ValueError."""
    found = _DURATION.fullmatch(text.replace(" ", ""))
    if not found or not any(found.groups()):
        raise ValueError(f"{text!r} is not a duration; write 90s, 45m, 1h30m or 2d (a plain number is seconds)")
    return sum(float(n or 0) * unit for n, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


class Clock(Protocol):
    """The source of time in core."""

    def now(self) -> datetime:
        """Return the wall-clock time, timezone-aware UTC. It can jump."""

    def monotonic(self) -> float:
        """Return seconds that never decrease, for durations."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The system's time."""

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        time.sleep(seconds)
