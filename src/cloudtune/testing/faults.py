"""Faults between a client and a vendor, as values that a test passes to the vendor's side."""

from __future__ import annotations

from typing import Literal

from cloudtune.state import Value

FaultKind = Literal[
    "lost_reply", "reset", "refused", "delay", "late", "twice", "throttle", "server_error", "forbidden", "partial",
    "repeat",
]  # fmt: skip


class Fault(Value, frozen=True, kw_only=True):
    """A fault of the next matching calls."""

    kind: FaultKind
    times: int = 1
    """The number of calls that it affects; a very large number means until it is removed."""
    seconds: float = 0.0
    """The delay, the Retry-After, or how long after the client's timeout a late request lands."""


FOREVER = 1_000_000_000


def lost_reply(times: int = 1) -> Fault:
    """The request is executed; its response never arrives."""
    return Fault(kind="lost_reply", times=times)


def reset(times: int = 1) -> Fault:
    """The connection breaks before the request is executed. For the client, this looks like `lost_reply`."""
    return Fault(kind="reset", times=times)


def refused(times: int = 1) -> Fault:
    """No connection: the client knows that nothing was executed."""
    return Fault(kind="refused", times=times)


def delay(seconds: float, times: int = 1) -> Fault:
    """The response is delayed by that time, and arrives."""
    return Fault(kind="delay", times=times, seconds=seconds)


def late(seconds: float, times: int = 1) -> Fault:
    """The client times out; the request is executed that many seconds later."""
    return Fault(kind="late", times=times, seconds=seconds)


def twice(times: int = 1) -> Fault:
    """The request is delivered twice; the client gets the second response."""
    return Fault(kind="twice", times=times)


def throttle(times: int = 1, *, retry_after: float = 0.0) -> Fault:
    """Throttled: 429, with a Retry-After if one is given; not executed."""
    return Fault(kind="throttle", times=times, seconds=retry_after)


def server_error(times: int = 1) -> Fault:
    """503, not executed, which the client cannot know."""
    return Fault(kind="server_error", times=times)


def forbidden(times: int = 1) -> Fault:
    """403: the credentials lack permission. Not executed."""
    return Fault(kind="forbidden", times=times)


def partial(times: int = 1) -> Fault:
    """A list silently omits its newest entries."""
    return Fault(kind="partial", times=times)


def repeat(times: int = 1) -> Fault:
    """A list of events repeats an event."""
    return Fault(kind="repeat", times=times)
