"""Creates a run folder atomically, and starts its worker, detached."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.errors import BackendError, Conflict, PermissionDenied, QuotaExceeded
from cloudtune.processes.environment import child_environment
from cloudtune_trainer.submit.run_folder import DISK_FULL_ERRNOS
from cloudtune_trainer.worker import creation
from cloudtune_trainer.worker.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def create(request: Mapping[str, Any]) -> Run:
    """Create the run of that request and start its worker. An existing run is not changed."""
    root = Path(request["root"])
    run = Run(root / request["run"])
    with translate_errors(root):
        lock = creation.create(run, request["spec"], request["job"])
    if lock is None:
        start(run)
    else:
        with translate_errors(run.path):
            creation.spawn(run, lock, _environment(run))
    return run


def start(run: Run) -> bool:
    """Start a worker for an existing run, unless it has one. Returns whether one was started."""
    with translate_errors(run.path):
        return creation.start(run, _environment(run))


def _environment(run: Run) -> dict[str, str]:
    """The environment of the worker and the trainer: a part of this process's, without vendors' secrets.

    The hub's token is included only if the model comes from the hub. Import paths are absolute.
    """
    model, also = run.recorded_spec().get("model") or {}, run.recorded_job().get("pass_env") or ()
    passed = child_environment(also=also, hub=model.get("source") == "hub")
    paths = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    source_root = str(Path(__file__).resolve().parents[1])
    if Path(source_root).name not in (
        "site-packages",
        "dist-packages",
    ):  # a checkout that may be importable in this process only
        paths.append(source_root)
    return passed | {"PYTHONPATH": os.pathsep.join(paths)} if paths else passed


@contextlib.contextmanager
def translate_errors(folder: Path) -> Iterator[None]:
    """Convert an error of the operating system."""
    try:
        yield
    except creation.ForeignRun as error:
        raise Conflict(str(error), hint="move it away, restore its job.json, or use another root") from error
    except creation.WorkerNotStarted as error:
        message = f"the worker of {folder.name} did not start: {error}"
        raise BackendError(message, hint=f"see {folder / 'log.txt'}") from error
    except PermissionError as error:
        message = f"no permission to write to {folder}: {error}"
        raise PermissionDenied(
            message, hint="choose another `root` for the local back end, or set CLOUDTUNE_HOME"
        ) from error
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            hint = "free disk space, or choose another `root` for the local back end"
            raise QuotaExceeded(f"no space left in {folder}: {error}", hint=hint) from error
        raise BackendError(f"cannot use {folder}: {error}") from error
