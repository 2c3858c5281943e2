"""Creates a run folder atomically, and starts its worker, detached. Standard library only."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.folder import now, sync_directory, write_json
from cloudtune_trainer.locks import is_held, take_lock
from cloudtune_trainer.private_files import copy_private, private_folder
from cloudtune_trainer.worker import devices, exit_cause
from cloudtune_trainer.worker.queue import Place, Queue
from cloudtune_trainer.worker.run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

ASIDE = ".new"
DELETED = ".deleted."
"""In the names of folders that are being deleted."""
START_LIMIT_S = 60.0
MEDIA = "media"
"""In a run's data, the folder of the files that rows name. Beside a file of rows: the same, after the file's name."""


class ForeignRun(Exception):
    """The folder exists and belongs to another job."""


class WorkerNotStarted(Exception):
    """The worker ended before it was ready; the message is the end of its log."""


def create(run: Run, spec: Mapping[str, Any], job: Mapping[str, Any], *, queue: bool = True) -> int | None:
    """Create that run, or find it. Returns its lock, held, if this call created it. Raises ForeignRun.

    The folder is built under a temporary name and renamed, so that of two concurrent calls one wins, and no reader sees
    an incomplete folder. With ``queue``, the run joins the queue for the slots of this machine.
    """
    lock = None
    if not run.exists():
        root = run.path.parent
        clear(root / ASIDE)
        aside = root / ASIDE / f"{run.slug}.{secrets.token_hex(4)}"
        private_folder(root)
        private_folder(aside)
        try:
            lock = _publish(Run(aside), run, spec, job, queue=queue)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    if lock is None:
        found = run.recorded_job()
        if not found:
            raise ForeignRun(f"{run.path} already exists, and its job.json is missing or damaged")
        if (found.get("key"), found.get("attempt")) != (job["key"], job["attempt"]):
            raise ForeignRun(f"{run.path} already exists and belongs to another job")
    return lock


def clear(folder: Path) -> None:
    """Remove what killed processes left: incomplete folders, whose locks are free, and incompletely deleted ones."""
    for left in folder.iterdir() if folder.is_dir() else ():
        lock = left / "lock"
        if DELETED in left.name or (lock.exists() and not is_held(lock)):
            shutil.rmtree(left, ignore_errors=True)


def _publish(aside: Run, run: Run, spec: Mapping[str, Any], job: Mapping[str, Any], *, queue: bool) -> int | None:
    """Fill the folder, assign its number, rename it. Returns its lock, held; None if another process was first."""
    # The lock is held from before the run is visible until its worker ends: the run never looks abandoned.
    taken = aside.path / ".lock"
    lock = take_lock(taken)
    assert lock is not None, "nobody else knows this folder"
    try:
        taken.rename(aside.lock)  # under this name the lock is always held: see `clear`
        document = dict(spec)
        private_folder(aside.control)
        document["data"] = {split: _bring(aside, split, path) for split, path in document["data"].items()}
        write_json(aside.spec, document)
        aside.keep_reserve()
        aside.tell("queued", "waiting for a free slot" if queue else "waiting in the queue", problem=None)
        line, pool = Queue(run.path.parent), devices.pool_of(document["device"])
        with line.next_number() as number:
            aside.note(f"queued at position {number}" if queue else "queued", kind="state", state="queued")
            write_json(aside.job, {**job, "created_at": now(), "pool": pool, "number": number})
            aside.path.rename(run.path)
            if queue:
                line.join(pool, Place(number, run.slug))
    except BaseException as error:
        os.close(lock)
        if isinstance(error, OSError) and run.exists():
            return None
        raise
    sync_directory(run.path.parent)
    return lock


def _bring(aside: Run, split: str, path: str | None) -> str | None:
    """Put a split's rows into the run; returns their path in it. Hard links if the file system supports them."""
    if path is None:
        return None
    private_folder(aside.data)
    _link_or_copy(Path(path), aside.data / f"{split}.jsonl")
    media = Path(f"{path}.{MEDIA}")
    if media.is_dir():
        private_folder(aside.data / MEDIA)
        for file in media.iterdir():
            if not (aside.data / MEDIA / file.name).exists():  # another split may have it: names are content hashes
                _link_or_copy(file, aside.data / MEDIA / file.name)
    return f"data/{split}.jsonl"


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or a file system without links
        copy_private(source, target)


def start(run: Run, environment: Mapping[str, str]) -> bool:
    """Start a worker for an existing run, unless it has one. Returns whether one was started."""
    lock = take_lock(run.lock)
    if lock is None:
        return False
    if run.orphaned(run.recorded_status()).is_final:
        os.close(lock)
        return False
    spawn(run, lock, environment)
    return True


def spawn(run: Run, lock: int, environment: Mapping[str, str]) -> None:
    """Start the worker in a new session, pass it the lock, and wait until it reports that it is ready."""
    reader, writer = os.pipe()
    # No secret is on the command line: every user of the machine can read it.
    argv = [sys.executable, "-P", "-m", "cloudtune_trainer.worker", str(run.path), str(lock), str(writer)]
    try:
        with open(run.log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            process = subprocess.Popen(
                argv, cwd=run.path, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
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
    raise WorkerNotStarted(exit_cause.tail(run.log).strip() or "its log is empty")


def remove(run: Run) -> None:
    """Remove an ended run from every list at once, then delete its files. Raises FileNotFoundError if it is gone."""
    aside = run.path.parent / ASIDE / f"{run.slug}{DELETED}{secrets.token_hex(4)}"
    private_folder(aside.parent)
    leave_queue(run)  # it may be there, if its worker was killed
    run.path.rename(aside)
    while aside.exists():
        try:
            shutil.rmtree(aside)
        except FileNotFoundError:
            continue  # a worker that is ending removes its last file


def leave_queue(run: Run) -> None:
    """Remove the run from the queue for this machine's slots."""
    job = run.recorded_job()
    Queue(run.path.parent).leave(job.get("pool", devices.CPU), Place(int(job.get("number", 0)), run.slug))
