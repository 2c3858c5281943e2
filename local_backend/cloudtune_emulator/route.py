"""A route of an API: its call, its credentials, how its requests are read and how its errors are formatted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from cloudtune_emulator.http import Api, ApiError, Call, Reply, read_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.wrappers import Request

    from cloudtune_emulator.context import EmulatorContext

Handler: TypeAlias = "Callable[[EmulatorContext, Call], Reply]"
Reader: TypeAlias = "Callable[[Request, Api, str, Mapping[str, str], float], Call]"
KeyCheck: TypeAlias = "Callable[[EmulatorContext, Request], None]"


def _as_it_is(error: ApiError) -> ApiError:
    return error


def _accept(context: EmulatorContext, call: Call) -> None:
    """No further checks."""


@dataclass(frozen=True)
class Route:
    """A route of an API."""

    api: Api
    name: str
    handler: Handler
    check_key: KeyCheck
    """Raises ApiError unless the request's headers carry the right credentials. It runs before the body is read."""
    ids: Mapping[str, str] = field(default_factory=dict)
    read: Reader = read_call
    """Reads the request, its body included, into the handlers' argument."""
    dressed: Callable[[ApiError], ApiError] = _as_it_is
    """Converts the emulator's own error (a fault, a limit) to the vendor's shape."""
    check_request: Callable[[EmulatorContext, Call], None] = _accept
    """Raises ApiError if the request is not valid for the API: a missing version, a wrong shape."""
