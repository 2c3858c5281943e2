"""``POST /v1/fine_tuning/jobs``: which errors are refused at create, and which fail the job later.

Fields and ranges: published OpenAPI description, ``CreateFineTuningJobRequest`` and the hyperparameter schemas
(github.com/openai/openai-openapi, commit f85dbe2, seen 2026-11-21). There is no idempotency key: the same request
creates another job.
"""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.catalog import load
from cloudtune_emulator import rowcheck
from cloudtune_emulator.azure import dialect
from cloudtune_emulator.bedrock import mantle
from cloudtune_emulator.http import ApiError, Call, Reply, fit
from cloudtune_emulator.openai import jobs, models
from cloudtune_emulator.openai.compatible import profile_of
from cloudtune_emulator.openai.token_counts import TrainingTokens
from cloudtune_emulator.store import new_id

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.openai.compatible import Profile

KNOWN = frozenset(
    {"model", "training_file", "validation_file", "hyperparameters", "method", "suffix", "seed", "integrations",
     "metadata"}
)  # fmt: skip
_AZURE_TIERS = ("Standard", "GlobalStandard", "developerTier", "Developer", "DataZoneStandard")
_COMMON: dict[str, tuple[float, float, bool]] = {
    "n_epochs": (1, 50, True), "batch_size": (1, 256, True), "learning_rate_multiplier": (0, math.inf, False),
}  # fmt: skip
"""Minimum, maximum, integer: the minimum is excluded unless the number is an integer."""
_RANGES: dict[str, dict[str, tuple[float, float, bool]]] = {
    "supervised": _COMMON,
    "dpo": _COMMON | {"beta": (0, 2, False)},
    "reinforcement": _COMMON
    | {"compute_multiplier": (0.00001, 10, False), "eval_interval": (1, math.inf, True),
       "eval_samples": (1, math.inf, True)},
}  # fmt: skip
_UNSAFE = {
    "code": "unsafe_file", "param": "training_file",
    "message": "The job failed due to an unsafe training file. This training file was blocked because too many "
    "examples were flagged by our moderation for content that violates the usage policies.",
}  # fmt: skip
"""A job whose rows were moderated away, as users of both vendors quote it (seen 2026-11-21)."""
_EFFORTS = ("default", "low", "medium", "high")


class _Config(msgspec.Struct):
    hyperparameters: dict[str, Any] | None = None
    grader: dict[str, Any] | None = None


class _Method(msgspec.Struct):
    type: str | None = None
    supervised: _Config | None = None
    dpo: _Config | None = None
    reinforcement: _Config | None = None


class _Integration(msgspec.Struct):
    type: str | None = None
    wandb: dict[str, Any] | None = None


class _Body(msgspec.Struct):
    """The types of the fields that are read; the rest is checked below, with the vendor's messages."""

    method: _Method | None = None
    hyperparameters: dict[str, Any] | None = None
    integrations: list[_Integration] | None = None
    training_type: str | None = msgspec.field(default=None, name="trainingType")


def create(context: EmulatorContext, call: Call) -> Reply:
    """Create a job."""
    body = call.body
    fit(body, _Body)
    profile = profile_of(context, call.api)
    if profile is not None:
        profile.refuse(body)
    _fields(call)
    method, extra, hyperparameters = _method(body, profile)
    base = _tunable(context, call, method)
    if context.settings.jobs_per_day is not None:
        _daily(context, call)
    if call.api == "azure":
        dialect.refuse_busy(context, call)
    training = _file(context, call, "training_file")
    validation = _file(context, call, "validation_file") if body.get("validation_file") else None
    if method == "reinforcement" and call.api == "azure" and validation is None:
        # Azure requires one for this method (learn.microsoft.com, reinforcement fine-tuning, seen 2026-11-21).
        raise ApiError(400, "validation_file is required for reinforcement fine-tuning.", param="validation_file")
    job_id = new_id("ftjob-")
    job: dict[str, Any] = {
        "id": job_id, "api": call.api, "created": call.now, "request": body, "base": base, "method": method,
        "method_extra": extra, "hyperparameters": hyperparameters, "acts": [], "settled": False,
        "seed": secrets.randbelow(2**31) if body.get("seed") is None else body["seed"],
        "fine_tuned_model": models.tuned_name(context, call.api, base, body.get("suffix"), job_id),
        "result_file": new_id("file-result-"),
    }  # fmt: skip
    if profile is not None:
        job |= profile.local(hyperparameters)
    paths = (context.store.content(training["id"]), context.store.content(validation["id"]) if validation else None)
    known = load("azure_openai" if call.api == "azure" else "openai").model(base)
    takes_images = known is None or "image" in known.inputs
    job["course"] = _course(base, method, hyperparameters, *paths, takes_images=takes_images)
    if job["course"]["error"] is None and context.faults.condition("unsafe_file", call.name):
        job["course"]["error"] = _UNSAFE
    context.engine.begin(job, *paths)
    context.store.add("job", call.api, job)
    return Reply(body=jobs.view(context, job, context.status(job, call.now), call.now))


