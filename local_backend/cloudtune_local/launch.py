"""Creates a run folder atomically, and starts its worker, detached."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.data.media.addressing import FOLDER, media_folder
from cloudtune.errors import BackendError, Conflict, PermissionDenied, QuotaExceeded
from cloudtune.files.private_files import copy_private, open_private, private_folder
from cloudtune.processes.environment import child_environment
from cloudtune_trainer.submit.locks import is_held, take_lock
from cloudtune_trainer.submit.run_folder import (
    DISK_FULL_ERRNOS,
    now,
    sync_directory,
    write_json,
)
from cloudtune_trainer.worker import devices, exit_cause
from cloudtune_trainer.worker.queue import Place, Queue
from cloudtune_trainer.worker.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ASIDE = ".new"
DELETED = ".deleted."
"""In the names of folders that are being deleted."""
START_LIMIT_S = 60.0


def create(request: Mapping[str, Any]) -> Run:
    """Create the run of that request and start its worker. An existing run is not changed.

    The folder is built under a temporary name and renamed, so that of two concurrent calls one wins, and no reader sees
    an incomplete folder.
    """
    root = Path(request["root"])
    run = Run(root / request["run"])
    with translate_errors(root):
        if run.exists():
            _must_be_ours(run, request)
            start(run)
            return run
        _clear(root / ASIDE)
        aside = root / ASIDE / f"{run.slug}.{secrets.token_hex(4)}"
        private_folder(root)
        private_folder(aside)
        try:
            lock = _publish(Run(aside), run, request)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    if lock is None:
        _must_be_ours(run, request)
        start(run)
    else:
        _spawn(run, lock)
    return run


def _clear(folder: Path) -> None:
    """Remove what killed processes left: incomplete folders, whose locks are free, and incompletely deleted ones."""
    for left in folder.iterdir() if folder.is_dir() else ():
        lock = left / "lock"
        if DELETED in left.name or (lock.exists() and not is_held(lock)):
            shutil.rmtree(left, ignore_errors=True)


def _must_be_ours(run: Run, request: Mapping[str, Any]) -> None:
    """Reject a folder that belongs to another job."""
    job, wanted = run.recorded_job(), request["job"]
    if not job:
        message = f"{run.path} already exists, and its job.json is missing or damaged"
        raise Conflict(message, hint="move the folder away, or restore the file")
    if (job.get("key"), job.get("attempt")) != (wanted["key"], wanted["attempt"]):
        raise Conflict(f"{run.path} already exists and belongs to another job", hint="move it, or use another root")


def _publish(aside: Run, run: Run, request: Mapping[str, Any]) -> int | None:
    """Fill the folder, assign its number, rename it. Returns its lock, held; None if another process was first."""
    # The lock is held from before the run is visible until its worker ends: the run never looks abandoned.
    taken = aside.path / ".lock"
    lock = take_lock(taken)
    assert lock is not None, "nobody else knows this folder"
    try:
        taken.rename(aside.lock)  # under this name the lock is always held: see _clear
        document = dict(request["spec"])
        private_folder(aside.control)
        document["data"] = {split: _bring(aside, split, path) for split, path in document["data"].items()}
        write_json(aside.spec, document)
        aside.keep_reserve()
        aside.tell("queued", "waiting for a free slot", problem=None)
        queue, pool = Queue(run.path.parent), devices.pool_of(document["device"])
        with queue.next_number() as number:
            aside.note(f"queued at position {number}", kind="state", state="queued")
            write_json(aside.job, {**request["job"], "created_at": now(), "pool": pool, "number": number})
            aside.path.rename(run.path)
            queue.join(pool, Place(number, run.slug))
    except BaseException as error:
        os.close(lock)
        if isinstance(error, OSError) and run.exists():
            return None
        raise
    sync_directory(run.path.parent)
    return lock


def _bring(aside: Run, split: str, path: str | None) -> str | None:
    """Put a split's rows into the run; returns their path in it. A hard link if the file system supports it."""
    if path is None:
        return None
    private_folder(aside.data)
    target = aside.data / f"{split}.jsonl"
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or a file system without links
        copy_private(path, target)
    _bring_media(aside.data, Path(path))
    return f"data/{split}.jsonl"


def _bring_media(data: Path, rows: Path) -> None:
    """Put the files that rows name into the run, under the names of their content."""
    source = media_folder(rows)
    if not source.is_dir():
        return
    private_folder(data / FOLDER)
    for file in source.iterdir():
        target = data / FOLDER / file.name
        if target.exists():  # another split has it
            continue
        try:
            os.link(file, target)
        except OSError:
            copy_private(file, target)


def start(run: Run) -> bool:
    """Start a worker for an existing run, unless it has one. Returns whether one was started."""
    lock = take_lock(run.lock)
    if lock is None:
        return False
    if run.orphaned(run.recorded_status()).is_final:
        os.close(lock)
        return False
    _spawn(run, lock)
    return True


def _spawn(run: Run, lock: int) -> None:
    """Start the worker in a new session, pass it the lock, and wait until it reports that it is ready."""
    reader, writer = os.pipe()
    # No secret is on the command line: every user of the machine can read it.
    argv = [sys.executable, "-P", "-m", "cloudtune_trainer.worker", str(run.path), str(lock), str(writer)]
    try:
        with translate_errors(run.path), open_private(run.log, "ab") as log:
            process = subprocess.Popen(
                argv, cwd=run.path, env=_environment(run), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=(lock, writer), start_new_session=True,
            )  # fmt: skip
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
        os.close(lock)
    try:
        ready, _, _ = select.select([reader], [], [], START_LIMIT_S)
        answer = os.read(reader, 16) if ready else b""
    finally:
        os.close(reader)
    if answer:
        process.wait()  # the first process exits at once, so that the worker, its child, never becomes a zombie here
        return
    process.kill()
    process.wait()
    words = exit_cause.tail(run.log).strip() or "its log is empty"
    raise BackendError(f"the worker of {run.slug} did not start: {words}", hint=f"see {run.log}")


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
