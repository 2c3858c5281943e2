"""Slurm's own commands, on this machine or on a login node: sbatch, squeue, sacct, scancel, scontrol, sinfo."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from cloudtune.errors import (
    BackendError,
    BackendNotInstalled,
    InvalidRequest,
    PermissionDenied,
    QuotaExceeded,
    Unavailable,
)
from cloudtune.processes.environment import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cloudtune_providers.run_folders.access import Folders

_PASSED = (*sorted(NAMES), "SLURM_CONF", "SLURM_CLUSTERS", "MODULEPATH", "MODULESHOME", "LMOD_CMD")
_PREFIXES = ("LC_",)
_QUEUE_FORMAT = "%i|%T|%V|%k|%j|%N|%r"  # the reason last: it is the only one that may contain anything
_MISSING = 127
_NO_RESPONSE = 124
_DOWN = (
    "unable to contact slurm controller", "connection refused", "socket timed out", "connection timed out",
    "zero bytes were transmitted", "slurmdbd", "controller not responding", "slurm_load",
)  # fmt: skip
_DENIED = ("access/permission denied", "user's group not permitted", "invalid account", "operation not permitted")
_QUOTA = ("job violates accounting/qos policy", "limit", "no resources available")


class QueueEntry(NamedTuple):
    """A job as squeue shows it."""

    job_id: str
    state: str
    submitted: str
    comment: str
    name: str
    nodes: str
    reason: str


class Partition(NamedTuple):
    """A partition as sinfo shows it."""

    name: str
    is_default: bool
    is_up: bool
    limit_s: float | None
    """The longest time limit of a job."""
    default_s: float | None
    """The time limit of a job that asks for none."""


class Cluster:
    """The commands of one cluster, as this user."""

    def __init__(self, pass_env: Sequence[str] = ()) -> None:
        self._pass_env = tuple(pass_env)

    def run(self, folders: Folders, argv: Sequence[str], stdin: str = "") -> str:
        """The standard output of a command. Raises BackendError for one that fails."""
        names = [*_PASSED, *(self._pass_env if argv[0] == "sbatch" else ())]
        done = folders.call("run_command", argv=list(argv), stdin=stdin, environment=names, prefixes=list(_PREFIXES))
        if done["code"] == 0:
            return str(done["out"])
        raise to_error(argv[0], done["code"], (done["err"] or done["out"]).strip())

    def queue(self, folders: Folders) -> list[QueueEntry]:
        """This user's jobs, with those that ended within the controller's MinJobAge."""
        argv = ["squeue", "--me", "--noheader", "--states=all", f"--format={_QUEUE_FORMAT}"]
        rows = (line.split("|", 6) for line in self.run(folders, argv).splitlines())
        return [QueueEntry(*row) for row in rows if len(row) == 7]

    def recorded_state(self, folders: Folders, name: str, created: datetime) -> str | None:
        """The state of the newest job of that name in the accounting database; None without one.

        sacct takes local times of its machine: two days earlier covers every time zone.
        """
        since = (created - timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%S")
        shown = ["--allocations", "--noheader", "--parsable2", "--format=Submit,State"]
        argv = ["sacct", *shown, f"--starttime={since}", f"--name={name}"]
        try:
            rows = [line.split("|", 1) for line in self.run(folders, argv).splitlines()]
            rows = [row for row in rows if len(row) == 2]
        except (BackendError, BackendNotInstalled):  # many clusters have no accounting
            return None
        return max(rows)[1].split(" ")[0] if rows else None  # "CANCELLED by 1000"

    def partitions(self, folders: Folders) -> list[Partition]:
        """The partitions that this user can see."""
        found = {}
        for line in self.run(folders, ["sinfo", "--noheader", "--format=%P|%a|%l|%L"]).splitlines():
            name, up, limit, default = (*line.split("|"), "", "", "")[:4]
            least = to_seconds(default) or to_seconds(limit)
            found[name] = Partition(name.rstrip("*"), name.endswith("*"), up == "up", to_seconds(limit), least)
        return list(found.values())


def to_error(program: str, code: int, text: str) -> BackendError | BackendNotInstalled:
    """The error for a command that failed."""
    low, last = text.lower(), text.splitlines()[-1] if text else f"it ended with code {code}"
    if code == _MISSING:
        hint = "install Slurm's client commands, or set `host` to a login node that is reached by ssh"
        return BackendNotInstalled(f"there is no {program} on this machine", hint=hint)
    if code == _NO_RESPONSE or any(words in low for words in _DOWN):
        return Unavailable(f"the Slurm controller does not respond: {last}")
    if any(words in low for words in _DENIED):
        return PermissionDenied(f"{program} was refused: {last}")
    if any(words in low for words in _QUOTA):
        return QuotaExceeded(f"{program} was refused: {last}")
    return InvalidRequest(f"{program} was refused: {last}")


def to_seconds(text: str) -> float | None:
    """A time limit of sinfo in seconds, such as 1-12:00:00; None for infinite."""
    days, dash, rest = text.partition("-")
    parts = (rest if dash else text).split(":")
    if not all(part.isdecimal() for part in parts) or (dash and not days.isdecimal()):
        return None
    while len(parts) < 3:
        parts = [*parts, "0"] if dash else ["0", *parts]
    hours, minutes, seconds = map(int, parts)
    return (int(days) if dash else 0) * 86400.0 + hours * 3600 + minutes * 60 + seconds


def to_limit(seconds: float) -> str:
    """A time limit for sbatch, rounded up to a minute."""
    minutes = max(1, -(-int(seconds) // 60))
    return f"{minutes // 1440}-{minutes % 1440 // 60:02}:{minutes % 60:02}:00"
