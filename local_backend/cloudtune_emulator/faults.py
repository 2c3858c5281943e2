"""Fault injection.

Request faults apply to the next matching calls; conditions apply until they are removed (or ``times`` is used up).
No vendor documents them: they are failures of networks and distributed services, and failures that fine-tuning users
have reported (openai-python #1224, openai-openapi #307, litellm #24687; seen 2026-11-21).
"""

from __future__ import annotations

import math
import threading
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

if TYPE_CHECKING:
    from cloudtune_emulator.http import Call

RequestFault = Literal[
    "lost_reply",  # executed, then disconnected
    "reset",  # disconnected before execution
    "delay",  # answered after ``seconds`` of real time
    "throttle",  # 429 with Retry-After: ``seconds``
    "server_error",  # ``status`` (500) before execution
    "error_after",  # ``status`` (500) after execution
    "forbidden",  # 403
    "late",  # no response; executed ``seconds`` later, or after ``requests`` others
    "twice",  # a proxy delivers the request twice; the second response is returned
    "expired_credentials",  # 401 with the correct key
    "unreadable",  # executed; the response is replaced: ``value`` is a key of `UNREADABLE`, else a page
    "cut_answer",  # executed; disconnected after ``requests`` (2, at least 1) chunks of a stream
]
Condition = Literal[
    "list_lag",  # lists omit items younger than ``seconds``
    "ignore_filter",  # the metadata filter of the job list has no effect
    "invented_status",  # jobs have the status ``value``
    "truncated_page",  # pages have one entry less than possible, and report that there is more
    "duplicate_event",  # an entry of a page is repeated
    "clock_skew",  # every reported time is ``seconds`` off
    "unsafe_file",  # new jobs fail because of their rows, as in moderation
    "base64_results",  # result files are base64 encoded, as users report of api.openai.com
]
UNREADABLE: dict[str, tuple[str, bytes]] = {
    "page": ("text/html; charset=utf-8", b"<!doctype html><html><title>Sign in</title><form>Accept the terms</form>"),
    "empty": ("application/json", b""),
    "cut": ("application/json", b'{"object": "list", "data": [{"id": "'),
    "list": ("application/json", b"[]"),
    "null": ("application/json", b"null"),
    "text": ("application/json", b'"welcome"'),
    "object": ("application/json", b'{"welcome": true}'),
    "plain": ("text/plain", b"welcome"),
    "deep": ("application/json", b"[" * 100_000),
}
"""Responses of proxies and captive portals: content type and body."""
FaultKind = RequestFault | Condition
REQUEST_FAULTS: frozenset[str] = frozenset(get_args(RequestFault))
CONDITIONS: frozenset[str] = frozenset(get_args(Condition))


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fault to inject."""

    kind: Literal[
        "lost_reply", "reset", "delay", "throttle", "server_error", "error_after", "forbidden", "late", "twice",
        "expired_credentials", "unreadable", "cut_answer", "list_lag", "ignore_filter", "invented_status",
        "truncated_page", "duplicate_event", "clock_skew", "unsafe_file", "base64_results",
    ]  # fmt: skip
    call: str = "*"
    """The calls it applies to, as a pattern: ``jobs.create``, ``files.*``, ``*``."""
    times: int | None = None
    """How often; None is once for a request fault, and until removed for a condition."""
    after: int = 0
    """How many matching calls succeed first."""
    seconds: float = 0.0
    requests: int | None = None
    status: int = 500
    value: str = "warming_up"
    code: str | None = None
    """The vendor's code in a throttle's or an error's body."""
    message: str | None = None
    hold_s: float = 0.0
    """``late`` and ``lost_reply``: real seconds until the disconnect, to test the client's timeout."""


class _Armed:
    """A fault and its remaining uses."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.skips = fault.after
        is_request = fault.kind in REQUEST_FAULTS
        self.left = fault.times if fault.times is not None else (1 if is_request else None)


class Faults:
    """The active faults. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []
        self._late: list[tuple[float, int | None, Call]] = []

    def add(self, fault: Fault | str, call: str = "*", **details: Any) -> Fault:
        """Inject a fault, given as a `Fault` or as its kind, calls and details."""
        if isinstance(fault, str):
            fault = msgspec.convert({"kind": fault, "call": call, **details}, Fault)
        with self._lock:
            self._armed.append(_Armed(fault))
        return fault

    def clear(self) -> None:
        """Remove every fault. Delayed requests are still executed."""
        with self._lock:
            self._armed.clear()

    @property
    def armed(self) -> list[Fault]:
        """The faults that can still occur."""
        with self._lock:
            return [armed.fault for armed in self._armed]

    def take(self, call: str) -> Fault | None:
        """The request fault for this call. Counts as a use."""
        return self._take(call, lambda fault: fault.kind in REQUEST_FAULTS)

    def condition(self, kind: Condition, call: str = "*") -> Fault | None:
        """The active condition. Counts as a use."""
        return self._take(call, lambda fault: fault.kind == kind)

    def _take(self, call: str, wanted: Any) -> Fault | None:
        with self._lock:
            for armed in self._armed:
                if not wanted(armed.fault) or not (call == "*" or fnmatchcase(call, armed.fault.call)):
                    continue
                if armed.skips:
                    armed.skips -= 1
                    continue
                if armed.left is not None:
                    armed.left -= 1
                    if armed.left <= 0:
                        self._armed.remove(armed)
                return armed.fault
        return None

    def skew(self) -> float:
        """The offset of reported times."""
        with self._lock:
            return sum(armed.fault.seconds for armed in self._armed if armed.fault.kind == "clock_skew")

    # -- delayed requests - ------------------------------------------------------------------------------------------

    def postpone(self, call: Call, fault: Fault) -> None:
        """Hold a request for later execution."""
        with self._lock:
            self._late.append((call.now + fault.seconds, fault.requests, call))

    def landing(self, now: float) -> list[Call]:
        """Return the requests that are due, each once. Call it once for every request that arrives."""
        with self._lock:
            landed: list[tuple[float, int | None, Call]] = []
            waiting: list[tuple[float, int | None, Call]] = []
            for due, requests, call in self._late:
                if requests is not None:
                    (landed if requests <= 0 or now == math.inf else waiting).append((due, requests - 1, call))
                else:
                    (landed if due <= now else waiting).append((due, None, call))
            self._late = waiting
        return [call for _, _, call in landed]

    @property
    def waiting(self) -> int:
        """The number of delayed requests."""
        with self._lock:
            return len(self._late)
