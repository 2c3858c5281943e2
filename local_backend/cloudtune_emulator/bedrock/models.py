"""Custom models: those that jobs created, and those that are registered from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws.errors import conflict, invalid, not_found
from cloudtune_emulator.bedrock import base_models, resources
from cloudtune_emulator.bedrock.resources import API
from cloudtune_emulator.http import Call, Reply

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

KIND, DEPLOYMENT, THROUGHPUT = "custom_model", "custom_deployment", "provisioned"
_SHOWN = ("trainingDataConfig", "validationDataConfig", "outputDataConfig", "customizationConfig")


def add(context: EmulatorContext, job: dict[str, Any], at: float) -> None:
    """The model of a completed job."""
    request = job["request"]
    context.store.add(
        KIND, API,
        {"id": job["model_id"], "arn": job["fine_tuned_model"], "region": job["region"], "created": at,
         "name": request["customModelName"], "base": job["base"], "trains": job["trains"], "job": job["id"],
         "kind": job["kind"], "tags": resources.tags(request.get("customModelTags"))},
    )  # fmt: skip


def by_name(context: EmulatorContext, region: str, name: str) -> dict[str, Any] | None:
    """The model of that name."""
    return resources.by_name(context, KIND, region, name)


def either(context: EmulatorContext, call: Call, identifier: str) -> dict[str, Any] | None:
    """The custom model with that identifier, or None."""
    if ":custom-model/" in identifier:
        return find(context, call, identifier)
    if base_models.inference(base_models.plain(identifier)) is not None:
        return None
    return by_name(context, call.region, identifier)


def find(context: EmulatorContext, call: Call, identifier: str) -> dict[str, Any]:
    """The model by ARN or name. Raises AwsError."""
    return resources.find(context, KIND, call, identifier, "model")


def get(context: EmulatorContext, call: Call) -> Reply:
    """GetCustomModel."""
    model = find(context, call, call.ids["modelIdentifier"])
    shown = _summary(context, call, model)
    for name in ("baseModelName", "ownerAccountId"):
        del shown[name]
    if model["job"] is None:
        del shown["baseModelArn"]  # the list requires this field, and this response does not
        return Reply(body=shown | _registered(model, call.now))
    job = context.store.get("job", API, model["job"])
    assert job is not None
    request = job["request"]
    shown |= {"jobName": job["name"], "jobArn": job["arn"], "hyperParameters": job["hyperparameters"]}
    shown |= {name: request[name] for name in _SHOWN if name in request} | losses(job)
    if "customModelKmsKeyId" in request:
        shown["modelKmsKeyArn"] = request["customModelKmsKeyId"]
    return Reply(body=shown)


def list_(context: EmulatorContext, call: Call) -> Reply:
    """ListCustomModels."""
    views = [_summary(context, call, model) for model in resources.under(context, KIND, call.region)]
    for query in ("baseModelArnEquals", "foundationModelArnEquals"):
        if wanted := call.query.get(query):
            views = [view for view in views if view["baseModelArn"] == wanted]
    if wanted := call.query.get("modelStatus"):
        views = [view for view in views if view["modelStatus"] == wanted]
    return resources.page(context, call, views, under="modelSummaries", name="modelName", made="creationTime")


def delete(context: EmulatorContext, call: Call) -> Reply:
    """DeleteCustomModel: a conflict while it is deployed.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-delete.html (seen 2026-11-21).
    """
    with context.store.alone():
        model = find(context, call, call.ids["modelIdentifier"])
        if word(model, call.now) == "Creating":
            raise conflict(f"The model {model['name']} is being created and cannot be deleted yet.")
        if users := _users(context, model["arn"]):
            raise conflict(f"The model {model['name']} is in use by {', '.join(users)}.")
        context.store.remove(KIND, API, model["id"])
    return Reply(body={})


def _summary(context: EmulatorContext, call: Call, model: dict[str, Any]) -> dict[str, Any]:
    invented = context.faults.condition("invented_status", call.name)
    is_base = model["trains"] == model["base"]
    return {
        "modelArn": model["arn"], "modelName": model["name"],
        "creationTime": resources.stamp(context, model["created"]), "customizationType": model["kind"],
        "baseModelArn": base_models.arn(model["region"], model["base"]) if is_base else model["trains"],
        "baseModelName": model["base"].partition(":")[0], "ownerAccountId": context.settings.aws_account,
        "modelStatus": invented.value if invented else word(model, call.now),
    }  # fmt: skip


def must(context: EmulatorContext, arn: str) -> dict[str, Any]:
    """A model that a deployment names. Raises AwsError."""
    found = context.store.get(KIND, API, arn.rpartition("/")[2])
    if found is None:
        raise not_found(f"The model {arn} was not found.")
    return found


def _users(context: EmulatorContext, model: str) -> list[str]:
    """ARNs of the deployments and the provisioned throughput that need a model."""
    return [
        one["arn"] for kind in (DEPLOYMENT, THROUGHPUT) for one in context.store.all(kind, API)
        if model in (one["model"], (one["update"] or {}).get("model"))
    ]  # fmt: skip


# -- states ------------------------------------------------------------------------------------------------------------


def word(model: dict[str, Any], now: float) -> str:
    """The service's status value of a custom model. The model of a job is active."""
    if model["job"] is not None:
        return "Active"
    if now < model["created"] + model["takes"]:
        return "Creating"
    return "Active" if model["failure"] is None else "Failed"


def must_be_active(model: dict[str, Any], now: float) -> None:
    """Refuse inference on a model that is not ready. Raises AwsError."""
    if (said := word(model, now)) != "Active":
        raise invalid(f"The model {model['name']} is {said}: only an Active model can be deployed.")


def is_on_demand(model: dict[str, Any]) -> bool:
    """Whether it can be deployed on demand. Of models that SageMaker trained, only adapters can.

    https://docs.aws.amazon.com/nova/latest/userguide/customization.html (seen 2026-11-21).
    """
    return base_models.is_on_demand(model["base"]) and not (model["job"] is None and model["source"]["is_full"])


def _registered(model: dict[str, Any], now: float) -> dict[str, Any]:
    """The fields that Get returns for a registered model beyond its summary."""
    shown: dict[str, Any] = {}
    if word(model, now) == "Failed":
        shown["failureMessage"] = model["failure"]
    if model["key"]:
        shown["modelKmsKeyArn"] = model["key"]
    return shown


def losses(job: dict[str, Any]) -> dict[str, Any]:
    """The last losses of a completed job; None for any other job."""
    final = job.get("final") or {}
    found: dict[str, Any] = {}
    if final.get("train") is not None:
        found["trainingMetrics"] = {"trainingLoss": final["train"]}
    if final.get("valid") is not None:
        found["validationMetrics"] = [{"validationLoss": final["valid"]}]
    return found
