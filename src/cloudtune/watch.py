"""The only wait loop: watches a job until it ends, for every back end.

Waiting ends in one of eight ways: it returns (succeeded), or raises JobFailed, JobInterrupted, JobCancelled,
JobExpired, OutcomeUnknown, WaitTimeout (the job is still running, or paused) or LostContact. Leaving the loop early,
for example with Ctrl-C, does not affect the job. Time comes from the Clock; the delay grows while nothing changes, with
jitter.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cloudtune.errors import (
    BackendError,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobInterrupted,
    LostContact,
    OutcomeUnknown,
    RateLimited,
    TransientError,
    WaitTimeout,
)
from cloudtune.optional import capabilities_of
from cloudtune.state import Event, JobRef, JobSnapshot, JobState, Metric, Value, observed_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock

SHORTEST_POLL_S = 0.25
LONGEST_POLL_S = 15.0
QUIET_METRICS_S = 30.0
"""Minimum seconds between two requests for metrics while a job makes no visible progress."""
LOST_AFTER_S = 300.0
PAUSED_AFTER_S = 60.0


T = TypeVar("T")


class Pause(NamedTuple):
    """The time until the next poll. Who runs the loop sleeps: a thread, or asyncio's event loop."""

    seconds: float


class Update(Value, frozen=True, kw_only=True):
    """The result of one poll of a job. ``events`` and ``metrics`` contain only new ones."""

    snapshot: JobSnapshot
    events: tuple[Event, ...] = ()
    metrics: tuple[Metric, ...] = ()
    note: str = ""
    """Notices of the watch itself: a stall, lost contact, a reached cap."""

    @property
    def is_news(self) -> bool:
        """Whether anything except the time has changed."""
        return bool(self.events or self.metrics or self.note)


def sleeping(polls: Iterable[T | Pause], clock: Clock) -> Iterator[T]:
    """Yield the results of polls, and sleep in this thread for their pauses."""
    for poll in polls:
        if isinstance(poll, Pause):
            clock.sleep(poll.seconds)
        else:
            yield poll


def polls_of(
    backend: Backend,
    ref: JobRef,
    *,
    clock: Clock,
    timeout: float | None = None,
    stall_after: float | None = None,
    lost_after: float = LOST_AFTER_S,
    paused_after: float = PAUSED_AFTER_S,
    longest_poll: float = LONGEST_POLL_S,
    cap: Callable[[JobSnapshot], str | None] | None = None,
) -> Iterator[Update | Pause]:
    """Poll the job until it ends, yielding each poll's result and each pause; see the module for how it ends.

    ``timeout``, ``stall_after``, ``lost_after`` and ``paused_after`` are in seconds. ``cap`` may answer with a reason
    to stop the job; it is cancelled, and its end counts as expired.
    """
    state = _Watch(backend, ref, clock, stall_after=stall_after, lost_after=lost_after, cap=cap)
    start, pause = clock.monotonic(), SHORTEST_POLL_S
    while True:
        update = state.look()
        if update is not None:
            yield update
            if update.snapshot.has_ended:
                return conclude(update.snapshot, capped=state.capped)
            state.mind_the_pause(update.snapshot, paused_after)
            moved = min(max(SHORTEST_POLL_S, backend.capabilities.poll_s), longest_poll)
            pause = moved if update.is_news else min(pause * 1.4, longest_poll)
        else:
            pause = min(pause * 1.4, longest_poll)
        waited = clock.monotonic() - start
        if timeout is not None and waited >= timeout:
            raise WaitTimeout(
                f"timed out after {timeout:.0f} s; {ref} is still running",
                ref=ref, snapshot=state.last, hint=f"watch it again: cloudtune watch {ref}",
            )  # fmt: skip
        delay = max(pause, state.asked_to_wait) * (0.85 + 0.3 * random.random())  # noqa: S311 - jitter
        yield Pause(delay if timeout is None else max(min(delay, timeout - waited), 0.01))


