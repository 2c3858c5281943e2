"""The driver of a Ray job: ``python -m cloudtune_trainer.ray RUN_DIR``. Exit status 0 unless the run failed.

It reserves the resources, starts the group, and starts it again from the newest complete checkpoint if a process or a
node is lost. A failure that the trainer itself reports is final: it would fail again. ``job.json`` of the run has the
resources and the number of restarts.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.folder import FINAL_STATES, now, read_json
from cloudtune_trainer.launch import take_notes
from cloudtune_trainer.private_files import keep_private
from cloudtune_trainer.problems import LOST_PROCESS, RESUME_HINT, TrainingProblem, classify
from cloudtune_trainer.ray.group import Group, Reservation, Shape, ranks_that_failed
from cloudtune_trainer.worker.run import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOK_S = 0.5
_PARTING_S = 15.0
"""Once a process has failed, the others get this long to notice."""
_GRACE_S = 30.0
"""A cancelled group that does not stop gets SIGTERM after this time, and ends after the same time again."""
_SMALLER_S = 60.0
"""After a loss, the group waits this long for its full size before it continues with fewer processes."""


class Stopped(Exception):
    """The job was cancelled, or this program received a signal to stop."""


class Driver:
    """Runs one job to its end."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._job: dict[str, Any] = read_json(run.job) or {}
        self._signal: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: Any) -> None:
        self._signal = number

    def run(self) -> None:
        """Train, with restarts. The final status is in the run folder on return."""
        budget, resources = int(self._job.get("max_restarts", 0)), self._job["resources"]
        shape = Shape(int(self._job["processes"]), self._job.get("nodes"), resources["cpus"], resources["gpus"])
        restarts = 0
        while True:
            reservation = self._reserve(shape, smallest=1 if restarts else shape.processes)
            try:
                lost = self._train(reservation)
            finally:
                reservation.give_back()
            if lost is None:
                return
            if restarts == budget:
                raise TrainingProblem("killed", f"{lost}, after {budget} restarts", RESUME_HINT, interrupted=True)
            restarts += 1
            message = f"{lost}; restart {restarts} of {budget} from the newest complete checkpoint"
            self._run.try_note(message, level="warning", kind="warning", restarts=restarts)

    def _reserve(self, shape: Shape, smallest: int) -> Reservation:
        """Wait for the resources. After a loss, fewer processes continue if the full size does not return."""
        self._run.tell("queued", f"waiting for the cluster: {shape}")
        wished = shape
        since = time.monotonic()
        while True:
            reservation = Reservation(shape)
            patience = _SMALLER_S if shape.processes > smallest else None
            while patience is None or time.monotonic() - since < patience:
                self._look()
                if reservation.is_ready(_LOOK_S):
                    if shape != wished:
                        self._run.try_note(f"continuing with {shape.processes} of {wished.processes} processes")
                    started = self._run.recorded_status().get("started_at") or now()
                    self._run.tell("starting", "starting the trainer", started_at=started)
                    return reservation
            reservation.give_back()
            shape, since = Shape(shape.processes - 1, None, shape.cpus, shape.gpus), time.monotonic()

    def _look(self) -> None:
        if self._signal is not None or self._run.requested("cancel"):
            raise Stopped

    def _train(self, reservation: Reservation) -> str | None:
        """Run the group once. Returns why it may be started again, or None if the run has ended."""
        import ray

        take_notes(self._run)
        try:
            group = Group(self._run, reservation)
            group.start()
        except ray.exceptions.RayError as error:
            return f"the group did not start: {type(error).__name__}"
        codes = self._wait(group)
        if (read_json(self._run.status) or {}).get("state") in FINAL_STATES:
            return None
        causes = [note for note in take_notes(self._run) if note["code"] != LOST_PROCESS]
        if causes:
            raise TrainingProblem(**causes[0])
        if self._signal is not None or self._run.requested("cancel"):
            raise Stopped
        assert ranks_that_failed(codes) or not any(codes)
        return group.describe_end()

    def _wait(self, group: Group) -> Sequence[int | None]:
        is_told, failed_at, cancelled_at = False, None, None
        while None in (codes := group.poll()):
            if cancelled_at is None and self._run.requested("cancel"):
                cancelled_at = time.monotonic()
            overdue = 0.0 if cancelled_at is None else time.monotonic() - cancelled_at - _GRACE_S
            if overdue > _GRACE_S:
                return codes  # the reservation's end kills them
            if (self._signal is not None or overdue > 0) and not is_told:
                is_told = True
                group.send(signal.SIGTERM)
            if failed_at is None and ranks_that_failed(codes):
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > _PARTING_S:
                return codes  # the others wait for a process that has ended; the reservation's end kills them
            time.sleep(_LOOK_S)
        return codes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job of that run folder."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m cloudtune_trainer.ray RUN_DIR\n")
        return 2
    run = Run(arguments[0])
    if not run.exists():
        sys.stderr.write(f"the head node does not see {run.path}: mount the shared folder there, at the same path\n")
        return 2
    keep_private()
    if run.recorded_status().get("state") in FINAL_STATES:
        return 0
    import ray

    ray.init(log_to_driver=False)
    driver = Driver(run)  # after `init`, which has a handler of its own for SIGTERM
    try:
        driver.run()
    except Stopped:
        if run.requested("cancel"):  # else Ray's own status tells a stop from the loss of the node
            run.end("cancelled", "cancelled")
    except BaseException as error:  # noqa: BLE001 - the job must report why it ended
        problem = classify(error, run.log)
        reason = {"code": problem.code, "message": problem.message, "hint": problem.hint}
        run.end("failed", problem.message, reason | ({"interrupted": True} if problem.interrupted else {}))
    return 1 if run.recorded_status().get("state") == "failed" else 0


if __name__ == "__main__":
    sys.exit(main())
