"""The trainers of one host of a job, which may have several hosts with several devices each. Does not import torch.

They find each other through the variables of torch.distributed, which this program sets itself. The image needs only
Python, and signals are forwarded without a launcher's own time limit for saving a checkpoint.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cloudtune_trainer.folder import read_json
from cloudtune_trainer.launch import gpus
from cloudtune_trainer.problems import LOST_PROCESS, TrainingProblem

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from cloudtune_trainer.folder import RunFolder

PORT = 7777
_GRACE_S = 30.0
"""Time for the others to end once one of them has failed."""
_LOOK_S = 0.2


class Group:
    """Starts the trainers of this host."""

    def __init__(self, run: RunFolder, *, hosts: Sequence[str], number: int, network: str | None) -> None:
        self._run = run
        device = (read_json(run.spec) or {}).get("device", "auto")
        here = int(os.environ.get("CLOUDTUNE_PROCESSES") or (gpus() if device in ("auto", "cuda") else 1) or 1)
        self._world = len(hosts) * here
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        common = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        common["CLOUDTUNE_PROCESSES"] = "1"
        if self._world > 1:
            common |= _rendezvous(hosts, here, self._world, network)
        command = [sys.executable, "-P", "-m", "cloudtune_trainer", str(run.path)]
        self._processes: list[subprocess.Popen[bytes]] = []
        for local in range(here):
            own = {"RANK": str(number * here + local), "LOCAL_RANK": str(local)} if self._world > 1 else {}
            self._processes.append(subprocess.Popen(command, cwd=run.path, env={**common, **own}))

    def wait(self, stop: threading.Event, look: Callable[[], None]) -> int:
        """Poll until all have ended, and forward a stop once. Returns the first non-zero exit code."""
        notified = False
        failed_at: float | None = None
        while any(process.poll() is None for process in self._processes):
            if stop.is_set() and not notified:
                notified = True
                for process in self._processes:
                    process.terminate()
            if failed_at is None and self._code():
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > _GRACE_S:
                break  # the others wait for a process that has ended
            look()
            if notified:
                time.sleep(_LOOK_S)
            else:
                stop.wait(_LOOK_S)
        return self._code()

    def _code(self) -> int:
        return next((process.returncode for process in self._processes if process.returncode), 0)

    def kill(self) -> None:
        """Kill the remaining processes."""
        for process in self._processes:
            process.kill()
            process.wait()

    def problem(self) -> TrainingProblem:
        """Why the trainers failed, from their own reports if there are any."""
        status = read_json(self._run.status) or {}
        found = status.get("problem") if status.get("state") == "failed" else None
        notes = [read_json(path) for path in sorted(self._run.path.glob(".problem-*.json"))]
        for words in (found, *notes):
            if words and words["code"] != LOST_PROCESS:
                return TrainingProblem(words["code"], words["message"], words.get("hint"))
        code = self._code()
        if code == -9:  # SIGKILL: on a training instance, the kernel sends it when out of memory
            hint = "Use an instance with more memory, a smaller batch, or an adapter instead of full training."
            return TrainingProblem("out_of_memory", "the trainer was killed, most likely because memory ran out", hint)
        return TrainingProblem(
            "killed", f"the trainer exited without a message (exit code {code})", "See the job's log."
        )


def _rendezvous(hosts: Sequence[str], here: int, world: int, network: str | None) -> dict[str, str]:
    """The variables by which the processes of all hosts find each other."""
    found = {
        "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(here),
        "MASTER_ADDR": os.environ.get("CLOUDTUNE_MASTER_ADDR", hosts[0] if len(hosts) > 1 else "127.0.0.1"),
        "MASTER_PORT": os.environ.get("CLOUDTUNE_MASTER_PORT", str(PORT)),
    }  # fmt: skip
    if network:
        found |= {"NCCL_SOCKET_IFNAME": network, "GLOO_SOCKET_IFNAME": network}
    return found
