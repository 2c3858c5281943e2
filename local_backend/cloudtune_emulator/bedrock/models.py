"""Custom models: those that jobs have made, and those that are registered from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws.errors import conflict, not_found
from cloudtune_emulator.bedrock import base_models, resources
from cloudtune_emulator.bedrock.resources import FACE
from cloudtune_emulator.http import Call, Reply

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

_SHOWN = ("trainingDataConfig", "validationDataConfig", "outputDataConfig", "customizationConfig")


def add(context: EmulatorContext, job: dict[str, Any], at: float) -> None:
    """The model of a job that has ended well."""
    asked = job["request"]
    context.store.add(
        "custom_model", FACE,
        {"id": job["model_id"], "arn": job["fine_tuned_model"], "region": job["region"], "created": at,
         "name": asked["customModelName"], "base": job["base"], "trains": job["trains"], "job": job["id"],
         "kind": job["kind"], "tags": resources.tags(asked.get("customModelTags"))},
    )  # fmt: skip


def by_name(context: EmulatorContext, region: str, name: str) -> dict[str, Any] | None:
    """The model of that name."""
    return resources.by_name(context, "custom_model", region, name)


def either(context: EmulatorContext, call: Call, identifier: str) -> dict[str, Any] | None:
    """The custom model that an identifier may mean beside a foundation model's, or None."""
    if ":custom-model/" in identifier:
        return find(context, call, identifier)
    if base_models.inference(base_models.plain(identifier)) is not None:
        return None
    _settled(context, call)
    return by_name(context, call.region, identifier)


def find(context: EmulatorContext, call: Call, identifier: str) -> dict[str, Any]:
    """The model by ARN or name. Raises AwsError."""
    _settled(context, call)
    return resources.find(context, "custom_model", call, identifier, "model")


def get(context: EmulatorContext, call: Call) -> Reply:
    """GetCustomModel."""
    from cloudtune_emulator.bedrock import jobs, register_model  # which know models

    model = find(context, call, call.ids["modelIdentifier"])
    shown = _summary(context, call, model)
    for name in ("baseModelName", "ownerAccountId"):
        del shown[name]
    if model["job"] is None:
        del shown["baseModelArn"]  # the list has to tell it, and this need not
        return Reply(body=shown | register_model.view(model, call.now))
    job = context.store.get("job", FACE, model["job"])
    assert job is not None
    asked = job["request"]
    shown |= {"jobName": job["name"], "jobArn": job["arn"], "hyperParameters": job["hyperparameters"]}
    shown |= {name: asked[name] for name in _SHOWN if name in asked} | jobs.metrics(job)
    if "customModelKmsKeyId" in asked:
        shown["modelKmsKeyArn"] = asked["customModelKmsKeyId"]
    return Reply(body=shown)


def list_(context: EmulatorContext, call: Call) -> Reply:
    """ListCustomModels."""
    _settled(context, call)
    views = [_summary(context, call, model) for model in resources.under(context, "custom_model", call.region)]
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
    from cloudtune_emulator.bedrock import deployments, register_model, throughput  # which know models

    with context.store.alone():
        model = find(context, call, call.ids["modelIdentifier"])
        if register_model.word(model, call.now) == "Creating":
            raise conflict(f"The model {model['name']} is being created and cannot be deleted yet.")
        users = [*deployments.using(context, model["arn"]), *throughput.using(context, model["arn"])]
        if users:
            raise conflict(f"The model {model['name']} is in use by {', '.join(users)}.")
        context.store.remove("custom_model", FACE, model["id"])
    return Reply(body={})


def _settled(context: EmulatorContext, call: Call) -> None:
    from cloudtune_emulator.bedrock import jobs, register_model  # which know models

    jobs.settle_all(context, call.now)
    register_model.settle_all(context, call.now)


def _summary(context: EmulatorContext, call: Call, model: dict[str, Any]) -> dict[str, Any]:
    from cloudtune_emulator.bedrock import register_model  # which knows models

    invented = context.faults.condition("invented_status", call.name)
    is_base = model["trains"] == model["base"]
    return {
        "modelArn": model["arn"], "modelName": model["name"],
        "creationTime": resources.stamp(context, model["created"]), "customizationType": model["kind"],
        "baseModelArn": base_models.arn(model["region"], model["base"]) if is_base else model["trains"],
        "baseModelName": model["base"].partition(":")[0], "ownerAccountId": context.settings.aws_account,
        "modelStatus": invented.value if invented else register_model.word(model, call.now),
    }  # fmt: skip


def must(context: EmulatorContext, arn: str) -> dict[str, Any]:
    """A model that a deployment names. Raises AwsError."""
    found = context.store.get("custom_model", FACE, arn.rpartition("/")[2])
    if found is None:
        raise not_found(f"The model {arn} was not found.")
    return found
