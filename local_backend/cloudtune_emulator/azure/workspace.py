"""Fine-tuning jobs in an Azure Machine Learning workspace: the calls that azure-ai-ml 1.35.2 makes.

``PUT``, ``GET``, list, ``cancel`` and ``DELETE`` of ``.../workspaces/{workspace}/jobs`` (seen by running the SDK,
2026-11-21). Data and models are URIs, which are never resolved: these jobs are always scripted, also with the
``train`` engine. Status values: azure-ai-ml's own (``NotStarted`` to ``Completed``, ``Failed``, ``Canceled``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune_emulator.azure.deployments import ArmError, fit_arm
from cloudtune_emulator.engines import ScriptEngine
from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.job_timeline import ENDED, Actions, JobStatus, Script, TrainingPlan, status_at

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from cloudtune_emulator.context import EmulatorContext

_WORDS = {
    "validating_files": "Preparing", "queued": "Queued", "running": "Running", "succeeded": "Completed",
    "failed": "Failed", "cancelled": "Canceled",
}  # fmt: skip
_COURSE = TrainingPlan(steps=100, epochs=1, batch_size=1, learning_rate_multiplier=1.0, tokens=0)
_TYPE = "Microsoft.MachineLearningServices/workspaces"
_SPOKEN = ("tags", "properties", "description", "displayName", "isArchived")
"""The fields of an existing job that can change; others cannot."""


def get_workspace(context: EmulatorContext, call: Call) -> Reply:
    """The workspace itself; any name is accepted."""
    properties = {"provisioningState": "Succeeded", "discoveryUrl": f"{call.base}/discovery", "workspaceId": "emulated"}
    identity = {"id": _id(call), "name": call.ids["workspace"], "type": _TYPE, "location": context.settings.location}
    return Reply(body=identity | {"kind": "Default", "properties": properties})


def public(context: EmulatorContext, request: Request) -> None:
    """azure-ai-ml 1.35.2 requests the discovery document without a token. It contains only the server's own URL."""


def discovery(context: EmulatorContext, call: Call) -> Reply:
    """The URL of the workspace's other services: this server."""
    return Reply(body=dict.fromkeys(("api", "history", "studio"), call.base))


def run_details(context: EmulatorContext, call: Call) -> Reply:
    """The record of a job's run, which holds the reason of a failure (azure-ai-ml 1.35.2, ``runhistory``)."""
    job = _find(context, call)
    seen = seen_of(job, call.now)
    details: dict[str, Any] = {"runId": job["id"], "status": _WORDS[seen.word], "target": "serverless"}
    for name, at in (("startTimeUtc", seen.started_at), ("endTimeUtc", seen.finished_at)):
        if at is not None:
            details[name] = _moment(context, at)
    if seen.error is not None:
        error = {"code": "UserError", "message": seen.error["message"], "messageParameters": {}, "details": []}
        details["error"] = {"error": error, "environment": context.settings.location}
    return Reply(body=details)


class _Properties(msgspec.Struct, rename="camel"):
    job_type: str | None = None
    fine_tuning_details: dict[str, Any] | None = None
    tags: dict[str, str | None] | None = None
    properties: dict[str, str | None] | None = None
    outputs: dict[str, dict[str, Any]] | None = None


class _Body(msgspec.Struct):
    """The types of a job's request body."""

    properties: _Properties | None = None


def put(context: EmulatorContext, call: Call) -> Reply:
    """Create a job. The client chooses the name, so a repeated request returns the same job, or a conflict."""
    fit_arm(call.body, _Body)
    properties = call.body.get("properties") or {}
    if properties.get("jobType") != "FineTuning":
        message = f"Only jobs of the type FineTuning are emulated, not {properties.get('jobType')!r}."
        raise ArmError(400, "UserError", message)
    details = properties.get("fineTuningDetails") or {}
    for name in ("model", "trainingData", "taskType"):
        if not details.get(name):
            raise ArmError(400, "UserError", f"fineTuningDetails.{name} is missing.")
    with context.store.alone():
        old = context.store.get("mljob", "azure", call.ids["job"])
        if old is None:
            engine = context.engine
            script = engine.script if isinstance(engine, ScriptEngine) else Script()
            job = {
                "id": call.ids["job"], "created": call.now, "acts": [], "properties": properties,
                "script": msgspec.to_builtins(script),
            }  # fmt: skip
            context.store.add("mljob", "azure", job)
            return Reply(status=201, body=_view(context, call, job))
        if _fixed(old["properties"]) != _fixed(properties):
            raise ArmError(409, "UserError", f"A job {old['id']} exists, and only its tags and texts may change.")
        old["properties"] = properties
        context.store.save("mljob", "azure", old)
    return Reply(body=_view(context, call, old))


