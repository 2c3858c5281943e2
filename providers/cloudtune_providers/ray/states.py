"""What Ray says about a job, together with what its run folder says. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cloudtune_providers.run_folders.jobs import to_run_status
from cloudtune_trainer.worker.exit_cause import interrupted
from cloudtune_trainer.worker.run import RunStatus, has_ended, is_waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

PHASES: dict[str, Literal["waiting", "running", "ended"]] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "STOPPED": "ended",
    "SUCCEEDED": "ended",
    "FAILED": "ended",
}
"""Ray's job states: ``ray.job_submission.JobStatus`` of Ray 2.60 (seen 2026-11-30)."""
_LAST_LINES = 3


class RayJob(NamedTuple):
    """A job as the cluster shows it."""

    status: str
    message: str


def combined(document: Mapping[str, Any], job: RayJob | None, address: str = "") -> RunStatus:
    """The status of a run whose job is known to the cluster at that address, or (None) unknown to it."""
    status, cancel = to_run_status(document), "cancel" in document["requests"]
    if has_ended(status.status):
        return status
    there = (document.get("submitted") or {}).get("address", address)
    if job is None and there != address:
        detail = f"submitted to {there}; the cluster at {address} does not know it"
        return _derived(status, status.status["state"], detail)
    phase = "ended" if job is None else PHASES.get(job.status, "running")
    if job is None and is_waiting(status.status) and not cancel:
        return _derived(status, "queued", "not submitted yet: run the same command again")
    if phase == "ended":
        return _ended(status, job, cancel=cancel)
    if cancel:
        return _derived(status, "cancelling", "stop requested")
    recorded = status.status
    if phase == "waiting":
        return _derived(status, "queued", job.message if job else "")
    return status._replace(state=recorded["state"], detail=recorded.get("detail", ""), problem=None, derived=False)


def _ended(status: RunStatus, job: RayJob | None, *, cancel: bool) -> RunStatus:
    """The end of a job whose run folder has none: its driver was killed, or never ran."""
    if cancel or (job is not None and job.status == "STOPPED"):
        return _derived(status, "cancelled", "cancelled" if cancel else "stopped in Ray")
    if job is not None and is_waiting(status.status) and not status.status.get("started_at"):
        last = " ".join(line.strip() for line in job.message.strip().splitlines()[-_LAST_LINES:])
        message = f"the job ended before the trainer started: {last[:1000]}"
        hint = "see `ray job logs`; the nodes need `python` with Ray and the trainer's packages, and the shared folder"
        return _derived(status, "failed", message, {"code": "not_started", "message": message, "hint": hint})
    was = status.status.get("detail") or status.status["state"]
    said = f"Ray says {job.status}" if job is not None else "the cluster no longer knows the job"
    message = f"the job's driver was killed or its node was lost ({said}) while it was {status.status['state']} ({was})"
    return _derived(status, "failed", message, interrupted(message))


def _derived(status: RunStatus, state: str, detail: str, problem: dict[str, Any] | None = None) -> RunStatus:
    return status._replace(state=state, detail=detail, problem=problem, derived=True)
