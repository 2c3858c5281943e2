"""Capabilities, checks, requests and responses of a workspace: pure functions.

Bodies and names are those of azure-ai-ml 1.35.2 (``_restclient/arm_ml_service``, api-version 2024-10-01-preview).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloudtune.errors import DataError, Problem
from cloudtune.plan import Plan, PlanRequest, Setting, Step, output_ref
from cloudtune.spec import spec_features
from cloudtune.state import JobProblem, JobRef, JobSnapshot, JobState
from cloudtune_providers.openai_dialect.features import complete
from cloudtune_providers.openai_dialect.requests import SLOWEST_BYTES_PER_S
from cloudtune_providers.openai_dialect.responses import NAME_KEY, TOKEN_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudtune.backend import Capabilities
    from cloudtune.spec import JobSpec
    from cloudtune_providers.azure_openai.ml_workspace.connection import Run
    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions

NAME = "azure_openai"
FORM = "openai"
FOLDER = "cloudtune"
OUTPUT = "registered_model"
STATES: dict[str, JobState] = {
    # azure-ai-ml 1.35.2, JobStatus, in lower case. A run that does not respond may go back to any earlier state.
    "notstarted": JobState.QUEUED,
    "queued": JobState.QUEUED,
    "starting": JobState.PREPARING,
    "provisioning": JobState.PREPARING,
    "preparing": JobState.PREPARING,
    "running": JobState.RUNNING,
    "finalizing": JobState.RUNNING,
    "notresponding": JobState.RUNNING,
    "paused": JobState.PAUSED,
    "cancelrequested": JobState.CANCELLING,
    "completed": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "canceled": JobState.CANCELLED,
}
_DETAILS = {"finalizing": "collecting the outputs", "notresponding": "the run does not respond"}
_ITSELF = "set by the model's training component; use overrides.azure_openai.hyperparameters with its names"
_WEIGHTS = "the model's training component chooses the trained weights; remove it, or use the component's setting"
_STUDIO = "not supported by this route; use Azure's studio or azure-ai-ml"
REFUSED = {
    "hyperparameters.batch_size": "training components count rows per device, and the number of devices is unknown; "
    "set overrides.azure_openai.hyperparameters.per_device_train_batch_size",
    **dict.fromkeys(
        ("distributed.strategy", "distributed.processes", "distributed.nodes"),
        "the workspace chooses the machines of serverless jobs",
    ),
    "limits.max_time": "the workspace has no time limit for fine-tuning jobs; use `cloudtune watch --cancel-after`",
    "method.loss_on": "the model's training component chooses the trained tokens",
    "verb:checkpoints": "this route registers the finished model and exposes no checkpoints",
    "verb:continue": "a workspace cannot continue a job that has ended; start a new job from its registered model",
    "verb:deploy": f"to an endpoint of the workspace: {_STUDIO}",
    "verb:events": "workspaces record no job events, only the state",
    "verb:export": "the model is registered in the workspace; download it with `az ml model download`",
    "verb:generate": "registered models require an endpoint, which cloudtune does not manage",
    "verb:metrics": "metrics are in the workspace's MLflow, which azure-ai-ml does not read; see the studio",
    "verb:pause": "workspaces cannot pause fine-tuning jobs",
    "verb:resume": "workspaces cannot pause fine-tuning jobs, so there is nothing to resume",
}  # fmt: skip
INHERENT = frozenset({"data.test"})
TRANSLATED = {
    "data.test": "not uploaded; the rows stay on this machine for evaluation",
    "hyperparameters.epochs": "num_train_epochs",
    "hyperparameters.learning_rate": "learning_rate",
    "method:sft": "the task chatCompletion",
}
_OF_THE_OTHER_ROUTE = (
    "learning_rate_multiplier", "n_epochs", "batch_size", "suffix", "training_type", "grader", "reasoning_effort",
    "compute_multiplier", "eval_interval", "eval_samples",
)  # fmt: skip


def capabilities() -> Capabilities:
    """The capabilities of a workspace."""
    fields = ("data.validation", "hyperparameters.epochs", "hyperparameters.learning_rate", "tags")
    adapters = {feature: _WEIGHTS for feature in spec_features() if feature.startswith("adapter:")}
    return complete(
        ["method:sft", *fields], refused=REFUSED | adapters, inherent=INHERENT, translated=TRANSLATED,
        no_choice="not supported by this route", no_value=_ITSELF,
    )  # fmt: skip


# -- checks ----------------------------------------------------------------------------------------------------------


def check(spec: JobSpec, options: AzureOpenAIOptions) -> Sequence[Problem]:
    """Missing settings, names and rows, and overrides of the other route."""
    return [*_settings(options), *_model(spec), *_held_out(spec), *_overrides(spec)]


def _settings(options: AzureOpenAIOptions) -> Iterator[Problem]:
    subscription, group, _ = options.place()
    needed = {"subscription_id": subscription, "resource_group": group, "workspace": options.workspace}
    for name, value in needed.items():
        if not value:
            yield Problem(
                code="setting", field=f"backends.{NAME}.{name}", message="required by route: ml_workspace", fix="set it"
            )


def _model(spec: JobSpec) -> Iterator[Problem]:
    model = spec.model_for(NAME)
    if model is not None and not model.startswith(("azureml://", "/subscriptions/")):
        yield Problem(
            code="model_uri", field="model", message=f"{model!r} is not a model of a registry or workspace",
            fix="write azureml://registries/<registry>/models/<model>/versions/<version>",
        )  # fmt: skip


def _held_out(spec: JobSpec) -> Iterator[Problem]:
    if spec.data.validation is None:
        message = "fine-tuning jobs in a workspace require validation rows"
        yield Problem(code="no_validation", field="data.validation", message=message, fix="hold out a share, e.g. 0.1")


def _overrides(spec: JobSpec) -> Iterator[Problem]:
    given = spec.overrides.get(NAME, {})
    for name in _OF_THE_OTHER_ROUTE:
        if given.get(name) is not None:
            yield Problem(
                code="other_route", field=f"overrides.{NAME}.{name}", message="route: ml_workspace has no such setting",
                fix=f"remove it, or set it under overrides.{NAME}.hyperparameters",
            )  # fmt: skip


# -- plan ------------------------------------------------------------------------------------------------------------


def plan(request: PlanRequest, options: AzureOpenAIOptions) -> Plan:
    """Return the steps. Raises DataError for rows that the route does not support."""
    spec = request.spec
    if (kind := request.data.splits["train"].kind) != "chat":
        message = f"{spec.method.name} requires chat rows; these are {kind}"
        raise DataError([Problem(code="kind", field="data.train", message=message, fix="use another kind of rows")])
    steps = [step for split in ("train", "validation") for step in _upload(request, split, options)]
    create = Step(
        id="create", kind="call", title="create the fine-tuning job", once="atomic", token=request.token,
        request={"call": "jobs.create_or_update", "name": request.slug, "body": body_of(request)}, makes_job=True,
    )  # fmt: skip
    return Plan(
        name=spec.name, backend=NAME, scope=request.resolved.scope, key=request.key, attempt=request.attempt,
        token=request.token, spec=spec.model_dump(mode="json", exclude_none=True), steps=(*steps, create),
        data=request.data, resolved=request.resolved, settings=tuple(_chosen(request)),
    )  # fmt: skip


def _upload(request: PlanRequest, split: str, options: AzureOpenAIOptions) -> list[Step]:
    info = request.data.splits[split]
    blob = f"{FOLDER}/{info.sha256[:40]}.{FORM}.jsonl"
    sent = {
        "call": "blobs.put",
        "datastore": options.datastore,
        "blob": blob,
        "path": output_ref(f"encode_{split}", "path"),
        "bytes": output_ref(f"encode_{split}", "bytes"),
        "timeout_s": options.timeout + info.bytes / SLOWEST_BYTES_PER_S,
    }
    return [
        Step(
            id=f"encode_{split}", kind="encode", title=f"write the {split} rows as {FORM}",
            request={"split": split, "format": FORM, "sha256": info.sha256},
        ),
        Step(
            id=f"upload_{split}", kind="upload", title=f"upload the {split} rows", once="atomic", token=blob,
            request=sent,
        ),
    ]  # fmt: skip


def body_of(request: PlanRequest) -> dict[str, Any]:
    """The body of the PUT that creates the job."""
    spec = request.spec
    given = spec.overrides.get(NAME, {})
    properties: dict[str, Any] = {
        "jobType": "FineTuning", "displayName": spec.name, "experimentName": FOLDER, "isArchived": False,
        "tags": dict(spec.tags) | {TOKEN_KEY: request.token, NAME_KEY: spec.name},
        "fineTuningDetails": {
            "modelProvider": "Custom", "taskType": "chatCompletion",
            "model": {"jobInputType": "mlflow_model", "uri": spec.model_for(NAME)},
            "trainingData": {"jobInputType": "uri_file", "uri": output_ref("upload_train", "uri")},
            "validationData": {"jobInputType": "uri_file", "uri": output_ref("upload_validation", "uri")},
            "hyperParameters": hyperparameters_of(spec),
        },
        "outputs": {OUTPUT: {"jobOutputType": "mlflow_model", "assetName": request.slug}},
    }  # fmt: skip
    if given.get("compute"):
        properties["computeId"] = given["compute"]
    if given.get("instance_types"):
        properties["resources"] = {"instanceTypes": given["instance_types"]}
    return {"properties": properties}


def hyperparameters_of(spec: JobSpec) -> dict[str, str]:
    """The values as strings, as the service requires; the training component chooses omitted ones."""
    portable = {
        "num_train_epochs": spec.hyperparameters.epochs, "learning_rate": spec.hyperparameters.learning_rate
    }  # fmt: skip
    hyperparameters: Mapping[str, Any] = portable | (spec.overrides.get(NAME, {}).get("hyperparameters") or {})
    return {name: _text(value) for name, value in hyperparameters.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


def _chosen(request: PlanRequest) -> Iterator[Setting]:
    for field, value in request.spec.requested_fields().items():
        plain = value.model_dump(mode="json", exclude_none=True) if hasattr(value, "model_dump") else value
        yield Setting(field=field, value=plain, source="spec")
    for name, value in request.spec.overrides.get(NAME, {}).items():
        yield Setting(field=f"overrides.{NAME}.{name}", value=value, source="override")
    if "hyperparameters.epochs" not in request.spec.requested_fields():
        yield Setting(field="hyperparameters.epochs", value=None, source="default of the model's training component")


def blob_uri(datastore: str, blob: str) -> str:
    """The URI of a blob in the workspace's store."""
    return f"azureml://datastores/{datastore}/paths/{blob}"


