"""Inference components: a model, or an adapter of another component's model, on an existing endpoint.

An adapter has no model, resources or copies of its own: it uses those of its base component
(docs.aws.amazon.com/sagemaker/latest/APIReference/API_InferenceComponentSpecification.html, seen 2026-11-21). The
service's response to the deletion of a base with adapters is not documented: here it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.sagemaker import capacity, listing, naming, shapes
from cloudtune_emulator.sagemaker.resources import (
    COMPONENT,
    ENDPOINT,
    MODEL,
    add,
    asked,
    need,
    standing,
    status,
    take_down,
    times,
)

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

_OF_A_MODEL = ("ModelName", "ComputeResourceRequirements", "StartupParameters")


def create_component(context: EmulatorContext, call: Call) -> Reply:
    """CreateInferenceComponent: a model, or an adapter on another component, on an existing endpoint."""
    body = call.body
    endpoint = need(context, call, ENDPOINT, body["EndpointName"])
    if status(context, endpoint, call.now) != "InService":
        raise shapes.refused(f'The endpoint "{endpoint["arn"]}" is not InService.')
    given = body.get("Specification") or {}
    if base := given.get("BaseInferenceComponentName"):
        _check_adapter(context, call, given, need(context, call, COMPONENT, base))
    elif given.get("ModelName"):
        need(context, call, MODEL, given["ModelName"])
    elif not given.get("Container"):
        raise shapes.refused("A specification names a model, a container or a base inference component.")
    wish = int((body.get("RuntimeConfig") or {}).get("CopyCount", 1))
    arn = add(
        context, call, COMPONENT, body["InferenceComponentName"], endpoint=endpoint["arn"], **capacity.begun(call, wish)
    )
    return Reply(body={"InferenceComponentArn": arn})


def describe_component(context: EmulatorContext, call: Call) -> Reply:
    """DescribeInferenceComponent."""
    thing = need(context, call, COMPONENT, call.body["InferenceComponentName"])
    given = asked(thing)
    given.pop("RuntimeConfig", None)
    shown = given | times(context, thing) | {
        "InferenceComponentArn": thing["arn"], "EndpointArn": thing["endpoint"],
        "InferenceComponentStatus": status(context, thing, call.now),
    }  # fmt: skip
    if not base_of(thing):
        desired, current = capacity.count(context, call, thing)
        shown["RuntimeConfig"] = {"DesiredCopyCount": desired, "CurrentCopyCount": current}
    return Reply(body=shown)


def list_components(context: EmulatorContext, call: Call) -> Reply:
    """ListInferenceComponents."""
    wanted = call.body.get("EndpointNameEquals")
    views = [
        {"InferenceComponentName": one["id"], "InferenceComponentArn": one["arn"], "EndpointArn": one["endpoint"],
         "EndpointName": one["request"]["EndpointName"], "VariantName": one["request"].get("VariantName", "AllTraffic"),
         "InferenceComponentStatus": status(context, one, call.now)} | times(context, one)
        for one in standing(context, call, COMPONENT)
        if wanted in (None, one["request"]["EndpointName"])
    ]  # fmt: skip
    return Reply(body=listing.page(
        call, views, under="InferenceComponents", name="InferenceComponentName", status="InferenceComponentStatus",
    ))  # fmt: skip


def update_component(context: EmulatorContext, call: Call) -> Reply:
    """UpdateInferenceComponent."""
    with context.store.alone():
        thing = need(context, call, COMPONENT, call.body["InferenceComponentName"])
        if "Specification" in call.body:
            thing["request"]["Specification"] = call.body["Specification"]
            thing["changed"] = call.now
        wish = (call.body.get("RuntimeConfig") or {}).get("CopyCount")
        if wish is not None:
            capacity.wish(call, thing, int(wish))
        context.store.save(COMPONENT, naming.shelf(call), thing)
    return Reply(body={"InferenceComponentArn": thing["arn"]})


def update_copies(context: EmulatorContext, call: Call) -> Reply:
    """UpdateInferenceComponentRuntimeConfig."""
    with context.store.alone():
        thing = need(context, call, COMPONENT, call.body["InferenceComponentName"])
        capacity.wish(call, thing, int(call.body["DesiredRuntimeConfig"]["CopyCount"]))
        context.store.save(COMPONENT, naming.shelf(call), thing)
    return Reply(body={"InferenceComponentArn": thing["arn"]})


def delete_component(context: EmulatorContext, call: Call) -> Reply:
    """DeleteInferenceComponent."""
    name = call.body["InferenceComponentName"]
    on_it = [
        one["id"] for one in standing(context, call, COMPONENT) if base_of(one) == name and one["deleting"] is None
    ]
    if on_it:
        raise shapes.refused(f'Inference component "{name}" is the base of {", ".join(on_it)}: delete those first.')
    return take_down(context, call, COMPONENT, name)


def base_of(thing: dict[str, Any]) -> str | None:
    """The base component of an adapter."""
    found = (thing["request"].get("Specification") or {}).get("BaseInferenceComponentName")
    return str(found) if found else None


def _check_adapter(context: EmulatorContext, call: Call, given: dict[str, Any], base: dict[str, Any]) -> None:
    own = [name for name in _OF_A_MODEL if given.get(name)]
    if own:
        raise shapes.refused(f"An adapter inference component has no {own[0]}: its base has.")
    if not (given.get("Container") or {}).get("ArtifactUrl"):
        raise shapes.refused("An adapter inference component needs Container.ArtifactUrl.")
    if base["request"]["EndpointName"] != call.body["EndpointName"] or base_of(base):
        raise shapes.refused(f'"{base["id"]}" is no base inference component on this endpoint.')
