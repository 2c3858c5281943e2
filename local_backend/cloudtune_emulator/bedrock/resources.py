"""Common parts of Bedrock's resources: ARNs, ids of twelve characters, tokens, tags, paged lists."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import string
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune_emulator.aws.errors import AwsError, conflict, invalid, not_found
from cloudtune_emulator.http import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Call

API = "bedrock"
DEFAULT_PAGE = 100
MOST_TAGS = 50
"""A resource can have fifty tags (the text of TooManyTagsException's members; botocore 1.44.5)."""
_LETTERS = string.ascii_lowercase + string.digits
_NAMED = frozenset({"job", "import"})
"""Kinds whose names are never reused: their ids are derived from their names."""
_KINDS = ("job", "custom_model", "custom_deployment", "provisioned", "import", "imported_model")


def new_id() -> str:
    """Twelve characters of a-z and 0-9: the last part of every resource's ARN."""
    return "".join(secrets.choice(_LETTERS) for _ in range(12))


def named_id(*parts: str) -> str:
    """The id of a resource whose name never changes and is never reused."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:12])


def arn(context: EmulatorContext, region: str, tail: str) -> str:
    """An ARN in this account."""
    return f"arn:aws:bedrock:{region}:{context.settings.aws_account}:{tail}"


def stamp(context: EmulatorContext, moment: float) -> str:
    """A time in the service's format (ISO 8601)."""
    return datetime.fromtimestamp(moment + context.faults.skew(), UTC).isoformat(timespec="milliseconds")


def under(context: EmulatorContext, kind: str, region: str) -> list[dict[str, Any]]:
    """All resources of a kind in that region, oldest first."""
    return [one for one in context.store.all(kind, API) if one["region"] == region]


def find(context: EmulatorContext, kind: str, call: Call, identifier: str, what: str) -> dict[str, Any]:
    """A resource by its ARN, its id or its name. Raises AwsError."""
    if identifier.startswith("arn:"):
        found = context.store.get(kind, API, identifier.rpartition("/")[2])
        if found is not None and found["arn"] != identifier:
            found = None
    else:
        found = by_name(context, kind, call.region, identifier)
    if found is None:
        raise not_found(f"The provided {what} identifier {identifier} was not found.")
    return found


def by_name(context: EmulatorContext, kind: str, region: str, name: str) -> dict[str, Any] | None:
    """A resource by its name in that region."""
    if kind in _NAMED:
        return context.store.get(kind, API, named_id(kind, region, name))
    return next((one for one in reversed(under(context, kind, region)) if one["name"] == name), None)


def repeated(context: EmulatorContext, call: Call, kind: str) -> dict[str, Any] | None:
    """The resource that the same token created before. The same token with another request is a conflict.

    A repeat with the same token is accepted and ignored
    (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_CreateModelCustomizationJob.html, seen 2026-11-21).
    """
    token = call.body.get("clientRequestToken")
    if token is None:
        return None
    held = context.store.get("token", API, f"{call.name}/{call.region}/{token}")
    if held is None:
        return None
    if held["request"] != _digest(call.body):
        raise conflict("The client request token was used before with different parameters.")
    made = context.store.get(kind, API, held["made"])
    if made is None:
        raise conflict("The client request token was used before, and what it made is gone.")
    return made


def keep(context: EmulatorContext, call: Call, kind: str, document: dict[str, Any]) -> None:
    """Store a created resource together with its token."""
    context.store.add(kind, API, document)
    if (token := call.body.get("clientRequestToken")) is not None:
        name = f"{call.name}/{call.region}/{token}"
        context.store.add("token", API, {"id": name, "request": _digest(call.body), "made": document["id"]})


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


# -- roles -----------------------------------------------------------------------------------------------------------


def assume(context: EmulatorContext, role: str) -> None:
    """Check the role at create: it must exist here and trust Bedrock.

    https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-iam-role.html (seen 2026-11-21).
    """
    held = next((one for one in context.aws.backend("iam").roles.values() if one.arn == role), None)
    if held is None or "bedrock.amazonaws.com" not in str(held.assume_role_policy_document):
        message = f"Could not assume the provided role {role}. Verify that the role exists and that its trust policy "
        raise invalid(message + "allows bedrock.amazonaws.com to assume it.")


# -- lists -----------------------------------------------------------------------------------------------------------


def page(
    context: EmulatorContext, call: Call, views: Sequence[dict[str, Any]], *, under: str, name: str, made: str
) -> Reply:
    """One page of views in creation order: filters by name, time and status, order, ``nextToken``.

    ``name`` and ``made`` are the views' own fields for the name and the time of creation.
    """
    query = call.query
    kept = [view for view in views if _fits(query, view, name, made)]
    if lag := context.faults.condition("list_lag", call.name):
        kept = [view for view in kept if _moment(view[made]) <= call.now + context.faults.skew() - lag.seconds]
    if query.get("sortOrder", "Descending") == "Descending":
        kept.reverse()
    start = _start(query.get("nextToken"))
    most = int(query.get("maxResults") or DEFAULT_PAGE)
    shown = kept[start : start + most]
    if len(shown) > 1 and context.faults.condition("truncated_page", call.name):
        shown = shown[:-1]
    if len(shown) > 1 and context.faults.condition("duplicate_event", call.name):
        shown = [shown[0], *shown]
        most += 1
    body: dict[str, Any] = {under: shown}
    end = start + len(shown)
    if end < len(kept):
        body["nextToken"] = base64.b64encode(f"from {end}".encode()).decode()
    return Reply(body=body)


def _fits(query: Any, view: dict[str, Any], name: str, made: str) -> bool:
    if (part := query.get("nameContains")) and part not in view[name]:
        return False
    if (word := query.get("statusEquals")) and view["status"] != word:
        return False
    for field, sign in (("After", 1), ("Before", -1)):
        limit = query.get(f"creationTime{field}") or query.get(f"created{field}")
        if limit is not None and (_moment(view[made]) - _moment(limit)) * sign < 0:
            return False
    return True


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise invalid(f"{text} is no time.") from error


def _start(token: str | None) -> int:
    if not token:
        return 0
    try:
        start = int(base64.b64decode(token, validate=True).decode().removeprefix("from "))
    except (binascii.Error, ValueError) as error:
        raise invalid("The provided nextToken is invalid.") from error
    if start < 0:
        raise invalid("The provided nextToken is invalid.")
    return start


# -- tags ------------------------------------------------------------------------------------------------------------


def tags(given: Sequence[dict[str, str]] | None) -> list[dict[str, str]]:
    """Tags of a request, at most fifty."""
    found = {tag["key"]: tag["value"] for tag in given or ()}
    if len(found) > MOST_TAGS:
        message = f"The resource would have more than {MOST_TAGS} tags."
        raise AwsError(400, "TooManyTagsException", message)
    return [{"key": key, "value": value} for key, value in found.items()]


def tag_resource(context: EmulatorContext, call: Call) -> Reply:
    """TagResource."""
    with context.store.alone():
        kind, found = _tagged(context, call)
        found["tags"] = tags([*found["tags"], *call.body["tags"]])
        context.store.save(kind, API, found)
    return Reply(body={})


def untag_resource(context: EmulatorContext, call: Call) -> Reply:
    """UntagResource."""
    with context.store.alone():
        kind, found = _tagged(context, call)
        found["tags"] = [tag for tag in found["tags"] if tag["key"] not in call.body["tagKeys"]]
        context.store.save(kind, API, found)
    return Reply(body={})


def list_tags(context: EmulatorContext, call: Call) -> Reply:
    """ListTagsForResource."""
    return Reply(body={"tags": _tagged(context, call)[1]["tags"]})


def _tagged(context: EmulatorContext, call: Call) -> tuple[str, dict[str, Any]]:
    wanted = call.body["resourceARN"]
    for kind in _KINDS:
        found = context.store.get(kind, API, wanted.rpartition("/")[2])
        if found is not None and found["arn"] == wanted:
            return kind, found
    raise not_found(f"The resource {wanted} was not found.")
