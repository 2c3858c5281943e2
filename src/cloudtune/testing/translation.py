"""Translates between cloudtune and the scripted vendor with pure functions, like every back end's ``translate``.

It also declares the back end's capabilities, with a reason for everything that is not supported.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cloudtune.backend import VERBS, Capabilities
from cloudtune.cost import CostEstimate, Usage
from cloudtune.data.checks.preparing import sources
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.reading import read
from cloudtune.data.records import Chat, Record, Text
from cloudtune.errors import (
    BackendError,
    Conflict,
    CredentialsError,
    InvalidRequest,
    JobNotFound,
    PermissionDenied,
    RateLimited,
    Unavailable,
)
from cloudtune.methods import methods_of
from cloudtune.plan import DataReport, Plan, PlanRequest, Resolved, Setting, Step, output_ref
from cloudtune.pricing import by_time
from cloudtune.spec import spec_features
from cloudtune.state import Event, JobProblem, JobRef, JobSnapshot, JobState, Metric, Progress
from cloudtune.testing.job_timeline import Word
from cloudtune.testing.vendor import TIMEOUT_S

if TYPE_CHECKING:
    from cloudtune.errors import CloudtuneError
    from cloudtune.spec import JobSpec
    from cloudtune.testing.service import VendorError

STATES: dict[str, JobState] = {
    Word.WAITING: JobState.QUEUED,
    Word.PREPARING: JobState.PREPARING,
    Word.TRAINING: JobState.RUNNING,
    Word.PAUSED: JobState.PAUSED,
    Word.STOPPING: JobState.CANCELLING,
    Word.COMPLETED: JobState.SUCCEEDED,
    Word.FAILED: JobState.FAILED,
    Word.STOPPED: JobState.CANCELLED,
    Word.TIMED_OUT: JobState.EXPIRED,
}
ROW_LIMIT_CHARS = 20_000
LATEST_S = 2 * TIMEOUT_S
"""How long after sending a request may still be executed: twice the client's timeout."""
DEFAULTS = {"hyperparameters.epochs": 3.0, "hyperparameters.learning_rate": 1e-4, "hyperparameters.batch_size": 8}
_METHODS, _ADAPTERS = methods_of("causal_lm"), ("full", "lora")
_OTHER_SETTINGS = (
    "path", "virtual_tokens", "rslora", "init", "modules_to_save", "bias", "bottleneck_size", "placement",
)  # fmt: skip
_REFUSED = {
    **dict.fromkeys(
        ("method.problem", "method.class_weights", "method.label_smoothing"),
        "it belongs to classification, which is not offered",
    ),
    **dict.fromkeys(
        ("method.loss", "method.pooling", "method.margin"), "it belongs to text embedding, which is not offered"
    ),
    **dict.fromkeys(
        ("method.reward", "method.num_generations", "method.temperature", "method.max_new_tokens"),
        "it belongs to policy optimization, which is not offered",
    ),
    "method.beta": "it belongs to preference methods, which are not offered",
    "hyperparameters.gradient_accumulation_steps": "the vendor divides batches as it likes",
    "hyperparameters.gradient_checkpointing": "the vendor decides what it keeps in memory",
    "hyperparameters.packing": "the vendor always packs",
    "hyperparameters.precision": "the vendor always trains in bf16",
    "validation.early_stopping": "a job runs all its steps; watch it and cancel it instead",
    "checkpoints.keep": "all checkpoints are kept",
    "data.test": "held-out rows are not taken; keep them and evaluate afterwards",
    "verb:export": "the weights stay with the vendor",
}


def capabilities() -> Capabilities:
    """The capabilities of the scripted back end."""
    reasons = dict(_REFUSED)
    for feature in spec_features():
        kind, _, name = feature.partition(":")
        if feature.removeprefix("adapter.") in _OTHER_SETTINGS:
            reasons[feature] = "it belongs to adapters that are not offered"
        if feature.startswith("layers."):
            reasons[feature] = "the vendor trains all layers alike"
        if feature.startswith("distributed."):
            reasons[feature] = "the vendor chooses its own machines"
        if kind == "method" and name and name not in _METHODS:
            reasons[feature] = f"the scripted vendor knows {' and '.join(_METHODS)} only"
        if kind == "adapter" and name and name not in _ADAPTERS:
            reasons[feature] = f"the scripted vendor trains {' or '.join(_ADAPTERS)} only"
    return Capabilities(
        supports=frozenset({*spec_features(), *VERBS} - reasons.keys()),
        reasons=reasons,
        translated={"limits.max_time": "max_time_s of the request", "tags": "the job's metadata"},
        poll_s=0.25,
    )


