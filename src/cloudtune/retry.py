"""The retry policies for all back ends (their SDKs' own retries are disabled).

Throttling and outages are retried with growing, jittered waits, and a vendor's Retry-After is honored; every other
error is final. Sleeping goes through the Clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from cloudtune.errors import RateLimited, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.clock import Clock

P = ParamSpec("P")
T = TypeVar("T")

READ_ATTEMPTS = 6
SEND_ATTEMPTS = 8
LONGEST_WAIT_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0

_growing = wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_S)


def wait_for(state: RetryCallState) -> float:
    """Seconds until the next attempt: the vendor's requested time, else a growing random time."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return min(error.retry_after, LONGEST_RETRY_AFTER_S)
    return _growing(state)


def sending(clock: Clock, attempts: int = SEND_ATTEMPTS) -> Retrying:
    """Policy for a step: each turn of the loop must first ask whether the step is already done."""
    return Retrying(
        sleep=clock.sleep,
        stop=stop_after_attempt(attempts),
        wait=wait_for,
        retry=retry_if_exception_type(TransientError),
        reraise=True,
    )


def reading(clock: Clock, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a read-only function, and retry transient failures."""
    return sending(clock, READ_ATTEMPTS)(call, *args, **kwargs)
