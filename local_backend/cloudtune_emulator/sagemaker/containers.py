"""Jobs with their own program: the files of the request are downloaded from S3 and run as in a SageMaker container.

The shipped code really trains: channels, entry point, hyperparameters and environment are those of the request, in
folders instead of ``/opt/ml``. Each job has a folder and a supervising process
(``cloudtune_trainer.submit.container_service``), so that it continues after this server stops.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.errors import ArchiveError
from cloudtune.files.archives import safe_parts
from cloudtune.files.private_files import open_private, private_folder
from cloudtune.processes.environment import child_environment
from cloudtune_emulator.aws import buckets
from cloudtune_emulator.sagemaker import rows
from cloudtune_emulator.sagemaker.job_timeline import Phase, Seen
from cloudtune_trainer.submit import container_service
from cloudtune_trainer.submit.locks import is_held
from cloudtune_trainer.submit.run_folder import read_json, write_json

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

_LOG = logging.getLogger(__name__)
_ENDS = {"Completed": "Completed", "Failed": "Failed", "Stopped": "Stopped", "MaxRuntimeExceeded": "Stopped",
         "MaxWaitTimeExceeded": "Stopped"}  # fmt: skip
_GONE = "InternalServerError: the process that looked after the container is gone"
_SOURCE = "sagemaker_submit_directory"
_DRIVERS = "sm_drivers"
"""The channel in which SageMaker's SDK ships its launcher (sagemaker-train 1.27.0, ``constants.py``)."""
MARKER = "checkpoint.json"


class Containers:
    """The containers of this server's jobs, each below ``folder``. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._lines: dict[str, list[tuple[float, str]]] = {}
        self._copied: dict[str, dict[str, tuple[int, int]]] = {}

    def folder(self, job: dict[str, Any]) -> Path:
        """The folder of a job's containers."""
        return self._folder / str(job["region"]) / f"{job['id']}-{int(job['created'] * 1000)}"

    def is_begun(self, job: dict[str, Any]) -> bool:
        """Whether the job has, or had, a supervising process."""
        return (self.folder(job) / container_service.STATUS).exists()

    # -- starting ----------------------------------------------------------------------------------------------------

    def start(self, context: EmulatorContext, job: dict[str, Any]) -> None:
        """Download the job's files, and start its supervising process. An error fails the job."""
        folder = private_folder(self.folder(job))
        try:
            request = self._fetched(context, job, folder)
            write_json(folder / container_service.REQUEST, request)
            self._begin(folder)
        except (buckets.NoSuch, ArchiveError, ValueError, OSError) as error:
            _fail(folder, f"ClientError: Data download failed: {error}")
        except Exception as error:  # noqa: BLE001 - the job must end, whatever the error
            _LOG.exception("job %s could not be started", job["id"])
            _fail(folder, f"InternalServerError: {type(error).__name__}: {error}")

    def _fetched(self, context: EmulatorContext, job: dict[str, Any], folder: Path) -> dict[str, Any]:
        """The request with ``file:`` URLs instead of ``s3:``, and all files downloaded."""
        request = json.loads(json.dumps(job["request"]))
        for channel in request.get("InputDataConfig") or ():
            uri = rows.source(channel)
            if uri is not None:
                place = fetch(context, uri, (folder / "s3").joinpath(*safe_parts(channel["ChannelName"])))
                channel["DataSource"]["S3DataSource"]["S3Uri"] = place.as_uri()
                if channel["ChannelName"] == _DRIVERS:
                    _lead(place, folder / "algo-1" / "ml")
        given = request.get("HyperParameters") or {}
        if uri := given.get(_SOURCE, "").strip('"'):
            source = fetch(context, uri, folder / "s3" / ".source")
            given[_SOURCE] = next(source.iterdir()).as_uri() if source.is_dir() else source.as_uri()
        if kept := (request.get("CheckpointConfig") or {}).get("S3Uri"):
            place = folder / "checkpoints"
            fetch(context, f"{kept.rstrip('/')}/", place, must=False)
            request["CheckpointConfig"]["S3Uri"] = place.as_uri()
        request["OutputDataConfig"]["S3OutputPath"] = (folder / "out").as_uri()
        return dict(request)

    def _begin(self, folder: Path) -> None:
        package = str(Path(container_service.__file__).resolve().parents[2])
        paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        with open_private(folder / "service.log", "ab") as log:
            subprocess.run(
                [sys.executable, "-P", "-m", container_service.__name__, str(folder)], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=child_environment() | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True, check=True,
            )  # fmt: skip

    # -- reading -----------------------------------------------------------------------------------------------------

    def seen(self, job: dict[str, Any], now: float) -> Seen:
        """The job's state, read from its folder."""
        folder = self.folder(job)
        status = read_json(folder / container_service.STATUS)
        created = Phase(job["created"], "InProgress", "Starting")
        if not isinstance(status, dict):
            return Seen(phases=(created,))
        phases = [created]
        for entry in status["SecondaryStatusTransitions"]:
            word = entry["Status"]
            if word == "Starting":
                continue
            is_stopping = any(phase.secondary == "Stopping" for phase in phases)
            at = max(phases[-1].at, datetime.fromisoformat(entry["StartTime"]).timestamp())
            going = "Stopping" if word == "Stopping" or is_stopping else "InProgress"
            phases.append(Phase(at, _ENDS.get(word, going), word))
        return Seen(phases=tuple(phases), reason=status.get("FailureReason"), lines=tuple(self._log(job, folder, now)))

    def _log(self, job: dict[str, Any], folder: Path, now: float) -> list[tuple[float, str]]:
        """The first host's log lines, each with the time at which it was first seen here."""
        try:
            content = (folder / "algo-1" / "log.txt").read_bytes()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines()
        with self._lock:
            known = self._lines.setdefault(str(folder), [])
            known += [(now, line) for line in whole[len(known) :]]
            return list(known)

    def fail_if_lost(self, job: dict[str, Any]) -> None:
        """Record the failure of a job whose process died without writing a status."""
        folder = self.folder(job)
        if (folder / container_service.STATUS).exists() and not is_held(folder / container_service.LOCK):
            status = read_json(folder / container_service.STATUS)  # read once the process has ended
            if isinstance(status, dict) and status["TrainingJobStatus"] not in _ENDS.values():
                _fail(folder, _GONE)

    # -- control -----------------------------------------------------------------------------------------------------

    def stop(self, job: dict[str, Any]) -> None:
        """Stop it: SIGTERM, and after 120 s SIGKILL."""
        folder = private_folder(self.folder(job))
        (folder / container_service.STOP).touch()

    def close(self) -> None:
        """Stop all running jobs: their folders will be deleted."""
        for folder in self._folder.glob("*/*"):
            if is_held(folder / container_service.LOCK):
                (folder / container_service.STOP).touch()

    def is_busy(self) -> bool:
        """Whether any job still has a supervising process."""
        return any(is_held(folder / container_service.LOCK) for folder in self._folder.glob("*/*"))

    # -- results ----------------------------------------------------------------------------------------------------

    def artefact(self, job: dict[str, Any]) -> bytes | None:
        """The model's archive."""
        path = self.folder(job) / "out" / job["id"] / "output" / "model.tar.gz"
        return path.read_bytes() if path.is_file() else None

    def keep_checkpoints(self, context: EmulatorContext, job: dict[str, Any]) -> None:
        """Copy new checkpoint files of the job to S3, as the service does while a job runs."""
        uri = (job["request"].get("CheckpointConfig") or {}).get("S3Uri")
        folder = self.folder(job) / "checkpoints"
        if uri is None or not folder.is_dir():
            return
        place = buckets.parse(f"{uri.rstrip('/')}/")
        known = self._copied.setdefault(str(folder), {})
        # A checkpoint's marker is copied last: it implies that the other files exist.
        files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name == MARKER)
        for path in files:
            name = path.relative_to(folder).as_posix()
            if any(part.startswith(".") for part in Path(name).parts):
                continue
            mark = (path.stat().st_size, path.stat().st_mtime_ns)
            if known.get(name) != mark:
                buckets.put(context, place.under(name), path.read_bytes())
                known[name] = mark