def refuse_long_rows(spec: JobSpec) -> None:
    """Raise DataError that lists every row over the model's limit, with its line."""
    faults = Faults()
    for source in sources(spec.data).values():
        for batch in read(source, Faults()):  # data preparation reports other problems of the rows
            for line, record in zip(batch.lines, batch.records, strict=True):
                if (length := _length(record)) > ROW_LIMIT_CHARS:
                    message = f"{length} characters, and the model takes {ROW_LIMIT_CHARS}"
                    faults.error("row_too_long", message, file=batch.file, line=line, fix="shorten it or leave it out")
    faults.raise_errors()


def _length(record: Record) -> int:
    if isinstance(record, Text):
        return len(record.text)
    turns = record.messages if isinstance(record, Chat) else []
    return sum(len(turn.content) for turn in turns if isinstance(turn.content, str))


def hosting_plan(
    purpose: Literal["deploy", "remove"], about: str, backend: str, scope: str, body: dict[str, Any]
) -> Plan:
    """A call's body. The key is a hash of the content and the location."""
    call = {"deploy": "create_deployment", "remove": "delete_deployment"}[purpose]
    key = hashlib.sha256(msgspec.json.encode([scope, call, body])).hexdigest()[:32]
    request = {"call": call, "body": body}
    step = Step(id=purpose, kind="call", title=f"{purpose} {about}", request=request, once="atomic")
    return Plan(
        purpose=purpose, name=body["name"], backend=backend, scope=scope, key=key, attempt=1, token=key, spec={},
        steps=(step,), data=DataReport(splits={}, fingerprint=""), resolved=Resolved(scope=scope),
    )  # fmt: skip


def plan_of(request: PlanRequest, *, name: str, personality: str, list_lag_s: float) -> Plan:
    """The steps of a job: encode and upload each split, wait until it is processed, create."""
    steps: list[Step] = []
    for split in request.data.splits:
        steps += _upload_steps(request, split, personality, list_lag_s)
    steps += _create_steps(request, name, personality, list_lag_s)
    return Plan(
        name=request.spec.name, backend=name, scope=request.resolved.scope, key=request.key, attempt=request.attempt,
        token=request.token, spec=request.spec.model_dump(mode="json", exclude_none=True), steps=tuple(steps),
        data=request.data, resolved=request.resolved, settings=_settings(request, name),
        parent=str(request.parent) if request.parent else None,
    )  # fmt: skip


def _upload_steps(request: PlanRequest, split: str, personality: str, list_lag_s: float) -> list[Step]:
    info = request.data.splits[split]
    call = {"token": "put_file", "unique_names": "multipart", "neither": "post_file"}[personality]
    key = f"{info.sha256}.jsonl"
    loose = personality == "neither"
    return [
        Step(
            id=f"encode_{split}", kind="encode", title=f"write the {split} rows",
            request={"split": split, "format": "cloudtune", "sha256": info.sha256},
        ),
        Step(
            id=f"upload_{split}", kind="upload", title=f"upload the {split} rows",
            request={"call": call, "body": {"name": key}}
            | {part: output_ref(f"encode_{split}", part) for part in ("path", "bytes", "sha256")},
            once="reconciled" if loose else "atomic", token=key, settle_s=LATEST_S + list_lag_s if loose else 0.0,
        ),
        Step(
            id=f"await_{split}", kind="await", title=f"wait until the {split} rows are processed",
            request={"call": "get_file", "body": {"id": output_ref(f"upload_{split}", "id")}}, limit_s=600.0,
        ),
    ]  # fmt: skip


def _create_steps(request: PlanRequest, name: str, personality: str, list_lag_s: float) -> list[Step]:
    loose = personality == "neither"
    create = Step(
        id="create", kind="call", title="create the job", request={"call": "create_job", "body": _body(request, name)},
        once="reconciled" if loose else "atomic", token=request.token,
        settle_s=LATEST_S + list_lag_s if loose else 0.0, makes_job=not loose,
    )  # fmt: skip
    if not loose:
        return [create]
    # Nothing stops a request that is delivered twice from making two jobs: look once the list has caught up.
    return [
        create,
        Step(
            id="confirm", kind="await", title="wait until the job is listed, and look for a duplicate",
            request={"call": "list_jobs", "id": output_ref("create", "id"), "token": request.token},
            limit_s=600.0 + list_lag_s,
        ),
        Step(
            id="settle", kind="call", title="cancel the duplicate, if there is one", makes_job=True,
            request={"call": "cancel_job"} | {part: output_ref("confirm", part) for part in ("duplicates", "ref")},
        ),
    ]  # fmt: skip


