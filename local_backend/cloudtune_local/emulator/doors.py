"""Which face a request is for, which call it is, and what key opens it."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloudtune_local.emulator.openai.routes import ROUTES
from cloudtune_local.emulator.wire import ApiError, Call, Face, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudtune_local.emulator.site import Site


@dataclass(frozen=True)
class Door:
    """A call of a face."""

    face: Face
    name: str
    handler: Callable[[Site, Call], Reply]
    check_key: Callable[[Site, Call], None]
    ids: Mapping[str, str] = field(default_factory=dict)


def find(method: str, path: str) -> Door:
    """The door for a path, or the vendor's 404 or 405."""
    if path.startswith("/v1/"):
        return _match("openai", method, path[3:], path, openai_key)
    raise ApiError(404, f"Invalid URL ({method} {path})")


def named(name: str, face: Face) -> Door:
    """The door of a call that was read before."""
    handler = next(handler for _, _, known, handler in ROUTES if known == name)
    return Door(face, name, handler, openai_key)


def _match(face: Face, method: str, rest: str, path: str, check: Callable[[Site, Call], None]) -> Door:
    allowed = []
    for verb, pattern, name, handler in ROUTES:
        if found := pattern.fullmatch(rest.rstrip("/")):
            if verb == method:
                return Door(face, name, handler, check, found.groupdict())
            allowed.append(verb)
    if allowed:
        raise ApiError(405, f"Not allowed to {method} on {path} (HINT: Perhaps you meant to use {allowed[0]}.)")
    raise ApiError(404, f"Invalid URL ({method} {path})")


def openai_key(site: Site, call: Call) -> None:
    """``Authorization: Bearer`` with the key (https://developers.openai.com/api/reference, seen 2026-11-21)."""
    scheme, _, key = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise ApiError(401, "You didn't provide an API key. Provide it in an Authorization header as Bearer auth.")
    if not same(key, site.settings.api_key):
        # Only the key's ends are told, as the vendor does: errors get into logs.
        shown = f"{key[:3]}***{key[-2:]}" if len(key) > 8 else "***"
        raise ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")


def same(given: str, wanted: str) -> bool:
    """Whether two keys are the same, in constant time."""
    return hmac.compare_digest(given.encode(), wanted.encode())
