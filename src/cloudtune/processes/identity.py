"""Identifies processes, and checks whether one is still running. A pid alone is not enough: pids are reused."""

from __future__ import annotations

import os
import platform
import uuid
from functools import cache
from pathlib import Path

import msgspec


class Owner(msgspec.Struct, frozen=True):
    """Identifies a process uniquely: host, boot, pid and start time."""

    host: str
    boot: str
    pid: int
    start: str
    run: str
    """One piece of work inside the process, to distinguish threads."""

    @classmethod
    def here(cls) -> Owner:
        """This process, as the owner of a new piece of work."""
        pid = os.getpid()
        return cls(platform.node(), boot_id(), pid, start_mark(pid) or "", uuid.uuid4().hex[:12])

    @property
    def is_local(self) -> bool:
        """Whether its end is visible here: that of processes on another host or in another container is not."""
        if self.host != platform.node():
            return False
        own_boot, _, space = boot_id().partition("/")
        boot, _, its_space = self.boot.partition("/")
        return boot != own_boot or space == its_space  # processes from before the last boot have ended

    def is_alive(self) -> bool:
        """Whether that process is still running. Valid only if ``is_local``."""
        return self.boot == boot_id() and start_mark(self.pid) == self.start

    def dump(self) -> str:
        """As one line of JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def load(cls, text: str) -> Owner:
        """Read what ``dump`` wrote."""
        return _DECODER.decode(text)


_DECODER = msgspec.json.Decoder(Owner)  # made while importing: threads must not meet in a struct's first decoding


def start_mark(pid: int) -> str | None:
    """A value that differs for a later process of the same pid in the same boot; None if no such process runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return _start_mark_elsewhere(pid) if not Path("/proc/self/stat").exists() else None
    except ProcessLookupError:
        return None
    # The command name is in brackets and can contain anything; after it: state, then the start in clock ticks
    # since boot, which a change of the wall clock does not touch (psutil's create_time it does).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _start_mark_elsewhere(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


@cache
def boot_id() -> str:
    """Changes with every start of the machine, and differs between containers that do not see one another's pids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        import psutil

        return f"{psutil.boot_time():.0f}"
