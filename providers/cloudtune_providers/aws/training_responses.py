"""Translates SageMaker's training job responses. Pure, and shared by the back ends that use training jobs.

A job has a status and a secondary status; both are used. States: botocore 1.44.5, service model ``sagemaker``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudtune.state import Event, JobProblem, JobRef, JobSnapshot, JobState, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

STATES: dict[str, JobState] = {
    "InProgress": JobState.RUNNING,
    "Completed": JobState.SUCCEEDED,
    "Failed": JobState.FAILED,
    "Stopping": JobState.CANCELLING,
    "Stopped": JobState.CANCELLED,
    "Deleting": JobState.CANCELLING,
}
"""TrainingJobStatus. The secondary status distinguishes jobs that are in progress or stopped."""
PHASES: dict[str, JobState] = {
    "Starting": JobState.PREPARING,
    "LaunchingMLInstances": JobState.PREPARING,
    "PreparingTrainingStack": JobState.PREPARING,
    "Downloading": JobState.PREPARING,
    "DownloadingTrainingImage": JobState.PREPARING,
    "Pending": JobState.QUEUED,
    # Spot capacity was reclaimed: the job waits for capacity, and continues from its checkpoint automatically.
    "Interrupted": JobState.QUEUED,
    "Training": JobState.RUNNING,
    "Restarting": JobState.RUNNING,
    "Updating": JobState.RUNNING,
    "Uploading": JobState.RUNNING,
    "Stopping": JobState.CANCELLING,
    "Stopped": JobState.CANCELLED,
    "MaxRuntimeExceeded": JobState.EXPIRED,
    "MaxWaitTimeExceeded": JobState.EXPIRED,
    "Completed": JobState.SUCCEEDED,
    "Failed": JobState.FAILED,
}
"""SecondaryStatus."""
NAME_VARIABLE = "CLOUDTUNE_NAME"
MODEL_VARIABLE = "CLOUDTUNE_MODEL"
PARENT_VARIABLE = "CLOUDTUNE_PARENT"
"""Environment variables of cloudtune's jobs. DescribeTrainingJob returns them; tags need another call."""
_WORDS = {
    "Starting": "starting instances", "Pending": "waiting for capacity",
    "Downloading": "downloading image and data", "Uploading": "uploading the model",
    "Interrupted": "spot capacity was interrupted; the job resumes from its checkpoint when capacity returns",
    "Restarting": "restarting",
}  # fmt: skip
_LIMITS = {
    "MaxRuntimeExceeded": "the job reached its maximum run time",
    "MaxWaitTimeExceeded": "the job waited too long for spot capacity",
}
# Prefixes of FailureReason (docs.aws.amazon.com/sagemaker/latest/dg/API_DescribeTrainingJob.html and
# .../dg/model-train-troubleshooting.html, seen 2026-11-21).
_REASONS: dict[str, tuple[str, str]] = {
    "AlgorithmError": ("algorithm_error", "the training program failed; see its log"),
    "ClientError": ("client_error", "check the rows, the bucket and the role's permissions that the message names"),
    "CapacityError": ("capacity", "submit again with --again later, or choose another instance type or region"),
    "InternalServerError": ("internal_error", "submit again with --again; if it persists, contact AWS"),
    "memory": ("out_of_memory", "choose a larger instance, a smaller batch or shorter rows"),
    "ResourceLimitExceeded": ("quota", "request an increase in Service Quotas, or choose another instance type"),
}
_MEMORY = ("CUDA out of memory", "OutOfMemoryError", "exit code: 137", "OOM")


def state_of(status: str, secondary: str = "") -> JobState:
    """The state for both statuses. An unknown status is ``unknown``; an unknown secondary status is ignored."""
    state = STATES.get(status, JobState.UNKNOWN)
    if status in ("InProgress", "Stopped"):
        return PHASES.get(secondary, state)
    return state


