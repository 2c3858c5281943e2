"""The worker of a batch job: ``python -m cloudtune_trainer.worker.batch RUN_DIR``, on the node of a cluster.

The scheduler decides when it runs, stops it at its time limit, and may start it again after a preemption or the loss
of a node. Then the trainer continues from the newest complete checkpoint. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.folder import now, read_json, write_json
from cloudtune_trainer.locks import take_lock
from cloudtune_trainer.private_files import keep_private, opener
from cloudtune_trainer.worker import exit_cause
from cloudtune_trainer.worker import processes as procs
from cloudtune_trainer.worker.run import Run, has_ended
from cloudtune_trainer.worker.supervise import SignalWaiter, supervise
from cloudtune_trainer.worker.trainer_process import Trainer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CLAIM = "batch.json"
"""Names the batch job that runs this run: of two jobs that were submitted for it, one trains."""
DUPLICATE = 4
UNSEEN = 5
"""Exit codes: another job has the run; the node does not see the run."""
_LOCK_PATIENCE_S = 5.0
_KILL_SHARE = 0.25
"""Of the time between the scheduler's signal and its time limit: what is left when the trainer gets SIGTERM."""
_EARLY_S = 75.0
"""Slurm sends the signal up to 60 s early (slurm.schedmd.com/sbatch.html, --signal, seen 2026-11-30)."""


def main(arguments: list[str], environment: Mapping[str, str] = os.environ) -> int:
    """Run the trainer over that folder, and record how it ended."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m cloudtune_trainer.worker.batch RUN_DIR\n")
        return 2
    run, node = Run(arguments[0]), environment.get("SLURMD_NODENAME") or socket.gethostname()
    if not run.exists():
        sys.stderr.write(f"the node {node} does not see {run.path}: use a folder that all nodes share\n")
        return UNSEEN
    keep_private()
    job_id = environment.get("SLURM_JOB_ID", "")
    if not claim(run, job_id):
        sys.stderr.write(f"another job runs {run.path}\n")
        return DUPLICATE
    restarts = int(environment.get("SLURM_RESTART_COUNT") or 0)
    earlier = _earlier_seconds(run) if restarts else 0.0
    worker = {"since": now(), "earlier_s": earlier, "node": node, "job": job_id}
    write_json(run.worker, {**(procs.identity(os.getpid()) or {}), **worker})
    bell = LimitWaiter(run)
    try:
        _look_after(run, bell, node=node, job_id=job_id, restarts=restarts)
    except Exception as error:  # after any error, the job must report why it ended
        problem = exit_cause.own_fault(error)
        run.end("failed", problem["message"], problem)
        raise
    return 0 if run.recorded_status()["state"] in ("succeeded", "expired", "cancelled") else 1


def claim(run: Run, job_id: str) -> bool:
    """Whether this batch job is the one that runs the run: the first one, and each of its restarts."""
    path = run.path / CLAIM
    with contextlib.suppress(FileExistsError), open(path, "x", encoding="utf-8", opener=opener) as file:
        json.dump({"job": job_id}, file)
        file.flush()
        os.fsync(file.fileno())
        return True
    try:
        owner = read_json(path)
    except ValueError:  # the first one was killed while it wrote it
        write_json(path, {"job": job_id})
        return True
    return bool(owner["job"] == job_id)


def _look_after(run: Run, bell: SignalWaiter, *, node: str, job_id: str, restarts: int) -> None:
    status, job = run.recorded_status(), run.recorded_job()
    if run.requested("cancel"):
        if not has_ended(status):
            run.end("cancelled", "cancelled before it started")
        return
    if has_ended(status) and not (restarts and was_interrupted(status)):
        return
    if restarts > int(job.get("max_restarts", 0)):
        message = f"the job was started {restarts + 1} times, which is more than max_restarts allows"
        run.end("failed", message, exit_cause.interrupted(message))
        return
    left = float(job.get("max_seconds", math.inf)) - float((run.recorded_worker() or {}).get("earlier_s", 0.0))
    if left <= 0:
        run.end("expired", "its run time was over when it was interrupted; its checkpoints are kept")
        return
    if unseen := list(_unseen(run)):
        message = f"the node {node} does not see {', '.join(unseen)}"
        hint = "use folders that all nodes share, then start a new attempt: `cloudtune submit --again`"
        run.end("failed", message, {"code": "not_shared", "message": message, "hint": hint})
        return
    detail = f"starting the trainer on {node}" if not restarts else f"starting again on {node}, restart {restarts}"
    run.withdraw("expire")
    run.tell("starting", detail, started_at=status.get("started_at") or now(), problem=None, finished_at=None)
    run.try_note(detail, kind="state", state="starting", node=node, batch_job=job_id, restarts=restarts)
    run.keep_reserve()
    lock = take_lock(run.lock, patience=_LOCK_PATIENCE_S)
    keep = () if lock is None else (lock,)  # None: the file system has no locks; the claim is what counts
    trainer = Trainer(run, job.get("python") or sys.executable, {}, keep)
    supervise(run, trainer, bell, at_most_s=min(left, _run_time(job)))


def _earlier_seconds(run: Run) -> float:
    """How long the run's earlier starts lasted, as far as its records tell; waiting in the queue is not counted."""
    worker = run.recorded_worker() or {}
    begin, end = worker.get("since"), run.recorded_status().get("updated_at")
    if not (isinstance(begin, str) and isinstance(end, str)):
        return 0.0
    lasted = datetime.fromisoformat(end) - datetime.fromisoformat(begin)
    return float(worker.get("earlier_s", 0.0)) + max(0.0, lasted.total_seconds())


def _run_time(job: Mapping[str, Any]) -> float:
    """The seconds after which the trainer must end, shortly before the scheduler kills the job at its time limit."""
    limit = job.get("time_limit_s")
    return math.inf if limit is None else float(limit) - _KILL_SHARE * float(job.get("signal_s", 0))


class LimitWaiter(SignalWaiter):
    """Tells the scheduler's signal before the time limit from a preemption: it asks the trainer to save its model."""

    def __init__(self, run: Run) -> None:
        job = run.recorded_job()
        limit, self._run = job.get("time_limit_s"), run
        early = float(job.get("signal_s", 0)) + _EARLY_S
        self._near_at = math.inf if limit is None else time.monotonic() + float(limit) - early
        super().__init__()

    def _stop(self, number: int, frame: Any) -> None:
        if time.monotonic() >= self._near_at:
            self._run.ask("expire")
        else:
            super()._stop(number, frame)


def was_interrupted(status: Mapping[str, Any]) -> bool:
    """Whether a signal from outside ended the run, so that a restart continues it."""
    return status["state"] == "failed" and bool((status.get("problem") or {}).get("interrupted"))


def _unseen(run: Run) -> Iterator[str]:
    """The files of the run that this node does not see."""
    spec = run.recorded_spec()
    model = spec.get("model") or {}
    paths = [path and str(run.path / path) for path in (spec.get("data") or {}).values()]
    paths += [model.get("path")] if model.get("source") != "hub" else []
    paths += [(spec.get(part) or {}).get("path") for part in ("adapter", "teacher")]
    paths += [spec.get("resume_from")]
    yield from (path for path in paths if isinstance(path, str) and not Path(path).exists())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
