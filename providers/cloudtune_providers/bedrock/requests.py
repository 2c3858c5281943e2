"""The steps of a job: encode and upload each split, create the job. Pure.

Every step is atomic: an object's key contains the hash of its bytes, and a job's name, which is unique in Bedrock, is
derived from the submission's token, as is its ``clientRequestToken``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.plan import Plan, Setting, Step, output_ref
from cloudtune_providers.aws.names import tag_list, tags_of
from cloudtune_providers.aws.nova_rules import is_nova_2
from cloudtune_providers.bedrock.parameters import as_number, as_text, hyperparameters, rft_parameters
from cloudtune_providers.bedrock.responses import NAME
from cloudtune_providers.bedrock.rules import TYPES, family_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.catalog import Catalog
    from cloudtune.errors import Problem
    from cloudtune.plan import PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune_providers.bedrock.options import BedrockOptions

_PORTABLE = {
    "hyperparameters.epochs": "epochCount", "hyperparameters.learning_rate": "learningRate",
    "hyperparameters.warmup_steps": "learningRateWarmupSteps",
}  # fmt: skip


def format_of(spec: JobSpec) -> str:
    """The format of rows for that model and method.

    docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html, rft-prepare-data.html and
    distillation-data-prep-option-1.html, seen 2026-11-21.
    """
    if (own := {"rft": "bedrock-rft", "distill": "bedrock-converse"}.get(spec.method.name)) is not None:
        return own
    model = family_of(spec.model_for(NAME) or "")
    if model.startswith(("meta.llama3-1-", "amazon.titan-text", "cohere.")):
        return "bedrock-prompt"
    if is_nova_2(model):
        return "bedrock-nova-2"
    return "claude" if model.startswith("anthropic.") else "bedrock-converse"


def plan_of(
    request: PlanRequest, options: BedrockOptions, catalog: Catalog, warnings: tuple[Problem, ...]
) -> Plan:  # fmt: skip
    """The whole plan."""
    steps: list[Step] = []
    for split in ("train", "validation"):
        if split in request.data.splits:
            steps += _file_steps(request, split, options)
    body = body_of(request, options)
    create = Step(
        id="create", kind="call", title=f"create the job {request.slug}", once="atomic", token=request.token,
        request={"call": "bedrock.create_model_customization_job", "body": body}, makes_job=True,
    )  # fmt: skip
    return Plan(
        name=request.spec.name, backend=NAME, scope=request.resolved.scope, key=request.key, attempt=request.attempt,
        token=request.token, spec=request.spec.model_dump(mode="json", exclude_none=True), steps=(*steps, create),
        data=request.data, resolved=request.resolved, settings=settings_of(request, catalog), warnings=warnings,
    )  # fmt: skip


def _file_steps(request: PlanRequest, split: str, options: BedrockOptions) -> list[Step]:
    info, form = request.data.splits[split], format_of(request.spec)
    encode = Step(
        id=f"encode_{split}", kind="encode", title=f"write the {split} rows as {form}",
        request={"split": split, "format": form, "sha256": info.sha256},
    )  # fmt: skip
    upload = {
        "call": "s3.put_object", "bucket": options.bucket, "below": f"{options.prefix}/data", "name": f"{split}.jsonl",
        **{name: output_ref(encode.id, name) for name in ("path", "sha256", "bytes")},
    }  # fmt: skip
    return [
        encode,
        Step(id=f"upload_{split}", kind="upload", title=f"upload the {split} rows to s3://{options.bucket}",
             once="atomic", token=info.sha256, request=upload),
    ]  # fmt: skip


def body_of(request: PlanRequest, options: BedrockOptions) -> dict[str, Any]:
    """The body of CreateModelCustomizationJob."""
    spec, given = request.spec, request.spec.overrides.get(NAME, {})
    tags = tag_list(tags_of(request.token, spec.name, options.tags, spec.tags))
    body: dict[str, Any] = {
        "jobName": request.slug,
        "customModelName": given.get("model_name") or request.slug,
        "roleArn": options.role_arn,
        "clientRequestToken": request.token,
        "baseModelIdentifier": spec.model_for(NAME),
        "customizationType": TYPES[spec.method.name],
        "trainingDataConfig": {"s3Uri": output_ref("upload_train", "url")},
        "outputDataConfig": {"s3Uri": f"s3://{options.bucket}/{output_prefix(options, request.slug)}"},
        "jobTags": tags,
        "customModelTags": tags,
    }
    if "validation" in request.data.splits:
        body["validationDataConfig"] = {"validators": [{"s3Uri": output_ref("upload_validation", "url")}]}
    if spec.method.name != "rft" and (chosen := hyperparameters(spec)):
        body["hyperParameters"] = {name: as_text(value) for name, value in chosen.items()}
    if config := _config(spec, given):
        body["customizationConfig"] = config
    if options.kms_key:
        body["customModelKmsKeyId"] = options.kms_key
    if options.subnets:
        body["vpcConfig"] = {"subnetIds": list(options.subnets), "securityGroupIds": list(options.security_groups)}
    return body


def output_prefix(options: BedrockOptions, job: str) -> str:
    """The output prefix of a job's metrics, which is unique."""
    return f"{options.prefix}/output/{job}/"


def _config(spec: JobSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    if spec.method.name == "rft":
        config: dict[str, Any] = {"graderConfig": {"lambdaGrader": {"lambdaArn": given.get("grader")}}}
        if chosen := rft_parameters(spec):
            config["hyperParameters"] = {name: as_number(value) for name, value in chosen.items()}
        return {"rftConfig": config}
    if spec.method.name == "distill":
        teacher: dict[str, Any] = {"teacherModelIdentifier": given.get("teacher")}
        if given.get("teacher_max_tokens"):
            teacher["maxResponseLengthForInference"] = given["teacher_max_tokens"]
        return {"distillationConfig": {"teacherModelConfig": teacher}}
    return {}


def settings_of(request: PlanRequest, catalog: Catalog) -> tuple[Setting, ...]:
    """The effective values, and their sources."""
    spec = request.spec
    given = {key: value for key, value in spec.overrides.get(NAME, {}).items() if value is not None}
    replaced = {field for field, name in _PORTABLE.items() if name in (given.get("hyperparameters") or {})}
    requested = {field: value for field, value in spec.requested_fields().items() if field not in replaced}
    chosen = [Setting(field=field, value=_plain(value), source="spec") for field, value in requested.items()]
    chosen += [Setting(field=f"overrides.{NAME}.{key}", value=given[key], source="override") for key in given]
    model, sent = family_of(spec.model_for(NAME) or ""), hyperparameters(spec)
    for name in dict.fromkeys(entry.name for entry in catalog.ranges):
        entry = catalog.range(name, model, spec.method.name)
        if entry is not None and entry.default is not None and name not in sent:
            source = f"default of {NAME}: {catalog.cite(entry.source)}"
            chosen.append(Setting(field=name, value=entry.default, source=source))
    derived = {"jobName": request.slug} | ({} if given.get("model_name") else {"customModelName": request.slug})
    source = "derived: the job's name and the submission's token"
    return (*chosen, *(Setting(field=field, value=value, source=source) for field, value in derived.items()))


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_none=True) if hasattr(value, "model_dump") else value
