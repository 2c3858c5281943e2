"""The management plane's deployments: ``PUT``, ``GET``, ``DELETE`` under an account, and what a deployment serves.

Shapes: azure-mgmt-cognitiveservices 14.1.0. PUT is by name and overwrites an existing deployment. A tuned model answers
only while deployed. A deployment without requests for 15 days is deleted, a developer-tier one after 24 hours
(learn.microsoft.com, fine-tune-deploy, fine-tune-test and fine-tuning includes, seen 2026-11-21).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.catalog import load
from cloudtune_emulator.http import ApiError, Call, Reply, fit
from cloudtune_emulator.openai import models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.wrappers import Request

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.engines import Served

SKUS = (
    "Standard", "GlobalStandard", "DataZoneStandard", "DeveloperTier", "ProvisionedManaged",
    "GlobalProvisionedManaged", "DataZoneProvisionedManaged",
)  # fmt: skip
"""learn.microsoft.com, fine-tune-deploy (seen 2026-11-21)."""
MOST_TUNED = 10
IDLE_S = 15 * 86400.0
DEVELOPER_S = 86400.0
_NEEDS_BEARER = "Authentication failed. The 'Authorization' header is missing or its token is invalid."


class _Model(msgspec.Struct):
    name: str | None = None
    format: str | None = None
    version: str | None = None


class _Properties(msgspec.Struct, rename="camel"):
    model: _Model | None = None
    version_upgrade_option: str | None = None


class _Sku(msgspec.Struct):
    name: str | None = None
    capacity: int | None = None


class _Body(msgspec.Struct):
    """The types of a deployment's request body."""

    properties: _Properties | None = None
    sku: _Sku | None = None
    tags: dict[str, str] | None = None


class ArmError(ApiError):
    """An error in the management plane's shape: code and message only."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, message, code=code)
        self.body = {"error": {"code": code, "message": message}}


def fit_arm(body: Mapping[str, Any], shape: type[msgspec.Struct]) -> None:
    """Raises ArmError if a member of the body has the wrong type."""
    try:
        fit(body, shape)
    except ApiError as error:
        raise ArmError(400, "InvalidRequestContent", f"The request content is invalid: {error}") from error


def dressed(error: ApiError) -> ApiError:
    """The emulator's own error (a fault, a limit) in the management plane's shape."""
    if isinstance(error, ArmError):
        return error
    codes = {
        401: "AuthenticationFailed",
        403: "AuthorizationFailed",
        429: "TooManyRequests",
        500: "InternalServerError",
    }
    found = ArmError(error.status, error.vendor_words[0] or codes.get(error.status, "BadRequest"), str(error))
    found.headers = error.headers
    return found


def check_token(context: EmulatorContext, request: Request) -> None:
    """This plane accepts a bearer token only, and no key (learn.microsoft.com, role-based access control)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not context.opens(token, context.settings.azure_token):
        raise ArmError(401, "AuthenticationFailed", _NEEDS_BEARER)


def check_scope(context: EmulatorContext, call: Call) -> None:
    """The subscription, the group and the account must be those of the emulator; an api-version is required."""
    settings = context.settings
    wanted = (settings.subscription, settings.resource_group, settings.account)
    given = (call.ids["subscription"], call.ids.get("group", wanted[1]), call.ids.get("account", wanted[2]))
    if any(one.lower() != other.lower() for one, other in zip(given, wanted, strict=True)):
        message = f"The Resource 'Microsoft.CognitiveServices/accounts/{given[2]}' under resource group '{given[1]}' "
        raise ArmError(404, "ResourceNotFound", f"{message}was not found.")
    if not call.query.get("api-version"):
        raise ArmError(400, "MissingApiVersionParameter", "The api-version query parameter is required.")


def account(context: EmulatorContext, call: Call) -> Reply:
    """The account itself."""
    settings = context.settings
    properties = {"provisioningState": "Succeeded", "endpoint": call.base, "customSubDomainName": settings.account}
    return Reply(body={
        "id": _account_id(context), "name": settings.account, "type": "Microsoft.CognitiveServices/accounts",
        "location": settings.location, "kind": "OpenAI", "sku": {"name": "S0"}, "properties": properties,
    })  # fmt: skip