def _body(request: PlanRequest, name: str) -> dict[str, Any]:
    spec = request.spec
    requested = {feature: _plain(value) for feature, value in spec.requested_fields().items()}
    limits = [requested.pop("limits.max_time", None), request.run_seconds]
    max_time = min((limit for limit in limits if limit is not None), default=None)
    hyper = dict(DEFAULTS) | {key: value for key, value in requested.items() if key.startswith("hyperparameters.")}
    body: dict[str, Any] = {
        "name": request.slug,
        "model": spec.model_for(name),
        "method": spec.method.name,
        "files": {split: output_ref(f"await_{split}", "id") for split in request.data.splits},
        "hyperparameters": {key.partition(".")[2]: value for key, value in hyper.items()},
        "training": {
            key: value for key, value in requested.items() if not key.startswith(("hyperparameters.", "data."))
        },
        "metadata": {**requested.get("tags", {}), "cloudtune": request.token},
        "token": request.token,
    }
    optional = {
        "max_time_s": max_time,
        "parent": request.parent.id if request.parent else None,
        "extra": spec.overrides.get(name),
    }
    return body | {key: value for key, value in optional.items() if value is not None}


def _settings(request: PlanRequest, name: str) -> tuple[Setting, ...]:
    requested = request.spec.requested_fields()
    chosen = [Setting(field=field, value=_plain(value), source="spec") for field, value in requested.items()]
    given = request.spec.overrides.get(name, {})
    chosen += [Setting(field=f"overrides.{name}.{key}", value=given[key], source="override") for key in given]
    return (*chosen, *(
        Setting(field=field, value=value, source=f"default of {name}")
        for field, value in DEFAULTS.items() if field not in requested
    ))  # fmt: skip


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_none=True) if hasattr(value, "model_dump") else value


def estimate(request: PlanRequest, usd_per_hour: float | None) -> CostEstimate:
    """The price of the training time."""
    if usd_per_hour is None:
        return CostEstimate(usd=None, basis="unknown: usd_per_hour is not set", unknown=("the price of training",))
    epochs = request.spec.hyperparameters.epochs or DEFAULTS["hyperparameters.epochs"]
    return by_time(
        request, "1 x machine", usd_per_hour, "the price in the options", epochs=epochs, limit_s=request.run_seconds
    )


def usage(job: JobSnapshot) -> Usage:
    """The training time."""
    if job.started_at is None or job.finished_at is None:
        return Usage(seconds=0.0)
    return Usage(seconds=(job.finished_at - job.started_at).total_seconds())


# -- back ------------------------------------------------------------------------------------------------------------


def when(seconds: float | None) -> datetime | None:
    """The vendor's times are seconds since 1970."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def to_snapshot(job: dict[str, Any], name: str, scope: str) -> JobSnapshot:
    """Translate the vendor's job."""
    state = STATES.get(job["status"], JobState.UNKNOWN)
    problem = None
    if state in (JobState.FAILED, JobState.EXPIRED):
        code = "stopped_by_limit" if state is JobState.EXPIRED else "failed"
        problem = JobProblem(message=job["error"], code=code)
    return JobSnapshot(
        ref=JobRef(name, scope, job["id"]), state=state, native_state=job["status"], name=job["name"],
        model=job["model"], created_at=when(job["created_at"]), started_at=when(job["started_at"]),
        finished_at=when(job["finished_at"]), problem=problem,
        progress=Progress(step=job["step"], total_steps=job["total_steps"]),
        parent=JobRef(name, scope, job["parent"]) if job["parent"] else None, raw=job,
    )  # fmt: skip


def to_event(entry: dict[str, Any]) -> Event:
    """Translate the vendor's event."""
    return Event(
        cursor=entry["id"], time=datetime.fromtimestamp(entry["at"], UTC), message=entry["message"],
        type=entry["type"], level=entry["level"],
    )  # fmt: skip


def to_metric(entry: dict[str, Any]) -> Metric:
    """Translate the vendor's metrics."""
    return Metric(cursor=entry["id"], step=entry["step"], values={"loss": entry["loss"]}, time=when(entry["at"]))


def to_error(error: VendorError, what: str, secret: str) -> CloudtuneError:
    """Translate the vendor's error. Some vendors quote the rejected key, which is removed."""
    message = f"{what}: {error}".replace(secret, "***") if secret else f"{what}: {error}"
    if error.status == 0 or error.status >= 500:
        return Unavailable(message, acted=None if error.sent else False)
    if error.status == 429:
        return RateLimited(message, retry_after=error.retry_after)
    classes: dict[int, type[CloudtuneError]] = {
        400: InvalidRequest, 401: CredentialsError, 403: PermissionDenied, 404: JobNotFound, 409: Conflict,
    }  # fmt: skip
    return classes.get(error.status, BackendError)(message)
