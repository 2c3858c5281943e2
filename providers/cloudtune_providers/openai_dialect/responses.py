"""Converts the service's responses to cloudtune's types. Pure. Added or missing fields are accepted.

Fields that the SDK's types require can be null or missing (openai-openapi#307; Azure omits several).
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from cloudtune.state import (
    Checkpoint,
    Event,
    JobProblem,
    JobRef,
    JobSnapshot,
    JobState,
    Metric,
    Progress,
    reported_number,
    reported_step,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

STATES: dict[str, JobState] = {
    # openai 3.52.0, types/fine_tuning/fine_tuning_job.py
    "validating_files": JobState.PREPARING,
    "queued": JobState.QUEUED,
    "running": JobState.RUNNING,
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
    # The schema's own example of the pause call, and Aallam/openai-kotlin (seen 2026-11-21).
    "paused": JobState.PAUSED,
    "pausing": JobState.PAUSED,
    # Azure: BerriAI/litellm#24687, Azure/azure-dev#6532, older api-versions (seen 2026-11-21).
    "pending": JobState.QUEUED,
    "notrunning": JobState.QUEUED,
    "resuming": JobState.RUNNING,
    "canceled": JobState.CANCELLED,
    "cancelling": JobState.CANCELLING,
    "canceling": JobState.CANCELLING,
}
"""The service's statuses, in lowercase."""
NAME_KEY = "cloudtune_name"
TOKEN_KEY = "cloudtune_token"  # noqa: S105 - a name
Split = Literal["train", "validation", "test"]
_ORDER: tuple[Split, ...] = ("train", "validation", "test")
# OpenAI and Azure use different names for the same metrics, as do events and result files.
_FIGURES: dict[str, tuple[Split, str]] = {
    "train_loss": ("train", "loss"),
    "train_accuracy": ("train", "token_accuracy"),
    "train_mean_token_accuracy": ("train", "token_accuracy"),
    "train_mean_reward": ("train", "reward"),
    "train_reward_mean": ("train", "reward"),
    "valid_loss": ("validation", "loss"),
    "validation_loss": ("validation", "loss"),
    "valid_accuracy": ("validation", "token_accuracy"),
    "valid_mean_token_accuracy": ("validation", "token_accuracy"),
    "validation_mean_token_accuracy": ("validation", "token_accuracy"),
    "valid_mean_reward": ("validation", "reward"),
    "valid_reward_mean": ("validation", "reward"),
    "full_valid_loss": ("validation", "full_loss"),
    "full_valid_mean_token_accuracy": ("validation", "full_token_accuracy"),
    "full_valid_mean_reward": ("validation", "full_reward"),
}
_HINTS = {
    "invalid_training_file": "fix the rows that the message names, and submit again",
    "invalid_validation_file": "fix the rows that the message names, and submit again",
    "invalid_n_examples": "add rows",
}


def state_of(word: str) -> JobState:
    """The state for the service's status. An unknown status is ``unknown``, which is not final."""
    return STATES.get(word.lower(), JobState.UNKNOWN)


