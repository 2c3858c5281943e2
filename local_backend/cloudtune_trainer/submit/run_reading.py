"""Reads a run folder as events, metrics and checkpoints, for every back end whose runs lie in folders.

A back end that reads the folder of another machine converts the documents that it gets from there with the same
functions of `cloudtune_trainer.submit.snapshots`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.errors import InvalidRequest
from cloudtune_trainer import checkpoints
from cloudtune_trainer.folder import read_lines
from cloudtune_trainer.submit import snapshots

if TYPE_CHECKING:
    from cloudtune.state import Checkpoint, Event, JobRef, Metric
    from cloudtune_trainer.worker.run import Run, RunStatus


def events(run: Run, run_status: RunStatus, after: str | None) -> list[Event]:
    """The events after that cursor. Read ``run_status`` first, so that the end is among them or derived from it."""
    line = snapshots.to_line(after)
    return snapshots.with_end(read_lines(run.events, line), run_status, line, run.event_lines)


def metrics(run: Run, after: str | None) -> list[Metric]:
    """The metrics after that cursor."""
    return snapshots.to_metrics(read_lines(run.metrics, snapshots.to_line(after)))


def saved_checkpoints(run: Run) -> list[Checkpoint]:
    """Complete checkpoints, oldest first."""
    return snapshots.to_checkpoints(checkpoints.described(run.checkpoints))


def starting_checkpoint(run: Run, parent: JobRef) -> dict[str, Any]:
    """The newest valid checkpoint of an ended job, from which another job continues. Raises InvalidRequest."""
    found = checkpoints.newest_good(run.checkpoints)
    if found is not None:
        return {"path": str(found.path), "step": found.step}
    before = run.recorded_spec().get("resume_from")  # it died before it had a checkpoint of its own
    saved = checkpoints.read(Path(before)) if before else None
    if saved is not None and checkpoints.whole(saved):
        return {"path": str(saved.path), "step": saved.step}
    raise no_checkpoint(parent)


def no_checkpoint(parent: JobRef) -> InvalidRequest:
    """The error for a job that cannot be continued."""
    message = f"{parent} left no valid checkpoint to start from"
    return InvalidRequest(message, hint="start a new attempt: `cloudtune submit --again`")
