"""``/v1/fine_tuning/jobs``: list, get, cancel, pause, resume; events and checkpoints. Create: ``create_job``.

Shapes: openai 3.52.0, ``types/fine_tuning``. Page sizes and cursors: published OpenAPI description,
``listPaginatedFineTuningJobs`` and related calls (github.com/openai/openai-openapi, commit f85dbe2, seen 2026-11-21).
"""

from __future__ import annotations

import csv
import hashlib
import io
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.azure import dialect
from cloudtune_emulator.http import ApiError, Call, Reply, page
from cloudtune_emulator.job_timeline import ENDED, EmulatedCheckpoint, JobStatus, Occurrence
from cloudtune_emulator.openai import files
from cloudtune_emulator.openai.compatible import profile_of
from cloudtune_emulator.store import Ended

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
"""Header of a result file (https://developers.openai.com/api/docs/guides/supervised-fine-tuning, seen 2026-11-21)."""
_AUTO = {"beta": 0.1, "compute_multiplier": 1.0, "eval_interval": 5, "eval_samples": 1}
"""The values for "auto" if nothing else sets them; the vendor's own choice is not documented."""
_NAMES = {"train_accuracy": "train_mean_token_accuracy"}


def view(context: EmulatorContext, job: dict[str, Any], seen: JobStatus, now: float) -> dict[str, Any]:
    """The job object. "auto" is replaced by the resolved value once the files are validated."""
    requested, course = job["request"], job["course"]
    is_known = seen.word != "validating_files" and not (seen.word == "failed" and seen.started_at is None)
    figures = {
        "n_epochs": course["epochs"], "batch_size": course["batch_size"],
        "learning_rate_multiplier": course["learning_rate_multiplier"],
    }  # fmt: skip
    chosen = dict(job["hyperparameters"])
    if is_known:
        chosen = {name: (_AUTO | figures)[name] if value == "auto" else value for name, value in chosen.items()}
    method = {"type": job["method"], job["method"]: {"hyperparameters": chosen} | job["method_extra"]}
    base = {name: chosen.get(name) for name in figures}
    status = context.faults.condition("invented_status", "jobs.get")
    shown = {
        "object": "fine_tuning.job",
        "id": job["id"],
        "model": requested["model"],
        "created_at": context.stamp(job["created"]),
        "finished_at": _stamped(context, seen.finished_at),
        "fine_tuned_model": job["fine_tuned_model"] if seen.word == "succeeded" else None,
        "organization_id": context.settings.organization,
        "result_files": [job["result_file"]] if seen.word == "succeeded" else [],
        "status": status.value if status else seen.word,
        "validation_file": requested.get("validation_file"),
        "training_file": requested["training_file"],
        "hyperparameters": base,
        "trained_tokens": seen.trained_tokens,
        "error": seen.error,
        "user_provided_suffix": requested.get("suffix"),
        "seed": job["seed"],
        "estimated_finish": _stamped(context, seen.estimated_finish),
        "integrations": requested.get("integrations") or [],
        "metadata": requested.get("metadata"),
        "method": method,
    }
    if (profile := profile_of(context, job["api"])) is not None:
        return profile.view(
            shown, {name: value for name, value in chosen.items() if name != "learning_rate_multiplier"}
        )
    return dialect.dressed_job(shown, job, seen, now) if job["api"] == "azure" else shown


def _stamped(context: EmulatorContext, moment: float | None) -> int | None:
    return None if moment is None else context.stamp(moment)


def ended(context: EmulatorContext, job: dict[str, Any], now: float) -> Ended | None:
    """The end of a job that is over. A succeeded job has a result file."""
    seen = context.engine.status(job, now)
    if seen.word not in ENDED:
        return None
    at = now if seen.finished_at is None else seen.finished_at

    def record() -> None:
        if seen.word == "succeeded":
            made = Call(api=job["api"], name="jobs.settle", now=at)
            rows = io.BytesIO(_csv(context.engine.results(job)))
            files.keep(context, made, "step_metrics.csv", "fine-tune-results", rows, file_id=job["result_file"])

    return Ended(at, record)


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([row.get(_NAMES.get(name, name), "") for name in COLUMNS])
    return text.getvalue().encode()


def find(context: EmulatorContext, call: Call) -> dict[str, Any]:
    """The job that the path names, or 404."""
    job = context.store.get("job", call.api, call.ids["job"])
    if job is None:
        message = f"Could not find fine tune: {call.ids['job']}"
        raise ApiError(404, message, code="fine_tune_not_found", param="fine_tune_id")
    return job


def get(context: EmulatorContext, call: Call) -> Reply:
    """One job."""
    return Reply(body=_shown(context, find(context, call), call))


