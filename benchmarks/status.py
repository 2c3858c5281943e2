"""Status of many local jobs: milliseconds and files read. ``python benchmarks/status.py [JOBS]`` (default 1,000).

Makes run folders as they lie on a disk after a while (nine in ten ended, the others in line without a worker, which is
the dearer case), then asks for all of them at once, as ``cloudtune jobs`` does. Files read are counted by the
interpreter's own audit of ``open``, in a run of its own; times are the best of several runs, without the audit.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cloudtune.state import JobRef
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.folder import now, write_json
from cloudtune_trainer.worker.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 15


def make_runs(root: Path, count: int) -> list[JobRef]:
    """Run folders as the worker and the trainer leave them."""
    refs = []
    for number in range(1, count + 1):
        run = Run(root / f"job-{number:06d}")
        run.control.mkdir(parents=True)
        ended = number % 10 != 0
        write_json(run.spec, {"version": 1}, durable=False)
        job = {
            "version": 1, "name": f"job-{number}", "model": "/models/smollm2", "tags": {"team": "red"}, "key": "k" * 32,
            "attempt": 1, "parent": None, "created_at": now(), "pool": "cpu", "number": number, "slots": None,
        }  # fmt: skip
        write_json(run.job, job, durable=False)
        status = {
            "state": "succeeded" if ended else "queued", "detail": "", "step": 120, "total_steps": 120, "epoch": 3.0,
            "tokens": 123456, "eta_s": None, "updated_at": now(), "started_at": now() if ended else None,
            "finished_at": now() if ended else None, "problem": None,
        }  # fmt: skip
        write_json(run.status, status, durable=False)
        run.lock.touch()
        refs.append(JobRef("local", str(root), run.slug))
    return refs


class FilesRead:
    """Counts what is opened below a folder, and directories listed."""

    def __init__(self, root: Path) -> None:
        self.count = 0
        self._on = False
        self._root = str(root)
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._on and event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(self._root):
            self.count += 1

    def during(self, act: Callable[[], object]) -> int:
        """How many files the act opens."""
        self.count, self._on = 0, True
        act()
        self._on = False
        return self.count


def best(act: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of the fastest of several runs: by the wall clock, and of this process's own work."""
    walls, works = [], []
    for _ in range(ROUNDS):
        wall, work = time.perf_counter(), time.process_time()
        act()
        walls.append((time.perf_counter() - wall) * 1000)
        works.append((time.process_time() - work) * 1000)
    return min(walls), min(works)


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        refs = make_runs(root, count)
        backend = LocalBackend(Options(root=root))
        acts = {
            "get_many": lambda: backend.get_many(refs),
            "list": lambda: list(backend.list()),
            "list, newest 20": lambda: list(backend.list(limit=20)),
            "get, one job": lambda: backend.get(refs[0]),
        }
        found = len(backend.get_many(refs))
        assert found == count == len(list(backend.list())), "every job is found"
        milliseconds = {name: best(act) for name, act in acts.items()}
        files = FilesRead(root)
        print(f"{count} local jobs, {os.cpu_count()} cores")
        for name, act in acts.items():
            wall, work = milliseconds[name]
            print(f"  {name:16} {wall:8.2f} ms ({work:.2f} ms of work), {files.during(act)} files read")


if __name__ == "__main__":
    main()
