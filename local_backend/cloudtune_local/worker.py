"""Looks after one run: ``python -m cloudtune_local.worker RUN_DIR``.

Waits for its turn, runs the trainer as a child, and writes how it ended if the trainer could not. One process a job,
small while it waits (standard library only), in a session of its own: it outlives whoever submitted the job. Two
workers on one folder are harmless: the second finds the run's lock taken and leaves.

The back end hands over two descriptors: the run's lock, already taken, so that there is no moment in which a job in
line seems to have no worker; and a pipe, on which the worker says that it stands.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from cloudtune_local import autopsy, devices, procs
from cloudtune_local.queue import Place, Queue
from cloudtune_local.rundir import Run, is_waiting, take_lock
from cloudtune_local.supervise import Bell, command, supervise
from cloudtune_local.training.folder import FINAL_STATES, now, read_json, write_json

POLL_S = 0.2
TAKEN = 3
"""Exit code of a worker that finds another one there."""


def main(arguments: list[str]) -> int:
    """Look after the run named in the arguments until it ends."""
    if not arguments:
        sys.stderr.write("usage: python -m cloudtune_local.worker RUN_DIR\n")
        return 2
    run = Run(arguments[0])
    if not run.exists():
        sys.stderr.write(f"{run.path} is no run folder: it has no spec.json\n")
        return 2
    given, pipe = (int(arguments[1]), int(arguments[2])) if len(arguments) == 3 else (None, None)
    lock = given if given is not None else take_lock(run.lock)
    if lock is None:
        sys.stderr.write(f"{run.path} has a worker already\n")
        return TAKEN
    os.set_inheritable(lock, False)
    if pipe is not None and os.fork():
        os._exit(0)  # the submitter waits for this process only, and is never left with a zombie
    bell = Bell()
    write_json(run.worker, {**(procs.identity(os.getpid()) or {}), "since": now()})
    if pipe is not None:
        os.write(pipe, b"ok")
        os.close(pipe)
    try:
        look_after(run, lock, bell)
    except Exception as error:  # noqa: BLE001 - whatever it is, the job must say why it ended
        problem = autopsy.own_fault(error)
        run.end("failed", problem["message"], problem)
        raise
    return 0


def look_after(run: Run, lock: int, bell: Bell) -> None:
    """Take the run from where it stands to its end."""
    status = read_json(run.status) or {"state": "queued"}
    if status["state"] in FINAL_STATES:
        return
    if not is_waiting(status):
        _bury(run, status)
        return
    job = read_json(run.job) or {}
    slot = wait_for_turn(run, job, bell)
    if slot is None:
        return
    number, held = slot
    pool = job.get("pool", devices.CPU)
    run.tell("starting", "starting the trainer", started_at=now())
    run.try_note("starting", kind="state", state="starting", slot=f"{pool}-{number}")
    argv = command(job.get("python") or sys.executable, run)
    supervise(run, argv, devices.environment_of(pool, number), (lock, held), bell)


def _bury(run: Run, status: dict[str, Any]) -> None:
    """Write down the end of a run whose worker died while it was under way, as every reader tells it already."""
    standing = run.orphaned(status)
    run.end(standing.state, standing.detail, standing.problem)


def wait_for_turn(run: Run, job: dict[str, Any], bell: Bell) -> tuple[int, int] | None:
    """Stand in line until a slot is free; None if the job was cancelled, or this worker was told to stop."""
    queue, pool = Queue(run.path.parent), job.get("pool", devices.CPU)
    place = Place(int(job.get("number", 0)), run.slug)
    paused = in_line = False
    ahead: Place | None = None
    while not bell.told_to_stop:
        if run.asked("cancel"):
            queue.leave(pool, place)
            run.end("cancelled", "cancelled before it began")
            return None
        if run.asked("pause"):
            if not paused:  # whoever stands still holds up nobody
                queue.leave(pool, place)
                _say(run, "paused", "paused in the queue")
            paused, in_line = True, False
        elif not in_line:
            queue.join(pool, place)
            if paused or (read_json(run.status) or {}).get("state") == "paused":
                _say(run, "queued", "waiting for a free slot")
            paused, in_line = False, True
            continue
        elif ahead is None or not queue.holds_up(pool, ahead):
            ahead = queue.next_ahead(pool, place)
            if ahead is None and (slot := queue.take_slot(pool, devices.slot_count(pool, job.get("slots")))):
                queue.leave(pool, place)
                return slot
        bell.wait(POLL_S)
    return None  # the job stays queued: a machine that shuts down must not lose its queue


def _say(run: Run, state: str, detail: str) -> None:
    run.tell(state, detail)
    run.try_note(detail, kind="state", state=state)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
