"""The worker of one run: ``python -m cloudtune_trainer.worker RUN_DIR``.

It waits in the queue, runs the trainer as a child process, and records how it ended if the trainer could not. Each job
has one worker, which uses little memory while it waits (standard library only) and runs in its own session, so it
outlives the submitting process. Two workers on one folder are harmless: the second finds the run's lock taken and
exits.

The back end passes two descriptors: the run's lock, already taken, so a queued job always has a visible worker; and a
pipe, on which the worker reports that it is ready.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from typing import Any

from cloudtune_trainer.folder import now, read_json, write_json
from cloudtune_trainer.locks import take_lock
from cloudtune_trainer.private_files import keep_private
from cloudtune_trainer.worker import devices, exit_cause
from cloudtune_trainer.worker import processes as procs
from cloudtune_trainer.worker.queue import Place, Queue
from cloudtune_trainer.worker.run import Run, has_ended, is_waiting
from cloudtune_trainer.worker.supervise import SignalWaiter, supervise
from cloudtune_trainer.worker.trainer_process import Trainer

POLL_S = 0.2
TAKEN = 3
"""Exit code of a worker if the run already has one."""


def main(arguments: list[str]) -> int:
    """Supervise the run named in the arguments until it ends."""
    if not arguments:
        sys.stderr.write("usage: python -m cloudtune_trainer.worker RUN_DIR\n")
        return 2
    run = Run(arguments[0])
    if not run.exists():
        sys.stderr.write(f"{run.path} is not a run folder: it has no spec.json\n")
        return 2
    given, pipe = (int(arguments[1]), int(arguments[2])) if len(arguments) == 3 else (None, None)
    lock = given if given is not None else take_lock(run.lock)
    if lock is None:
        sys.stderr.write(f"{run.path} already has a worker\n")
        return TAKEN
    keep_private()
    os.set_inheritable(lock, False)
    if pipe is not None and os.fork():
        os._exit(0)  # the submitter waits for this process only, and is never left with a zombie
    bell = SignalWaiter()
    write_json(run.worker, {**(procs.identity(os.getpid()) or {}), "since": now()})
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):  # the submitting process has exited, which does not affect the job
            os.write(pipe, b"ok")
        os.close(pipe)
    try:
        look_after(run, lock, bell)
    except Exception as error:  # after any error, the job must report why it ended
        problem = exit_cause.own_fault(error)
        run.end("failed", problem["message"], problem)
        raise
    return 0


def look_after(run: Run, lock: int, bell: SignalWaiter) -> None:
    """Continue the run to its end."""
    status = run.recorded_status()
    if has_ended(status):
        return
    if not is_waiting(status):
        _record_orphan_failure(run, status)
        return
    job = read_json(run.job) or {}
    slots = wait_for_turn(run, job, bell)
    if slots is None:
        return
    pool, processes = job.get("pool", devices.CPU), int(job.get("processes", 1))
    run.tell("starting", "starting the trainer", started_at=now())
    run.try_note("starting", kind="state", state="starting", slots=[f"{pool}-{number}" for number in slots])
    python, keep = job.get("python") or sys.executable, (lock, *slots.values())
    restarts, end = int(job.get("max_restarts", 0)), time.monotonic() + float(job.get("max_seconds", math.inf))
    for left in range(restarts, -1, -1):
        trainer = Trainer(run, python, devices.environment_of(pool, slots), keep, processes)
        lost = supervise(run, trainer, bell, at_most_s=max(0.0, end - time.monotonic()), may_restart=left > 0)
        if lost is None:
            return
        message = f"{lost}; restart {restarts - left + 1} of {restarts} from the newest complete checkpoint"
        run.try_note(message, kind="warning", level="warning")


def _record_orphan_failure(run: Run, status: dict[str, Any]) -> None:
    """Record the end of a run whose worker exited unexpectedly, as readers already report it."""
    run_status = run.orphaned(status)
    if run_status.is_final:
        run.end(run_status.state, run_status.detail, run_status.problem)
    else:  # its status is damaged
        run.end("failed", run_status.detail, exit_cause.interrupted(run_status.detail))


def wait_for_turn(run: Run, job: dict[str, Any], bell: SignalWaiter) -> dict[int, int] | None:
    """Wait in the queue until enough slots are free, and return their numbers and lock descriptors.

    Returns None if the job was cancelled, or this worker received a request to stop.
    """
    turn = Turn(run, job)
    shown = (read_json(run.status) or {}).get("state", "queued")
    while not bell.told_to_stop:
        if run.requested("cancel"):
            turn.give_way()
            run.end("cancelled", "cancelled before it started")
            return None
        shown_state = "paused" if run.requested("pause") else "queued"
        if shown_state != shown:
            detail = "paused in the queue" if shown_state == "paused" else "waiting for a free slot"
            run.tell(shown_state, detail)
            run.try_note(detail, kind="state", state=shown_state)
            shown = shown_state
        if shown == "paused":
            turn.give_way()
        elif turn.has_come():
            return turn.slots
        bell.wait(POLL_S)
    return None  # the job stays queued: the queue must survive a shutdown


class Turn:
    """A job's wait for the slots of its pool."""

    def __init__(self, run: Run, job: dict[str, Any]) -> None:
        self._queue = Queue(run.path.parent)
        self._pool = job.get("pool", devices.CPU)
        self._place = Place(int(job.get("number", 0)), run.slug)
        self._count = devices.slot_count(self._pool, job.get("slots"))
        self._wanted = devices.slots_wanted(self._pool, self._count, int(job.get("processes", 1)))
        self._ahead: Place | None = None
        self._in_line = False
        self.slots: dict[int, int] = {}

    def has_come(self) -> bool:
        """Wait in the queue, and take slots at its head. Returns whether there are enough."""
        if not self._in_line:
            self._queue.join(self._pool, self._place)
            self._in_line = True
        if self._ahead is None or not self._queue.holds_up(self._pool, self._ahead):
            self._ahead = self._queue.next_ahead(self._pool, self._place)
        if self._ahead is not None:
            self._release()  # an earlier job has resumed: it must not wait for slots held here
            return False
        if not self._queue.take_slots(self._pool, self._count, self._wanted, self.slots):
            return False
        self._queue.leave(self._pool, self._place)
        return True

    def give_way(self) -> None:
        """Leave the queue, because a paused job must not block others."""
        self._queue.leave(self._pool, self._place)
        self._in_line = False
        self._release()

    def _release(self) -> None:
        while self.slots:
            os.close(self.slots.popitem()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
