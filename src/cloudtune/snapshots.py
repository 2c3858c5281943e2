"""The states of many jobs of many back ends, in as few calls as each back end allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.errors import BackendError, CloudtuneError, JobNotFound
from cloudtune.optional import BatchStatus
from cloudtune.retry import reading
from cloudtune.state import JobRef, JobSnapshot, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock


def snapshots_of(refs: Iterable[JobRef], *, open_backend: Callable[[str], Backend], clock: Clock) -> list[JobSnapshot]:
    """One snapshot for each reference, in their order.

    A job whose state cannot be read is ``unknown``, with the reason in ``detail``: the others are still read.
    """
    order = list(refs)
    groups: dict[str, list[JobRef]] = {}
    for ref in order:
        groups.setdefault(ref.backend, []).append(ref)
    found: dict[JobRef, JobSnapshot] = {}
    for name, group in groups.items():
        try:
            backend = open_backend(name)
        except CloudtuneError as error:  # not installed, not configured, or no credentials
            found |= {ref: _unknown(ref, error.message) for ref in group}
        else:
            found |= _ask(backend, group, clock)
    return [found[ref] for ref in order]


def _ask(backend: Backend, refs: list[JobRef], clock: Clock) -> dict[JobRef, JobSnapshot]:
    if not isinstance(backend, BatchStatus):
        return {ref: _ask_one(backend, ref, clock) for ref in refs}
    try:
        many = reading(clock, backend.get_many, refs)
    except BackendError as error:
        return {ref: _unknown(ref, f"no response: {error.message}") for ref in refs}
    return {ref: many.get(ref) or _unknown(ref, "not found") for ref in refs}


def _ask_one(backend: Backend, ref: JobRef, clock: Clock) -> JobSnapshot:
    try:
        return reading(clock, backend.get, ref)
    except JobNotFound:
        return _unknown(ref, "not found")
    except BackendError as error:
        return _unknown(ref, f"no response: {error.message}")


def _unknown(ref: JobRef, reason: str) -> JobSnapshot:
    return JobSnapshot(ref=ref, state=JobState.UNKNOWN, native_state="", detail=reason)
