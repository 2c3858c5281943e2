"""The steps of an import: upload each file, then create the job. Pure, except for reading config.json.

A model that is already in AWS has one step only: the call with its URI.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.cost import CostEstimate
from cloudtune.errors import Problem, UnsupportedError
from cloudtune.plan import DataReport, Plan, Step
from cloudtune_providers.aws.names import tag_list, tags_of
from cloudtune_providers.bedrock import import_rules, policies
from cloudtune_providers.bedrock.locating import ESCROW, REGISTER
from cloudtune_providers.bedrock.model_files import LocalFiles
from cloudtune_providers.bedrock.responses import ADAPTER_TAG, BASE_TAG, NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune.catalog import Catalog
    from cloudtune.optional import ImportRequest, InPlace, ModelFile
    from cloudtune_providers.bedrock.options import BedrockOptions


def plan_of(request: ImportRequest, options: BedrockOptions, catalog: Catalog) -> Plan:
    """The whole plan. Raises UnsupportedError for missing settings, and for a region without imports."""
    if wrong := list(_settings(request, options)):
        raise UnsupportedError(wrong)
    if request.in_place is not None:
        return _in_place(request, request.in_place, options, catalog)
    digest = hashlib.sha256("".join(f"{file.name}\0{file.sha256}\0" for file in request.files).encode()).hexdigest()
    below = f"{options.prefix}/models/{digest[:32]}/"
    config = import_rules.config_of(LocalFiles(Path(request.folder))) or {}
    written = import_rules.older_config(config)
    steps = [
        _config_step(number, file, below, options, written)
        if file.name == "config.json" and written != config
        else _file_step(number, file, below, options)
        for number, file in enumerate(request.files, 1)
    ]
    steps.append(_import_step(request, options, f"s3://{options.bucket}/{below}"))
    problems = tuple(_told(config, written, request.folder))
    return _plan(request, request.folder, steps, digest[:32], problems)


def _in_place(request: ImportRequest, model: InPlace, options: BedrockOptions, catalog: Catalog) -> Plan:
    """The plan with one call, which gets the URI."""
    is_registered = model.facts["call"] == REGISTER
    step = (_register_step if is_registered else _import_step)(request, options, model.at)
    mark = hashlib.sha256(json.dumps(model.identity, sort_keys=True).encode()).hexdigest()
    cost = _kept(str(model.facts.get("base", "")), catalog) if is_registered else None
    return _plan(request, model.at, [step], mark[:32], tuple(_why(model, request.resolved.scope, options)), cost)


def _kept(base: str, catalog: Catalog) -> CostEstimate | None:
    """The cost of an existing custom model, deployed or not."""
    price = catalog.price("storage", base)
    if price is None:
        return None
    text = f"{price.usd:g} USD per {price.per}, deployed or not, until it is deleted"
    seen = catalog.sources[price.source].seen
    return CostEstimate(usd=None, basis=f"{text} ({catalog.cite(price.source)})", prices_as_of=str(seen))


def _plan(
    request: ImportRequest, model: str, steps: Sequence[Step], fingerprint: str, warnings: tuple[Problem, ...],
    cost: CostEstimate | None = None,
) -> Plan:  # fmt: skip
    return Plan(
        name=request.name, backend=NAME, scope=request.resolved.scope, key=request.key, attempt=request.attempt,
        token=request.token, spec={"name": request.name, "model": model, "method": "import"}, steps=tuple(steps),
        data=DataReport(splits={}, fingerprint=fingerprint), resolved=request.resolved, warnings=warnings,
        cost=cost,
    )  # fmt: skip


def _settings(request: ImportRequest, options: BedrockOptions) -> Iterator[Problem]:
    for name in ("bucket", "role_arn") if request.in_place is None else ("role_arn",):
        if getattr(options, name) is None:
            message, fix = "required for imports, but not set", "set it; `cloudtune init bedrock` writes the role's"
            yield Problem(code="setting", field=f"backends.{NAME}.{name}", message=message, fix=f"{fix} documents")
    if request.in_place is not None and request.in_place.facts["call"] == REGISTER:
        if options.kms_key and not options.kms_key.startswith("arn:"):
            message = "CreateCustomModel accepts a key by its ARN only"
            yield Problem(code="setting", field=f"backends.{NAME}.kms_key", message=message, fix="use the key's ARN")
        return
    region = request.resolved.scope.partition("/")[2].partition("@")[0]
    if region not in import_rules.REGIONS:
        message = f"Bedrock imports models in {', '.join(import_rules.REGIONS)}, not in {region}"
        yield Problem(code="region", field=f"backends.{NAME}.region", message=message, fix="choose one of those")


def _told(config: dict[str, Any], written: dict[str, Any], folder: str) -> Iterator[Problem]:
    if added := sorted(written.keys() - config.keys()):
        message = f"sent with {', '.join(added)} too, which transformers {import_rules.TRANSFORMERS} reads there"
        yield Problem(code="older_config", severity="info", file=f"{folder}/config.json", message=message)


def _why(model: InPlace, scope: str, options: BedrockOptions) -> Iterator[Problem]:
    """Notes: the call, why nothing is uploaded, and the permissions that the role needs."""
    facts = model.facts
    if facts["call"] == REGISTER:
        what = f"SageMaker's model of {facts['base']}" if facts.get("base") else "a model that SageMaker tuned"
        message = f"CreateCustomModel references {what}: its weights stay with AWS, nothing is uploaded"
    else:
        message = (
            f"CreateModelImportJob references the {facts['files']} files in place: nothing is downloaded or uploaded"
        )
    yield Problem(code="in_place", severity="info", file=model.at, message=message)
    place = model.at
    if facts["call"] == REGISTER:
        place = f"arn:aws:s3:::{ESCROW}{scope.partition('/')[0]}-*"
    elif place.startswith(tuple(f"s3://{options.bucket}/{options.prefix}/{part}/" for part in policies.READABLE)):
        return
    message = f"{options.role_arn} must be allowed s3:GetObject and s3:ListBucket there"
    fix = "add this location to the role's policy if it is missing: `cloudtune init bedrock` does not include it"
    yield Problem(code="role_reads", severity="warning", file=place, message=message, fix=fix)


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


def _import_step(request: ImportRequest, options: BedrockOptions, url: str) -> Step:
    body = body_of(request, options, url)
    where = ", in place" if request.in_place else ""
    return Step(
        id="import", kind="call", title=f"import the model as {body['importedModelName']}{where}", once="atomic",
        token=request.token, request={"call": "bedrock.create_model_import_job", "body": body}, makes_job=True,
    )  # fmt: skip


def _register_step(request: ImportRequest, options: BedrockOptions, at: str) -> Step:
    body = registration_of(request, options, at)
    return Step(
        id="register", kind="call", title=f"register {at} as the custom model {body['modelName']}", once="atomic",
        token=request.token, request={"call": "bedrock.create_custom_model", "body": body}, makes_job=True,
    )  # fmt: skip


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


def registration_of(request: ImportRequest, options: BedrockOptions, at: str) -> dict[str, Any]:
    """The body of CreateCustomModel."""
    facts = request.in_place.facts if request.in_place else {}
    known = {BASE_TAG: facts.get("base"), ADAPTER_TAG: facts.get("adapter")}
    own_tags = {tag: str(value) for tag, value in known.items() if value}
    body: dict[str, Any] = {"modelName": request.slug}
    if facts.get("package"):
        body["customModelDataSource"] = {"modelPackageArnDataSource": {"modelPackageArn": at}}
    else:
        body["modelSourceConfig"] = {"s3DataSource": {"s3Uri": at}}
    body |= {
        "roleArn": options.role_arn, "clientRequestToken": request.token,
        "modelTags": tag_list(tags_of(request.token, request.name, options.tags) | own_tags),
    }  # fmt: skip
    if options.kms_key:
        body["modelKmsKeyArn"] = options.kms_key
    return body