def _shown(context: EmulatorContext, job: dict[str, Any], call: Call) -> dict[str, Any]:
    return view(context, job, context.status(job, call.now), call.now)


def list_(context: EmulatorContext, call: Call) -> Reply:
    """Jobs, newest first, 20 a page; ``metadata[k]=v`` filters, ``metadata=null`` returns those without any."""
    jobs = list(reversed(context.store.all("job", call.api)))
    if lag := context.faults.condition("list_lag", call.name):
        jobs = [job for job in jobs if job["created"] <= call.now - lag.seconds]
    # Azure promises no filter, and its jobs do not show metadata (learn.microsoft.com, REST reference, 2026-11-21).
    if call.api != "azure" and not context.faults.condition("ignore_filter", call.name):
        jobs = [job for job in jobs if _matches(job["request"].get("metadata"), call)]
    # Only the returned page is computed.
    body = page(jobs, call, default=20, most=1000)
    body["data"] = [_shown(context, job, call) for job in body["data"]]
    return Reply(body=body)


def _matches(metadata: dict[str, str] | None, call: Call) -> bool:
    if call.query.get("metadata") == "null":
        return not metadata
    wanted = {key[9:-1]: value for key, value in call.query.items() if key.startswith("metadata[")}
    return wanted.items() <= (metadata or {}).items()


def cancel(context: EmulatorContext, call: Call) -> Reply:
    """Cancel an active job."""
    return _act(context, call, "cancel", frozenset({"validating_files", "queued", "running", "pausing", "paused"}))


def pause(context: EmulatorContext, call: Call) -> Reply:
    """Pause a running job."""
    return _act(context, call, "pause", frozenset({"running"}))


def resume(context: EmulatorContext, call: Call) -> Reply:
    """Resume a paused job."""
    return _act(context, call, "resume", frozenset({"paused"}))


def _act(context: EmulatorContext, call: Call, kind: str, allowed: frozenset[str]) -> Reply:
    with context.store.alone():
        job = find(context, call)
        word = context.status(job, call.now).word
        if word not in allowed:
            # The vendor's message is not documented; the status is a 4xx
            # (published OpenAPI description, pauseFineTuningJob, seen 2026-11-21).
            text = f"Job has already completed: {job['id']}" if word in ENDED else f"Cannot {kind} a job that is {word}"
            raise ApiError(400, text, code="invalid_job_state")
        context.engine.act(job, kind, call.now)
        context.store.save("job", call.api, job)
    return Reply(body=_shown(context, job, call))


def events(context: EmulatorContext, call: Call) -> Reply:
    """The job's events, newest first."""
    job = find(context, call)
    reported = context.status(job, call.now).events
    views = [_event(context, job, event) for event in reported][::-1]
    body = page(views, call, default=20, most=1000)
    if body["data"] and context.faults.condition("duplicate_event", call.name):
        body["data"].insert(1, body["data"][0])
    return Reply(body=body)


def _event(context: EmulatorContext, job: dict[str, Any], event: Occurrence) -> dict[str, Any]:
    # The id is derived from the event itself, so that other events do not change it.
    digest = hashlib.sha256(f"{job['id']}/{event.at}/{event.message}".encode()).hexdigest()[:24]
    return {
        "object": "fine_tuning.job.event", "id": f"ftevent-{digest}", "created_at": context.stamp(event.at),
        "level": event.level, "message": event.message, "type": event.type, "data": event.data,
    }  # fmt: skip


def checkpoints(context: EmulatorContext, call: Call) -> Reply:
    """Usable models of the last three epochs, newest first (.../guides/supervised-fine-tuning, seen 2026-11-21)."""
    job = find(context, call)
    kept = context.status(job, call.now).checkpoints[-3:]
    views = [_checkpoint(context, job, one) for one in reversed(kept)]
    return Reply(body=page(views, call, default=10, most=1000, ends=True))


def _checkpoint(context: EmulatorContext, job: dict[str, Any], kept: EmulatedCheckpoint) -> dict[str, Any]:
    digest = hashlib.sha256(f"{job['id']}/{kept.step}".encode()).hexdigest()[:24]
    return {
        "object": "fine_tuning.job.checkpoint", "id": f"ftckpt_{digest}", "created_at": context.stamp(kept.at),
        "fine_tuned_model_checkpoint": checkpoint_model(job, kept), "step_number": kept.step,
        "metrics": kept.metrics, "fine_tuning_job_id": job["id"],
    }  # fmt: skip


def checkpoint_model(job: dict[str, Any], kept: EmulatedCheckpoint) -> str:
    """A checkpoint's name as a model: the last one is the tuned model itself."""
    return str(job["fine_tuned_model"] if kept.is_last else f"{job['fine_tuned_model']}:ckpt-step-{kept.step}")
