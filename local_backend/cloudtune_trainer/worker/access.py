"""Operations on the run folders of a machine, each one request and one reply in JSON. Standard library only.

A back end whose runs lie on this machine calls `answer`. For another machine it sends this module and those that it
imports to an interpreter there, which needs no files of cloudtune: see `cloudtune_providers.run_folders.access`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer import checkpoints
from cloudtune_trainer.folder import TUNED, now, read_json, read_lines, write_json
from cloudtune_trainer.locks import is_held, take_lock
from cloudtune_trainer.private_files import keep_private, opener, private_folder
from cloudtune_trainer.worker import creation, devices, environment, processes
from cloudtune_trainer.worker.environment import installed
from cloudtune_trainer.worker.run import UNREADABLE, Run, is_waiting, listed_status_of, run_status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

FILES = ".files"
"""Below the root: rows and code, each by its SHA-256; and folders of models, each by its fingerprint."""
SUBMITTED = "submitted.json"
_COMMAND_LIMIT_S = 120.0
_BLOCK = 1 << 20


class Refused(Exception):
    """The request cannot be done, for a reason that the user has to know. ``args``: kind, message."""


def answer(request: Mapping[str, Any], body: BinaryIO) -> dict[str, Any]:
    """Carry out one request. Raises Refused, OSError."""
    arguments = {name: value for name, value in request.items() if name != "do"}
    act = _ACTS[request["do"]]
    return act(body, **arguments) if act in _READS_BODY else act(**arguments)


def main(request: Mapping[str, Any]) -> None:
    """Carry out the request, whose body is on standard input, and print the reply: a line of JSON."""
    import json

    keep_private()
    if request["do"] == "send":
        send(sys.stdout.buffer, root=request["root"], run=request["run"], folder=request["folder"])
        return
    try:
        reply: dict[str, Any] = {"reply": answer(request, sys.stdin.buffer)}
    except Refused as refused:
        reply = {"refused": list(refused.args)}
    except OSError as error:
        reply = {"os_error": [error.errno or 0, str(error)]}
    sys.stdout.write(json.dumps(reply) + "\n")


# -- the machine ---------------------------------------------------------------------------------------------------


def describe(root: str, modules: Sequence[str]) -> dict[str, Any]:
    """The interpreter, which of those modules it lacks, the GPUs, and whether the root can be created."""
    import importlib.util

    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    folder = Path(root)
    place = next(path for path in (folder, *folder.parents) if path.exists())
    return {
        "python": sys.executable,
        "version": list(sys.version_info[:3]),
        "missing": missing,
        "gpus": len(devices.visible_gpus()),
        "home": str(Path.home()),
        "writable": os.access(place, os.W_OK),
    }


def run_command(argv: Sequence[str], stdin: str, environment: Sequence[str], prefixes: Sequence[str]) -> dict[str, Any]:
    """Run a program with the variables of those names. A missing program has the code 127."""
    passed = {
        name: value for name, value in os.environ.items() if name in environment or name.startswith(tuple(prefixes))
    }
    try:
        done = subprocess.run(
            argv, input=stdin, env=passed, capture_output=True, encoding="utf-8", errors="replace", check=False,
            timeout=_COMMAND_LIMIT_S,
        )  # fmt: skip
    except FileNotFoundError:
        return {"code": 127, "out": "", "err": f"{argv[0]}: no such program"}
    except subprocess.TimeoutExpired:
        return {"code": 124, "out": "", "err": f"{argv[0]}: no response in {_COMMAND_LIMIT_S:g} s"}
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


# -- files, by their hash ------------------------------------------------------------------------------------------


def has_files(root: str, names: Sequence[str]) -> dict[str, Any]:
    """Which of those files are complete, with their sizes."""
    found = {}
    for name in names:
        with contextlib.suppress(OSError):
            found[name] = _stored(root, name).stat().st_size
    return {"found": found}


def put_file(body: BinaryIO, root: str, name: str, size: int, sha256: str | None) -> dict[str, Any]:
    """Store the body under that name. Readers never see an incomplete file."""
    target = _stored(root, name)
    _own(Path(root) / FILES)
    if target.exists() and target.stat().st_size == size:
        return {}
    private_folder(target.parent)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    digest, left = hashlib.sha256(), size
    try:
        with open(aside, "xb", opener=opener) as file:
            while left and (block := body.read(min(left, _BLOCK))):
                digest.update(block)
                file.write(block)
                left -= len(block)
            file.flush()
            os.fsync(file.fileno())
        if left or (sha256 is not None and digest.hexdigest() != sha256):
            raise Refused("damaged", f"{name} arrived incomplete or changed")
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return {}


def unpack_code(root: str, name: str) -> dict[str, Any]:
    """Unpack an archive of the trainer beside itself. Returns its folder."""
    archive = _stored(root, name)
    _own(Path(root) / FILES)
    target = archive.with_name(f"{archive.name}.d")
    if not target.is_dir():
        aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with tarfile.open(archive) as content:  # without its filters, which Python 3.11.2 does not have
                for entry in content:
                    _unpack(content, entry, aside)
            with contextlib.suppress(OSError):  # another process was first
                aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return {"path": str(target)}


def _unpack(content: tarfile.TarFile, entry: tarfile.TarInfo, to: Path) -> None:
    file = content.extractfile(entry) if entry.isreg() else None
    if file is None:
        raise Refused("damaged", f"{entry.name!r} is not a plain file")
    path = _inside(to, entry.name)
    private_folder(path.parent)
    with open(path, "xb", opener=opener) as copy:
        shutil.copyfileobj(file, copy)


def _stored(root: str, name: str) -> Path:
    return _inside(Path(root) / FILES, name)


def _inside(folder: Path, name: str) -> Path:
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise Refused("invalid", f"{name!r} is not the name of a file in {folder}")
    return folder / name


def _own(folder: Path) -> None:
    """Create the folder if it is missing. Refused if another user owns it, and so can replace the files in it."""
    private_folder(folder)
    probe = folder / f".{secrets.token_hex(8)}"
    probe.mkdir(0o700)
    try:
        mine = probe.stat().st_uid  # this user, as the file system shows it
    finally:
        probe.rmdir()
    if folder.lstat().st_uid != mine:
        raise Refused("conflict", f"{folder} belongs to another user, who can replace its files: use another folder")


def install(root: str, python: str, packages: Sequence[str]) -> dict[str, Any]:
    """Start the installation of the packages: see `cloudtune_trainer.worker.environment`."""
    _own(Path(root) / environment.FOLDER)
    return environment.install(root, python, packages)


# -- runs ----------------------------------------------------------------------------------------------------------


def create_run(root: str, run: str, spec: Mapping[str, Any], job: Mapping[str, Any], start: bool) -> dict[str, Any]:
    """Create the run unless it exists; with ``start``, start its worker unless it has, or had, one."""
    made = Run(Path(root) / run)
    for folder in (Path(root) / creation.ASIDE, *([made.path] if made.exists() else [])):
        _own(folder)
    try:
        lock = creation.create(made, spec, job, queue=start)
    except creation.ForeignRun as error:
        raise Refused("conflict", str(error)) from error
    if start and lock is not None:
        _started(made, lambda: creation.spawn(made, lock, _environment(made)))
    elif lock is not None:
        os.close(lock)
    elif start:
        start_worker(root, run)
    return {"path": str(made.path)}


def start_worker(root: str, run: str) -> dict[str, Any]:
    """Start a worker for a run that has none and has not ended."""
    found = Run(Path(root) / run)
    _started(found, lambda: creation.start(found, _environment(found)))
    return {}


def _started(run: Run, start: Callable[[], object]) -> None:
    try:
        start()
    except creation.WorkerNotStarted as error:
        raise Refused("worker", f"the worker of {run.slug} did not start: {error}") from error


def _environment(run: Run) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(run.recorded_job()["code"])}


def statuses(root: str, runs: Sequence[str] | None) -> dict[str, Any]:
    """The status of those runs, or of all under the root."""
    status_of = run_status_of
    if runs is None:
        status_of = listed_status_of
        with contextlib.suppress(FileNotFoundError):
            runs = [name for name in os.listdir(root) if not name.startswith(".")]
    found = {}
    for name in runs or ():
        status = status_of(f"{root}/{name}")
        if status is not None:
            found[name] = {
                **status._asdict(),
                "path": f"{root}/{name}",
                "submitted": _read(Path(root) / name / SUBMITTED),
                "requests": [word for word in ("cancel", "pause") if Run(f"{root}/{name}").requested(word)],
            }
    return {"runs": found}


def lines(root: str, run: str, file: str, after: int) -> dict[str, Any]:
    """The lines of ``events`` or ``metrics`` after that number, and how many there are."""
    found = Run(Path(root) / run)
    path = {"events": found.events, "metrics": found.metrics}[file]
    return {"lines": read_lines(path, after), "count": found.event_lines()}


def list_checkpoints(root: str, run: str) -> dict[str, Any]:
    """The complete checkpoints."""
    return {"checkpoints": checkpoints.described(Run(Path(root) / run).checkpoints)}


def newest_checkpoint(root: str, run: str) -> dict[str, Any]:
    """The newest valid checkpoint; the one that the run started from if it has none; else nothing."""
    found = Run(Path(root) / run)
    saved = checkpoints.newest_good(found.checkpoints)
    if saved is None and (before := found.recorded_spec().get("resume_from")):
        saved = checkpoints.read(Path(before))
        saved = saved if saved is not None and checkpoints.whole(saved) else None
    return {} if saved is None else {"path": str(saved.path), "step": saved.step}


def model_of(root: str, run: str) -> dict[str, Any]:
    """The description of the run's model, and its files with their sizes; nothing if it has none."""
    folder = Run(Path(root) / run).model
    tuned = _read(folder / TUNED)
    if tuned is None:
        return {}
    files = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
    return {"tuned": tuned, "path": str(folder), "files": files}


