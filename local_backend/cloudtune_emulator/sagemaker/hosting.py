"""Models, endpoint configurations and endpoints: created by name, described, listed, updated, deleted.

An existing name and a missing resource are ValidationExceptions with different messages. Deleting a model or a
configuration does not delete the endpoint, which is what is billed
(docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints-delete-html, seen 2026-11-21). One with inference
components on it is not deleted (gruntwork-io/cloud-nuke#1142 quotes the service's message, seen 2026-11-21).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.sagemaker import capacity, listing, naming, shapes
from cloudtune_emulator.sagemaker.resources import (
    COMPONENT,
    CONFIG,
    ENDPOINT,
    MODEL,
    add,
    asked,
    found,
    need,
    standing,
    status,
    take_down,
    times,
)

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

# -- models ------------------------------------------------------------------------------------------------------------


def create_model(context: EmulatorContext, call: Call) -> Reply:
    """CreateModel."""
    body = call.body
    if bool(body.get("PrimaryContainer")) == bool(body.get("Containers")):
        raise shapes.refused("Either PrimaryContainer or Containers must be given, and not both.")
    return Reply(body={"ModelArn": add(context, call, MODEL, body["ModelName"])})


def describe_model(context: EmulatorContext, call: Call) -> Reply:
    """DescribeModel."""
    thing = need(context, call, MODEL, call.body["ModelName"])
    shown = asked(thing) | {"ModelArn": thing["arn"], "CreationTime": naming.timestamp(context, thing["created"])}
    return Reply(body={"EnableNetworkIsolation": False} | shown)


def list_models(context: EmulatorContext, call: Call) -> Reply:
    """ListModels."""
    views = [
        {"ModelName": one["id"], "ModelArn": one["arn"], "CreationTime": naming.timestamp(context, one["created"])}
        for one in standing(context, call, MODEL)
    ]
    return Reply(body=listing.page(call, views, under="Models", name="ModelName"))


def delete_model(context: EmulatorContext, call: Call) -> Reply:
    """DeleteModel."""
    return take_down(context, call, MODEL, call.body["ModelName"])


# -- configurations ----------------------------------------------------------------------------------------------------


def create_config(context: EmulatorContext, call: Call) -> Reply:
    """CreateEndpointConfig: every model that it names must exist."""
    for variant in call.body["ProductionVariants"]:
        if variant.get("ModelName"):
            need(context, call, MODEL, variant["ModelName"])
        elif not call.body.get("ExecutionRoleArn"):
            raise shapes.refused("ExecutionRoleArn is required where a variant names no model.")
        if not variant.get("InstanceType") and not variant.get("ServerlessConfig"):
            raise shapes.refused("A production variant needs an InstanceType or a ServerlessConfig.")
    return Reply(body={"EndpointConfigArn": add(context, call, CONFIG, call.body["EndpointConfigName"])})


def describe_config(context: EmulatorContext, call: Call) -> Reply:
    """DescribeEndpointConfig."""
    thing = need(context, call, CONFIG, call.body["EndpointConfigName"])
    return Reply(
        body=asked(thing)
        | {"EndpointConfigArn": thing["arn"], "CreationTime": naming.timestamp(context, thing["created"])}
    )


def list_configs(context: EmulatorContext, call: Call) -> Reply:
    """ListEndpointConfigs."""
    views = [
        {"EndpointConfigName": one["id"], "EndpointConfigArn": one["arn"],
         "CreationTime": naming.timestamp(context, one["created"])}
        for one in standing(context, call, CONFIG)
    ]  # fmt: skip
    return Reply(body=listing.page(call, views, under="EndpointConfigs", name="EndpointConfigName"))


def delete_config(context: EmulatorContext, call: Call) -> Reply:
    """DeleteEndpointConfig."""
    return take_down(context, call, CONFIG, call.body["EndpointConfigName"])


# -- endpoints ---------------------------------------------------------------------------------------------------------


def create_endpoint(context: EmulatorContext, call: Call) -> Reply:
    """CreateEndpoint."""
    config = call.body["EndpointConfigName"]
    need(context, call, CONFIG, config)
    arn = add(context, call, ENDPOINT, call.body["EndpointName"], config=config, counts={})
    return Reply(body={"EndpointArn": arn})


def describe_endpoint(context: EmulatorContext, call: Call) -> Reply:
    """DescribeEndpoint."""
    thing = need(context, call, ENDPOINT, call.body["EndpointName"])
    shown = times(context, thing) | {
        "EndpointName": thing["id"], "EndpointArn": thing["arn"], "EndpointConfigName": thing["config"],
        "EndpointStatus": status(context, thing, call.now), "ProductionVariants": _variants(context, call, thing),
    }  # fmt: skip
    return Reply(body=shown)


def _variants(context: EmulatorContext, call: Call, thing: dict[str, Any]) -> list[dict[str, Any]]:
    config = found(context, call, CONFIG, thing["config"])
    shown = []
    for variant in (config or {}).get("request", {}).get("ProductionVariants", ()):
        count = thing["counts"].get(variant["VariantName"], variant.get("InitialInstanceCount", 0))
        managed = variant.get("ManagedInstanceScaling") or {}
        if managed.get("Status") == "ENABLED":
            on_it = [one for one in standing(context, call, COMPONENT) if one["request"]["EndpointName"] == thing["id"]]
            count = capacity.instances(context, call, thing, on_it, managed)
        entry = {"VariantName": variant["VariantName"], "CurrentWeight": variant.get("InitialVariantWeight", 1.0)}
        if variant.get("ServerlessConfig"):
            entry["CurrentServerlessConfig"] = variant["ServerlessConfig"]
        else:
            entry |= {"CurrentInstanceCount": count, "DesiredInstanceCount": count}
        shown.append(entry)
    return shown


def list_endpoints(context: EmulatorContext, call: Call) -> Reply:
    """ListEndpoints."""
    lag = context.faults.condition("list_lag", call.name)
    views = [
        {"EndpointName": one["id"], "EndpointArn": one["arn"], "EndpointStatus": status(context, one, call.now)}
        | times(context, one)
        for one in standing(context, call, ENDPOINT)
        if not lag or one["created"] <= call.now - lag.seconds
    ]
    return Reply(body=listing.page(call, views, under="Endpoints", name="EndpointName", status="EndpointStatus"))


def update_endpoint(context: EmulatorContext, call: Call) -> Reply:
    """UpdateEndpoint: sets another configuration; only for an endpoint in service."""
    need(context, call, CONFIG, call.body["EndpointConfigName"])
    with context.store.alone():
        thing = need(context, call, ENDPOINT, call.body["EndpointName"])
        if status(context, thing, call.now) != "InService":
            raise shapes.refused(f'Cannot update in-progress endpoint "{thing["arn"]}".')
        thing |= {"config": call.body["EndpointConfigName"], "changed": call.now, "counts": {}}
        context.store.save(ENDPOINT, naming.shelf(call), thing)
    return Reply(body={"EndpointArn": thing["arn"]})


def update_weights(context: EmulatorContext, call: Call) -> Reply:
    """UpdateEndpointWeightsAndCapacities."""
    with context.store.alone():
        thing = need(context, call, ENDPOINT, call.body["EndpointName"])
        for wish in call.body["DesiredWeightsAndCapacities"]:
            if wish.get("DesiredInstanceCount") is not None:
                thing["counts"][wish["VariantName"]] = wish["DesiredInstanceCount"]
        thing["changed"] = call.now
        context.store.save(ENDPOINT, naming.shelf(call), thing)
    return Reply(body={"EndpointArn": thing["arn"]})


def delete_endpoint(context: EmulatorContext, call: Call) -> Reply:
    """DeleteEndpoint: not while an inference component is on it."""
    name = call.body["EndpointName"]
    if any(one["request"]["EndpointName"] == name for one in standing(context, call, COMPONENT)):
        raise shapes.refused("Cannot delete endpoint with inference component associated. Please delete inference "
                             "component and try it again.")  # fmt: skip
    return take_down(context, call, ENDPOINT, call.body["EndpointName"])
