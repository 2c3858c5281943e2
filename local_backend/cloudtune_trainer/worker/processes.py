"""Identifies processes, and checks whether one is still running. Standard library only: the worker imports it.

A pid alone is not enough, because pids are reused: a process is identified by boot, pid namespace, pid and start time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from typing import TypedDict


class Identity(TypedDict):
    """The identity of a process, as in ``worker.json``."""

    pid: int
    start_time: str
    boot_id: str


def identity(pid: int) -> Identity | None:
    """Return the identity of that process, or None if it does not run."""
    start = start_mark(pid)
    return None if start is None else {"pid": pid, "start_time": start, "boot_id": boot_mark()}


def can_be_seen(who: Identity) -> bool:
    """Whether its pid is valid here: the same boot of the same machine, the same container."""
    return who["boot_id"] == boot_mark()


def is_alive(who: Identity) -> bool:
    """Whether that process is running. False if it is not visible."""
    return can_be_seen(who) and start_mark(who["pid"]) == who["start_time"]


def start_mark(pid: int) -> str | None:
    """A value that differs for a later process of the same pid; None if no such process runs (zombies excluded)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None if sys.platform == "linux" else _start_by_ps(pid)
    # The command name is in brackets and can contain anything; after it come the state and, twentieth, the start in
    # clock ticks since boot, which a change of the wall clock does not touch.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _start_by_ps(pid: int) -> str | None:
    answer = _output("ps", "-o", "stat=,lstart=", "-p", str(pid))
    state, _, start = answer.partition(" ")
    return None if not start.strip() or state.startswith("Z") else start.strip()


@cache
def boot_mark() -> str:
    """Changes with every start of the machine, and differs between containers that do not see one another's pids."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return _output("sysctl", "-n", "kern.boottime") or "unknown"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
