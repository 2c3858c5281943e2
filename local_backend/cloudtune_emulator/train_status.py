"""Converts the state of a local job to the vendor's. Read-only."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import InvalidRequest
from cloudtune.files.model_files import read_json_object
from cloudtune.state import JobState, TunedModel
from cloudtune_emulator.engines import text_of
from cloudtune_emulator.job_timeline import SUCCESS, Actions, EmulatedCheckpoint, JobStatus, Occurrence
from cloudtune_trainer.submit.run_folder import TUNED, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudtune.job import Job
    from cloudtune.state import Checkpoint, JobSnapshot, Metric
    from cloudtune_emulator.engines import Served

_WORDS = {
    JobState.QUEUED: "queued", JobState.PREPARING: "queued", JobState.RUNNING: "running", JobState.PAUSED: "paused",
    JobState.CANCELLING: "running", JobState.UNKNOWN: "running", JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed", JobState.EXPIRED: "failed", JobState.CANCELLED: "cancelled",
}  # fmt: skip
_ACTED = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}
_NAMES = {
    "train": {"loss": "train_loss", "token_accuracy": "train_mean_token_accuracy"},
    "validation": {"loss": "full_valid_loss", "token_accuracy": "full_valid_mean_token_accuracy"},
}


def _opening(job: dict[str, Any]) -> list[Occurrence]:
    at = job["created"]
    return [Occurrence(at=at, message=f"Created fine-tuning job: {job['id']}"),
            Occurrence(at=at, message="Validating training file")]  # fmt: skip


def waiting(job: dict[str, Any], acts: Actions) -> JobStatus:
    """The state of a job whose run is being created."""
    if (cancelled := acts.first("cancel")) is not None:
        events = (*_opening(job), Occurrence(at=cancelled, message="Fine-tuning job cancelled"))
        return JobStatus(word="cancelled", finished_at=cancelled, events=events)
    return JobStatus(word="validating_files", events=tuple(_opening(job)))


def refused(job: dict[str, Any], run: dict[str, Any]) -> JobStatus:
    """The state of a job that the local back end refuses, with the reason in the vendor's field."""
    error = {"code": "not_trainable", "message": run["error"], "param": None}
    events = (*_opening(job), Occurrence(at=run["at"], message=run["error"], level="error"))
    return JobStatus(word="failed", finished_at=run["at"], events=events, error=error)


def seen(job: dict[str, Any], acts: Actions, run: Job) -> JobStatus:
    """A job's state, from its run. The order matters: metrics of an ended run are read after its end."""
    snapshot = run.snapshot()
    metrics = run.metrics()
    word, finished = _word(snapshot, acts)
    started = _stamp(snapshot.started_at)
    events = _opening(job)
    events.append(Occurrence(at=job["created"], message="Files validated, moving job to queued state"))
    if started is not None:
        events.append(Occurrence(at=started, message="Fine-tuning job started"))
    events += [_told(metric, snapshot) for metric in metrics if metric.split in _NAMES]
    events += [Occurrence(at=at, message=f"Fine-tuning job {_ACTED[kind]}") for at, kind in acts.entries]
    error = _error(snapshot) if word == "failed" else None
    if finished is not None:
        events += _ending(word, finished, error)
    rows = _rows(metrics)
    return JobStatus(
        word=word, started_at=started, finished_at=finished, events=tuple(sorted(events, key=lambda e: e.at)),
        estimated_finish=None if finished is not None else _estimate(snapshot), error=error,
        checkpoints=tuple(_kept(one, rows, snapshot) for one in run.checkpoints() if one.step is not None),
        trained_tokens=job["course"]["tokens"] * job["course"]["epochs"] if word == "succeeded" else None,
    )  # fmt: skip


def _word(snapshot: JobSnapshot, acts: Actions) -> tuple[str, float | None]:
    word = _WORDS[snapshot.state]
    finished = _stamp(snapshot.finished_at) if snapshot.state.is_terminal else None
    cancelled = acts.first("cancel")
    if cancelled is not None and word != "succeeded":
        return "cancelled", cancelled if finished is None else finished  # the vendor reports a cancel at once
    if word == "running" and acts.is_on(float("inf")) is not None:
        return "pausing", None
    return word, finished


def _stamp(moment: Any) -> float | None:
    return None if moment is None else float(moment.timestamp())


def _estimate(snapshot: JobSnapshot) -> float | None:
    # The estimate was made when the status was written.
    eta, status = snapshot.progress.eta_s, snapshot.raw.get("status", {})
    written = status.get("updated_at")
    if eta is None or not isinstance(written, str):
        return None
    return datetime.fromisoformat(written).timestamp() + eta


