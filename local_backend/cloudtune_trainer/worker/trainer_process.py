"""Starts, signals and reaps the trainer's processes. None outlives the worker. Standard library only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cloudtune_trainer
from cloudtune_trainer.folder import read_json, write_json
from cloudtune_trainer.ports import hold_port
from cloudtune_trainer.private_files import opener
from cloudtune_trainer.worker import processes as procs

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from cloudtune_trainer.worker.run import Run

_PR_SET_PDEATHSIG = 1
_PARTING_S = 15.0
"""Once one of several processes has failed, the others wait for it: they get this long to notice."""
# Another interpreter (with its own torch) need not have cloudtune installed: it gets the path of the trainer.
_SHOW_TRAINER = (
    "import runpy, sys, types; p = types.ModuleType('cloudtune_trainer'); p.__path__ = [sys.argv.pop(1)]; "
    "sys.modules['cloudtune_trainer'] = p; "
    "runpy.run_module('cloudtune_trainer.__main__', run_name='__main__', alter_sys=True)"
)


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    """Negative for a signal."""
    peak_bytes: int


class Trainer:
    """One process, or one for each of several devices, in a separate process group."""

    def __init__(
        self, run: Run, python: str, environment: dict[str, str], keep: tuple[int, ...], processes: int = 1
    ) -> None:
        """Start them. ``keep`` are descriptors of locks, held as long as any of the processes lives."""
        self._ended: dict[int, Ended] = {}
        self._failed_at: float | None = None
        self._failed: Ended | None = None
        argv = command(python, run)
        self._port = hold_port() if processes > 1 else None
        common = {**os.environ, "PYTHONUNBUFFERED": "1", **environment, **_group_of(processes, self._port)}
        common.pop("CLOUDTUNE_PROCESSES", None)  # the plan sets the number, not the submitter's environment
        self._pids: list[int] = []
        with open(run.log, "ab", opener=opener) as log:
            for rank in range(processes):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
                process = subprocess.Popen(
                    argv,
                    cwd=run.path,
                    env={**common, **own},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=keep,
                    process_group=self._pids[0] if self._pids else 0,
                    preexec_fn=dies_with_parent(),  # noqa: PLW1509 - the worker has one thread
                )
                process.returncode = 0  # reaped here, with its memory usage, instead of by subprocess
                self._pids.append(process.pid)
        who = procs.identity(self._pids[0])
        if who is not None:
            write_json(run.worker, {**(read_json(run.worker) or {}), "trainer": who}, durable=False)

    def poll(self) -> Ended | None:
        """How it ended, once all processes have; with several, the first failure counts."""
        found = {pid: ended for pid in self._pids if pid not in self._ended and (ended := _reap(pid)) is not None}
        self._ended |= found
        failures = [ended for ended in found.values() if ended.code]
        if failures and self._failed is None:
            # The smallest code is a signal: the other processes fail because they lost the killed one.
            self._failed, self._failed_at = min(failures, key=lambda ended: ended.code), time.monotonic()
        if len(self._ended) == len(self._pids):
            if self._port is not None:
                self._port.close()
            return self._failed or self._ended[self._pids[0]]
        if self._failed_at is not None and time.monotonic() - self._failed_at > _PARTING_S:
            self.sweep()
        return None

    def send(self, number: signal.Signals) -> None:
        """Signal the processes; SIGKILL also goes to their children."""
        if number == signal.SIGKILL:
            self.sweep()
            return
        for pid in self._pids:
            if pid not in self._ended:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue

    def sweep(self) -> None:
        """Kill the remaining processes of the group, e.g. data loaders."""
        try:
            os.killpg(self._pids[0], signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def command(python: str, run: Run) -> list[str]:
    """The command of the trainer."""
    if Path(python).absolute() == Path(sys.executable).absolute():
        return [python, "-P", "-m", "cloudtune_trainer", str(run.path)]
    return [python, "-P", "-c", _SHOW_TRAINER, str(Path(cloudtune_trainer.__file__).parent), str(run.path)]


def _group_of(processes: int, held: socket.socket | None) -> dict[str, str]:
    """The variables of torch.distributed by which several processes find each other."""
    if held is None:
        return {}
    size, port = str(processes), str(held.getsockname()[1])
    return {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def dies_with_parent() -> Callable[[], None] | None:
    """On Linux: have the kernel kill the child when this process dies, so that no trainer outlives its worker."""
    if sys.platform != "linux":
        return None
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return arrange


def _reap(pid: int) -> Ended | None:
    """The exit code and peak memory of a child that ended; None while it is running."""
    found, status, usage = os.wait4(pid, os.WNOHANG)
    if found == 0:
        return None
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux KiB
    return Ended(os.waitstatus_to_exitcode(status), peak)