def to_snapshot(job: Mapping[str, Any], backend: str, scope: str) -> JobSnapshot:
    """Convert a response of DescribeTrainingJob to a snapshot."""
    status, secondary = str(job.get("TrainingJobStatus") or ""), str(job.get("SecondaryStatus") or "")
    state = state_of(status, secondary)
    variables = job.get("Environment") or {}
    parent = variables.get(PARENT_VARIABLE)
    return JobSnapshot(
        ref=JobRef(backend, scope, str(job["TrainingJobName"])),
        state=state,
        native_state=status,
        name=str(variables.get(NAME_VARIABLE) or job["TrainingJobName"]),
        model=str(variables.get(MODEL_VARIABLE) or _base(job)),
        detail=_detail(job, secondary, state),
        created_at=when(job.get("CreationTime")),
        started_at=when(job.get("TrainingStartTime")),
        finished_at=_finished(job, state),
        progress=_progress(job),
        problem=_problem(job, state, secondary),
        parent=JobRef.parse(parent) if parent else None,
        raw=plain(job),
    )


def _base(job: Mapping[str, Any]) -> str:
    arn = str((job.get("ServerlessJobConfig") or {}).get("BaseModelArn") or "")
    if "/Model/" in arn:
        return arn.partition("/Model/")[2].partition("/")[0]
    algorithm = job.get("AlgorithmSpecification") or {}
    return str(algorithm.get("TrainingImage") or algorithm.get("AlgorithmName") or "")


def _detail(job: Mapping[str, Any], secondary: str, state: JobState) -> str:
    entries = job.get("SecondaryStatusTransitions") or ()
    message = str((entries[-1].get("StatusMessage") if entries else "") or "")
    if state.is_terminal:
        return ""
    words = _WORDS.get(secondary, secondary)
    return f"{words}: {message}" if message and message != secondary else words


def _finished(job: Mapping[str, Any], state: JobState) -> datetime | None:
    if state is JobState.UNKNOWN:  # only its end time proves that it has ended
        return when(job.get("TrainingEndTime"))
    return when(job.get("TrainingEndTime") or job.get("LastModifiedTime")) if state.is_terminal else None


def _progress(job: Mapping[str, Any]) -> Progress:
    """Return the progress of serverless jobs, which report steps; for other jobs, the log has it."""
    progress = job.get("ProgressInfo") or {}
    steps, epoch, epochs = (
        progress.get("TotalStepCountPerEpoch"),
        progress.get("CurrentEpoch"),
        progress.get("MaxEpoch"),
    )
    step = progress.get("CurrentStep")
    done = None if step is None else step + (max(0, (epoch or 1) - 1) * steps if steps else 0)
    return Progress(
        step=done, total_steps=steps * epochs if steps and epochs else None,
        epoch=None if epoch is None else float(epoch), tokens=job.get("BillableTokenCount"),
    )  # fmt: skip


def _problem(job: Mapping[str, Any], state: JobState, secondary: str) -> JobProblem | None:
    if state is JobState.EXPIRED:
        message = _LIMITS.get(secondary, "a limit stopped the job")
        hint = "saved checkpoints are kept; raise limits.max_time and submit again with --again"
        return JobProblem(message=message, code="stopped_by_limit", hint=hint)
    if state is not JobState.FAILED:
        return None
    reason = str(job.get("FailureReason") or "the service did not give a reason")
    kind = reason.partition(":")[0].strip()
    if any(sign in reason for sign in _MEMORY):
        kind = "memory"
    code, hint = _REASONS.get(kind, ("failed", ""))
    return JobProblem(message=reason, code=code, hint=hint or None)


def when(moment: Any) -> datetime | None:
    """A time from botocore, in UTC."""
    return moment.astimezone(UTC) if isinstance(moment, datetime) else None


def plain(value: Any) -> Any:
    """A response as JSON, without the SDK's own metadata."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "ResponseMetadata"}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value


def transitions(job: Mapping[str, Any]) -> list[Event]:
    """The service's own list of transitions, oldest first. Its cursors are ``t1``, ``t2`` ..."""
    found = []
    for number, entry in enumerate(job.get("SecondaryStatusTransitions") or (), 1):
        status = str(entry.get("Status") or "")
        is_bad = status == "Failed"
        found.append(
            Event(
                cursor=f"t{number}",
                time=when(entry.get("StartTime")) or datetime.fromtimestamp(0, UTC),
                message=_said(job, status),
                type="error" if is_bad else "state",
                level="error" if is_bad else "info",
                data={"status": status},
            )
        )
    return found


def _said(job: Mapping[str, Any], status: str) -> str:
    # A transition's message changes while it is current; an event must not change.
    if status == "Failed":
        return f"Failed: {job.get('FailureReason') or 'no reason given'}"
    return status