# -- responses -------------------------------------------------------------------------------------------------------


def state_of(word: str) -> JobState:
    """The state for the service's status. An unknown status is ``unknown``, which is not final."""
    return STATES.get(word.lower(), JobState.UNKNOWN)


def to_snapshot(job: Mapping[str, Any], scope: str, run: Run | None = None) -> JobSnapshot:
    """A job resource as a snapshot, with the fields from the record of its run."""
    properties = job.get("properties") or {}
    tags = properties.get("tags") or {}
    word = str(properties.get("status") or "")
    state = state_of(word)
    return JobSnapshot(
        ref=JobRef(NAME, scope, str(job["name"])), state=state, native_state=word,
        name=str(tags.get(NAME_KEY) or properties.get("displayName") or job["name"]),
        model=str(((properties.get("fineTuningDetails") or {}).get("model") or {}).get("uri") or ""),
        detail=_DETAILS.get(word.lower(), ""), created_at=_moment((job.get("systemData") or {}).get("createdAt")),
        started_at=run.started_at if run else None,
        finished_at=run.ended_at if run and state.may_have_ended else None,
        problem=_problem(run.reason if run else None) if state is JobState.FAILED else None, raw=dict(job),
    )  # fmt: skip


def _problem(reason: str | None) -> JobProblem:
    return JobProblem(message=reason or "the workspace did not give a reason", hint="see its logs in the studio")


def _moment(text: Any) -> datetime | None:
    if isinstance(text, datetime):
        return text
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None


def is_tuning(job: Mapping[str, Any]) -> bool:
    """Whether a job of the workspace is a fine-tuning job: there are many other kinds."""
    return (job.get("properties") or {}).get("jobType") == "FineTuning"


def inputs_of(job: Mapping[str, Any]) -> set[str]:
    """The URIs of the rows of a job."""
    details = (job.get("properties") or {}).get("fineTuningDetails") or {}
    return {str((details.get(name) or {}).get("uri")) for name in ("trainingData", "validationData")} - {"None"}
