"""Customization jobs: get, list, stop; and the results of ended jobs.

Shapes: botocore 1.44.5. The three phases of ``statusDetails``, and the metric files below the output location:
https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-analyze.html (seen 2026-11-21).
"""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws import buckets
from cloudtune_emulator.aws.errors import conflict
from cloudtune_emulator.bedrock import base_models, models, resources
from cloudtune_emulator.bedrock.resources import API
from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.store import Ended

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.job_timeline import JobStatus

STOPPING_S = 1.0
"""How long a job is Stopping if no script sets it."""
ENDED = frozenset({"Completed", "Failed", "Stopped"})
_PHASES = ("validationDetails", "dataProcessingDetails", "trainingDetails")
_PHASE_OF = {"validating_files": 0, "queued": 1, "running": 2, "pausing": 2, "paused": 2}
_TRAINING = "training_artifacts/step_wise_training_metrics.csv"
_VALIDATION = "validation_artifacts/post_fine_tuning_validation/validation/validation_metrics.csv"


def word(job: dict[str, Any], seen: JobStatus, now: float) -> str:
    """The service's status value of the job."""
    if seen.word == "cancelled":
        patience = (job.get("script") or {}).get("stopping_s") or STOPPING_S
        return "Stopping" if now < (seen.finished_at or 0.0) + patience else "Stopped"
    return {"succeeded": "Completed", "failed": "Failed"}.get(seen.word, "InProgress")


def ended(context: EmulatorContext, job: dict[str, Any], now: float) -> Ended | None:
    """The end of a job that is over. A completed one creates its model and its metric files."""
    seen = context.engine.status(job, now)
    if word(job, seen, now) not in ENDED:
        return None
    at = now if seen.finished_at is None else seen.finished_at

    def record() -> None:
        if seen.word != "succeeded":
            return
        rows = context.engine.results(job)
        validation = _last(rows, "full_valid_loss") or _last(rows, "valid_loss")
        job["final"] = {"train": _last(rows, "train_loss"), "valid": validation}
        models.add(context, job, at)
        _write(context, job, rows, at)

    return Ended(at, record)


def is_taken(context: EmulatorContext, call: Call, name: str) -> bool:
    """Whether a model or an active job has that name; ended jobs do not reserve theirs."""
    if models.by_name(context, call.region, name) is not None:
        return True
    held = context.store.get("model_name", API, f"{call.region}/{name}")
    job = None if held is None else context.store.get("job", API, held["job"])
    return job is not None and word(job, context.status(job, call.now), call.now) not in ENDED


def _write(context: EmulatorContext, job: dict[str, Any], rows: list[dict[str, Any]], at: float) -> None:
    """The metric files. Raises NoSuch if the bucket no longer exists."""
    per_epoch = max(1, math.ceil(job["course"]["steps"] / max(1, job["course"]["epochs"])))
    folder = buckets.parse(job["request"]["outputDataConfig"]["s3Uri"]).under(f"model-customization-job-{job['id']}")
    buckets.put(context, folder.under(_TRAINING), _csv(rows, "training_loss", "train_loss", per_epoch), at)
    if job["course"]["has_validation"]:
        names = ("full_valid_loss", "valid_loss")
        held = [row | {"loss": next((row[name] for name in names if name in row), None)} for row in rows]
        shown = [row for row in held if row["loss"] is not None]
        buckets.put(context, folder.under(_VALIDATION), _csv(shown, "validation_loss", "loss", per_epoch), at)


def _last(rows: list[dict[str, Any]], name: str) -> float | None:
    return next((float(row[name]) for row in reversed(rows) if name in row), None)


def _csv(rows: list[dict[str, Any]], column: str, name: str, per_epoch: int) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step_number", "epoch_number", column, "perplexity"])
    for row in rows:
        if (loss := row.get(name)) is not None:
            epoch = (int(row["step"]) - 1) // per_epoch
            writer.writerow([row["step"], epoch, loss, round(math.exp(min(loss, 50.0)), 6)])
    return text.getvalue().encode()


def get(context: EmulatorContext, call: Call) -> Reply:
    """GetModelCustomizationJob."""
    job = find(context, call)
    return Reply(body=_view(context, job, context.status(job, call.now), call))