def base_models(context: EmulatorContext, call: Call) -> Reply:
    """The models that the account offers, from the catalog (azure-mgmt-cognitiveservices 14.1.0, AccountModel)."""
    del context, call
    found = []
    for model in load("azure_openai").models:
        name, dash, version = model.id.partition("-20")
        entry: dict[str, Any] = {"format": "OpenAI", "name": name, "version": f"20{version}" if dash else "1"}
        entry["capabilities"] = {"fineTune": "true"} if model.methods else {}
        if model.no_new_jobs_from is not None:
            entry["deprecation"] = {"fineTune": f"{model.no_new_jobs_from}T00:00:00Z"}
        found.append(entry)
    return Reply(body={"value": found})


def put(context: EmulatorContext, call: Call) -> Reply:
    """Create a deployment, or replace the model of an existing one."""
    body, name = call.body, call.ids["deployment"]
    fit_arm(body, _Body)
    properties = body.get("properties") or {}
    model = properties.get("model") or {}
    sku = body.get("sku") or {}
    _check(context, call, model, sku)
    with context.store.alone():
        old = find(context, name, call.now)
        others = [one for one in standing(context, call.now) if one["id"] != name and _is_tuned(one)]
        if old is None and len(others) >= MOST_TUNED:
            raise ArmError(400, "InsufficientQuota", f"The resource has {MOST_TUNED} fine-tuned deployments already.")
        wanted = {"sku": sku, "model": model, "tags": body.get("tags"), "properties": properties}
        if old is not None and all(old[key] == value for key, value in wanted.items()):
            return Reply(body=_view(context, old, call.now))
        new = {"id": name, "created": call.now, "used": call.now, "deleting": None} | wanted
        if old is None:
            context.store.remove("deployment", "azure", name)  # one whose deletion has ended
            context.store.add("deployment", "azure", new)
        else:
            context.store.save("deployment", "azure", new)
    return Reply(status=200 if old else 201, body=_view(context, new, call.now), headers={"Retry-After": "1"})


def _check(context: EmulatorContext, call: Call, model: dict[str, Any], sku: dict[str, Any]) -> None:
    if not model.get("name") or model.get("format") != "OpenAI":
        message = "The deployment needs a model with a name and the format 'OpenAI'."
        raise ArmError(400, "InvalidResourceProperties", message)
    capacity = sku.get("capacity")
    if sku.get("name") not in SKUS or (capacity is not None and capacity < 1):
        raise ArmError(400, "InvalidResourceProperties", f"The sku {sku} is not one of {', '.join(SKUS)}.")
    try:
        models.find(context, call, model["name"])
    except ApiError as error:
        message = (
            f"The model 'Format: OpenAI, Name: {model['name']}, Version: {model.get('version')}' is not supported."
        )
        raise ArmError(400, "DeploymentModelNotSupported", message) from error


def get(context: EmulatorContext, call: Call) -> Reply:
    """One deployment."""
    found = find(context, call.ids["deployment"], call.now)
    if found is None:
        raise ArmError(404, "ResourceNotFound", f"The deployment '{call.ids['deployment']}' was not found.")
    headers = {"Retry-After": "1"} if _state(context, found, call.now) in ("Creating", "Deleting") else {}
    return Reply(body=_view(context, found, call.now), headers=headers)


def list_(context: EmulatorContext, call: Call) -> Reply:
    """All deployments of the account."""
    return Reply(body={"value": [_view(context, one, call.now) for one in standing(context, call.now)]})


def delete(context: EmulatorContext, call: Call) -> Reply:
    """Delete a deployment. One that does not exist counts as deleted."""
    with context.store.alone():
        found = find(context, call.ids["deployment"], call.now)
        if found is None:
            return Reply(status=204)
        if found["deleting"] is None:
            found["deleting"] = call.now
            context.store.save("deployment", "azure", found)
    if find(context, found["id"], call.now) is None:
        return Reply(status=200)
    settings = context.settings
    where = f"{call.base}/subscriptions/{settings.subscription}/providers/Microsoft.CognitiveServices/locations"
    where += f"/{settings.location}/operationResults/{found['id']}?api-version={call.query['api-version']}"
    return Reply(status=202, headers={"Location": where, "Retry-After": "1"})