def _fixed(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name not in _SPOKEN}


def get(context: EmulatorContext, call: Call) -> Reply:
    """One job."""
    return Reply(body=_view(context, call, _find(context, call)))


def list_(context: EmulatorContext, call: Call) -> Reply:
    """Jobs, newest first; ``tag`` filters by a tag's name."""
    jobs = context.store.all("mljob", "azure")[::-1]
    if tag := call.query.get("tag"):
        jobs = [job for job in jobs if tag in (job["properties"].get("tags") or {})]
    if lag := context.faults.condition("list_lag", call.name):
        jobs = [job for job in jobs if job["created"] <= call.now - lag.seconds]
    return Reply(body={"value": [_view(context, call, job) for job in jobs]})


def cancel(context: EmulatorContext, call: Call) -> Reply:
    """Cancel a job. An ended job does not change."""
    with context.store.alone():
        job = _find(context, call)
        if seen_of(job, call.now).word not in ENDED:
            job["acts"].append([call.now, "cancel"])
            context.store.save("mljob", "azure", job)
    return Reply(status=200)


def delete(context: EmulatorContext, call: Call) -> Reply:
    """Delete an ended job. One that does not exist counts as deleted."""
    with context.store.alone():
        job = context.store.get("mljob", "azure", call.ids["job"])
        if job is None:
            return Reply(status=204)
        if seen_of(job, call.now).word not in ENDED:
            raise ArmError(409, "UserError", f"The job {job['id']} is still running.")
        context.store.remove("mljob", "azure", job["id"])
    return Reply(status=200)


def _find(context: EmulatorContext, call: Call) -> dict[str, Any]:
    job = context.store.get("mljob", "azure", call.ids["job"])
    if job is None:
        raise ArmError(404, "NotFound", f"Job {call.ids['job']} was not found.")
    return job


def seen_of(job: dict[str, Any], now: float) -> JobStatus:
    """The state of a job at that time."""
    acts = Actions(tuple((at, kind) for at, kind in job["acts"]))
    return status_at(job["id"], job["created"], 0, msgspec.convert(job["script"], Script), _COURSE, acts, now)


def _view(context: EmulatorContext, call: Call, job: dict[str, Any]) -> dict[str, Any]:
    seen = seen_of(job, call.now)
    word = _WORDS[seen.word]
    if word == "Preparing" and call.now < job["created"] + job["script"]["validating_s"] / 2:
        word = "NotStarted"
    if invented := context.faults.condition("invented_status", call.name):
        word = invented.value
    properties = job["properties"] | {"status": word, "services": {}}
    if seen.word == "succeeded":  # a registered model is returned with its location
        properties["outputs"] = {
            name: output | {"uri": f"azureml://jobs/{job['id']}/outputs/{name}"}
            for name, output in (properties.get("outputs") or {}).items()
        }
    made = _moment(context, job["created"])
    return {
        "id": f"{_id(call)}/jobs/{job['id']}", "name": job["id"], "type": f"{_TYPE}/jobs", "properties": properties,
        "systemData": {"createdAt": made, "createdBy": "emulated", "createdByType": "User"},
    }  # fmt: skip


def _id(call: Call) -> str:
    group = f"/subscriptions/{call.ids['subscription']}/resourceGroups/{call.ids['group']}"
    return f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{call.ids['workspace']}"


def _moment(context: EmulatorContext, at: float) -> str:
    return datetime.fromtimestamp(at + context.faults.skew(), UTC).isoformat()
