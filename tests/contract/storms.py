"""Random weather between a back end and its service: schedules of faults, each from a seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from cloudtune.errors import TransientError

if TYPE_CHECKING:
    from tests.contract.emulated import EmulatedWorld

    from cloudtune.client import Client
    from cloudtune.spec import JobSpec
    from cloudtune.state import JobRef

MOST_TRIES = 30
_REQUEST_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lost_reply", {}), ("reset", {}), ("error_after", {"status": 500}), ("server_error", {"status": 503}),
    ("throttle", {"seconds": 3.0}), ("late", {"seconds": 20.0}), ("late", {"requests": 1}), ("late", {"requests": 3}),
    ("late", {"requests": 5}), ("twice", {}), ("delay", {"seconds": 0.01}),
)  # fmt: skip
_CONDITIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("list_lag", "*.list", {"seconds": 25.0}), ("ignore_filter", "jobs.list", {}), ("truncated_page", "*.list", {}),
    ("clock_skew", "*", {"seconds": 4000.0}), ("clock_skew", "*", {"seconds": -4000.0}),
)  # fmt: skip
_SENDS = ("files.create", "jobs.create")
_READS = ("files.list", "jobs.list", "files.get", "jobs.get")


def brew(world: EmulatedWorld, seed: int) -> list[str]:
    """Let one to five things go wrong, most of them with what makes files and jobs. Tells which."""
    dice = random.Random(seed)
    told = []
    for _ in range(dice.randint(1, 5)):
        kind, details = dice.choice(_REQUEST_FAULTS)
        call = dice.choice(_SENDS * 3 + _READS)
        if call in _READS and kind in ("late", "twice"):
            kind, details = "reset", {}
        world.emulator.faults.add(kind, call, after=dice.randint(0, 1), **details)
        told.append(f"{kind} {call} {details}")
    if dice.random() < 0.5:
        kind, call, details = dice.choice(_CONDITIONS)
        world.emulator.faults.add(kind, call, **details)
        told.append(f"{kind} {call} {details}")
    return told


def stubborn(client: Client, spec: JobSpec) -> JobRef:
    """Submit as a person would who types the same command again until it works."""
    for _ in range(MOST_TRIES):
        try:
            return client.submit(spec).ref
        except TransientError:
            continue
    raise AssertionError(f"not submitted after {MOST_TRIES} tries")
