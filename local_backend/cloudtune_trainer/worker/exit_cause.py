"""The cause of a trainer's exit: killed, out of memory, a full disk, or its own error. Standard library only.

The trainer records its own end whenever it can; this module is for the other cases.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune_trainer.folder import DISK_FULL_ERRNOS
from cloudtune_trainer.problems import RESUME_HINT

if TYPE_CHECKING:
    from pathlib import Path

TAIL_BYTES = 16 * 1024
FULL_BYTES = 64 * 1024
MEMORY_SHARE = 0.9
_MEMORY_WORDS = ("memoryerror", "out of memory", "outofmemoryerror", "cannot allocate memory", "can't allocate memory")
_DISK_WORDS = ("no space left on device", "disk quota exceeded", "file too large", "os error 28")
_MEMORY_HINT = (
    "use a smaller batch (more gradient_accumulation_steps keeps the result), a smaller max_length, "
    "gradient_checkpointing, or an adapter instead of full training; `cloudtune resume` continues from a checkpoint"
)
_DISK_HINT = "free disk space, then `cloudtune resume` continues from the newest valid checkpoint"
_FROM_OUTSIDE = (
    signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGALRM, signal.SIGXCPU,
)  # fmt: skip
"""Signals that a user, a scheduler or the kernel sends. The others report a fault of the program itself."""


class ProcessExit(NamedTuple):
    """How the trainer's process ended, and the state of the machine."""

    returncode: int
    """The exit code as in subprocess: negative for a signal."""
    peak_bytes: int = 0
    """Its peak memory."""
    memory_bytes: int = 0
    """The memory of the machine, or the limit of the control group."""
    oom_kills: int = 0
    """Processes that the kernel killed when out of memory while the trainer ran."""
    disk_free_bytes: int | None = None
    log_tail: str = ""


def cause(death: ProcessExit) -> dict[str, Any]:
    """The problem to report: code, message and hint."""
    if death.returncode < 0:
        return _by_signal(-death.returncode, death)
    low = death.log_tail.lower()
    last = _last_line(death.log_tail)
    if any(words in low for words in _DISK_WORDS) or _is_full(death):
        return _problem("disk_full", f"the disk is full: {last or 'write failed'}", _DISK_HINT)
    if any(words in low for words in _MEMORY_WORDS):
        return _problem("out_of_memory", f"the trainer ran out of memory: {last}", _MEMORY_HINT)
    how = f"ended with code {death.returncode}" if death.returncode else "exited with an unknown status"
    return _problem("crashed", f"the trainer {how}: {last or 'its log is empty'}", "see log.txt for details")


def interrupted(message: str) -> dict[str, Any]:
    """The problem to report when a signal from outside, or the loss of the machine, ended the run."""
    return {**_problem("killed", message, RESUME_HINT), "interrupted": True}


def own_fault(error: Exception) -> dict[str, Any]:
    """The problem to report when the worker itself failed."""
    message = f"the worker failed: {error}" if isinstance(error, OSError) else f"the worker failed: {error!r}"
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        return _problem("disk_full", message, _DISK_HINT)
    return _problem("crashed", message, "see log.txt for details")


def _by_signal(number: int, death: ProcessExit) -> dict[str, Any]:
    name = _signal_name(number)
    if number == signal.SIGKILL and death.oom_kills:
        message = f"the kernel killed the trainer because memory ran out{_memory(death)}"
        return {**_problem("out_of_memory", message, _MEMORY_HINT), "interrupted": True}
    if number == signal.SIGKILL and death.memory_bytes and death.peak_bytes >= MEMORY_SHARE * death.memory_bytes:
        message = f"the trainer was killed ({name}) while using nearly all memory{_memory(death)}"
        return {**_problem("out_of_memory", message, _MEMORY_HINT), "interrupted": True}
    if number == signal.SIGXFSZ:
        return _problem("disk_full", "a file exceeded this user's file size limit", _DISK_HINT)
    if number == signal.SIGBUS and _is_full(death):  # a mapped file that does not fit on the disk
        return _problem("disk_full", "the disk is full", _DISK_HINT)
    if number in _FROM_OUTSIDE:
        return interrupted(f"another process killed the trainer ({name})")
    last = _last_line(death.log_tail)
    return _problem("crashed", f"the trainer crashed ({name}){': ' + last if last else ''}", "see log.txt")


def _problem(code: str, message: str, hint: str) -> dict[str, Any]:
    return {"code": code, "message": message, "hint": hint}


def _is_full(death: ProcessExit) -> bool:
    return death.disk_free_bytes is not None and death.disk_free_bytes < FULL_BYTES


def _memory(death: ProcessExit) -> str:
    if not (death.peak_bytes and death.memory_bytes):
        return ""
    return f" (it used {death.peak_bytes / 2**30:.1f} of {death.memory_bytes / 2**30:.1f} GiB)"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""


def tail(log: Path) -> str:
    """The end of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def disk_free(folder: Path) -> int | None:
    """Free bytes on that disk for this user."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize if found.f_files == 0 or found.f_favail > 0 else 0


def oom_kills() -> int:
    """Return how many processes the kernel has killed when out of memory, as far as this process can see."""
    return _field("/proc/vmstat", "oom_kill") or 0


def memory_bytes() -> int:
    """The memory limit of this process and its children: the machine's memory, or less in a control group."""
    machine = (_field("/proc/meminfo", "MemTotal:") or 0) * 1024
    limits = [limit for path in _limit_files() if (limit := _number(path))]
    return min([machine, *limits]) if machine else 0


def _limit_files() -> list[str]:
    """The files with the memory limits of this process's control groups, v2 and v1."""
    found = []
    try:
        with open("/proc/self/cgroup", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += [f"/sys/fs/cgroup{path}/memory.max", "/sys/fs/cgroup/memory.max"]
        elif "memory" in controllers.split(","):
            found += [f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"]
    return found


def _field(path: str, name: str) -> int | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            for line in file:
                words = line.split()
                if words and words[0] == name:
                    return int(words[1])
    except (OSError, ValueError, IndexError):
        return None
    return None


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):  # "max" means no limit
        return None
