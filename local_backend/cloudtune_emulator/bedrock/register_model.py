"""CreateCustomModel: registers a Nova model tuned in SageMaker, from its package or from AWS's own bucket.

Shapes, states and messages: botocore 1.44.5. The request names one of two sources, and only Nova is accepted
(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_CreateCustomModel.html, seen 2026-11-21). Where the service
checks its source is not documented: here, a source that does not exist is refused at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws import buckets
from cloudtune_emulator.aws.errors import AwsError, conflict, invalid, not_found
from cloudtune_emulator.bedrock import imports, jobs, models, resources
from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.sagemaker import packages
from cloudtune_emulator.store import Ended

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

_SIZES = {"micro": "amazon.nova-micro-v1:0:128k", "pro": "amazon.nova-pro-v1:0:300k"}
_LITE, _LITE_2 = "amazon.nova-lite-v1:0:300k", "amazon.nova-2-lite-v1:0:256k"


def create(context: EmulatorContext, call: Call) -> Reply:
    """CreateCustomModel."""
    body = call.body
    with context.store.alone():
        if (made := resources.repeated(context, call, models.KIND)) is not None:
            return Reply(status=202, body={"modelArn": made["arn"]})
        if jobs.is_taken(context, call, body["modelName"]):
            raise conflict(f"The provided model name {body['modelName']} is already in use.")
        if body.get("roleArn"):
            resources.assume(context, body["roleArn"])
        source = _source(context, call)
        number = resources.new_id()
        takes, failure = imports.course(context)
        made = {
            "id": number, "arn": resources.arn(context, call.region, f"custom-model/imported/{number}"),
            "region": call.region, "created": call.now, "name": body["modelName"], "job": None, "kind": "IMPORTED",
            "base": source["base"], "trains": source["base"], "tags": resources.tags(body.get("modelTags")),
            "key": body.get("modelKmsKeyArn"), "takes": takes, "failure": failure, "source": source, "settled": False,
        }  # fmt: skip
        resources.keep(context, call, models.KIND, made)
    return Reply(status=202, body={"modelArn": made["arn"]})


def _source(context: EmulatorContext, call: Call) -> dict[str, Any]:
    """The location of the weights, and their base model. Raises AwsError."""
    body = call.body
    if ("modelSourceConfig" in body) == ("customModelDataSource" in body):
        raise invalid("Specify exactly one of modelSourceConfig and customModelDataSource.")
    if "customModelDataSource" in body:
        return _of_package(context, call, body["customModelDataSource"]["modelPackageArnDataSource"]["modelPackageArn"])
    place = buckets.parse(body["modelSourceConfig"]["s3DataSource"]["s3Uri"])
    if not place.bucket.startswith(packages.escrow(context)):
        raise invalid(f"The S3 URI {place.uri} is not in an Amazon-managed bucket of SageMaker AI's.")
    base, is_full = packages.tuned_in(context, call, place)
    return _held(context, place, base, is_full=is_full)


def _of_package(context: EmulatorContext, call: Call, arn: str) -> dict[str, Any]:
    _, _, _, region, account, _ = arn.split(":", 5)
    if (region, account) != (call.region, context.settings.aws_account):
        raise invalid(f"The model package {arn} is not in this account and region.")
    try:
        found = packages.find(context, call, arn)
    except AwsError as error:
        raise not_found(f"The model package {arn} was not found.") from error
    container = packages.container(found)
    base = str((container.get("BaseModel") or {}).get("HubContentName") or "")
    if "nova" not in base.lower():
        message = f"The model package {arn} is not of an Amazon Nova model: use CreateModelImportJob."
        raise invalid(message)
    source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    try:
        place = buckets.parse(str(source.get("S3Uri") or container.get("ModelDataUrl") or ""))
    except ValueError as error:
        raise invalid(f"The model package {arn} names no model data in S3.") from error
    return _held(context, place, base, is_full=packages.is_full(context, call, arn))


def _held(context: EmulatorContext, place: buckets.Place, base: str, *, is_full: bool) -> dict[str, Any]:
    try:
        found = buckets.keys(context, place)
    except buckets.NoSuch:
        found = []
    if not found:
        raise invalid(f"There are no model files under {place.uri}.")
    return {"uri": place.uri, "base": nova(base), "is_full": is_full}


def nova(name: str) -> str:
    """Bedrock's id of a base model in the hub."""
    words = name.lower().replace("_", "-").split("-")
    known = next((known for word, known in _SIZES.items() if word in words), None)
    return known or (_LITE_2 if {"2", "v2"} & set(words) else _LITE)


def ended(context: EmulatorContext, model: dict[str, Any], now: float) -> Ended | None:
    """The end of a registration. The files are copied by then, so that their source can be deleted."""
    said = models.word(model, now)
    if said == "Creating":
        return None

    def record() -> None:
        if said == "Active":
            imports.copy(context, model["source"]["uri"], model["id"])

    return Ended(model["created"] + model["takes"], record)