def polls_of_many(
    look: Callable[[Sequence[JobRef]], Iterable[JobSnapshot]],
    refs: Sequence[JobRef],
    *,
    clock: Clock,
    timeout: float | None = None,
    lost_after: float = LOST_AFTER_S,
    shortest_poll: float = SHORTEST_POLL_S,
    longest_poll: float = LONGEST_POLL_S,
    repeat_after: float | None = None,
) -> Iterator[JobSnapshot | Pause]:
    """Yield each changed snapshot of many jobs, and each pause, until all have ended.

    The outcome of each job is in its snapshot.

    ``look`` reads all jobs that have not ended at once, so a back end with batch status needs few calls.
    ``shortest_poll`` is the polling interval in seconds while jobs change. With ``repeat_after``, a snapshot that has
    not changed for so many seconds is yielded again. Raises WaitTimeout with the first job that
    is still running, and LostContact after ``lost_after`` seconds without information about any job that has not
    ended.
    """
    open_refs, seen = list(dict.fromkeys(refs)), dict[JobRef, JobSnapshot]()
    shown_at: dict[JobRef, float] = {}
    start, pause = clock.monotonic(), SHORTEST_POLL_S
    answered_at = start
    while open_refs:
        changed = [snapshot for snapshot in look(open_refs) if seen.get(snapshot.ref) != snapshot]
        for snapshot in changed:
            seen[snapshot.ref], shown_at[snapshot.ref] = snapshot, clock.monotonic()
            yield snapshot
        for ref, at in shown_at.items():
            is_due = repeat_after is not None and clock.monotonic() - at >= repeat_after
            if is_due and not seen[ref].has_ended:
                shown_at[ref] = clock.monotonic()
                yield seen[ref]
        open_refs = [ref for ref in open_refs if ref not in seen or not seen[ref].has_ended]
        if not open_refs:
            return
        if any(seen[ref].native_state for ref in open_refs if ref in seen):
            answered_at = clock.monotonic()
        elif clock.monotonic() - answered_at >= lost_after:
            ref = open_refs[0]
            reason = seen[ref].detail if ref in seen else "no response"
            raise LostContact(f"{ref} no longer exists: {reason}", ref=ref, snapshot=seen.get(ref))
        waited = clock.monotonic() - start
        if timeout is not None and waited >= timeout:
            raise WaitTimeout(
                f"timed out after {timeout:.0f} s; {len(open_refs)} of {len(refs)} jobs are still running",
                ref=open_refs[0], snapshot=seen.get(open_refs[0]),
            )  # fmt: skip
        pause = max(SHORTEST_POLL_S, shortest_poll) if changed else min(pause * 1.4, longest_poll)
        delay = pause * (0.85 + 0.3 * random.random())  # noqa: S311 - jitter
        yield Pause(delay if timeout is None else max(min(delay, timeout - waited), 0.01))


def watch(backend: Backend, ref: JobRef, *, clock: Clock, **how: Any) -> Iterator[Update]:
    """Poll the job until it ends, as `polls_of`, and sleep in this thread between polls."""
    return sleeping(polls_of(backend, ref, clock=clock, **how), clock)


def conclude(snapshot: JobSnapshot, *, capped: str | None = None) -> None:
    """Return if the ended job succeeded, else raise the error of its end. The message is the vendor's."""
    ref, problem = snapshot.ref, snapshot.problem
    message = problem.message if problem else snapshot.detail or snapshot.native_state
    hint = problem.hint if problem else None
    match snapshot.state:
        case JobState.SUCCEEDED:
            return
        case JobState.EXPIRED:
            raise JobExpired(f"{ref} reached a limit and was stopped: {message}", ref=ref, snapshot=snapshot, hint=hint)
        case JobState.CANCELLED if capped:
            raise JobExpired(f"{ref} reached a limit and was stopped: {capped}", ref=ref, snapshot=snapshot, hint=hint)
        case JobState.CANCELLED:
            raise JobCancelled(f"{ref} was cancelled", ref=ref, snapshot=snapshot)
        case JobState.FAILED if problem and problem.interrupted:
            raise JobInterrupted(f"{ref} was interrupted: {message}", ref=ref, snapshot=snapshot, hint=hint)
        case JobState.FAILED:
            raise JobFailed(f"{ref} failed: {message}", ref=ref, snapshot=snapshot, hint=hint)
        case JobState.UNKNOWN if snapshot.has_ended:
            raise OutcomeUnknown(
                f"{ref} has ended in the state {snapshot.native_state!r}, which is not known to this cloudtune",
                ref=ref, snapshot=snapshot, hint=f"see what it left: cloudtune show {ref}",
            )  # fmt: skip
        case _:
            raise WaitTimeout(f"{ref} has not ended; its state is {snapshot.state}", ref=ref, snapshot=snapshot)


