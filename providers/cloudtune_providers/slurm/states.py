"""What Slurm says about a job, together with what its run folder says. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from cloudtune_providers.run_folders.jobs import to_run_status
from cloudtune_trainer.submit.snapshots import to_time
from cloudtune_trainer.worker.batch import was_interrupted
from cloudtune_trainer.worker.exit_cause import interrupted
from cloudtune_trainer.worker.run import RunStatus, has_ended, is_waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune_providers.slurm.cluster import QueueEntry

Phase = Literal["waiting", "running", "suspended", "ended"]
PHASES: dict[str, Phase] = {
    "PENDING": "waiting",
    "CONFIGURING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_FED": "waiting",
    "REQUEUE_HOLD": "waiting",
    "RESV_DEL_HOLD": "waiting",
    "SPECIAL_EXIT": "waiting",
    "RUNNING": "running",
    "COMPLETING": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "RESIZING": "running",
    "SUSPENDED": "suspended",
    "STOPPED": "suspended",
    "COMPLETED": "ended",
    "CANCELLED": "ended",
    "FAILED": "ended",
    "TIMEOUT": "ended",
    "DEADLINE": "ended",
    "NODE_FAIL": "ended",
    "PREEMPTED": "ended",
    "BOOT_FAIL": "ended",
    "OUT_OF_MEMORY": "ended",
    "LAUNCH_FAILED": "ended",
    "RECONFIG_FAIL": "ended",
    "REVOKED": "ended",
}
"""Slurm's job states (slurm.schedmd.com/squeue.html, job state codes, seen in version 22.05 to 25.11)."""
_ENDS = {"TIMEOUT": "expired", "DEADLINE": "expired", "CANCELLED": "cancelled"}
_INTERRUPTED = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "RECONFIG_FAIL", "LAUNCH_FAILED", "REVOKED")
_HELD = ("JobHeldUser", "JobHeldAdmin")
_MEMORY_HINT = "ask for more `memory`, or use a smaller batch; `cloudtune resume` continues from a checkpoint"
LIMIT_SLACK_S = 120.0


def needs_queue(document: Mapping[str, Any]) -> bool:
    """Whether the scheduler may know more than the run folder does: it can start an interrupted run again."""
    return not has_ended(document["status"]) or was_interrupted(document["status"])


def combined(document: Mapping[str, Any], entry: QueueEntry | None, recorded: str | None) -> RunStatus:
    """The status of a run whose job is in the queue, or has left it.

    Args:
        document: The run folder's status.
        entry: The job in the queue, or shortly after its end.
        recorded: The job's last state in the accounting database, if the queue no longer has it.
    """
    status = to_run_status(document)
    cancel = "cancel" in document["requests"]
    if not needs_queue(document):
        return status._replace(derived=False)
    word = entry.state if entry is not None else recorded
    phase = PHASES.get(word, "running") if word is not None else "ended"
    if phase == "waiting" and entry is not None:
        return _waiting(status, entry, cancel=cancel)
    if phase in ("running", "suspended") and word is not None:
        return _running(status, word, cancel=cancel, suspended=phase == "suspended")
    if has_ended(status.status):
        return status
    return _ended(status, document, word, cancel=cancel)


def _waiting(status: RunStatus, entry: QueueEntry, *, cancel: bool) -> RunStatus:
    if cancel:
        return _derived(status, "cancelling", "cancel requested")
    if entry.reason in _HELD:
        return _derived(status, "paused", f"held in the queue ({entry.reason})")
    again = "" if is_waiting(status.status) else "interrupted; continues from its newest checkpoint; "
    return _derived(status, "queued", f"{again}{entry.state.lower()}: {entry.reason}")


def _running(status: RunStatus, word: str, *, cancel: bool, suspended: bool) -> RunStatus:
    if suspended:
        return _derived(status, "paused", f"Slurm has {word.lower()} the job")
    if cancel and status.status["state"] != "cancelling":
        return _derived(status, "cancelling", "stop requested")
    if has_ended(status.status):  # interrupted: Slurm is about to start it again, or to end it
        return _derived(status, "saving", f"interrupted; Slurm says {word}")
    recorded = status.status
    if is_waiting(recorded):
        return _derived(status, recorded["state"], "starting on the node")
    return status._replace(state=recorded["state"], detail=recorded.get("detail", ""), problem=None, derived=False)


def _ended(status: RunStatus, document: Mapping[str, Any], word: str | None, *, cancel: bool) -> RunStatus:
    """The end of a job whose run folder has none: its worker was killed, or never ran."""
    never_ran = is_waiting(status.status)
    if word is None and never_ran and not document["submitted"] and not cancel:
        return _derived(status, "queued", "not submitted yet: run the same command again")
    if cancel or word == "CANCELLED":
        return _derived(status, "cancelled", "cancelled" if cancel else "cancelled in Slurm")
    said = f"Slurm says {word}" if word else "the job has left Slurm's queue"
    if _ENDS.get(word or "") == "expired" or (word is None and _reached_limit(status)):
        return _derived(status, "expired", f"the time limit was reached ({said}); its checkpoints are kept")
    if word == "OUT_OF_MEMORY":
        message = f"the job used more memory than it asked for ({said})"
        problem = {"code": "out_of_memory", "message": message, "hint": _MEMORY_HINT, "interrupted": True}
        return _derived(status, "failed", message, problem)
    if never_ran and word not in _INTERRUPTED:
        message = f"the job ended before the trainer started ({said}); does the node see {document['path']}?"
        hint = f"see {document['path']}/slurm.log, and use a folder and an interpreter that all nodes share"
        return _derived(status, "failed", message, {"code": "not_started", "message": message, "hint": hint})
    was = status.status.get("detail") or status.status["state"]
    message = f"the job was killed or its node was lost ({said}) while it was {status.status['state']} ({was})"
    return _derived(status, "failed", message, interrupted(message))


def _reached_limit(status: RunStatus) -> bool:
    """Whether the last sign of life is near the time limit; without accounting, Slurm's word is lost after minutes."""
    limit = status.job.get("time_limit_s")
    first, last = to_time(status.status.get("started_at")), to_time(status.status.get("updated_at"))
    if limit is None or first is None or last is None:
        return False
    return bool((last - first).total_seconds() >= 0.9 * float(limit) - LIMIT_SLACK_S)


def _derived(status: RunStatus, state: str, detail: str, problem: dict[str, Any] | None = None) -> RunStatus:
    return status._replace(state=state, detail=detail, problem=problem, derived=True)
