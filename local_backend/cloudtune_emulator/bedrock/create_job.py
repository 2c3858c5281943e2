"""CreateModelCustomizationJob: which errors are refused at create, and which fail the job later.

Invalid names, roles, base models, hyperparameters and S3 locations are refused at create; bad rows fail the job
(https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-submit.html, seen 2026-11-21).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune_emulator.aws import buckets
from cloudtune_emulator.aws.errors import conflict, invalid
from cloudtune_emulator.bedrock import (
    base_models,
    jobs,
    models,
    resources,
    rows,
)
from cloudtune_emulator.bedrock.resources import API
from cloudtune_emulator.http import Call, Reply

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune_emulator.context import EmulatorContext

_METHODS = {
    "FINE_TUNING": "supervised", "CONTINUED_PRE_TRAINING": "continued", "DISTILLATION": "distillation",
    "REINFORCEMENT_FINE_TUNING": "reinforcement",
}  # fmt: skip
_ROWS_A_STEP = 4
"""The batch size for a family without one; the service's behavior is not documented."""


def create(context: EmulatorContext, call: Call) -> Reply:
    """CreateModelCustomizationJob."""
    body = call.body
    with context.store.alone():
        if (made := resources.repeated(context, call, "job")) is not None:
            return Reply(status=201, body={"jobArn": made["arn"]})
        _refuse_names(context, call)
        kind = body.get("customizationType", "FINE_TUNING")
        base, origin = _base(context, call, kind)
        figures = _figures(base, kind, body)
        resources.assume(context, body["roleArn"])
        job = _job(context, call, kind, base, origin)
        places = _places(context, call)
        counted = _read(context, call, kind, base, places)
        job["course"] = _course(base, figures, counted)
        job["local"] = _local(figures)
        paths = _write(context, job, counted)
        context.engine.begin(job, *paths)
        resources.keep(context, call, "job", job)
        _take(context, job)
    return Reply(status=201, body={"jobArn": job["arn"]})


def _refuse_names(context: EmulatorContext, call: Call) -> None:
    body = call.body
    if resources.by_name(context, "job", call.region, body["jobName"]) is not None:
        raise conflict(f"The provided job name {body['jobName']} is already in use.")
    if jobs.is_taken(context, call, body["customModelName"]):
        raise conflict(f"The provided custom model name {body['customModelName']} is already in use.")
    resources.tags(body.get("jobTags"))
    resources.tags(body.get("customModelTags"))


def _take(context: EmulatorContext, job: dict[str, Any]) -> None:
    name = f"{job['region']}/{job['request']['customModelName']}"
    context.store.remove("model_name", API, name)
    context.store.add("model_name", API, {"id": name, "job": job["id"]})


def _base(context: EmulatorContext, call: Call, kind: str) -> tuple[str, str | None]:
    """The base model, and the ARN of the tuned model from which the job continues."""
    if kind not in base_models.METHODS:
        raise invalid(f"The customization type {kind} cannot be asked for.")
    identifier = call.body["baseModelIdentifier"]
    tuned = models.either(context, call, identifier)
    if tuned is not None and tuned["job"] is None:
        raise invalid(f"The model {tuned['name']} was registered, and training on from such a model is not emulated.")
    base, origin = (base_models.plain(identifier), None) if tuned is None else (tuned["base"], tuned["arn"])
    faults = [fault] if (fault := base_models.unfit(base, kind, call.region, call.now)) else []
    faults += base_models.hyperparameters(base, kind, call.body.get("hyperParameters") or {})[1]
    base_models.refuse(faults)
    config = call.body.get("customizationConfig") or {}
    needed = {"DISTILLATION": "distillationConfig", "REINFORCEMENT_FINE_TUNING": "rftConfig"}.get(kind)
    if needed is not None and needed not in config:
        raise invalid(f"customizationConfig.{needed} is required for {kind}.")
    if config and needed not in config:
        raise invalid(f"customizationConfig does not belong to {kind}.")
    return base, origin


def _figures(base: str, kind: str, body: dict[str, Any]) -> dict[str, float]:
    figures, _ = base_models.hyperparameters(base, kind, body.get("hyperParameters") or {})
    if kind == "REINFORCEMENT_FINE_TUNING":
        # Numbers here, and not strings (botocore 1.44.5, RFTHyperParameters).
        given = (body["customizationConfig"]["rftConfig"].get("hyperParameters")) or {}
        figures |= {name: float(value) for name, value in given.items() if isinstance(value, int | float)}
    return figures


