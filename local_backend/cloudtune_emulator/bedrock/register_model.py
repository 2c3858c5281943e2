"""CreateCustomModel: what SageMaker made of Nova becomes a custom model, from its package or from AWS's own bucket.

Shapes, states and words: botocore 1.44.5. One of two sources is named, and Nova alone is taken
(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_CreateCustomModel.html, seen 2026-11-21). Where the service
checks what is not documented: a source that is not there is refused here at once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws import buckets
from cloudtune_emulator.aws.errors import AwsError, conflict, invalid, not_found
from cloudtune_emulator.bedrock import base_models, create_job, imports, resources
from cloudtune_emulator.bedrock.resources import FACE
from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.sagemaker import packages

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

_LOG = logging.getLogger(__name__)
KIND = "custom_model"
IMPORTED = "IMPORTED"
_SIZES = {"micro": "amazon.nova-micro-v1:0:128k", "pro": "amazon.nova-pro-v1:0:300k"}
_LITE, _LITE_2 = "amazon.nova-lite-v1:0:300k", "amazon.nova-2-lite-v1:0:256k"


def create(context: EmulatorContext, call: Call) -> Reply:
    """CreateCustomModel."""
    body = call.body
    with context.store.alone():
        if (made := resources.repeated(context, call, KIND)) is not None:
            return Reply(status=202, body={"modelArn": made["arn"]})
        if create_job.is_taken(context, call, body["modelName"]):
            raise conflict(f"The provided model name {body['modelName']} is already in use.")
        if body.get("roleArn"):
            resources.assume(context, body["roleArn"])
        source = _source(context, call)
        number = resources.new_id()
        takes, failure = imports.course(context)
        made = {
            "id": number, "arn": resources.arn(context, call.region, f"custom-model/imported/{number}"),
            "region": call.region, "created": call.now, "name": body["modelName"], "job": None, "kind": IMPORTED,
            "base": source["base"], "trains": source["base"], "tags": resources.tags(body.get("modelTags")),
            "key": body.get("modelKmsKeyArn"), "takes": takes, "failure": failure, "source": source, "fetched": False,
        }  # fmt: skip
        resources.keep(context, call, KIND, made)
    return Reply(status=202, body={"modelArn": made["arn"]})


def _source(context: EmulatorContext, call: Call) -> dict[str, Any]:
    """Where the weights lie, and what they were tuned from. Raises AwsError."""
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
    """Bedrock's id of the base that the hub calls so."""
    words = name.lower().replace("_", "-").split("-")
    known = next((known for word, known in _SIZES.items() if word in words), None)
    return known or (_LITE_2 if {"2", "v2"} & set(words) else _LITE)


# -- how it stands -----------------------------------------------------------------------------------------------------


def word(model: dict[str, Any], now: float) -> str:
    """The service's word for how a custom model stands; one that a job has made is active."""
    if model["job"] is not None:
        return "Active"
    if now < model["created"] + model["takes"]:
        return "Creating"
    return "Active" if model["failure"] is None else "Failed"


def settle_all(context: EmulatorContext, now: float) -> None:
    """Let every registered model that is active by now have its files: their source may go then."""
    for model in context.store.all(KIND, FACE):
        if model["job"] is not None or model["fetched"] or word(model, now) != "Active":
            continue
        with context.store.alone():
            try:
                imports.copy(
                    context, buckets.parse(model["source"]["uri"]), context.store.content(f"imported-{model['id']}")
                )
            except buckets.NoSuch as error:  # taken away meanwhile: there is a model all the same, and it cannot answer
                _LOG.warning("the files of model %s are lost: %s no longer exists", model["name"], error)
            model["fetched"] = True
            context.store.save(KIND, FACE, model)


def must_be_active(model: dict[str, Any], now: float) -> None:
    """Refuse to let a model answer that is not ready. Raises AwsError."""
    if (said := word(model, now)) != "Active":
        raise invalid(f"The model {model['name']} is {said}: only an Active model can be deployed.")


def is_on_demand(model: dict[str, Any]) -> bool:
    """Whether it may be deployed on demand: of what SageMaker trained, adapters may, and full weights may not.

    https://docs.aws.amazon.com/nova/latest/userguide/customization.html (seen 2026-11-21).
    """
    return base_models.is_on_demand(model["base"]) and not (model["job"] is None and model["source"]["is_full"])


def view(model: dict[str, Any], now: float) -> dict[str, Any]:
    """What Get tells of a registered model beyond its summary."""
    shown: dict[str, Any] = {}
    if word(model, now) == "Failed":
        shown["failureMessage"] = model["failure"]
    if model["key"]:
        shown["modelKmsKeyArn"] = model["key"]
    return shown