class _Watch:
    """The state of one loop between two polls."""

    def __init__(
        self,
        backend: Backend,
        ref: JobRef,
        clock: Clock,
        *,
        stall_after: float | None,
        lost_after: float,
        cap: Callable[[JobSnapshot], str | None] | None,
    ) -> None:
        self._backend, self._ref, self._clock = backend, ref, clock
        self._stall_after, self._lost_after, self._cap = stall_after, lost_after, cap
        self._event_cursor: str | None = None
        self._metric_cursor: str | None = None
        self._metrics_at: float | None = None
        self._moved_at = clock.monotonic()
        self._lost_since: float | None = None
        self._paused_since: float | None = None
        self._told_stall = False
        self._named_state: str | None = None
        self.last: JobSnapshot | None = None
        self.capped: str | None = None
        self.asked_to_wait = 0.0

    def look(self) -> Update | None:
        """Poll once; None if the back end did not respond. Raises LostContact when that lasts too long."""
        try:
            update = self._ask()
        except TransientError as error:
            self.asked_to_wait = (error.retry_after or 0.0) if isinstance(error, RateLimited) else 0.0
            return self._no_answer(error)
        self._lost_since, self.asked_to_wait = None, 0.0
        if update.events or update.metrics or self._has_moved(update.snapshot):
            self._moved_at, self._told_stall = self._clock.monotonic(), False
        self.last = update.snapshot
        note = self._unknown(update.snapshot) or self._stalled(update.snapshot) or self._enforce(update.snapshot)
        return Update(snapshot=update.snapshot, events=update.events, metrics=update.metrics, note=note)

    def _ask(self) -> Update:
        # The state is read before the events: an ended job has no later ones to miss.
        snapshot = self._backend.get(self._ref)
        events = tuple(events_of(self._backend, snapshot, self._event_cursor))
        metrics: tuple[Metric, ...] = ()
        if self._backend.capabilities.can("verb:metrics") and (events or self._may_have_metrics(snapshot)):
            metrics = tuple(self._backend.metrics(self._ref, self._metric_cursor))
            self._metrics_at = self._clock.monotonic()
        self._event_cursor = events[-1].cursor if events else self._event_cursor
        self._metric_cursor = metrics[-1].cursor if metrics else self._metric_cursor
        return Update(snapshot=snapshot, events=events, metrics=metrics)

    def _may_have_metrics(self, snapshot: JobSnapshot) -> bool:
        """Return whether to read metrics. It costs a request, so it is rare while a job makes no progress."""
        if self._metrics_at is None or snapshot.has_ended or self._has_moved(snapshot):
            return True
        return self._clock.monotonic() - self._metrics_at >= QUIET_METRICS_S

    def _has_moved(self, snapshot: JobSnapshot) -> bool:
        last = self.last
        return last is None or (last.native_state, last.detail, last.progress.step) != (
            snapshot.native_state, snapshot.detail, snapshot.progress.step,
        )  # fmt: skip

    def _no_answer(self, error: TransientError) -> Update | None:
        now = self._clock.monotonic()
        if self._lost_since is None:
            self._lost_since = now
        lost_s = now - self._lost_since
        if lost_s >= self._lost_after:
            raise LostContact(
                f"no response about {self._ref} for {lost_s:.0f} s: {error}",
                ref=self._ref, snapshot=self.last, hint=f"the job may still be running: cloudtune watch {self._ref}",
            ) from error  # fmt: skip
        return None

    def _unknown(self, snapshot: JobSnapshot) -> str:
        """Report a state unknown to this version, once."""
        word = snapshot.native_state
        if snapshot.state is not JobState.UNKNOWN or word == self._named_state:
            return ""
        self._named_state = word
        return (
            f"the state {word!r} is not known to this version of cloudtune; the wait ends when the job has an end time"
        )

    def _stalled(self, snapshot: JobSnapshot) -> str:
        still_s = self._clock.monotonic() - self._moved_at
        if self._stall_after is None or still_s < self._stall_after or self._told_stall:
            return ""
        if snapshot.state is not JobState.RUNNING:
            return ""
        self._told_stall = True
        step = snapshot.progress.step
        where = f"after step {step}" if step else "before the first step"
        return (
            f"stalled: {snapshot.native_state}, no progress for {still_s:.0f} s, {where}"
            + (f" ({snapshot.detail})" if snapshot.detail else "")
        )  # fmt: skip

    def _enforce(self, snapshot: JobSnapshot) -> str:
        if self._cap is None or self.capped or snapshot.has_ended:
            return ""
        reason = self._cap(snapshot)
        if not reason:
            return ""
        try:
            self._backend.cancel(self._ref)
        except TransientError:
            return ""  # retried at the next poll
        self.capped = reason
        return f"stopping the job: {reason}"

    def mind_the_pause(self, snapshot: JobSnapshot, paused_after: float) -> None:
        """Raise WaitTimeout when the job has been paused for so long that it does not resume by itself."""
        if snapshot.state is not JobState.PAUSED:
            self._paused_since = None
            return
        now = self._clock.monotonic()
        self._paused_since = now if self._paused_since is None else self._paused_since
        if now - self._paused_since >= paused_after:
            raise WaitTimeout(
                f"{self._ref} is paused and does not continue by itself",
                ref=self._ref, snapshot=snapshot, hint=f"resume it: cloudtune resume {self._ref}",
            )  # fmt: skip


def events_of(backend: Backend, snapshot: JobSnapshot, after: str | None) -> list[Event]:
    """The job's events after a cursor: the vendor's, or if it has none, those derived from the snapshot."""
    if capabilities_of(backend, snapshot.ref).can("verb:events"):
        try:
            return list(backend.events(snapshot.ref, after))
        except TransientError:
            raise
        except BackendError:
            if snapshot.has_ended:  # some vendors delete a job's events after some time; only its end matters
                return []
            raise
    return observed_events(snapshot, after)