def send(out: BinaryIO, *, root: str, run: str, folder: str) -> None:
    """Write a folder of the run as a tar archive."""
    path = Run(Path(root) / run).path / folder
    with tarfile.open(fileobj=out, mode="w|") as archive:
        archive.add(path, arcname=".", filter=lambda entry: entry if entry.isreg() or entry.isdir() else None)


def ask(root: str, run: str, request: str, withdraw: bool) -> dict[str, Any]:
    """Make a request to the run's worker, or withdraw it, and wake the worker. Returns whether it has one."""
    found = Run(Path(root) / run)
    found.withdraw(request) if withdraw else found.ask(request)
    worker = found.recorded_worker()
    if worker is not None and processes.is_alive(worker):  # type: ignore[arg-type]
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker["pid"], signal.SIGUSR1)
        return {"worker": True}
    return {"worker": is_held(found.lock)}


def end_run(root: str, run: str, state: str, message: str, problem: Mapping[str, Any] | None) -> dict[str, Any]:
    """Record the end of a run without a worker, or that it is paused; a run with a worker is left alone."""
    found = Run(Path(root) / run)
    lock = take_lock(found.lock)
    if lock is None:
        return {"done": False}
    try:
        status = found.recorded_status()
        if is_waiting(status) or status["state"] == UNREADABLE:
            creation.leave_queue(found)
            if state == "paused":
                found.tell(state, message)
            else:
                found.end(state, message, dict(problem) if problem else None)
    finally:
        os.close(lock)
    return {"done": True}


def note_submitted(root: str, run: str, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Record the batch job of a run."""
    write_json(Run(Path(root) / run).path / SUBMITTED, {**batch, "at": now()})
    return {}


def delete_run(root: str, run: str) -> dict[str, Any]:
    """Delete the run. Has no effect if it does not exist."""
    with contextlib.suppress(FileNotFoundError):
        creation.remove(Run(Path(root) / run))
    return {}


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (ValueError, RecursionError, NotADirectoryError):
        return None


_READS_BODY = (put_file,)
_ACTS: dict[str, Callable[..., dict[str, Any]]] = {
    act.__name__: act
    for act in (
        ask, create_run, delete_run, describe, end_run, has_files, install, installed, lines, list_checkpoints,
        model_of, newest_checkpoint, note_submitted, put_file, run_command, start_worker, statuses, unpack_code,
    )
}  # fmt: skip
