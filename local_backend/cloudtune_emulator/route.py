"""A call of an API: what is acted on, what opens it, how it is read and how refusals of it look."""

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
    """A call of an API."""

    api: Api
    name: str
    handler: Handler
    check_key: KeyCheck
    """Raises ApiError unless the request's headers carry the right credentials. It runs before the body is read."""
    ids: Mapping[str, str] = field(default_factory=dict)
    read: Reader = read_call
    """Reads the request, its body included, to what handlers are given."""
    dressed: Callable[[ApiError], ApiError] = _as_it_is
    """A refusal of the emulator's own (a fault, a limit) in the vendor's shape."""
    check_request: Callable[[EmulatorContext, Call], None] = _accept
    """Raises ApiError where the request, read by now, does not fit the API: a missing version, a wrong shape."""
