"""The steps of a job and the body of CreateTrainingJob, from the model's document. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.plan import Plan, Setting, Step
from cloudtune_providers.aws import hourly
from cloudtune_providers.aws.names import tag_list, tags_of
from cloudtune_providers.aws.training_responses import MODEL_VARIABLE, NAME_VARIABLE
from cloudtune_providers.jumpstart import layouts
from cloudtune_providers.jumpstart.document import ENTRY, as_sent

if TYPE_CHECKING:
    from cloudtune.errors import Problem
    from cloudtune.plan import PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune_providers.jumpstart.choices import Choices
    from cloudtune_providers.jumpstart.options import JumpStartOptions

NAME = layouts.NAME
MODEL_TYPE = "application/x-sagemaker-model"
NAMES = {
    "hyperparameters.epochs": "epoch", "hyperparameters.learning_rate": "learning_rate",
    "hyperparameters.batch_size": "per_device_train_batch_size", "hyperparameters.max_length": "max_input_length",
    "adapter.rank": "lora_r", "adapter.alpha": "lora_alpha", "adapter.dropout": "lora_dropout", "seed": "seed",
}  # fmt: skip
"""Portable field -> its name in documents of text-generating models
(docs.aws.amazon.com/sagemaker/latest/dg/jumpstart-fine-tune.html, seen 2026-11-21)."""
_JUMPSTART_TAGS = ("sagemaker-studio:jumpstart-model-id", "sagemaker-studio:jumpstart-model-version")
ROOM_FOR_TAGS = len(_JUMPSTART_TAGS)
VERSION_VARIABLE = "CLOUDTUNE_MODEL_VERSION"


def asked(spec: JobSpec, choices: Choices) -> dict[str, str]:
    """The spec's hyperparameters by the document's names; the overrides take precedence."""
    found = {}
    for field, value in spec.requested_fields().items():
        if field in NAMES:
            found[NAMES[field]] = _sent(field, value, choices)
    given = spec.overrides.get(NAME, {}).get("hyperparameters") or {}
    return found | {name: as_sent(value) for name, value in given.items()}


def _sent(field: str, value: Any, choices: Choices) -> str:
    if field == "hyperparameters.batch_size" and choices.devices:
        return as_sent(value // choices.devices)
    return as_sent(value)


def plan_of(request: PlanRequest, options: JumpStartOptions, choices: Choices, warnings: tuple[Problem, ...]) -> Plan:
    """The whole plan."""
    create = Step(
        id="create", kind="call", title=f"create the training job {request.slug}", once="atomic", token=request.token,
        request={"call": "sagemaker.create_training_job", "body": body_of(request, options, choices)}, makes_job=True,
    )  # fmt: skip
    return Plan(
        name=request.spec.name, backend=NAME, scope=request.resolved.scope, key=request.key, attempt=request.attempt,
        token=request.token, spec=request.spec.model_dump(mode="json", exclude_none=True),
        steps=(*layouts.steps_of(request, options, choices.layout), create), data=request.data,
        resolved=request.resolved, settings=settings_of(request, choices), warnings=warnings,
    )  # fmt: skip


def body_of(request: PlanRequest, options: JumpStartOptions, choices: Choices) -> dict[str, Any]:
    """CreateTrainingJob, as JumpStart's own estimator would send it, except for values of the spec and the settings."""
    document, spec = choices.document, request.spec
    algorithm: dict[str, Any] = {"TrainingImage": choices.image, "TrainingInputMode": "File"}
    if metrics := document.metrics():
        algorithm["MetricDefinitions"] = metrics
    body: dict[str, Any] = {
        "TrainingJobName": request.slug,
        "RoleArn": options.role_arn,
        "AlgorithmSpecification": algorithm,
        "HyperParameters": choices.hyperparameters | _program(request, choices),
        "InputDataConfig": _channels(request, options, choices),
        "OutputDataConfig": _output(options, choices),
        "ResourceConfig": _resources(options, choices),
        "StoppingCondition": choices.stopping(),
        "Environment": document.environment(choices.instance_type)
        | {NAME_VARIABLE: spec.name, MODEL_VARIABLE: choices.model, VERSION_VARIABLE: choices.version},
        "Tags": tag_list(tags_of(request.token, spec.name, options.tags, _own_tags(choices), spec.tags), upper=True),
    }
    if document["TrainingEnableNetworkIsolation"]:
        body["EnableNetworkIsolation"] = True
    if document["EncryptInterContainerTraffic"]:
        body["EnableInterContainerTrafficEncryption"] = True
    if choices.spot:
        body["EnableManagedSpotTraining"] = True
    if options.subnets:
        body["VpcConfig"] = {"Subnets": list(options.subnets), "SecurityGroupIds": list(options.security_groups)}
    return body


