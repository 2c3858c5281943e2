"""ARNs, the store's namespace of a region, and tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.sagemaker import shapes

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

_MOST_TAGS = 50


def shelf(call: Call) -> str:
    """The store's namespace of the call's region."""
    return f"sagemaker/{call.region or 'us-east-1'}"


def arn(context: EmulatorContext, call: Call, kind: str, name: str) -> str:
    """The ARN of a resource of this account."""
    return f"arn:aws:sagemaker:{call.region or 'us-east-1'}:{context.settings.aws_account}:{kind}/{name}"


def tail(text: str) -> str:
    """The name in an ARN, or the name itself."""
    return text.rpartition("/")[2]


def timestamp(context: EmulatorContext, moment: float) -> float:
    """Return the time that the service reports, in milliseconds, offset by a ``clock_skew`` fault."""
    return round(moment + context.faults.skew(), 3)


# -- tags --------------------------------------------------------------------------------------------------------------


def label(context: EmulatorContext, call: Call, what: str, tags: list[dict[str, str]] | None) -> None:
    """Store a new resource's tags."""
    context.store.remove("tags", shelf(call), what)
    context.store.add("tags", shelf(call), {"id": what, "tags": {tag["Key"]: tag["Value"] for tag in tags or ()}})


def unlabel(context: EmulatorContext, call: Call, what: str) -> None:
    """Delete a resource's tags with it."""
    context.store.remove("tags", shelf(call), what)


def add_tags(context: EmulatorContext, call: Call) -> Reply:
    """AddTags."""
    with context.store.alone():
        held = _held(context, call)
        held["tags"] |= {tag["Key"]: tag["Value"] for tag in call.body["Tags"]}
        if len(held["tags"]) > _MOST_TAGS:
            raise shapes.failed("ResourceLimitExceeded", f"A resource has at most {_MOST_TAGS} tags.")
        context.store.save("tags", shelf(call), held)
    return Reply(body={"Tags": _listed(held)})


def list_tags(context: EmulatorContext, call: Call) -> Reply:
    """ListTags."""
    return Reply(body={"Tags": _listed(_held(context, call))})


def delete_tags(context: EmulatorContext, call: Call) -> Reply:
    """DeleteTags."""
    with context.store.alone():
        held = _held(context, call)
        held["tags"] = {key: value for key, value in held["tags"].items() if key not in call.body["TagKeys"]}
        context.store.save("tags", shelf(call), held)
    return Reply(body={})


def _held(context: EmulatorContext, call: Call) -> dict[str, Any]:
    held = context.store.get("tags", shelf(call), call.body["ResourceArn"])
    if held is None:
        raise shapes.refused(f'Could not find resource "{call.body["ResourceArn"]}".')
    return held


def _listed(held: dict[str, Any]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in held["tags"].items()]
