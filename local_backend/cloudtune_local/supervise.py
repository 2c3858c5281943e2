"""The worker's second half: runs the trainer as a child, passes on what is asked of it, and tells how it ended.

Standard library only.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_local import autopsy, procs
from cloudtune_local.training.folder import FINAL_STATES, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune_local.rundir import Run

POLL_S = 0.5
_PR_SET_PDEATHSIG = 1
# Another interpreter (one with its own torch) need not have cloudtune installed: it is shown where the trainer lies.
_SHOW_TRAINER = (
    "import runpy, sys, types; p = types.ModuleType('cloudtune_local'); p.__path__ = [sys.argv.pop(1)]; "
    "sys.modules['cloudtune_local'] = p; "
    "runpy.run_module('cloudtune_local.training', run_name='__main__', alter_sys=True)"
)


class Bell:
    """Wakes a waiting worker when a signal arrives; none is lost between two looks."""

    def __init__(self) -> None:
        self.told_to_stop = False
        self._reader, writer = os.pipe()
        for end in (self._reader, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGUSR1, self._ignore)  # "look at control/ now"
        signal.signal(signal.SIGCHLD, self._ignore)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the trainer inherits this: a closed terminal is not its business

    def wait(self, seconds: float) -> None:
        """Sleep for that long, or until something happens."""
        ready, _, _ = select.select([self._reader], [], [], seconds)
        if ready:
            os.read(self._reader, 4096)

    def _ignore(self, number: int, frame: Any) -> None:
        pass

    def _stop(self, number: int, frame: Any) -> None:
        self.told_to_stop = True


def command(python: str, run: Run) -> list[str]:
    """What starts the trainer."""
    if Path(python).absolute() == Path(sys.executable).absolute():
        return [python, "-P", "-m", "cloudtune_local.training", str(run.path)]
    return [python, "-P", "-c", _SHOW_TRAINER, str(Path(__file__).parent), str(run.path)]


def supervise(run: Run, argv: list[str], environment: dict[str, str], keep: tuple[int, ...], bell: Bell) -> None:
    """Run the trainer to its end, and write that end if it could not do so itself.

    ``keep`` are the descriptors of the run's and the slot's locks: they stay held as long as any of us lives.
    """
    grace = float((read_json(run.job) or {}).get("grace_s", 30.0))
    kills = autopsy.oom_kills()
    trainer = _start(run, argv, environment, keep)
    try:
        code, peak = _wait(trainer.pid, _Patience(run, trainer, grace, bell), bell)
    finally:
        _sweep(trainer.pid)
    status = read_json(run.status) or {}
    if status.get("state") in FINAL_STATES:
        run.reserve.unlink(missing_ok=True)
    elif run.asked("cancel"):
        run.end("cancelled", "cancelled" if code >= 0 else "cancelled; the trainer had to be killed")
    elif bell.told_to_stop:
        problem = {"code": "killed", "message": "the worker was told to stop (SIGTERM)", "hint": "`cloudtune resume`"}
        run.end("failed", problem["message"], problem)
    else:
        death = autopsy.Death(
            returncode=code,
            peak_bytes=peak,
            memory_bytes=autopsy.memory_bytes(),
            oom_kills=autopsy.oom_kills() - kills,
            disk_free_bytes=autopsy.disk_free(run.path),
            log_tail=autopsy.tail(run.log),
        )
        problem = autopsy.cause(death)
        run.end("failed", problem["message"], problem)


def _wait(pid: int, patience: _Patience, bell: Bell) -> tuple[int, int]:
    while (ended := _reap(pid)) is None:
        patience.look()
        bell.wait(POLL_S)
    return ended


class _Patience:
    """Asks politely, then with SIGTERM, then with SIGKILL."""

    def __init__(self, run: Run, trainer: subprocess.Popen[bytes], grace: float, bell: Bell) -> None:
        self._run, self._trainer, self._grace, self._bell = run, trainer, grace, bell
        self._since: float | None = None
        self._sent = 0

    def look(self) -> None:
        """Send what is due."""
        if self._since is None:
            if not (self._bell.told_to_stop or self._run.asked("cancel")):
                return
            self._since = time.monotonic()
        waited = time.monotonic() - self._since
        if self._sent < 1 and (self._bell.told_to_stop or waited >= self._grace):
            self._send(1, signal.SIGTERM)
        elif self._sent < 2 and waited >= 2 * self._grace:
            self._send(2, signal.SIGKILL)

    def _send(self, rank: int, number: signal.Signals) -> None:
        self._sent = rank
        what = "stop" if number == signal.SIGTERM else "end"
        self._run.try_note(f"the trainer has not stopped yet: sending {number.name} to {what} it", level="warning")
        try:
            os.killpg(self._trainer.pid, number) if number == signal.SIGKILL else os.kill(self._trainer.pid, number)
        except ProcessLookupError:
            return


def _start(run: Run, argv: list[str], environment: dict[str, str], keep: tuple[int, ...]) -> subprocess.Popen[bytes]:
    with run.log.open("ab") as log:
        trainer = subprocess.Popen(
            argv,
            cwd=run.path,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=keep,
            process_group=0,
            preexec_fn=_dies_with_parent(),  # noqa: PLW1509 - the worker has one thread
        )
    child = procs.identity(trainer.pid)
    if child is not None:
        write_json(run.worker, {**(read_json(run.worker) or {}), "trainer": child}, durable=False)
    return trainer


def _dies_with_parent() -> Callable[[], None] | None:
    """On Linux: have the kernel kill the child when this process dies, so that no trainer outlives its worker."""
    if sys.platform != "linux":
        return None
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before it was arranged
            os._exit(1)

    return arrange


def _reap(pid: int) -> tuple[int, int] | None:
    """The exit code and peak memory of a child that ended; None while it lives."""
    found, status, usage = os.wait4(pid, os.WNOHANG)
    if found == 0:
        return None
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux KiB
    return os.waitstatus_to_exitcode(status), peak


def _sweep(group: int) -> None:
    """End what the trainer left behind: its data loaders, or the other processes of a distributed run."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
