"""Provisioned throughput: model units by the hour; with a commitment, it cannot be deleted before that ends.

https://docs.aws.amazon.com/bedrock/latest/userguide/prov-throughput.html (seen 2026-11-21); shapes: botocore 1.44.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws.errors import conflict, invalid
from cloudtune_emulator.bedrock import base_models, models, resources
from cloudtune_emulator.bedrock.resources import API
from cloudtune_emulator.http import Call, Reply

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

KIND = models.THROUGHPUT
_DAYS = {"OneMonth": 30, "SixMonths": 180}


def create(context: EmulatorContext, call: Call) -> Reply:
    """CreateProvisionedModelThroughput."""
    body = call.body
    with context.store.alone():
        if (made := resources.repeated(context, call, KIND)) is not None:
            return Reply(status=201, body={"provisionedModelArn": made["arn"]})
        model, base = _model(context, call, body["modelId"])
        name = body["provisionedModelName"]
        if resources.by_name(context, KIND, call.region, name) is not None:
            raise invalid(f"The provisioned model name {name} is already in use.")
        number = resources.new_id()
        made = {
            "id": number, "arn": resources.arn(context, call.region, f"provisioned-model/{number}"),
            "region": call.region, "name": name, "created": call.now, "model": model, "base": base, "update": None,
            "units": body["modelUnits"], "commitment": body.get("commitmentDuration"),
            "tags": resources.tags(body.get("tags")),
        }  # fmt: skip
        resources.keep(context, call, KIND, made)
    return Reply(status=201, body={"provisionedModelArn": made["arn"]})


def _model(context: EmulatorContext, call: Call, identifier: str) -> tuple[str, str]:
    """ARN of the model, and its base."""
    custom = models.either(context, call, identifier)
    if custom is not None:
        models.must_be_active(custom, call.now)
        return custom["arn"], custom["base"]
    name = base_models.plain(identifier)
    if base_models.inference(name) is None:
        raise invalid("The provided model identifier is invalid.")
    return base_models.arn(call.region, name), name


def get(context: EmulatorContext, call: Call) -> Reply:
    """GetProvisionedModelThroughput."""
    return Reply(body=_view(context, _find(context, call), call))


def list_(context: EmulatorContext, call: Call) -> Reply:
    """ListProvisionedModelThroughputs."""
    views = [_view(context, one, call) for one in resources.under(context, KIND, call.region)]
    if wanted := call.query.get("modelArnEquals"):
        views = [view for view in views if view["modelArn"] == wanted]
    return resources.page(
        context, call, views, under="provisionedModelSummaries", name="provisionedModelName", made="creationTime"
    )


def update(context: EmulatorContext, call: Call) -> Reply:
    """UpdateProvisionedModelThroughput: another name, or another model of the same base."""
    body = call.body
    with context.store.alone():
        found = _find(context, call)
        if (name := body.get("desiredProvisionedModelName")) is not None:
            taken = resources.by_name(context, KIND, call.region, name)
            if taken is not None and taken["id"] != found["id"]:
                raise invalid(f"The provisioned model name {name} is already in use.")
            found["name"] = name
        if (wanted := body.get("desiredModelId")) is not None:
            model, base = _model(context, call, wanted)
            if base != found["base"]:
                raise invalid("The desired model must have the same base model.")
            found["model"] = serving(context, found, call.now)
            found["update"] = {"model": model, "at": call.now}
        context.store.save(KIND, API, found)
    return Reply(body={})


def delete(context: EmulatorContext, call: Call) -> Reply:
    """DeleteProvisionedModelThroughput."""
    with context.store.alone():
        found = _find(context, call)
        until = _until(found)
        if until is not None and call.now < until:
            message = (
                f"The provisioned throughput {found['name']} is committed until {resources.stamp(context, until)}."
            )
            raise conflict(message)
        context.store.remove(KIND, API, found["id"])
    return Reply(body={})


def _until(one: dict[str, Any]) -> float | None:
    days = _DAYS.get(one["commitment"] or "")
    return None if days is None else float(one["created"] + days * 86400)


def _find(context: EmulatorContext, call: Call) -> dict[str, Any]:
    return resources.find(context, KIND, call, call.ids["provisionedModelId"], "provisioned model")


def status(context: EmulatorContext, one: dict[str, Any], now: float) -> str:
    """Creating, Updating or InService."""
    if now < one["created"] + context.settings.deploying_s:
        return "Creating"
    is_moving = one["update"] is not None and now < one["update"]["at"] + context.settings.deploying_s
    return "Updating" if is_moving else "InService"


def serving(context: EmulatorContext, one: dict[str, Any], now: float) -> str:
    """The ARN of the model that currently answers."""
    update = one["update"]
    is_done = update is not None and now >= update["at"] + context.settings.deploying_s
    return str(update["model"] if is_done else one["model"])


def _view(context: EmulatorContext, one: dict[str, Any], call: Call) -> dict[str, Any]:
    changed = max(one["created"], (one["update"] or {}).get("at", 0.0))
    shown = {
        "provisionedModelArn": one["arn"],
        "provisionedModelName": one["name"],
        "modelArn": serving(context, one, call.now),
        "desiredModelArn": (one["update"] or {}).get("model") or one["model"],
        "foundationModelArn": base_models.arn(one["region"], one["base"]),
        "modelUnits": one["units"],
        "desiredModelUnits": one["units"],
        "status": status(context, one, call.now),
        "creationTime": resources.stamp(context, one["created"]),
        "lastModifiedTime": resources.stamp(context, changed),
    }
    until = _until(one)
    if until is not None:
        shown |= {"commitmentDuration": one["commitment"], "commitmentExpirationTime": resources.stamp(context, until)}
    return shown
