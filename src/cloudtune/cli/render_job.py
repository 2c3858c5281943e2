"""Format a job as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.cli.render import ago, clock_time, coloured, duration, fields
from cloudtune.methods import METHODS
from cloudtune.state import JobState, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.state import JobSnapshot, TunedModel


def job_json(snapshot: JobSnapshot) -> dict[str, Any]:
    """Return the snapshot as one JSON object, with ``backend`` and ``scope`` next to the reference."""
    found: dict[str, Any] = to_json(snapshot)
    return found | {"backend": snapshot.ref.backend, "scope": snapshot.ref.scope, "id": snapshot.ref.id}


def model_json(model: TunedModel) -> dict[str, Any]:
    """Return the tuned model as one JSON object."""
    found: dict[str, Any] = to_json(model)
    return found


def progress_text(snapshot: JobSnapshot) -> str:
    """Format the progress as 120/400, or as whatever part of it is known."""
    progress = snapshot.progress
    if progress.step is None:
        return ""
    return f"{progress.step}/{progress.total_steps}" if progress.total_steps else str(progress.step)


def job_text(snapshot: JobSnapshot) -> str:
    """Format everything known about a job, one field per line."""
    problem, progress = snapshot.problem, snapshot.progress
    state = coloured(snapshot.state)
    if snapshot.native_state and snapshot.native_state != str(snapshot.state):
        state += f" ({snapshot.native_state})"
    took = None
    if snapshot.started_at and snapshot.finished_at:
        took = (snapshot.finished_at - snapshot.started_at).total_seconds()
    return fields(
        [
            ("ref", snapshot.ref),
            ("name", snapshot.name),
            ("backend", snapshot.ref.backend),
            ("model", snapshot.model),
            ("state", state),
            ("detail", snapshot.detail),
            ("step", progress_text(snapshot)),
            ("epoch", f"{progress.epoch:.2f}" if progress.epoch is not None else None),
            ("tokens", f"{progress.tokens:,}" if progress.tokens is not None else None),
            ("remaining", duration(progress.eta_s) if not snapshot.has_ended else None),
            ("created", _moment(snapshot.created_at)),
            ("started", _moment(snapshot.started_at)),
            ("finished", _moment(snapshot.finished_at)),
            ("duration", duration(took)),
            ("parent", snapshot.parent),
            ("problem", problem.message if problem else None),
            ("code", problem.code if problem else None),
            ("hint", problem.hint if problem else None),
        ]
    )


def next_steps(snapshot: JobSnapshot, can: Callable[[str], bool], method: str | None = None) -> list[str]:
    """Return the commands that apply to the job now and that the back end supports.

    ``method`` is the name of the job's method, if the ledger knows it.
    """
    ref = snapshot.ref
    if snapshot.state is JobState.SUCCEEDED:
        beside = "" if can("verb:deploy") else " --base"  # where models must be deployed, the base model usually is not
        inputs = METHODS[method].predict_input if method is not None else None
        answer = f"cloudtune predict {ref} {inputs}" if inputs else f"cloudtune generate {ref} 'a prompt'{beside}"
        ways = {
            "verb:deploy": f"cloudtune deploy {ref}", "verb:generate": answer,
            "verb:export": f"cloudtune export {ref} FOLDER",
        }  # fmt: skip
        return [line for verb, line in ways.items() if can(verb)]
    if snapshot.state is JobState.PAUSED:
        return [f"cloudtune resume {ref}"]
    if snapshot.has_ended:
        return [f"cloudtune logs {ref}", *([f"cloudtune resume {ref}"] if can("verb:continue") else [])]
    return [f"cloudtune watch {ref}"]


def _moment(moment: Any) -> str | None:
    return f"{clock_time(moment)} ({ago(moment)})" if moment else None
