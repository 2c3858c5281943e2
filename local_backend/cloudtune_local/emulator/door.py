"""A call of a face: what is acted on, what opens it, how it is read and how refusals of it look."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from cloudtune_local.emulator.wire import ApiError, Call, Face, Reply, read_call, read_head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.wrappers import Request

    from cloudtune_local.emulator.site import Site

Handler: TypeAlias = "Callable[[Site, Call], Reply]"
Reader: TypeAlias = "Callable[[Request, Face, str, Mapping[str, str], float], Call]"
KeyCheck: TypeAlias = "Callable[[Site, Call], None]"


def _nothing(site: Site, call: Call) -> None:
    """Every body is one."""


def _as_it_is(error: ApiError) -> ApiError:
    return error


@dataclass(frozen=True)
class Door:
    """A call of a face."""

    face: Face
    name: str
    handler: Handler
    check_key: KeyCheck
    """Is given the call without its body, and called before anything of the body is read."""
    ids: Mapping[str, str] = field(default_factory=dict)
    head: Reader = read_head
    """Reads what stands before the body."""
    read: Reader = read_call
    """Reads the request to what handlers are given."""
    check: KeyCheck = _nothing
    """Refuses a request for what its body holds."""
    dressed: Callable[[ApiError], ApiError] = _as_it_is
    """A refusal of the emulator's own (a fault, a limit) in the vendor's shape."""