def _told(metric: Metric, snapshot: JobSnapshot) -> Occurrence:
    figures = _figures(metric)
    total = snapshot.progress.total_steps
    what = "training loss" if metric.split == "train" else "full validation loss"
    message = f"Step {metric.step}/{total}: {what}={metric.values.get('loss', float('nan')):.2f}"
    data = {"step": metric.step, "total_steps": total} | figures
    return Occurrence(at=_stamp(metric.time) or 0.0, message=message, type="metrics", data=data)


def _figures(metric: Metric) -> dict[str, float]:
    names = _NAMES[metric.split]
    found = {names[name]: value for name, value in metric.values.items() if name in names}
    if "full_valid_loss" in found:
        found["valid_loss"] = found["full_valid_loss"]
    if "full_valid_mean_token_accuracy" in found:
        found["valid_mean_token_accuracy"] = found["full_valid_mean_token_accuracy"]
    return found


def results(metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """Rows of the result file, in the order of the steps."""
    rows = _rows(metrics)
    return [rows[step] for step in sorted(rows)]


def _rows(metrics: Sequence[Metric]) -> dict[int, dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for metric in metrics:
        if metric.split in _NAMES:
            rows.setdefault(metric.step, {"step": metric.step}).update(_figures(metric))
    return rows


def _kept(one: Checkpoint, rows: Mapping[int, dict[str, Any]], snapshot: JobSnapshot) -> EmulatedCheckpoint:
    step = int(one.step or 0)
    is_last = snapshot.state is JobState.SUCCEEDED and step == snapshot.progress.total_steps
    made = _stamp(one.created_at) or 0.0
    return EmulatedCheckpoint(at=made, step=step, metrics={"step": step} | rows.get(step, {}), is_last=is_last)


def _ending(word: str, at: float, error: dict[str, Any] | None) -> list[Occurrence]:
    if word == "succeeded":
        return [Occurrence(at=at, message=message) for message in SUCCESS]
    return [Occurrence(at=at, message=error["message"], level="error")] if error else []


def _error(snapshot: JobSnapshot) -> dict[str, Any]:
    problem = snapshot.problem
    if problem is None:
        return {"code": "failed", "message": "The job failed.", "param": None}
    param = "training_file" if problem.code in ("bad_data", "data") else None
    return {"code": problem.code, "message": problem.message, "param": param}


def checkpoint_model(tuned: TunedModel, kept: Sequence[Checkpoint], step: int, folder: Path) -> TunedModel:
    """A checkpoint as a model: the tuned model's folder with the checkpoint's weights."""
    found = next((one for one in kept if one.step == step), None)
    if found is None or found.uri is None:
        raise InvalidRequest(f"the checkpoint of step {step} does not exist any more")
    target = folder / f"{tuned.id}-{step}"
    if not target.exists():
        aside = target.with_name(f".{target.name}")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(str(tuned.uri), aside)
        weights = next(path for name in ("adapter", "model") if (path := Path(found.uri) / name).is_dir())
        shutil.copytree(weights, aside, dirs_exist_ok=True)
        document = json.loads((aside / "tuned.json").read_text(encoding="utf-8")) | {"step": step}
        (aside / "tuned.json").write_text(json.dumps(document), encoding="utf-8")
        aside.rename(target)
    return msgspec.structs.replace(tuned, id=target.name, uri=str(target))


def imported(model: Served) -> TunedModel:
    """Full weights from elsewhere as a model of the local back end. Writes a ``tuned.json`` beside them.

    Of an existing ``tuned.json`` only the method is used: it may name another model.
    """
    folder = model.folder
    assert folder is not None
    path = folder / TUNED
    try:
        known = read_json_object(path)
    except (OSError, ValueError):
        known = {}
    base = {"source": "folder", "path": str(folder), "revision": None}
    note = {"version": 1, "base": base, "base_folder": str(folder), "adapter": "full", "merged": True,
            "method": "cpt" if known.get("method") == "cpt" else "sft", "step": 0, "metrics": {}}  # fmt: skip
    if note != known:
        write_json(path, note)
    return TunedModel(id=model.name, base=model.base, backend="local", scope="local", uri=str(folder), adapter="full")


def words(message: Mapping[str, Any]) -> str:
    """A message's text: local models do not accept other parts."""
    return text_of(message)


def pieces(text: str) -> tuple[str, ...]:
    """Split a text into chunks for streaming: one word each, without loss."""
    return tuple(re.findall(r"\s*\S+|\s+", text))
