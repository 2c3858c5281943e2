"""What goes wrong, on demand.

Request faults happen to the next calls that match; conditions last until they are healed (or ``times`` is used up).
None of them is documented by a vendor: they are what a network and a distributed service may do, and what
fine-tuning users have met (openai-python #1224, openai-openapi #307, litellm #24687; seen 2026-11-21).
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
    "lost_reply",  # acted on, then the connection is cut
    "reset",  # the connection is cut before anything is done
    "delay",  # answered after ``seconds`` of real time
    "throttle",  # 429 with Retry-After: ``seconds``
    "server_error",  # ``status`` (500) before anything is done
    "error_after",  # ``status`` (500) although it was acted on
    "forbidden",  # 403
    "late",  # no answer; acted on ``seconds`` later, or after ``requests`` others
    "twice",  # a proxy delivers the request two times; the second answer is seen
    "expired_credentials",  # 401 though the key is right
    "unreadable",  # acted on; the answer is something else: ``value`` is a key of `UNREADABLE`, else a page
    "cut_answer",  # acted on; the connection is cut after ``requests`` (2, at least 1) pieces of a streamed answer
]
Condition = Literal[
    "list_lag",  # lists leave out what is younger than ``seconds``
    "ignore_filter",  # the metadata filter of the job list has no effect
    "invented_status",  # jobs say ``value``
    "truncated_page",  # pages hold one entry less than they might, and say that there is more
    "duplicate_event",  # an entry of a page is told twice
    "clock_skew",  # every time told is ``seconds`` off
    "unsafe_file",  # new jobs fail of their rows, as moderation makes them
    "base64_results",  # result files come base64 encoded, as users report of api.openai.com
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
"""What proxies and captive portals answer instead: content type and body."""
FaultKind = RequestFault | Condition
REQUEST_FAULTS: frozenset[str] = frozenset(get_args(RequestFault))
CONDITIONS: frozenset[str] = frozenset(get_args(Condition))


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that will go wrong."""

    kind: Literal[
        "lost_reply", "reset", "delay", "throttle", "server_error", "error_after", "forbidden", "late", "twice",
        "expired_credentials", "unreadable", "cut_answer", "list_lag", "ignore_filter", "invented_status",
        "truncated_page", "duplicate_event", "clock_skew", "unsafe_file", "base64_results",
    ]  # fmt: skip
    call: str = "*"
    """Which calls, as a pattern: ``jobs.create``, ``files.*``, ``*``."""
    times: int | None = None
    """How often; None is once for a request fault, and until healed for a condition."""
    after: int = 0
    """How many matching calls go well first."""
    seconds: float = 0.0
    requests: int | None = None
    status: int = 500
    value: str = "warming_up"
    code: str | None = None
    """The vendor's code in a throttle's or an error's body."""
    message: str | None = None
    hold_s: float = 0.0
    """``late`` and ``lost_reply``: real seconds until the connection is cut, so that the client's timeout is tested."""


class _Armed:
    """A fault and what is left of it."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.skips = fault.after
        is_request = fault.kind in REQUEST_FAULTS
        self.left = fault.times if fault.times is not None else (1 if is_request else None)


class Faults:
    """The faults in force. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []
        self._late: list[tuple[float, int | None, Call]] = []

    def add(self, fault: Fault | str, call: str = "*", **details: Any) -> Fault:
        """Let something go wrong: a fault, or its kind, the calls and its details."""
        if isinstance(fault, str):
            fault = msgspec.convert({"kind": fault, "call": call, **details}, Fault)
        with self._lock:
            self._armed.append(_Armed(fault))
        return fault

    def clear(self) -> None:
        """Forget every fault. Late requests still land."""
        with self._lock:
            self._armed.clear()

    @property
    def armed(self) -> list[Fault]:
        """What may still happen."""
        with self._lock:
            return [armed.fault for armed in self._armed]

    def take(self, call: str) -> Fault | None:
        """The request fault that this call meets, used up by one."""
        return self._take(call, lambda fault: fault.kind in REQUEST_FAULTS)

    def condition(self, kind: Condition, call: str = "*") -> Fault | None:
        """The condition in force, used up by one."""
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
        """By how much the times told are off."""
        with self._lock:
            return sum(armed.fault.seconds for armed in self._armed if armed.fault.kind == "clock_skew")

    # -- late requests -------------------------------------------------------------------------------------------

    def postpone(self, call: Call, fault: Fault) -> None:
        """Keep a request that will be acted on later."""
        with self._lock:
            self._late.append((call.now + fault.seconds, fault.requests, call))

    def landing(self, now: float) -> list[Call]:
        """The requests whose moment has come, each once. To be asked once for every request that arrives."""
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
        """How many requests have not landed yet."""
        with self._lock:
            return len(self._late)
