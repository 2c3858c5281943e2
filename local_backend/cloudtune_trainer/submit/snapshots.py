"""Converts the records of a run folder to cloudtune's types: states, snapshots, events, metrics, checkpoints. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudtune.errors import InvalidRequest
from cloudtune.state import Checkpoint, Event, JobProblem, JobRef, JobSnapshot, JobState, Metric, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cloudtune_trainer.worker.run import RunStatus

STATES: dict[str, JobState] = {
    "queued": JobState.QUEUED,
    "starting": JobState.PREPARING,
    "loading": JobState.PREPARING,
    "training": JobState.RUNNING,
    "evaluating": JobState.RUNNING,
    "saving": JobState.RUNNING,
    "paused": JobState.PAUSED,
    "cancelling": JobState.CANCELLING,
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
    "expired": JobState.EXPIRED,
}
_LEVELS = ("debug", "info", "warning", "error")
_SPLITS = ("train", "validation", "test")


def to_state(word: str) -> JobState:
    """The state of a word. An unknown word is ``unknown``, and not terminal."""
    return STATES.get(word, JobState.UNKNOWN)


def to_snapshot(ref: JobRef, run_status: RunStatus, ahead: int | None = None) -> JobSnapshot:
    """Return a snapshot of the run. ``ahead`` is the number of jobs ahead of it in the queue."""
    status, job = run_status.status, run_status.job
    detail = run_status.detail
    if run_status.state == "queued" and ahead is not None and run_status.worker is not None:
        detail = "next in the queue" if ahead == 0 else f"{ahead} ahead in the queue"
    problem = run_status.problem or None
    return JobSnapshot(
        ref=ref,
        state=to_state(run_status.state),
        native_state=run_status.state,
        name=str(job.get("name", "")),
        model=str(job.get("model") or ""),
        detail=detail,
        created_at=to_time(job.get("created_at")),
        started_at=to_time(status.get("started_at")),
        finished_at=to_time(status.get("finished_at") or (status.get("updated_at") if run_status.is_final else None)),
        progress=Progress(
            step=status.get("step"),
            total_steps=status.get("total_steps"),
            epoch=status.get("epoch"),
            tokens=status.get("tokens"),
            eta_s=None if run_status.is_final else status.get("eta_s"),
        ),
        problem=_problem(problem) if problem and run_status.state in ("failed", "expired") else None,
        parent=JobRef.parse(job["parent"]) if job.get("parent") else None,
        raw={"status": status, "tags": job.get("tags", {}), "number": job.get("number")},
    )


def _problem(document: dict[str, Any]) -> JobProblem:
    message = str(document.get("message", "")) or "the trainer gave no reason"
    return JobProblem(message=message, code=str(document.get("code", "failed")), hint=document.get("hint"),
                      interrupted=document.get("interrupted") is True)  # fmt: skip


def to_events(lines: Iterable[tuple[int, Any]]) -> list[Event]:
    """Events of numbered lines; the cursor is the line's number."""
    return [
        Event(
            cursor=str(number),
            time=to_time(line.get("time")) or datetime.fromtimestamp(0, UTC),
            message=str(line.get("message", "")),
            type=str(line.get("type", "message")),
            level=line["level"] if line.get("level") in _LEVELS else "info",
            data=line.get("data") or {},
        )
        for number, line in lines
        if isinstance(line, dict)
    ]


def with_end(
    lines: Iterable[tuple[int, Any]], run_status: RunStatus, after: int, count: Callable[[], int]
) -> list[Event]:
    """Events of the lines after that number, and the end if its writer died. ``count`` counts all lines."""
    found = to_events(lines)
    if run_status.derived and run_status.is_final:
        last = count()
        if after <= last:
            found.append(observed_end(run_status, last + 1))
    return found


def observed_end(run_status: RunStatus, cursor: int) -> Event:
    """The end event of a run whose worker died without writing it. A worker that writes it later uses the same line."""
    data: dict[str, Any] = {"state": run_status.state}
    if run_status.problem:
        data["problem"] = run_status.problem
    return Event(
        cursor=str(cursor),
        time=to_time(run_status.status.get("updated_at")) or datetime.fromtimestamp(0, UTC),
        message=run_status.detail,
        type="state",
        level="error" if run_status.state == "failed" else "info",
        data=data,
        observed=True,
    )


def to_metrics(lines: Iterable[tuple[int, Any]]) -> list[Metric]:
    """Metrics of numbered lines."""
    return [
        Metric(
            cursor=str(number),
            step=int(line["step"]),
            values={name: float(value) for name, value in line.get("values", {}).items() if value is not None},
            split=line["split"] if line.get("split") in _SPLITS else "train",
            epoch=line.get("epoch"),
            time=to_time(line.get("time")),
        )
        for number, line in lines
        if isinstance(line, dict) and isinstance(line.get("step"), int)
    ]


def to_checkpoints(found: Sequence[Mapping[str, Any]]) -> list[Checkpoint]:
    """The trainer's checkpoints, as `cloudtune_trainer.checkpoints.described` returns them, oldest first."""
    best = max((index for index, saved in enumerate(found) if saved["best"]), default=None)
    return [
        Checkpoint(
            id=saved["name"],
            step=saved["step"],
            epoch=saved["epoch"],
            best=index == best,
            last=index == len(found) - 1,
            resumable=True,
            metrics=saved["metrics"],
            created_at=to_time(saved["created_at"]),
            uri=saved["path"],
        )
        for index, saved in enumerate(found)
    ]


def to_line(cursor: str | None) -> int:
    """The line number in a cursor. Raises InvalidRequest."""
    if cursor is None:
        return 0
    if not cursor.isdecimal():
        raise InvalidRequest(f"{cursor!r} is not a cursor of a run: expected a line number")
    return int(cursor)


def to_time(text: Any) -> datetime | None:
    """Parse a time in the run folder's format."""
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