def when(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def to_snapshot(job: Mapping[str, Any], backend: str, scope: str) -> JobSnapshot:
    """A job object as a snapshot."""
    word = str(job.get("status") or "")
    state = state_of(word)
    metadata = job.get("metadata") or {}
    return JobSnapshot(
        ref=JobRef(backend, scope, str(job["id"])),
        state=state,
        native_state=word,
        name=metadata.get(NAME_KEY) or job.get("user_provided_suffix") or job.get("suffix") or "",
        model=str(job.get("model") or ""),
        detail=_detail(job, state),
        created_at=when(job.get("created_at")),
        finished_at=when(job.get("finished_at")) if state.may_have_ended else None,
        progress=Progress(tokens=job.get("trained_tokens")),
        problem=_problem(job) if state is JobState.FAILED else None,
        raw=dict(job),
    )


def _detail(job: Mapping[str, Any], state: JobState) -> str:
    if state is JobState.PAUSED and (job.get("method") or {}).get("type") == "reinforcement":
        # Azure does so at 5,000 USD of training (learn.microsoft.com, reinforcement fine-tuning, seen 2026-11-21).
        return "the service may pause reinforcement at a budget; resume to spend more, or use the newest checkpoint"
    finish = when(job.get("estimated_finish"))
    return f"expected to finish at {finish:%Y-%m-%d %H:%M} UTC" if finish and not state.is_terminal else ""


def _problem(job: Mapping[str, Any]) -> JobProblem:
    # A successful job can also have an empty error: only the status shows a failure (openai-scala-client#80).
    error = job.get("error") or {}
    code = error.get("code") or "failed"
    message = error.get("message") or "the service did not give a reason"
    return JobProblem(message=message, code=code, hint=_HINTS.get(code))


def to_event(entry: Mapping[str, Any]) -> Event:
    """An event object as an event."""
    level = {"warn": "warning", "warning": "warning", "error": "error"}.get(str(entry.get("level")), "info")
    data = entry.get("data")
    return Event(
        cursor=str(entry["id"]),
        time=datetime.fromtimestamp(entry.get("created_at") or 0, UTC),
        message=str(entry.get("message") or ""),
        type=str(entry.get("type") or "message"),
        level=level,  # type: ignore[arg-type]
        data=dict(data) if isinstance(data, dict) else {},
    )


def metrics_of(event: Event) -> list[Metric]:
    """The metrics of an event of type ``metrics``: up to one for each split."""
    step = reported_step(event.data.get("step"))
    return figures(event.data, event.cursor, step, event.time) if event.type == "metrics" and step is not None else []


def figures(row: Mapping[str, Any], cursor: str, step: int, time: datetime | None = None) -> list[Metric]:
    """A row of values as metrics; unknown names are skipped."""
    found: dict[Split, dict[str, float]] = {}
    for name, value in row.items():
        if name in _FIGURES and (number := reported_number(value)) is not None:
            split, metric = _FIGURES[name]
            found.setdefault(split, {})[metric] = number
    epoch = reported_number(row.get("epoch"))
    return [
        Metric(cursor=f"{cursor}/{split}", step=step, values=values, split=split, epoch=epoch, time=time)
        for split, values in sorted(found.items(), key=lambda item: _ORDER.index(item[0]))
    ]


def result_metrics(content: bytes) -> list[Metric]:
    """The metrics of a result file: CSV, plain or in base64."""
    found: list[Metric] = []
    for row in _rows(content):
        if (step := reported_step(row.get("step"))) is not None:
            found += figures(row, f"csv/{step:09}", step)
    return found


def _rows(content: bytes) -> Iterator[dict[str, Any]]:
    text = content.strip()
    if b"," not in text[:200]:
        try:
            text = base64.b64decode(text, validate=False)
        except (binascii.Error, ValueError):
            return
    try:
        yield from csv.DictReader(io.StringIO(text.decode("utf-8-sig", "replace"), newline=""))
    except csv.Error:  # incomplete, or not CSV: the rows before it are valid
        return


def to_checkpoints(entries: Sequence[Mapping[str, Any]]) -> list[Checkpoint]:
    """Checkpoint objects, oldest first; the best is the one with the lowest validation loss, if there is one."""
    kept = sorted(entries, key=lambda entry: entry.get("step_number") or 0)
    losses = [_loss(entry) for entry in kept]
    best = losses.index(min(losses)) if any(loss < float("inf") for loss in losses) else len(kept) - 1
    return [
        Checkpoint(
            id=str(entry["id"]),
            step=entry.get("step_number"),
            best=number == best,
            last=number == len(kept) - 1,
            metrics={name: float(v) for name, v in (entry.get("metrics") or {}).items() if isinstance(v, int | float)},
            created_at=when(entry.get("created_at")),
            uri=entry.get("fine_tuned_model_checkpoint"),
        )
        for number, entry in enumerate(kept)
    ]


def _loss(entry: Mapping[str, Any]) -> float:
    metrics = entry.get("metrics") or {}
    for name in ("full_valid_loss", "valid_loss", "train_loss"):
        if (loss := reported_number(metrics.get(name))) is not None:
            return loss
    return float("inf")