def operation(context: EmulatorContext, call: Call) -> Reply:
    """Whether a deletion has ended."""
    gone = find(context, call.ids["deployment"], call.now) is None
    return Reply(status=200) if gone else Reply(status=202, headers={"Retry-After": "1"})


def skus(context: EmulatorContext, call: Call) -> Reply:
    """The tiers to which a deployment can be changed."""
    get(context, call)
    capacity = {"minimum": 1, "maximum": 1000, "step": 1, "default": 1}
    entries = [{"resourceType": _TYPE, "sku": {"name": name}, "capacity": capacity} for name in SKUS]
    return Reply(body={"value": entries})


_TYPE = "Microsoft.CognitiveServices/accounts/deployments"


def find(context: EmulatorContext, name: str, now: float) -> dict[str, Any] | None:
    """The deployment of that name, unless it has expired or been deleted."""
    found = context.store.get("deployment", "azure", name)
    return None if found is None or _is_gone(context, found, now) else found


def standing(context: EmulatorContext, now: float) -> list[dict[str, Any]]:
    """The deployments that have not expired or been deleted."""
    return [one for one in context.store.all("deployment", "azure") if not _is_gone(context, one, now)]


def _is_gone(context: EmulatorContext, one: dict[str, Any], now: float) -> bool:
    if one["deleting"] is not None:
        return bool(now >= one["deleting"] + context.settings.deploying_s)
    if not _is_tuned(one):
        return False
    is_developer = one["sku"]["name"] == "DeveloperTier"
    return bool(now >= one["used"] + IDLE_S or (is_developer and now >= one["created"] + DEVELOPER_S))


def _is_tuned(one: dict[str, Any]) -> bool:
    return one["model"]["name"] not in models.TUNABLE


def _state(context: EmulatorContext, one: dict[str, Any], now: float) -> str:
    if one["deleting"] is not None:
        return "Deleting"
    return "Creating" if now < one["created"] + context.settings.deploying_s else "Succeeded"


def served(context: EmulatorContext, call: Call, name: str) -> Served:
    """The model of a deployment name; model ids are not valid here."""
    with context.store.alone():
        found = find(context, name, call.now)
        if found is None or _state(context, found, call.now) != "Succeeded":
            message = "The API deployment for this resource does not exist. If you created the deployment within the "
            message += "last 5 minutes, please wait a moment and try again."
            raise ApiError(404, message, code="DeploymentNotFound")
        found["used"] = call.now
        context.store.save("deployment", "azure", found)
    return models.find(context, call, found["model"]["name"])


def _view(context: EmulatorContext, one: dict[str, Any], now: float) -> dict[str, Any]:
    properties = one["properties"] | {
        "provisioningState": _state(context, one, now),
        "capabilities": {"chatCompletion": "true", "responses": "true"},
        "versionUpgradeOption": one["properties"].get("versionUpgradeOption", "NoAutoUpgrade"),
    }
    made = datetime.fromtimestamp(one["created"] + context.faults.skew(), UTC).isoformat()
    etag = hashlib.sha256(msgspec.json.encode(one["properties"])).hexdigest()[:32]
    return {
        "id": f"{_account_id(context)}/deployments/{one['id']}", "name": one["id"], "type": _TYPE, "etag": f'"{etag}"',
        "sku": one["sku"], "tags": one["tags"], "properties": properties,
        "systemData": {"createdAt": made, "createdByType": "User", "lastModifiedAt": made},
    }  # fmt: skip


def _account_id(context: EmulatorContext) -> str:
    settings = context.settings
    group = f"/subscriptions/{settings.subscription}/resourceGroups/{settings.resource_group}"
    return f"{group}/providers/Microsoft.CognitiveServices/accounts/{settings.account}"
