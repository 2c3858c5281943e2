"""A process as ``worker.json`` names it, and whether that very one still lives; how it is told: `cloudtune.process`."""

from __future__ import annotations

from typing import TypedDict

from cloudtune.process import boot_id, start_mark


class Identity(TypedDict):
    """A pid alone is not enough: pids are used again."""

    pid: int
    start_time: str
    boot_id: str


def identity(pid: int) -> Identity | None:
    """What tells that process from every other; None if it does not run."""
    start = start_mark(pid)
    return None if start is None else {"pid": pid, "start_time": start, "boot_id": boot_id()}


def can_be_seen(who: Identity) -> bool:
    """Whether its pid means anything here: the same boot of the same machine, the same container."""
    return who["boot_id"] == boot_id()


def is_alive(who: Identity) -> bool:
    """Whether that very process runs. False where it cannot be seen."""
    return can_be_seen(who) and start_mark(who["pid"]) == who["start_time"]
