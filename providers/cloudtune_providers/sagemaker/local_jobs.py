"""Training jobs on this machine, for ``compute: local``: the same requests and responses, and a process as container.

Everything is in one folder per job, so that every process sees the same jobs.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.backend import Absent, Done, Found
from cloudtune.errors import BackendError, Conflict, InvalidRequest, JobNotFound
from cloudtune.files.private_files import open_private, private_folder, write_private
from cloudtune.processes.environment import child_environment
from cloudtune.state import Event, JobRef, JobSnapshot
from cloudtune_providers.aws import training_responses as answers
from cloudtune_providers.aws.names import TOKEN_TAG
from cloudtune_trainer.submit import container_service as service
from cloudtune_trainer.submit.locks import is_held

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_ASIDE = ".new"
_TIMES = ("CreationTime", "TrainingStartTime", "TrainingEndTime", "LastModifiedTime", "StartTime", "EndTime")
_LOOKED_AT = 5000
"""Number of lines at the end of a log in which the newest metrics are searched."""
_GONE = "InternalServerError: the process that managed the container no longer runs"
_ENDED = ("Completed", "Failed", "Stopped")


class LocalJobs:
    """The jobs under one folder. See `TrainingJobs` for the interface."""

    def __init__(self, root: Path, backend: str, python: Path | None) -> None:
        self.root = root / "jobs"
        self._scope = str(root)
        self._backend = backend
        self._python = python

    # -- creating --------------------------------------------------------------------------------------------------

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create the job's folder atomically, and start its supervising process."""
        folder = self.root / str(body["TrainingJobName"])
        if not folder.exists():
            aside = self.root / _ASIDE / f"{folder.name}.{secrets.token_hex(4)}"
            private_folder(self.root)
            private_folder(aside)
            try:
                write_private(aside / service.REQUEST, json.dumps(body))
                if self._python is not None:
                    write_private(aside / service.PYTHON, str(self._python.expanduser().absolute()))
                aside.rename(folder)
            except OSError as error:
                if not folder.exists():
                    raise BackendError(f"cannot create {folder}: {error}") from error
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        self._must_be_ours(folder, body)
        _start(folder)
        return self._made(folder.name)

    def find(self, body: Mapping[str, Any]) -> Found:
        """Whether the job exists and is supervised. Raises Conflict if its name is another submission's."""
        folder = self.root / str(body["TrainingJobName"])
        if not folder.exists():
            return Absent()
        self._must_be_ours(folder, body)
        is_known = (folder / service.STATUS).exists()
        return Done(outputs=self._made(folder.name)) if is_known else Absent()

    def _must_be_ours(self, folder: Path, body: Mapping[str, Any]) -> None:
        held = _request(folder)
        if _token(held) != _token(body):
            raise Conflict(f"{folder} belongs to another job", hint="use another name in the spec")

    def _made(self, name: str) -> dict[str, Any]:
        return {"name": name, "ref": str(JobRef(self._backend, self._scope, name))}

    # -- reading ---------------------------------------------------------------------------------------------------

    def describe(self, name: str) -> dict[str, Any]:
        """The response of DescribeTrainingJob. Raises JobNotFound."""
        folder = self.root / name
        if not name or "/" in name or name.startswith(".") or not folder.is_dir():
            raise JobNotFound(f"no training job {name!r} in {self.root}")
        status = _read(folder / service.STATUS) or {
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "SecondaryStatusTransitions": [],
        }
        status.setdefault("CreationTime", datetime.fromtimestamp(folder.stat().st_ctime).astimezone().isoformat())
        if status["TrainingJobStatus"] not in _ENDED and status["SecondaryStatusTransitions"] and _is_gone(folder):
            status = _read(folder / service.STATUS) or status  # it may have ended in between
            if status["TrainingJobStatus"] not in _ENDED:
                end = {"Status": "Failed", "StartTime": status["LastModifiedTime"], "StatusMessage": _GONE}
                status |= {"TrainingJobStatus": "Failed", "SecondaryStatus": "Failed", "FailureReason": _GONE}
                status["SecondaryStatusTransitions"].append(end)
        request = _request(folder)
        status["FinalMetricDataList"] = _last_figures(request, self._lines(name)[-_LOOKED_AT:])
        return dict(_dated({**request, "TrainingJobArn": str(folder), **status}))

    def get(self, ref: JobRef) -> JobSnapshot:
        """The job's current state."""
        return answers.to_snapshot(self.describe(self.name_of(ref)), self._backend, ref.scope)

    def get_many(self, refs: Sequence[JobRef]) -> dict[JobRef, JobSnapshot]:
        """The states of the existing jobs."""
        found = {}
        for ref in refs:
            try:
                found[ref] = self.get(ref)
            except JobNotFound:
                continue
        return found

    def listed(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """All jobs, newest first."""
        names = [path.name for path in self.root.iterdir()] if self.root.is_dir() else []
        jobs = [self.get(JobRef(self._backend, self._scope, name)) for name in names if not name.startswith(".")]
        jobs.sort(key=lambda job: (str(job.created_at), job.ref.id), reverse=True)
        return jobs[:limit]

    def events(self, ref: JobRef, after: str | None = None) -> list[Event]:
        """Transitions and lines of the log. A cursor counts both."""
        job = self.describe(self.name_of(ref))
        events_seen, lines = _counts(after)
        found = []
        for event in answers.transitions(job)[events_seen:]:
            events_seen += 1
            found.append(msgspec.structs.replace(event, cursor=f"{events_seen}.{lines}"))
        for line in self._lines(ref.id)[lines:]:
            lines += 1
            moment = job.get("LastModifiedTime") or job["CreationTime"]
            found.append(Event(cursor=f"{events_seen}.{lines}", time=moment, message=line, type="log"))
        return found

    def lines(self, ref: JobRef, after: int) -> list[tuple[str, str]]:
        """Lines of the log after that one, each with its number."""
        self.describe(self.name_of(ref))
        return [(str(number), line) for number, line in enumerate(self._lines(ref.id), 1) if number > after]

    def _lines(self, name: str) -> list[str]:
        try:
            content = (self.root / name / "algo-1" / "log.txt").read_bytes()
        except FileNotFoundError:
            return []
        return content[: content.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines()

    # -- control ---------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """Stop the job."""
        job = self.describe(self.name_of(ref))
        if job["TrainingJobStatus"] not in _ENDED:
            (self.root / ref.id / service.STOP).touch(mode=0o600)

    def delete(self, ref: JobRef) -> dict[str, Any] | None:
        """Delete an ended job, and return its record."""
        try:
            job = self.describe(self.name_of(ref))
        except JobNotFound:
            return None
        if job["TrainingJobStatus"] not in _ENDED:
            raise InvalidRequest(f"{ref} is {job['TrainingJobStatus']}", hint="cancel it first, or wait until it ends")
        aside = self.root / _ASIDE / f"{ref.id}.{secrets.token_hex(4)}"
        private_folder(aside.parent)
        (self.root / ref.id).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        return job

    def name_of(self, ref: JobRef) -> str:
        """The job's name. Raises JobNotFound for a reference to another folder."""
        if ref.scope != self._scope:
            raise JobNotFound(f"{ref} is not in {self._scope}")
        return ref.id


def _start(folder: Path) -> None:
    """Start the job's service process in a new session, and wait until it is ready. No effect if it is running."""
    package = str(Path(service.__file__).resolve().parents[2])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    source = (_request(folder).get("HyperParameters") or {}).get("model.source")
    hub = str(source).strip('"') == "hub"
    with open_private(folder / "service.log", "ab") as log:
        done = subprocess.run(
            [sys.executable, "-P", "-m", service.__name__, str(folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=child_environment(hub=hub) | {"PYTHONPATH": os.pathsep.join(paths)}, start_new_session=True,
            check=False,
        )  # fmt: skip
    if done.returncode:
        raise BackendError(f"the container of {folder.name} did not start", hint=f"see {folder / 'service.log'}")


def _is_gone(folder: Path) -> bool:
    return not is_held(folder / service.LOCK)


def _request(folder: Path) -> dict[str, Any]:
    return dict(_read(folder / service.REQUEST) or {})


def _token(body: Mapping[str, Any]) -> Any:
    return {tag["Key"]: tag["Value"] for tag in body.get("Tags", ())}.get(TOKEN_TAG)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _last_figures(request: Mapping[str, Any], lines: Sequence[str]) -> list[dict[str, Any]]:
    """The newest value of each of the job's metric definitions, like the service's final metrics."""
    found = []
    for definition in request["AlgorithmSpecification"].get("MetricDefinitions") or ():
        pattern = re.compile(definition["Regex"])
        hit = next((hit for line in reversed(lines) if (hit := pattern.search(line))), None)
        if hit:
            found.append({"MetricName": definition["Name"], "Value": float(hit[1])})
    return found


def _dated(value: Any) -> Any:
    """Convert times to botocore's format."""
    if isinstance(value, dict):
        return {
            key: datetime.fromisoformat(item) if key in _TIMES and isinstance(item, str) else _dated(item)
            for key, item in value.items()
        }
    return [_dated(item) for item in value] if isinstance(value, list) else value


def _counts(cursor: str | None) -> tuple[int, int]:
    events_seen, _, lines = (cursor or "0.0").partition(".")
    if not (events_seen.isdecimal() and lines.isdecimal()):
        raise InvalidRequest(f"{cursor!r} is not a cursor of these events")
    return int(events_seen), int(lines)
