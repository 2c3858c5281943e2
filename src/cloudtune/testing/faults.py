"""What can go wrong between a client and a vendor, as values that a test hands to the vendor's side."""

from __future__ import annotations

from typing import Literal

from cloudtune.state import Value

FaultKind = Literal[
    "lost_reply", "reset", "refused", "delay", "late", "twice", "throttle", "server_error", "forbidden", "partial",
    "repeat",
]  # fmt: skip


class Fault(Value, frozen=True, kw_only=True):
    """One thing that goes wrong with the next matching calls."""

    kind: FaultKind
    times: int = 1
    """How many calls it happens to; a very large number means until it is taken back."""
    seconds: float = 0.0
    """The delay, the Retry-After, or how long after the client's timeout a late request lands."""


FOREVER = 1_000_000_000


def lost_reply(times: int = 1) -> Fault:
    """The request is acted on; its answer never arrives."""
    return Fault(kind="lost_reply", times=times)


def reset(times: int = 1) -> Fault:
    """The connection breaks before the request is acted on. The client cannot tell this from `lost_reply`."""
    return Fault(kind="reset", times=times)


def refused(times: int = 1) -> Fault:
    """No connection at all: the client knows that nothing was acted on."""
    return Fault(kind="refused", times=times)


def delay(seconds: float, times: int = 1) -> Fault:
    """The answer takes that long, and arrives."""
    return Fault(kind="delay", times=times, seconds=seconds)


def late(seconds: float, times: int = 1) -> Fault:
    """The client times out; the request is acted on that many seconds after that."""
    return Fault(kind="late", times=times, seconds=seconds)


def twice(times: int = 1) -> Fault:
    """The request is delivered twice; the client sees the second answer."""
    return Fault(kind="twice", times=times)


def throttle(times: int = 1, *, retry_after: float = 0.0) -> Fault:
    """Asked too often: 429, with a Retry-After if one is given; not acted on."""
    return Fault(kind="throttle", times=times, seconds=retry_after)


def server_error(times: int = 1) -> Fault:
    """503, not acted on, which the client cannot know."""
    return Fault(kind="server_error", times=times)


def forbidden(times: int = 1) -> Fault:
    """403: the credentials may not do this. Not acted on."""
    return Fault(kind="forbidden", times=times)


def partial(times: int = 1) -> Fault:
    """A list leaves its newest entries out without saying so."""
    return Fault(kind="partial", times=times)


def repeat(times: int = 1) -> Fault:
    """A list of events gives an event twice."""
    return Fault(kind="repeat", times=times)
