"""A run folder for the back end and the worker: its worker, its status and its records.

File names and atomic writes come from the trainer (``cloudtune_trainer.folder``). Standard library only, because the
worker imports it. Only ``tell``, ``note`` and ``Reserve`` write.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune_trainer.folder import (
    DISK_FULL_ERRNOS,
    FINAL_STATES,
    STATES,
    RunFolder,
    append_line,
    now,
    write_json,
)
from cloudtune_trainer.locks import is_held
from cloudtune_trainer.private_files import opener
from cloudtune_trainer.worker import processes
from cloudtune_trainer.worker.exit_cause import interrupted

if TYPE_CHECKING:
    from pathlib import Path

JOB_VERSION = 1
UNREADABLE = "unreadable"
"""The state of a run whose status.json is damaged. The trainer never writes it."""
NO_WORKER = "no worker; run `cloudtune resume`"
RESERVE_BYTES = 32 * 1024
_PAGE = 64 * 1024


class RunStatus(NamedTuple):
    """The status of a run, corrected by the state of its worker."""

    state: str
    detail: str
    problem: dict[str, Any] | None
    status: dict[str, Any]
    job: dict[str, Any]
    worker: dict[str, Any] | None
    """The worker in worker.json. None if there is none, or it is starting."""
    derived: bool = False
    """The state differs from status.json, because its writer died."""

    @property
    def is_final(self) -> bool:
        """Whether the state is final."""
        return has_ended(self.status) or self.state in FINAL_STATES


class Run(RunFolder):
    """A run, for reading and writing."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.job = self.path / "job.json"
        """The run's job, its position in the queue, and its worker's settings. Never changes."""
        self.reserve = self.path / ".reserve"

    @property
    def slug(self) -> str:
        """The folder's name: the job's id."""
        return self.path.name

    def exists(self) -> bool:
        """Whether the run exists."""
        return self.spec.is_file()

    def recorded_status(self) -> dict[str, Any]:
        """Return the content of status.json. If it is damaged, the state is ``UNREADABLE``."""
        return _status_document(f"{self.path}/status.json") or {"state": "queued"}

    def recorded_worker(self) -> dict[str, Any] | None:
        """Return the content of worker.json. None if there is none, or it is damaged."""
        worker = _undamaged(f"{self.path}/worker.json")
        return worker if processes.Identity.__required_keys__ <= worker.keys() else None

    def recorded_job(self) -> dict[str, Any]:
        """Return the content of job.json; empty if it is damaged."""
        return _undamaged(f"{self.path}/job.json")

    def recorded_spec(self) -> dict[str, Any]:
        """Return the content of spec.json; empty if it is damaged."""
        return _undamaged(f"{self.path}/spec.json")

    def run_status(self) -> RunStatus:
        """Return the current status."""
        return self._run_status(self.recorded_job(), self.recorded_status())

    def _run_status(self, job: dict[str, Any], status: dict[str, Any]) -> RunStatus:
        if has_ended(status):
            return _as_written(status, job, None)
        worker = self.recorded_worker()
        if self._is_looked_after(status, worker):
            if self.requested("cancel") and status["state"] != "cancelling":  # no process has written it yet
                return RunStatus("cancelling", "stop requested", None, status, job, worker, True)
            return _as_written(status, job, worker)
        if worker is not None:
            status = self.recorded_status()  # it may have ended between the two reads
        return self.orphaned(status, job)

    def orphaned(self, status: dict[str, Any], job: dict[str, Any] | None = None) -> RunStatus:
        """Return the status of a run with that recorded status and no worker."""
        job = job if job is not None else self.recorded_job()
        if has_ended(status):
            return _as_written(status, job, None)
        return _orphan(status, job, pause=self.requested("pause"), cancel=self.requested("cancel"))

    def _is_looked_after(self, status: dict[str, Any], worker: Any) -> bool:
        if worker is None or not processes.can_be_seen(worker):
            return is_held(self.lock)  # starting; or of another machine, container or boot on the same disk
        if processes.is_alive(worker) or ("trainer" in worker and processes.is_alive(worker["trainer"])):
            return True
        # A new worker may be starting, but only for a job that never ran: a job that ran and died has ended.
        return is_waiting(status) and is_held(self.lock)

    def tell(self, state: str, detail: str = "", *, durable: bool = True, **changes: Any) -> None:
        """Write the status, keeping its other fields."""
        before = self.recorded_status()
        status = {
            **(before if before["state"] != UNREADABLE else {}),
            **changes,
            "state": state,
            "detail": detail,
            "updated_at": now(),
        }
        if state in FINAL_STATES:
            status.setdefault("problem", None)
            status["finished_at"] = status["updated_at"]
        write_json(self.status, status, durable=durable)

    def event_lines(self) -> int:
        """The number of lines of the events, with an incomplete last one."""
        try:
            content = self.events.read_bytes()
        except FileNotFoundError:
            return 0
        return content.count(b"\n") + (not content.endswith(b"\n") and bool(content))

    def note(self, message: str, *, kind: str = "message", level: str = "info", **data: Any) -> None:
        """Add an event."""
        append_line(self.events, {"time": now(), "type": kind, "level": level, "message": message, "data": data})

    def try_note(self, message: str, *, kind: str = "message", level: str = "info", **data: Any) -> None:
        """Add an event if possible: a full disk must not end a job that needs no more space."""
        try:
            self.note(message, kind=kind, level=level, **data)
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise

    def end(self, state: str, message: str, problem: dict[str, Any] | None = None) -> None:
        """Write the final status and event; on a full disk, in the reserved space."""
        level = "error" if state == "failed" else "info"
        data = {"problem": problem} if problem else {}
        # Write the event first: readers may stop at the final status.
        self._in_reserve(lambda: self.note(message, kind="state", level=level, state=state, **data))
        self._in_reserve(lambda: self.tell(state, message, problem=problem))
        self.reserve.unlink(missing_ok=True)

    def _in_reserve(self, write: Any) -> None:
        try:
            write()
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            self.reserve.unlink(missing_ok=True)
            write()

    def keep_reserve(self) -> None:
        """Reserve space, so that a run that fails because of a full disk can still report it."""
        with open(self.reserve, "wb", opener=opener) as file:
            file.write(os.urandom(RESERVE_BYTES))  # a compressing file system would not allocate space for zeros


