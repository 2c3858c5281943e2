"""Starts the processes of the spec, or one for each GPU of this machine. The first process reports for all.

The processes find each other through the usual variables (RANK, WORLD_SIZE, MASTER_ADDR ...), so a cluster's own
launcher can start them instead. Does not import torch.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.folder import FINAL_STATES, read_json, write_json
from cloudtune_trainer.ports import hold_port
from cloudtune_trainer.problems import LOST_PROCESS, TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune_trainer.folder import RunFolder
    from cloudtune_trainer.run_spec import RunSpec

_GRACE_S = 30.0
"""Time for the others to end once one of them has failed."""


def processes_for(spec: RunSpec) -> int:
    """How many processes to start. Also 1 if a launcher has already started a group."""
    if "WORLD_SIZE" in os.environ:
        return 1
    if wish := os.environ.get("CLOUDTUNE_PROCESSES"):
        return max(1, int(wish))
    if spec.distributed.processes is not None:
        return spec.distributed.processes
    return max(1, gpus()) if spec.device in ("auto", "cuda") else 1


def gpus() -> int:
    """How many NVIDIA GPUs are visible to this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)])


def run_group(run: RunFolder, count: int, stopping: Callable[[], bool]) -> None:
    """Start the group and wait for its end. Raises `TrainingProblem` if it died without reporting its failure."""
    take_notes(run)
    with hold_port() as held:
        port = held.getsockname()[1]
        group = [subprocess.Popen(_command(run), env=_environment(rank, count, port)) for rank in range(count)]
        try:
            _wait(group, stopping)
        finally:
            for process in group:
                process.kill()
                process.wait()
    notes = take_notes(run)
    status = read_json(run.status) or {}
    if status.get("state") in FINAL_STATES:
        return
    if causes := [note for note in notes if note["code"] != LOST_PROCESS]:
        raise TrainingProblem(**causes[0])
    codes = ", ".join(str(process.returncode) for process in group)
    raise TrainingProblem("killed", f"a process of the group failed (exit codes {codes})", f"See {run.log}")


def leave_note(run: RunFolder, rank: int, problem: TrainingProblem) -> None:
    """Report the failure of a process that does not write the status."""
    with contextlib.suppress(OSError):
        write_json(_note(run, rank), {"code": problem.code, "message": problem.message, "hint": problem.hint})


def take_notes(run: RunFolder) -> list[dict[str, Any]]:
    """The failures that processes of the group reported, in order of their ranks; the reports are removed."""
    found = []
    for path in sorted(run.path.glob(".problem-*.json")):
        with contextlib.suppress(OSError, ValueError):
            found.append(read_json(path))
        path.unlink(missing_ok=True)
    return [note for note in found if isinstance(note, dict) and {"code", "message", "hint"} <= note.keys()]


def _note(run: RunFolder, rank: int) -> Path:
    return run.path / f".problem-{rank}.json"


def _command(run: RunFolder) -> list[str]:
    return [sys.executable, "-P", "-m", "cloudtune_trainer", str(run.path)]


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    group = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }  # fmt: skip
    return {**os.environ, **{name: str(value) for name, value in group.items()}}


def _wait(group: list[subprocess.Popen[bytes]], stopping: Callable[[], bool]) -> None:
    notified = False
    failed_at: float | None = None
    while any(process.poll() is None for process in group):
        if stopping() and not notified:
            notified = True
            for process in group:
                process.terminate()
        if failed_at is None and any(process.returncode for process in group):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _GRACE_S:
            return  # the others wait for a process that has ended
        time.sleep(0.1)
