"""Supervises the trainer until it ends, passes requests to it, and records how it ended.

Standard library only.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.folder import FINAL_STATES, read_json
from cloudtune_trainer.launch import take_notes
from cloudtune_trainer.problems import LOST_PROCESS
from cloudtune_trainer.worker import exit_cause

if TYPE_CHECKING:
    from cloudtune_trainer.worker.run import Run
    from cloudtune_trainer.worker.trainer_process import Trainer

POLL_S = 0.5
RESERVE_S, RESERVE_SHARE = 120.0, 0.1
"""The part of a limited run time that is left for saving the model: the smaller of the two."""


class SignalWaiter:
    """Wakes a waiting worker when a signal arrives; none is lost between two checks."""

    def __init__(self) -> None:
        self.stop_signal: int | None = None
        self._reader, writer = os.pipe()
        for end in (self._reader, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGUSR1, self._ignore)  # "check control/ now"
        signal.signal(signal.SIGCHLD, self._ignore)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the trainer inherits this: closing the terminal does not stop it

    def wait(self, seconds: float) -> None:
        """Sleep for that time, or until a signal arrives."""
        ready, _, _ = select.select([self._reader], [], [], seconds)
        if ready:
            os.read(self._reader, 4096)

    def _ignore(self, number: int, frame: Any) -> None:
        pass

    def _stop(self, number: int, frame: Any) -> None:
        self.stop_signal = number

    @property
    def told_to_stop(self) -> bool:
        """Whether a signal to stop has arrived."""
        return self.stop_signal is not None


def supervise(
    run: Run, trainer: Trainer, bell: SignalWaiter, *, at_most_s: float = math.inf, may_restart: bool = False
) -> str | None:
    """Wait for the trainer's end, and record the end if the trainer could not.

    With ``may_restart``, the loss of a process is not the end: its description is returned. The trainer is asked to
    save its model before the run time in ``job.json``, or ``at_most_s``, is over.
    """
    job = read_json(run.job) or {}
    limit = min(float(job.get("max_seconds", math.inf)), at_most_s)
    end = time.monotonic() + limit
    save_at = end - min(RESERVE_S, limit * RESERVE_SHARE)
    kills = exit_cause.oom_kills()
    patience = _StopEscalation(run, trainer, float(job.get("grace_s", 30.0)), bell, end)
    try:
        while (ended := trainer.poll()) is None:
            patience.look()
            if time.monotonic() >= save_at and not run.requested("expire"):
                run.ask("expire")
            bell.wait(POLL_S)
    finally:
        trainer.sweep()
    status = read_json(run.status) or {}
    if status.get("state") in FINAL_STATES:
        run.reserve.unlink(missing_ok=True)
    elif run.requested("cancel"):
        run.end("cancelled", "cancelled" if ended.code >= 0 else "cancelled; the trainer had to be killed")
    elif bell.stop_signal is not None:
        message = f"the worker received {signal.Signals(bell.stop_signal).name}"
        run.end("failed", message, exit_cause.interrupted(message))
    elif patience.sent and run.requested("expire"):
        run.end(
            "expired", "the external time limit was reached; the trainer had to be stopped, its checkpoints are kept"
        )
    else:
        death = exit_cause.ProcessExit(
            returncode=ended.code,
            peak_bytes=ended.peak_bytes,
            memory_bytes=exit_cause.memory_bytes(),
            oom_kills=exit_cause.oom_kills() - kills,
            disk_free_bytes=exit_cause.disk_free(run.path),
            log_tail=exit_cause.tail(run.log),
        )
        problem = _note_of_one(run) or exit_cause.cause(death)
        if may_restart and problem["code"] == "killed":
            return str(problem["message"])
        run.end("failed", problem["message"], problem)
    return None


def _note_of_one(run: Run) -> dict[str, Any] | None:
    """The failure report of one of several processes, if the first one could not write the status."""
    return next((note for note in take_notes(run) if note["code"] != LOST_PROCESS), None)


class _StopEscalation:
    """Stops the trainer: by a request, then SIGTERM, then SIGKILL. When the run time is over, SIGTERM comes first."""

    def __init__(self, run: Run, trainer: Trainer, grace: float, bell: SignalWaiter, end: float) -> None:
        self._run, self._trainer, self._grace, self._bell, self._end = run, trainer, grace, bell, end
        self._since: float | None = None
        self.sent = 0
        """How many signals the trainer got."""

    def look(self) -> None:
        """Send the next signal if it is due."""
        is_urgent = self._bell.told_to_stop or time.monotonic() >= self._end
        if self._since is None:
            if not (is_urgent or self._run.requested("cancel")):
                return
            self._since = time.monotonic()
        waited = time.monotonic() - self._since
        if self.sent < 1 and (is_urgent or waited >= self._grace):
            self._send(1, signal.SIGTERM)
        elif self.sent < 2 and waited >= 2 * self._grace:
            self._send(2, signal.SIGKILL)

    def _send(self, rank: int, number: signal.Signals) -> None:
        self.sent = rank
        reason = (
            "the worker received a request to stop" if self._bell.told_to_stop else "the trainer has not stopped yet"
        )
        self._run.try_note(f"{reason}: sending {number.name} to the trainer", level="warning")
        self._trainer.send(number)
