"""Common parts of models, endpoint configurations, endpoints and components: names, states, deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.sagemaker import naming, shapes

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

MODEL, CONFIG, ENDPOINT, COMPONENT = "sm_model", "sm_config", "sm_endpoint", "sm_component"
_WORDS = {MODEL: "model", CONFIG: "endpoint configuration", ENDPOINT: "endpoint", COMPONENT: "inference component"}
_ARNS = {MODEL: "model", CONFIG: "endpoint-config", ENDPOINT: "endpoint", COMPONENT: "inference-component"}


def add(context: EmulatorContext, call: Call, kind: str, name: str, **more: Any) -> str:
    """Store a new resource under its name; returns its ARN."""
    arn = naming.arn(context, call, _ARNS[kind], name)
    with context.store.alone():
        if found(context, call, kind, name) is not None:
            raise shapes.refused(f'Cannot create already existing {_WORDS[kind]} "{arn}".')
        context.store.remove(kind, naming.shelf(call), name)  # one whose deletion has ended
        document = {"id": name, "arn": arn, "created": call.now, "changed": call.now, "deleting": None,
                    "request": call.body, **more}  # fmt: skip
        context.store.add(kind, naming.shelf(call), document)
        naming.label(context, call, arn, call.body.get("Tags"))
    return arn


def found(context: EmulatorContext, call: Call, kind: str, name: str) -> dict[str, Any] | None:
    """A resource that exists or is being deleted, or None."""
    thing = context.store.get(kind, naming.shelf(call), name)
    return None if thing is None or is_gone(context, thing, call.now) else thing


def need(context: EmulatorContext, call: Call, kind: str, name: str) -> dict[str, Any]:
    """A resource, or the service's error."""
    thing = found(context, call, kind, name)
    if thing is None:
        raise shapes.refused(f'Could not find {_WORDS[kind]} "{naming.arn(context, call, _ARNS[kind], name)}".')
    return thing


def standing(context: EmulatorContext, call: Call, kind: str) -> list[dict[str, Any]]:
    """All resources that are not deleted."""
    return [one for one in context.store.all(kind, naming.shelf(call)) if not is_gone(context, one, call.now)]


def is_gone(context: EmulatorContext, thing: dict[str, Any], now: float) -> bool:
    """Whether its deletion has ended."""
    return thing["deleting"] is not None and bool(now >= thing["deleting"] + context.settings.deploying_s)


def status(context: EmulatorContext, thing: dict[str, Any], now: float) -> str:
    """EndpointStatus, and InferenceComponentStatus alike."""
    if thing["deleting"] is not None:
        return "Deleting"
    if now >= thing["changed"] + context.settings.deploying_s:
        return "InService"
    return "Creating" if thing["changed"] == thing["created"] else "Updating"


def take_down(context: EmulatorContext, call: Call, kind: str, name: str) -> Reply:
    """Delete: at once, or with a delay for an endpoint and a component."""
    with context.store.alone():
        thing = need(context, call, kind, name)
        if kind in (MODEL, CONFIG):
            context.store.remove(kind, naming.shelf(call), name)
        elif thing["deleting"] is None:
            thing["deleting"] = call.now
            context.store.save(kind, naming.shelf(call), thing)
        naming.unlabel(context, call, thing["arn"])
    return Reply(body=b"", content_type="application/x-amz-json-1.1")


def times(context: EmulatorContext, thing: dict[str, Any]) -> dict[str, Any]:
    """The times of creation and last change."""
    return {
        "CreationTime": naming.timestamp(context, thing["created"]),
        "LastModifiedTime": naming.timestamp(context, thing["changed"]),
    }


def asked(thing: dict[str, Any]) -> dict[str, Any]:
    """The fields of its create request."""
    return {key: value for key, value in thing["request"].items() if key != "Tags"}
