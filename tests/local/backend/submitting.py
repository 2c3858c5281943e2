"""Jobs for tests of the local back end: submitted step by step, without a model, run by the scripted trainer."""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from cloudtune.plan import DataReport, PlanRequest, Resolved, SplitInfo, Step, filled
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef, JobSnapshot
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.worker.run import Run

SCRIPTED = Path(__file__).parent / "scripted_trainer.py"


class Notes:
    """A journal that forgets."""

    notes: dict[str, object] = {}

    def note(self, name: str, value: object) -> None:
        pass


def scripted_python(folder: Path, trainer: Path = SCRIPTED) -> Path:
    """An "interpreter" that runs the scripted trainer whatever it is asked to run."""
    program = folder / "python"
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    # exec: the trainer must be the worker's own child
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{paths}" exec "{sys.executable}" "{trainer}" "$@"\n')
    program.chmod(0o755)
    return program


def scripted_backend(root: Path, folder: Path, **options: object) -> LocalBackend:
    """A back end whose jobs are run by the scripted trainer."""
    return LocalBackend(Options.model_validate({"root": root, "python": scripted_python(folder), **options}))


def request(
    backend: LocalBackend,
    name: str,
    script: str = "steps 3 0.01",
    *,
    parent: JobRef | None = None,
    processes: int = 1,
    **overrides: object,
) -> PlanRequest:
    """What core would hand to ``plan``."""
    token = hashlib.sha256(name.encode()).hexdigest()[:32]
    spec = JobSpec.model_validate({
        "name": name, "model": "scripted", "tags": {"script": script}, "data": {"train": "rows.jsonl"},
        "overrides": {"local": {"device": "cpu", **overrides}},
        "distributed": {"processes": processes} if processes > 1 else None,
    })  # fmt: skip
    split = SplitInfo(rows=1, bytes=10, sha256="0" * 64, kind="text")
    model = {"source": "folder", "path": "/none", "revision": None, "context_length": None, "chat_template": None}
    facts = {"model": model, "python": str(backend.options.python or sys.executable), "gpus": 0}
    return PlanRequest(
        spec=spec, data=DataReport(splits={"train": split}, fingerprint="f"), key=token, attempt=1, token=token,
        resolved=Resolved(scope=str(backend.root), facts=facts), parent=parent,
    )  # fmt: skip


def create_step(backend: LocalBackend, name: str, script: str, rows: Path, **overrides: object) -> Step:
    """The step that makes the job, with its places filled."""
    plan = backend.plan(request(backend, name, script, **overrides))
    step = plan.steps[-1]
    rows.parent.mkdir(parents=True, exist_ok=True)
    rows.write_text('{"text":"hello"}\n')
    return msgspec.structs.replace(step, request=filled(step.request, {"encode_train": {"path": str(rows)}}))


def submit(backend: LocalBackend, name: str, script: str = "steps 3 0.01", **overrides: object) -> JobRef:
    """A job under way."""
    step = create_step(backend, name, script, backend.root.parent / "spool" / "rows.jsonl", **overrides)
    return JobRef.parse(backend.do(step, Notes())["ref"])


def run_of(ref: JobRef) -> Run:
    return Run(Path(ref.scope) / ref.id)


def wait_until(condition, seconds: float = 30.0, what: str = "it"):
    """The condition's first true value."""
    deadline, pause = time.monotonic() + seconds, 0.005
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.05)


def wait_state(backend: LocalBackend, ref: JobRef, *states: str, seconds: float = 30.0) -> JobSnapshot:
    def there() -> JobSnapshot | None:
        snapshot = backend.get(ref)
        return snapshot if snapshot.state.value in states else None

    return wait_until(there, seconds, f"{ref.id} {' or '.join(states)}")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_all(root: Path) -> None:
    """End every process of every run under that root."""
    import contextlib
    import json

    from cloudtune_trainer.worker import processes

    for file in root.glob("*/worker.json"):
        with contextlib.suppress(ValueError, OSError):
            worker = json.loads(file.read_text())
            for who in (worker, worker.get("trainer")):
                if who and processes.is_alive(who):
                    kill(who["pid"])
