"""Routing: the API and the call of a request, and the key that it needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from werkzeug.exceptions import MethodNotAllowed, NotFound

from cloudtune_emulator.azure import deployments, dialect, storage, workspace
from cloudtune_emulator.azure.routes import ROUTES as MANAGEMENT
from cloudtune_emulator.bedrock import mantle
from cloudtune_emulator.http import Api, ApiError
from cloudtune_emulator.openai.routes import ROUTES
from cloudtune_emulator.route import KeyCheck, Route

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from cloudtune_emulator.context import EmulatorContext


def find(context: EmulatorContext, request: Request) -> Route:
    """The route for a request, or the vendor's 404 or 405: by its signature if it has Amazon's, else by its path.

    Both path styles of Azure lead to the same handlers (learn.microsoft.com, Azure OpenAI v1 API, seen 2026-11-21).
    """
    from cloudtune_emulator.aws import authentication, routing  # lazy: few uses need its APIs and moto

    if (below := mantle.path(context, request)) is not None:
        return _match("mantle", request.method, below, mantle.check_key)
    if (route := routing.find(context, request)) is not None:
        return route
    method, path = request.method, request.path
    if path.startswith("/v1/") and not path.startswith("/v1/deployments/"):
        return _match("openai", method, path.removeprefix("/v1"), openai_key)
    if path.startswith("/openai/v1/"):
        return _match("azure", method, path.removeprefix("/openai/v1"), dialect.check_key)
    if path.startswith("/openai/"):
        route = _match("azure", method, path.removeprefix("/openai"), dialect.check_key)
        return replace(route, check_request=dialect.check_version)
    if path.startswith(storage.ROOT):
        return storage.route(method, path, request.args)
    if path == "/discovery":
        return Route("azure", "workspace.discovery", workspace.discovery, workspace.public)
    if path.lower().startswith(("/subscriptions/", "/history/v1.0/subscriptions/")):
        return _management(method, path)
    if "Authorization" not in request.headers and "api-key" not in request.headers:
        raise authentication.refusal("missing", "s3")  # every other path is an S3 bucket
    _any_key(context, request)
    raise ApiError(404, f"Invalid URL ({method} {path})")


def named(name: str, api: Api) -> Route:
    """The route of a call that is already read. Its key is not checked again."""
    if api not in ("openai", "azure", "mantle"):
        from cloudtune_emulator.aws import routing

        return routing.named(name, api)
    if name.startswith("blobs."):
        return storage.named(name)
    entry = ROUTES.named(name) or MANAGEMENT.named(name)
    assert entry is not None
    return Route(api, name, entry.handler, openai_key)


def _match(api: Api, method: str, path: str, check: KeyCheck) -> Route:
    try:
        entry, ids = ROUTES.match(method, path)
    except MethodNotAllowed as error:
        hint = f"(HINT: Perhaps you meant to use {min(error.valid_methods or ())}.)"
        raise ApiError(405, f"Not allowed to {method} on {path} {hint}") from error
    except NotFound as error:
        raise ApiError(404, f"Invalid URL ({method} {path})") from error
    return Route(api, entry.name, entry.handler, check, ids)


def _management(method: str, path: str) -> Route:
    try:
        entry, ids = MANAGEMENT.match(method, path)
    except (MethodNotAllowed, NotFound) as error:
        message = f"The resource type of {method} {path} is not emulated."
        raise deployments.ArmError(404, "InvalidResourceType", message) from error
    return Route(
        "azure", entry.name, entry.handler, deployments.check_token, ids, dressed=deployments.dressed,
        check_request=deployments.check_scope,
    )  # fmt: skip


def _any_key(context: EmulatorContext, request: Request) -> None:
    """Report an unknown path only to a caller who has a key of one of the APIs."""
    _, _, given = request.headers.get("Authorization", "").partition(" ")
    settings = context.settings
    known = (settings.api_key, settings.azure_key, settings.azure_token, settings.bedrock_api_key)
    if not any(context.opens(one, key) for one in (given, request.headers.get("api-key", "")) for key in known):
        openai_key(context, request)


def openai_key(context: EmulatorContext, request: Request) -> None:
    """``Authorization: Bearer`` with the key (https://developers.openai.com/api/reference, seen 2026-11-21)."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise ApiError(401, "You didn't provide an API key. Provide it in an Authorization header as Bearer auth.")
    if not context.opens(key, context.settings.api_key):
        # Only the ends of the key are shown, as by the vendor: errors get into logs.
        shown = f"{key[:3]}***{key[-2:]}" if len(key) > 8 else "***"
        raise ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")