def _program(request: PlanRequest, choices: Choices) -> dict[str, str]:
    """Return the hyperparameters, including those that select the container's program."""
    region = hourly.region_of(request.resolved.scope)
    return {
        "sagemaker_program": ENTRY, "sagemaker_submit_directory": str(choices.document["TrainingScriptUri"]),
        "sagemaker_container_log_level": "20", "sagemaker_job_name": request.slug, "sagemaker_region": region,
    }  # fmt: skip


def _channels(request: PlanRequest, options: JumpStartOptions, choices: Choices) -> list[dict[str, Any]]:
    found = []
    for split in ("train", "validation"):
        if split in request.data.splits:
            folder = layouts.folder_of(request, options, split, choices.layout)
            found.append(layouts.channel(split, f"s3://{options.bucket}/{folder}"))
    if weights := choices.document.weights(choices.instance_type):
        source: dict[str, Any] = {"S3DataType": "S3Prefix", "S3Uri": weights,
                                  "S3DataDistributionType": "FullyReplicated"}  # fmt: skip
        if choices.document.is_gated:
            source["ModelAccessConfig"] = {"AcceptEula": True}
        if request.resolved.facts.get("reference"):
            source["HubAccessConfig"] = {"HubContentArn": request.resolved.facts["arn"]}
        kind = choices.document["TrainingArtifactCompressionType"] or "None"
        found.append(
            {"ChannelName": "model", "ContentType": MODEL_TYPE, "CompressionType": kind, "InputMode": "File",
             "DataSource": {"S3DataSource": source}}
        )  # fmt: skip
    return found


def _output(options: JumpStartOptions, choices: Choices) -> dict[str, Any]:
    kind = "NONE" if choices.document["DisableOutputCompression"] else "GZIP"
    found = {"S3OutputPath": f"s3://{options.bucket}/{options.prefix}/output", "CompressionType": kind}
    return found | ({"KmsKeyId": options.kms_key} if options.kms_key else {})


def _resources(options: JumpStartOptions, choices: Choices) -> dict[str, Any]:
    found: dict[str, Any] = {
        "InstanceType": choices.instance_type, "InstanceCount": choices.instances, "VolumeSizeInGB": choices.volume_gb,
    }  # fmt: skip
    if options.keep_alive:
        found["KeepAlivePeriodInSeconds"] = options.keep_alive
    return found | ({"VolumeKmsKeyId": options.kms_key} if options.kms_key else {})


def _own_tags(choices: Choices) -> dict[str, str]:
    return dict(zip(_JUMPSTART_TAGS, (choices.model, choices.version), strict=True))


def settings_of(request: PlanRequest, choices: Choices) -> tuple[Setting, ...]:
    """The effective values, and their sources."""
    spec = request.spec
    given = {key: value for key, value in spec.overrides.get(NAME, {}).items() if value not in (None, {}, [])}
    chosen = [
        Setting(field=field, value=_plain(value), source="spec") for field, value in spec.requested_fields().items()
    ]
    chosen += [Setting(field=f"overrides.{NAME}.{key}", value=given[key], source="override") for key in given]
    mine = asked(spec, choices) | layouts.switches(choices.layout, choices.known)
    source = f"default of the document {choices.model} {choices.version}"
    chosen += [
        Setting(field=name, value=value, source=source)
        for name, value in choices.hyperparameters.items()
        if name not in mine
    ]
    derived = {"TrainingJobName": (request.slug, "the job's name and the submission's token")} | choices.derived()
    chosen += [Setting(field=field, value=value, source=f"derived: {why}") for field, (value, why) in derived.items()]
    return tuple(chosen)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_none=True) if hasattr(value, "model_dump") else value
