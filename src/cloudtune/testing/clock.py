"""A clock for tests: sleeping takes no time and only advances the clock.

With ``path``, the time is stored in a small file and shared by several processes: if one sleeps, time advances for
all. A test can kill a submitting process and continue in the next one.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

START = datetime(2030, 1, 1, tzinfo=UTC)
_HANDS = struct.Struct("<dd")


class FakeClock:
    """Implements `cloudtune.clock.Clock`. Safe to use from several threads and, with ``path``, processes.

    ``patience`` limits the number of sleeps on one object: a loop that would wait forever raises RuntimeError
    instead of hanging the test.
    """

    def __init__(self, start: datetime = START, *, path: Path | None = None, patience: int = 20_000) -> None:
        self._lock = threading.RLock()
        self._start = start
        self._path = path
        self._hands = (0.0, 0.0)  # wall seconds since start, monotonic seconds
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._patience = patience
        self.sleeps: list[float] = []
        """The durations of sleeps on this object, in order."""
        if path is not None and not path.exists():
            path.write_bytes(_HANDS.pack(0.0, 0.0))

    def now(self) -> datetime:
        """See `Clock.now`."""
        with self._held() as (wall, _):
            return self._start + timedelta(seconds=wall)

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        with self._held() as (_, monotonic):
            return monotonic

    def sleep(self, seconds: float) -> None:
        """Advance both clocks, and record the duration in ``sleeps``. Refuses a negative duration, like time.sleep."""
        if seconds < 0:
            raise ValueError(f"sleep length must be non-negative, not {seconds}")
        with self._lock:
            self.sleeps.append(seconds)
            if len(self.sleeps) > self._patience:
                raise RuntimeError(f"the code under test has slept {self._patience} times: does its loop ever end?")
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Advance the time. Actions planned with `call_at` run meanwhile, each at its own time."""
        with self._held() as (wall, monotonic):
            goal = monotonic + seconds
            if not self._due or self._due[0][0] > goal:  # in one piece: each of several threads adds its seconds
                self._set(wall + seconds, goal)
                return
        while (action := self._next_due(goal)) is not None:
            action()
        with self._held() as (wall, monotonic):
            ahead = max(0.0, goal - monotonic)
            self._set(wall + ahead, monotonic + ahead)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards or backwards, as an administrator or NTP does; durations are not touched."""
        with self._held() as (wall, monotonic):
            self._set(wall + seconds, monotonic)

    def call_at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Run ``action`` after that many seconds, in the call that advances the clock. This process only."""
        with self._lock:
            self._due.append((self.monotonic() + delay_s, action))
            self._due.sort(key=lambda entry: entry[0])

    def _next_due(self, goal: float) -> Callable[[], None] | None:
        with self._held() as (wall, monotonic):
            if not self._due or self._due[0][0] > goal:
                return None
            moment, action = self._due.pop(0)
            ahead = max(0.0, moment - monotonic)
            self._set(wall + ahead, monotonic + ahead)
            return action

    @contextmanager
    def _held(self) -> Iterator[tuple[float, float]]:
        """The times, locked against other writers. Nested use in one thread must be through ``_set`` only."""
        with self._lock:
            if self._path is None:
                yield self._hands
                return
            descriptor = os.open(self._path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                found = self._hands = _HANDS.unpack(os.pread(descriptor, _HANDS.size, 0))
                yield found
                if self._hands != found:  # reading a clock writes nothing, so that it works on a full disk
                    os.pwrite(descriptor, _HANDS.pack(*self._hands), 0)
            finally:
                os.close(descriptor)

    def _set(self, wall: float, monotonic: float) -> None:
        self._hands = (wall, monotonic)
