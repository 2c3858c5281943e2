"""The trainer's entry point: ``python -m cloudtune_trainer RUN_DIR``. Exit status 0 unless the run failed.

SIGTERM and SIGINT interrupt the run: it saves a checkpoint, and fails as ``killed`` with the exit status 128 plus the
signal's number, unless a cancel was also requested. After the last step they have no effect.

The final status is always in ``status.json``. The details of a failure are written to standard error, which the worker
saves in ``log.txt``.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from cloudtune_trainer.folder import RunFolder, read_json
from cloudtune_trainer.launch import leave_note, processes_for, run_group
from cloudtune_trainer.problems import LOST_PROCESS, RESUME_HINT, TrainingProblem, classify
from cloudtune_trainer.reporting import Report
from cloudtune_trainer.run_spec import read_spec

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trainer over one folder."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m cloudtune_trainer RUN_DIR\n")
        return 2
    run = RunFolder(arguments[0])
    if not run.path.is_dir():
        sys.stderr.write(f"{run.path} is not a folder\n")
        return 2
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    rank = int(os.environ.get("RANK", "0"))
    report = Report(run, silent=rank != 0)
    try:
        report.state("starting")
        spec = read_spec(read_json(run.spec))
        # Threads that spin while they wait slow each other down on a machine with other work:
        # 9 tokens/s instead of 75 with three busy processes on two cores. Read once, when torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        if (count := processes_for(spec)) > 1:
            run_group(run, count, lambda: bool(received))
            return 0 if read_json(run.status)["state"] != "failed" else 1
        # The libraries allocate about a million long-lived objects; collecting garbage takes a fifth of the startup.
        gc.disable()
        try:
            from cloudtune_trainer.program import import_libraries, run_training

            import_libraries(spec)
            gc.freeze()
        finally:
            gc.enable()
        outcome, detail = run_training(run, spec, report, lambda: bool(received))
        if outcome == "interrupted":
            message = f"the trainer received {signal.Signals(received[0]).name} {detail}"
            report.failed(TrainingProblem("killed", message, RESUME_HINT, interrupted=True))
            return 128 + received[0]
        report.state(outcome, detail)
    except BaseException as error:  # noqa: BLE001 - also KeyboardInterrupt: the status must not stay "training"
        problem = classify(error, run.log)
        lost = problem.code == LOST_PROCESS
        if rank or lost:
            leave_note(run, rank, problem)
        if not lost:  # else the launcher knows why the other process ended, and may restart the group
            report.failed(problem)
        with contextlib.suppress(OSError):  # the log is on the same disk, which may be full
            traceback.print_exception(error)
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)  # everything is saved; freeing the objects of torch and peft takes one to two seconds