def find(context: EmulatorContext, call: Call) -> dict[str, Any]:
    """The job that the path names, by ARN or name."""
    return resources.find(context, "job", call, call.ids["jobIdentifier"], "job")


def list_(context: EmulatorContext, call: Call) -> Reply:
    """ListModelCustomizationJobs."""
    # A filter by status needs the state of every job; for ended jobs this is cheap.
    views = [_summary(context, job, call) for job in resources.under(context, "job", call.region)]
    return resources.page(
        context, call, views, under="modelCustomizationJobSummaries", name="jobName", made="creationTime"
    )


def stop(context: EmulatorContext, call: Call) -> Reply:
    """StopModelCustomizationJob. A job that has ended is a conflict (botocore 1.44.5: ConflictException is listed)."""
    with context.store.alone():
        job = find(context, call)
        said = word(job, context.status(job, call.now), call.now)
        if said in ENDED:
            raise conflict(f"The job {job['name']} is {said} and cannot be stopped.")
        if said == "InProgress":
            context.engine.act(job, "cancel", call.now)
            context.store.save("job", API, job)
    return Reply(body={})


def _view(context: EmulatorContext, job: dict[str, Any], seen: JobStatus, call: Call) -> dict[str, Any]:
    request = job["request"]
    said = word(job, seen, call.now)
    shown = _common(context, job, seen, call, said) | {
        "outputModelName": request["customModelName"], "roleArn": request["roleArn"],
        "hyperParameters": job["hyperparameters"], "trainingDataConfig": request["trainingDataConfig"],
        "validationDataConfig": request.get("validationDataConfig") or {"validators": []},
        "outputDataConfig": request["outputDataConfig"], "customizationType": job["kind"],
    }  # fmt: skip
    shown |= {
        name: request[name] for name in ("clientRequestToken", "vpcConfig", "customizationConfig") if name in request
    }
    if said == "Completed":
        shown["outputModelArn"] = job["fine_tuned_model"]
        shown |= models.losses(job)
    if said == "Failed":
        shown["failureMessage"] = str((seen.error or {}).get("message", ""))[:2048]
    if "customModelKmsKeyId" in request:
        shown["outputModelKmsKeyArn"] = request["customModelKmsKeyId"]
    return shown


def _common(context: EmulatorContext, job: dict[str, Any], seen: JobStatus, call: Call, said: str) -> dict[str, Any]:
    changed = max([job["created"], *(event.at for event in seen.events[-1:]), seen.finished_at or 0.0])
    invented = context.faults.condition("invented_status", call.name)
    shown = {
        "jobArn": job["arn"], "jobName": job["name"], "status": invented.value if invented else said,
        "statusDetails": _details(context, job, seen, said, changed),
        "creationTime": resources.stamp(context, job["created"]), "lastModifiedTime": resources.stamp(context, changed),
        "baseModelArn": base_models.arn(job["region"], job["base"]),
    }  # fmt: skip
    if seen.finished_at is not None and said in ENDED:
        shown["endTime"] = resources.stamp(context, seen.finished_at)
    return shown


def _details(
    context: EmulatorContext, job: dict[str, Any], seen: JobStatus, said: str, changed: float
) -> dict[str, Any]:
    """The current phase: earlier ones are Completed, later ones NotStarted."""
    at = _PHASE_OF.get(seen.word)
    if at is None:  # it has ended, or is stopping
        at = 2 if seen.started_at is not None else 0
    found = {}
    for index, name in enumerate(_PHASES):
        own = "Completed" if index < at or said == "Completed" else "NotStarted" if index > at else said
        found[name] = {"status": own}
        if own != "NotStarted":
            found[name]["creationTime"] = resources.stamp(context, job["created"])
            found[name]["lastModifiedTime"] = resources.stamp(context, changed)
    return found


def _summary(context: EmulatorContext, job: dict[str, Any], call: Call) -> dict[str, Any]:
    seen = context.status(job, call.now)
    said = word(job, seen, call.now)
    shown = _common(context, job, seen, call, said)
    shown |= {"customizationType": job["kind"], "customModelName": job["request"]["customModelName"]}
    if said == "Completed":
        shown["customModelArn"] = job["fine_tuned_model"]
    return shown