def _fields(call: Call) -> None:
    body = call.body
    known = KNOWN | ({"trainingType"} if call.api == "azure" else frozenset())
    if unknown := sorted(set(body) - known):
        # https://github.com/openai/openai-openapi: CreateFineTuningJobRequest has no others.
        message = f"Additional properties are not allowed ({', '.join(repr(name) for name in unknown)} unexpected)"
        raise ApiError(400, message, param=unknown[0], code="unknown_parameter")
    for name in ("model", "training_file"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise ApiError(400, f"'{name}' is a required property", param=name)
    if call.api == "mantle":
        mantle.refuse(body)
    _suffix(call)
    seed = body.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= 2147483647):
        raise ApiError(400, f"{seed!r} is not an integer from 0 to 2147483647 - 'seed'", param="seed")
    _metadata(body.get("metadata"))
    for integration in body.get("integrations") or ():
        if integration.get("type") != "wandb" or not (integration.get("wandb") or {}).get("project"):
            raise ApiError(400, "integrations: only 'wandb' with a project is supported.", param="integrations")
    tier = body.get("trainingType")
    if tier is not None and tier not in _AZURE_TIERS:
        raise ApiError(400, f"'{tier}' is not a training type: {', '.join(_AZURE_TIERS)}.", param="trainingType")


def _suffix(call: Call) -> None:
    """64 characters on OpenAI; 18 and no dots on Azure (learn.microsoft.com, fine-tuning how-to, seen 2026-11-21)."""
    suffix = call.body.get("suffix")
    if suffix is None:
        return
    most = 18 if call.api == "azure" else 64
    if not isinstance(suffix, str) or not 1 <= len(suffix) <= most:
        raise ApiError(400, f"{suffix!r} is too long or too short: 1 to {most} characters - 'suffix'", param="suffix")
    if call.api == "azure" and "." in suffix:
        raise ApiError(400, f"{suffix!r} must not contain dots - 'suffix'", param="suffix")


def _metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or len(metadata) > 16:
        raise ApiError(400, "'metadata' must be an object of at most 16 pairs.", param="metadata")
    for key, value in metadata.items():
        if len(key) > 64 or not isinstance(value, str) or len(value) > 512:
            message = f"metadata[{key[:64]}]: keys have at most 64 characters, values are strings of at most 512."
            raise ApiError(400, message, param="metadata")


def _method(body: dict[str, Any], profile: Profile | None) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The method's name, its other settings, and its hyperparameters with "auto" where none is given."""
    method = body.get("method") or {"type": "supervised"}
    kind = method.get("type")
    if kind not in _RANGES:
        raise ApiError(400, f"'{kind}' is not one of {sorted(_RANGES)} - 'method.type'", param="method.type")
    config = method.get(kind) or {}
    hyperparameters = config.get("hyperparameters") or {}
    if body.get("hyperparameters"):
        if hyperparameters:
            raise ApiError(400, "Give hyperparameters in 'method' only.", param="hyperparameters")
        hyperparameters = body["hyperparameters"]
    if profile is not None:
        profile.check(hyperparameters)
        return kind, {}, dict.fromkeys(_COMMON, "auto") | hyperparameters
    ranges = _RANGES[kind]
    efforts = {"reasoning_effort"} if kind == "reinforcement" else set()
    if unknown := sorted(set(hyperparameters) - set(ranges) - efforts):
        raise ApiError(400, f"Unknown hyperparameter '{unknown[0]}' for {kind}.", param=f"hyperparameters.{unknown[0]}")
    for name, value in hyperparameters.items():
        _in_range(name, value, ranges.get(name))
    extra = {name: value for name, value in config.items() if name != "hyperparameters"}
    if kind == "reinforcement" and not isinstance(extra.get("grader"), dict):
        raise ApiError(400, "'grader' is a required property", param="method.reinforcement.grader")
    defaults: dict[str, Any] = dict.fromkeys(ranges, "auto")
    if efforts:
        defaults["reasoning_effort"] = "default"
    return kind, extra, defaults | {name: value for name, value in hyperparameters.items() if value is not None}