def _job(context: EmulatorContext, call: Call, kind: str, base: str, origin: str | None) -> dict[str, Any]:
    body = call.body
    job_id = resources.named_id("job", call.region, body["jobName"])
    model_id = resources.named_id("model", job_id)
    return {
        "id": job_id, "api": API, "region": call.region, "name": body["jobName"], "created": call.now,
        "arn": resources.arn(context, call.region, f"model-customization-job/{base}/{job_id}"),
        "request": body, "base": base, "trains": origin or base, "kind": kind, "method": _METHODS[kind],
        "hyperparameters": dict(body.get("hyperParameters") or {}), "acts": [], "settled": False,
        "seed": int(job_id, 36) % 2**31, "tags": resources.tags(body.get("jobTags")), "model_id": model_id,
        "fine_tuned_model": resources.arn(context, call.region, f"custom-model/{base}/{model_id}"),
    }  # fmt: skip


def _places(context: EmulatorContext, call: Call) -> dict[str, buckets.Place | None]:
    """The locations of data and results, all in the job's own region."""
    body = call.body
    training = body["trainingDataConfig"]
    logs = ((training.get("invocationLogsConfig") or {}).get("invocationLogSource") or {}).get("s3Uri")
    uri = training.get("s3Uri") or logs
    if uri is None:
        raise invalid("trainingDataConfig needs s3Uri or invocationLogsConfig.")
    validators = (body.get("validationDataConfig") or {}).get("validators") or ()
    found: dict[str, buckets.Place | None] = {
        "training": buckets.parse(uri), "output": buckets.parse(body["outputDataConfig"]["s3Uri"]),
        "validation": buckets.parse(validators[0]["s3Uri"]) if validators else None,
    }  # fmt: skip
    for what, place in found.items():
        if place is None:
            continue
        try:
            lies = buckets.region(context, place.bucket)
        except buckets.NoSuch as error:
            raise invalid(f"The {what} data's bucket {place.bucket} does not exist, or may not be accessed.") from error
        if lies != call.region:
            # https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html (seen 2026-11-21)
            raise invalid(f"The bucket {place.bucket} is in {lies}; it must be in the job's region, {call.region}.")
    return found


def _read(
    context: EmulatorContext, call: Call, kind: str, base: str, places: dict[str, buckets.Place | None]
) -> dict[str, rows.Counted]:
    found: dict[str, rows.Counted] = {}
    is_logs = not call.body["trainingDataConfig"].get("s3Uri")
    for what in ("validation", "training"):
        place = places[what]
        if place is None:
            continue
        try:
            data = _logged(context, place) if is_logs and what == "training" else buckets.get(context, place)
        except buckets.NoSuch as error:
            raise invalid(f"The {what} data {place.uri} does not exist, or may not be accessed.") from error
        task = rows.Task(base, kind, place.bucket)
        beside = found["validation"].rows if "validation" in found else 0
        found[what] = rows.check(data, task, place.key, is_training=what == "training", beside=beside)
    return found


def _logged(context: EmulatorContext, place: buckets.Place) -> bytes:
    """Invocation logs under a prefix, as prompts: the requests to a model, one per line."""
    lines = []
    for key, _ in buckets.keys(context, place):
        text = buckets.text(context, buckets.Place(place.bucket, key))
        lines += [_logged_row(line) for line in text.splitlines()]
    if not lines:
        raise buckets.NoSuch(place.uri)
    return b"\n".join(lines)


def _logged_row(line: bytes) -> bytes:
    try:
        logged = msgspec.json.decode(line)["input"]["inputBodyJson"]
        return msgspec.json.encode({"schemaVersion": "bedrock-conversation-2024"} | logged)
    except (msgspec.DecodeError, KeyError, TypeError):
        return line


def _course(base: str, figures: dict[str, float], counted: dict[str, rows.Counted]) -> dict[str, Any]:
    fault = next((f"{one.fault}." for one in counted.values() if one.fault), None)
    training = counted["training"]
    batch = int(figures.get("batchSize", _ROWS_A_STEP))
    epochs = int(figures.get("epochCount", 1))
    usual = base_models.default(base, "learningRate")
    rate = figures.get("learningRate")
    return {
        "steps": max(1, math.ceil(training.rows / batch)) * epochs, "epochs": epochs, "batch_size": batch,
        "learning_rate_multiplier": rate / usual if rate and usual else 1.0, "tokens": training.tokens,
        "has_validation": "validation" in counted,
        "error": None if fault is None else {"code": "invalid_data", "message": fault, "param": None},
    }  # fmt: skip


def _local(figures: dict[str, float]) -> dict[str, Any]:
    """Settings for the train engine besides epochs, batch size and learning rate."""
    warmup = figures.get("learningRateWarmupSteps")
    return {} if warmup is None else {"warmup_steps": int(warmup)}


def _write(context: EmulatorContext, job: dict[str, Any], counted: dict[str, rows.Counted]) -> tuple[Path, Path | None]:
    """Write the rows as conversations where the engines read them."""
    paths = {}
    for what, one in counted.items():
        paths[what] = context.store.content(f"{job['id']}-{what}.jsonl")
        paths[what].write_bytes(b"".join(msgspec.json.encode(chat) + b"\n" for chat in one.chats))
    return paths["training"], paths.get("validation")