def run_status_of(folder: str) -> RunStatus | None:
    """Return the status of the run in that folder, or None if there is none.

    For a run that has ended, as most have, only two small files are read, so listing a thousand runs is fast.
    """
    job, status = _document(f"{folder}/job.json"), _status_document(f"{folder}/status.json")
    if job is not None and status is not None and has_ended(status):
        return _as_written(status, job, None)
    run = Run(folder)
    return run._run_status(job or {}, status or {"state": "queued"}) if run.exists() else None


def listed_status_of(folder: str) -> RunStatus | None:
    """The same for a folder of a list: None also if this user may not read it, such as ``lost+found``."""
    try:
        return run_status_of(folder)
    except PermissionError:
        return None


def _document(path: str) -> dict[str, Any] | None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        content = os.read(handle, _PAGE)
        while len(content) % _PAGE == 0 and (more := os.read(handle, _PAGE)):
            content += more
    finally:
        os.close(handle)
    try:
        document = json.loads(content.decode())
    except (ValueError, RecursionError) as error:  # not by a writer: they rename complete files
        return _damaged(path, str(error))
    return document if isinstance(document, dict) else _damaged(path, "not an object")


def _undamaged(path: str) -> dict[str, Any]:
    document = _document(path) or {}
    return {} if document.get("state") == UNREADABLE else document


def _status_document(path: str) -> dict[str, Any] | None:
    status = _document(path)
    return status if status is None or isinstance(status.get("state"), str) else _damaged(path, "it has no state")


def _damaged(path: str, why: str) -> dict[str, Any]:
    return {"state": UNREADABLE, "detail": f"{path} is damaged: {why}"}


def has_ended(status: dict[str, Any]) -> bool:
    """Whether a recorded status is final. A state unknown to this version is final if it has an end time."""
    return status["state"] in FINAL_STATES or (status["state"] not in STATES and bool(status.get("finished_at")))


def is_waiting(status: dict[str, Any]) -> bool:
    """Whether the run has not started: it is queued, or was paused in the queue."""
    return status["state"] in ("queued", "paused") and not status.get("started_at")


def _as_written(status: dict[str, Any], job: dict[str, Any], worker: dict[str, Any] | None) -> RunStatus:
    return RunStatus(status["state"], status.get("detail", ""), status.get("problem"), status, job, worker)


def _orphan(status: dict[str, Any], job: dict[str, Any], *, pause: bool, cancel: bool) -> RunStatus:
    """Return the status of a run whose worker is gone. It depends only on its requests, so it never changes."""
    state = status["state"]
    if state == UNREADABLE:
        return _as_written(status, job, None)
    if state == "cancelling" or cancel:
        return RunStatus(
            "cancelled", "its worker exited while the job was being cancelled", None, status, job, None, True
        )
    if is_waiting(status):
        shown = "paused" if pause else "queued"
        return RunStatus(shown, NO_WORKER, None, status, job, None, derived=shown != state)
    was = status.get("detail") or state
    message = f"the worker was killed or the machine shut down while the job was {state} ({was})"
    return RunStatus("failed", message, interrupted(message), status, job, None, True)