def _in_range(name: str, value: Any, limits: tuple[float, float, bool] | None) -> None:
    param = f"hyperparameters.{name}"
    if limits is None:
        if value not in _EFFORTS:
            raise ApiError(400, f"'{value}' is not one of {list(_EFFORTS)} - '{name}'", param=param)
        return
    if value in ("auto", None):
        return
    least, most, is_whole = limits
    is_number = isinstance(value, int) or (isinstance(value, float) and not is_whole)
    if isinstance(value, bool) or not is_number or value > most or (value < least if is_whole else value <= least):
        raise ApiError(
            400, f"Invalid value for '{name}': {value!r}. Allowed: 'auto' or {least} to {most}.", param=param
        )


def _tunable(context: EmulatorContext, call: Call, method: str) -> str:
    """The base model, or an error. A tuned model continues from its own base."""
    name = call.body["model"]
    base = models.base_of(context, call, name)
    if base is None or method not in models.tunable(context, call.api)[base]:
        message = f"Model {name} is not available for fine-tuning or does not exist."
        if base is not None:
            message = f"Model {name} does not support the fine-tuning method '{method}'."
        raise ApiError(400, message, code="model_not_available", param="model")
    return base


def _daily(context: EmulatorContext, call: Call) -> None:
    """429 ``daily_rate_limit_exceeded`` (johny-b/llmcomp #58, seen 2026-11-21): waiting minutes does not help."""
    made = [job for job in context.store.all("job", call.api) if job["created"] > call.now - 86400]
    if len(made) >= (context.settings.jobs_per_day or 0):
        wait = math.ceil(made[0]["created"] + 86400 - call.now)
        message = (
            f"You have reached the limit of {context.settings.jobs_per_day} fine-tuning jobs per day for this model."
        )
        headers = {"Retry-After": str(wait)}
        raise ApiError(429, message, code="daily_rate_limit_exceeded", type="requests", headers=headers)


def _file(context: EmulatorContext, call: Call, param: str) -> dict[str, Any]:
    """A file that exists, has the right purpose and is ready (openai-python #1224, seen 2026-11-21)."""
    name = call.body[param]
    file = context.store.get("file", call.api, name) if isinstance(name, str) else None
    if file is None:
        raise ApiError(400, f"invalid {param}: {name}", param=param)
    if file["purpose"] != "fine-tune":
        raise ApiError(400, f"{name} has the purpose '{file['purpose']}', not 'fine-tune'.", param=param)
    if call.now < file["created"] + context.settings.processing_s:
        raise ApiError(400, f"File '{name}' is still being processed and is not ready to be used.", param=param)
    return file


def _course(
    base: str, method: str, requested: dict[str, Any], training: Any, validation: Any, *, takes_images: bool
) -> dict[str, Any]:  # fmt: skip
    """What "auto" becomes: 3 epochs, a batch of 0.2 % of the rows, as the vendor's own choice is not documented."""
    tokens = TrainingTokens(base)
    counted = rowcheck.check(training, method, "training_file", takes_images=takes_images, tokens=tokens)
    error = counted.error
    if validation is not None and error is None:
        error = rowcheck.check(validation, method, "validation_file", takes_images=takes_images).error
    batch = requested["batch_size"] if requested["batch_size"] != "auto" else min(256, max(1, counted.rows // 500))
    epochs = requested["n_epochs"] if requested["n_epochs"] != "auto" else 3
    multiplier = requested["learning_rate_multiplier"]
    return {
        "steps": max(1, math.ceil(counted.rows / batch)) * epochs, "epochs": epochs, "batch_size": batch,
        "learning_rate_multiplier": 1.0 if multiplier == "auto" else float(multiplier), "tokens": tokens.total(),
        "has_validation": validation is not None, "error": error,
    }  # fmt: skip
