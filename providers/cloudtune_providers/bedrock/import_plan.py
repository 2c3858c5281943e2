"""The steps of an import: each file to its place in the bucket, then the job. Pure, but for config.json."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.backend import DataReport, Plan, Step
from cloudtune.errors import Problem, UnsupportedError
from cloudtune_providers.aws.names import tag_list, tags_of
from cloudtune_providers.bedrock import import_rules
from cloudtune_providers.bedrock.answers import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.backend import ImportRequest, ModelFile
    from cloudtune_providers.bedrock.options import BedrockOptions


def plan_of(request: ImportRequest, options: BedrockOptions) -> Plan:
    """The whole plan. Raises UnsupportedError for what the settings lack, and for a region without imports."""
    if wrong := list(_settings(request, options)):
        raise UnsupportedError(wrong)
    digest = hashlib.sha256("".join(f"{file.name}\0{file.sha256}\0" for file in request.files).encode()).hexdigest()
    below = f"{options.prefix}/models/{digest[:32]}/"
    config = import_rules.config_of(Path(request.folder)) or {}
    written = import_rules.older_config(config)
    steps = [
        _config_step(number, file, below, options, written)
        if file.name == "config.json" and written != config
        else _file_step(number, file, below, options)
        for number, file in enumerate(request.files, 1)
    ]
    body = body_of(request, options, f"s3://{options.bucket}/{below}")
    steps.append(Step(
        id="import", kind="call", title=f"import the model as {body['importedModelName']}", once="atomic",
        token=request.token, request={"call": "bedrock.create_model_import_job", "body": body}, makes_job=True,
    ))  # fmt: skip
    return Plan(
        name=request.name, backend=NAME, scope=request.resolved.scope, key=request.key, attempt=request.attempt,
        token=request.token, spec={"name": request.name, "model": request.folder, "method": "import"},
        steps=tuple(steps), data=DataReport(splits={}, fingerprint=digest[:32]), resolved=request.resolved,
        warnings=tuple(_told(config, written, request.folder)),
    )  # fmt: skip


def _settings(request: ImportRequest, options: BedrockOptions) -> Iterator[Problem]:
    for name in ("bucket", "role_arn"):
        if getattr(options, name) is None:
            message, fix = "an import needs one, and none is set", "set it; `cloudtune init bedrock` writes the role's"
            yield Problem(code="setting", field=f"backends.{NAME}.{name}", message=message, fix=f"{fix} documents")
    region = request.resolved.scope.partition("/")[2].partition("@")[0]
    if region not in import_rules.REGIONS:
        message = f"Bedrock imports models in {', '.join(import_rules.REGIONS)}, and not in {region}"
        yield Problem(code="region", field=f"backends.{NAME}.region", message=message, fix="choose one of those")


def _told(config: dict[str, Any], written: dict[str, Any], folder: str) -> Iterator[Problem]:
    if added := sorted(written.keys() - config.keys()):
        message = f"sent with {', '.join(added)} too, which transformers {import_rules.TRANSFORMERS} reads there"
        yield Problem(code="older_config", severity="info", file=f"{folder}/config.json", message=message)


def _file_step(number: int, file: ModelFile, below: str, options: BedrockOptions) -> Step:
    request = {
        "call": "s3.put_object", "bucket": options.bucket, "key": f"{below}{file.name}", "path": file.path,
        "sha256": file.sha256, "bytes": file.bytes,
    }  # fmt: skip
    return Step(id=f"upload_{number}", kind="upload", title=f"upload {file.name}", once="atomic", token=file.sha256,
                request=request)  # fmt: skip


def _config_step(number: int, file: ModelFile, below: str, options: BedrockOptions, written: dict[str, Any]) -> Step:
    text = json.dumps(written, indent=2, sort_keys=True)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    request = {
        "call": "s3.put_object", "bucket": options.bucket, "key": f"{below}{file.name}", "content": text,
        "sha256": sha256, "bytes": len(text.encode()),
    }  # fmt: skip
    return Step(id=f"upload_{number}", kind="upload", title=f"upload {file.name}, with older names", once="atomic",
                token=sha256, request=request)  # fmt: skip


def body_of(request: ImportRequest, options: BedrockOptions, url: str) -> dict[str, Any]:
    """The body of CreateModelImportJob."""
    tags = tag_list(tags_of(request.token, request.name, options.tags))
    body: dict[str, Any] = {
        "jobName": request.slug, "importedModelName": request.slug, "roleArn": options.role_arn,
        "modelDataSource": {"s3DataSource": {"s3Uri": url}}, "clientRequestToken": request.token, "jobTags": tags,
        "importedModelTags": tags,
    }  # fmt: skip
    if options.kms_key:
        body["importedModelKmsKeyId"] = options.kms_key
    if options.subnets:
        body["vpcConfig"] = {"subnetIds": list(options.subnets), "securityGroupIds": list(options.security_groups)}
    return body
