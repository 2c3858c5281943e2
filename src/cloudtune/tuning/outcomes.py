"""How a trial has ended, from its job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.ledger.trials import Outcome
from cloudtune.state import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cloudtune.spec_tune import Tune
    from cloudtune.state import JobSnapshot


def outcome_of(
    job: JobSnapshot, curve: Sequence[tuple[int, float]], pruned_at: int | None, tune: Tune, now: datetime, *,
    is_out_of_time: bool,
) -> Outcome:  # fmt: skip
    """The outcome of a trial whose job has ended.

    Args:
        job: The job.
        curve: The values of the metric by step.
        pruned_at: The position of the curve at which it was pruned, or None.
        tune: The search.
        now: The time.
        is_out_of_time: Whether the search has cancelled its jobs because the time was over.
    """
    known: dict[str, Any] = {"ref": str(job.ref), "seconds": run_time(job, now)}
    if pruned_at is not None:
        # Whether the job ended before it was cancelled is a matter of timing, so it does not count.
        return Outcome(state="pruned", value=curve[pruned_at][1], curve=tuple(curve[: pruned_at + 1]), **known)
    if job.state is JobState.CANCELLED and is_out_of_time:
        return Outcome(state="stopped", curve=tuple(curve), **known)
    if job.state not in (JobState.SUCCEEDED, JobState.EXPIRED):
        return Outcome(state="failed", message=_why(job), **known)
    if not curve:
        message = f"the job reports no {tune.metric!r} on validation rows"
        return Outcome(state="failed", message=message, **known)
    choose = min if tune.minimizes else max
    return Outcome(state="complete", value=choose(value for _, value in curve), curve=tuple(curve), **known)


def run_time(job: JobSnapshot, now: datetime) -> float:
    """For how many seconds a job has run."""
    start = job.started_at or (None if job.state is JobState.QUEUED else job.created_at)
    return 0.0 if start is None else max(0.0, ((job.finished_at or now) - start).total_seconds())


def _why(job: JobSnapshot) -> str:
    if job.problem is not None:
        return job.problem.message
    return "the job was cancelled" if job.state is JobState.CANCELLED else job.detail or job.native_state
