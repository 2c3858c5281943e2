"""Custom models deployed on demand: Creating, then Active; an update replaces the model under the same ARN.

https://docs.aws.amazon.com/bedrock/latest/userguide/deploy-custom-model-on-demand.html (seen 2026-11-21); shapes and
errors: botocore 1.44.5, where creating lists no ConflictException.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws.errors import conflict, invalid
from cloudtune_emulator.bedrock import models, resources
from cloudtune_emulator.bedrock.resources import API
from cloudtune_emulator.http import Call, Reply

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

KIND = models.DEPLOYMENT


def create(context: EmulatorContext, call: Call) -> Reply:
    """CreateCustomModelDeployment."""
    body = call.body
    with context.store.alone():
        if (made := resources.repeated(context, call, KIND)) is not None:
            return Reply(status=202, body={"customModelDeploymentArn": made["arn"]})
        _deployable(context, call, body["modelArn"])
        name = body["modelDeploymentName"]
        if resources.by_name(context, KIND, call.region, name) is not None:
            raise invalid(f"The model deployment name {name} is already in use.")
        number = resources.new_id()
        made = {
            "id": number, "arn": resources.arn(context, call.region, f"custom-model-deployment/{number}"),
            "region": call.region, "name": name, "created": call.now, "model": body["modelArn"], "update": None,
            "description": body.get("description"), "tags": resources.tags(body.get("tags")),
        }  # fmt: skip
        resources.keep(context, call, KIND, made)
    return Reply(status=202, body={"customModelDeploymentArn": made["arn"]})


def _deployable(context: EmulatorContext, call: Call, arn: str) -> None:
    model = models.find(context, call, arn)
    models.must_be_active(model, call.now)
    if not models.is_on_demand(model):
        raise invalid(f"On-demand deployment is not supported for models based on {model['base']}.")


def get(context: EmulatorContext, call: Call) -> Reply:
    """GetCustomModelDeployment."""
    found = _find(context, call)
    view = _view(context, found, call)
    view["modelDeploymentName"] = view.pop("customModelDeploymentName")
    if found["description"] is not None:
        view["description"] = found["description"]
    if (update := found["update"]) is not None:
        is_done = call.now >= update["at"] + context.settings.deploying_s
        view["updateDetails"] = {
            "modelArn": update["model"], "updateStatus": "UpdateCompleted" if is_done else "Updating",
        }  # fmt: skip
    return Reply(body=view)


def list_(context: EmulatorContext, call: Call) -> Reply:
    """ListCustomModelDeployments."""
    views = [_view(context, one, call) for one in resources.under(context, KIND, call.region)]
    if wanted := call.query.get("modelArnEquals"):
        views = [view for view in views if view["modelArn"] == wanted]
    return resources.page(
        context, call, views, under="modelDeploymentSummaries", name="customModelDeploymentName", made="createdAt"
    )


def update(context: EmulatorContext, call: Call) -> Reply:
    """UpdateCustomModelDeployment."""
    with context.store.alone():
        found = _find(context, call)
        if status(context, found, call.now) != "Active":
            raise invalid(f"The deployment {found['name']} is not Active.")
        _deployable(context, call, call.body["modelArn"])
        found["model"] = serving(context, found, call.now)
        found["update"] = {"model": call.body["modelArn"], "at": call.now}
        context.store.save(KIND, API, found)
    return Reply(status=202, body={"customModelDeploymentArn": found["arn"]})


def delete(context: EmulatorContext, call: Call) -> Reply:
    """DeleteCustomModelDeployment."""
    with context.store.alone():
        found = _find(context, call)
        if status(context, found, call.now) == "Creating":
            raise conflict(f"The deployment {found['name']} is being created and cannot be deleted yet.")
        context.store.remove(KIND, API, found["id"])
    return Reply(body={})


def _find(context: EmulatorContext, call: Call) -> dict[str, Any]:
    identifier = call.ids["customModelDeploymentIdentifier"]
    return resources.find(context, KIND, call, identifier, "custom model deployment")


def status(context: EmulatorContext, one: dict[str, Any], now: float) -> str:
    """Creating or Active."""
    return "Creating" if now < one["created"] + context.settings.deploying_s else "Active"


def serving(context: EmulatorContext, one: dict[str, Any], now: float) -> str:
    """The ARN of the model that currently answers."""
    update = one["update"]
    if update is not None and now >= update["at"] + context.settings.deploying_s:
        return str(update["model"])
    return str(one["model"])


def _view(context: EmulatorContext, one: dict[str, Any], call: Call) -> dict[str, Any]:
    changed = max(one["created"], (one["update"] or {}).get("at", 0.0))
    invented = context.faults.condition("invented_status", call.name)
    return {
        "customModelDeploymentArn": one["arn"], "customModelDeploymentName": one["name"],
        "modelArn": serving(context, one, call.now), "createdAt": resources.stamp(context, one["created"]),
        "status": invented.value if invented else status(context, one, call.now),
        "lastUpdatedAt": resources.stamp(context, changed),
    }  # fmt: skip