def _fail(folder: Path, reason: str) -> None:
    status = read_json(folder / container_service.STATUS) or {"SecondaryStatusTransitions": []}
    moment = datetime.now().astimezone().isoformat()
    status["SecondaryStatusTransitions"].append({"Status": "Failed", "StartTime": moment, "StatusMessage": ""})
    status |= {"TrainingJobStatus": "Failed", "SecondaryStatus": "Failed", "LastModifiedTime": moment,
               "FailureReason": reason[:1024]}  # fmt: skip
    write_json(folder / container_service.STATUS, status)


def _lead(drivers: Path, root: Path) -> None:
    """Replace the hard-coded ``/opt/ml`` in the SDK's drivers with the first host's folder."""
    for path in drivers.rglob("*"):
        if path.suffix in (".sh", ".py", ".json"):
            path.write_bytes(path.read_bytes().replace(b"/opt/ml", str(root).encode()))


def fetch(context: EmulatorContext, uri: str, to: Path, *, must: bool = True) -> Path:
    """Download one object, or all below a prefix with their paths, to ``to``. Raises NoSuch if there are none."""
    place = buckets.parse(uri)
    try:
        found = [key for key, _ in buckets.keys(context, place)]
    except buckets.NoSuch:
        found = []
    if place.key in found:
        found, head = [place.key], place.key.rpartition("/")[0]
    else:
        head = place.key.rstrip("/")
        found = [key for key in found if key.startswith(f"{head}/")]
    if must and not found:
        raise buckets.NoSuch(f"no objects at {uri}")
    to.mkdir(parents=True, exist_ok=True)
    for key in found:
        path = to.joinpath(*safe_parts(key.removeprefix(f"{head}/")))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buckets.get(context, buckets.Place(place.bucket, key)))
    return to
