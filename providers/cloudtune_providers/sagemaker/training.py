"""The steps of a job with cloudtune's trainer, and its results: uploads, checkpoints, the artifact."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cloudtune.backend import Absent, Done, Found
from cloudtune.errors import DataError, InvalidRequest, JobNotFound
from cloudtune.state import Checkpoint, JobRef
from cloudtune_providers.aws.training_responses import PARENT_VARIABLE
from cloudtune_providers.sagemaker.models import CHANNEL
from cloudtune_providers.sagemaker.translate import START, UPLOAD_CODE, UPLOAD_MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cloudtune.backend import Journal
    from cloudtune.plan import Step
    from cloudtune.state import JobSnapshot
    from cloudtune_providers.sagemaker.storage import Storage, Stores
    from cloudtune_trainer.submit.bundle import Bundle

MARKER = "checkpoint.json"


class Jobs(Protocol):
    """The interface of training jobs: SageMaker's, or those on this machine."""

    def describe(self, name: str) -> dict[str, Any]:
        """The service's own response. Raises JobNotFound."""

    def listed(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """Jobs, newest first."""

    def name_of(self, ref: JobRef) -> str:
        """The job's name."""


class Training:
    """Files of jobs, below ``base``. ``code`` is the jobs' code."""

    def __init__(self, stores: Stores, jobs: Jobs, base: str, code: Callable[[], Bundle]) -> None:
        self._stores = stores
        self._jobs = jobs
        self._base = base
        self._code = code

    # -- steps -----------------------------------------------------------------------------------------------------

    def upload(self, step: Step, journal: Journal) -> dict[str, Any]:
        """Upload rows, code or a model for the container."""
        request = step.request
        store, key = self._place(request)
        if step.id == UPLOAD_MODEL:
            return self._upload_model(store, key, request, journal)
        if step.id == UPLOAD_CODE:
            code = self._code()
            if code.sha256 != request["sha256"]:
                raise DataError("the trainer has changed since the plan", hint="submit again with --again")
            store.write(key, code.content, code.sha256)
            return {"key": key, "url": store.url(key), "bytes": len(code.content), "sha256": code.sha256}
        return store.put(key, Path(request["path"]), request["sha256"], journal)

    def _upload_model(self, store: Storage, key: str, request: Mapping[str, Any], journal: Journal) -> dict[str, Any]:
        for name, file in request["files"].items():
            path = Path(file["path"])
            with path.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            if isinstance(store.find(key + name, sha256, file["bytes"]), Absent):
                store.put(key + name, path, sha256, journal)
        return {"key": key, "url": store.url(key), "bytes": sum(file["bytes"] for file in request["files"].values())}

    def find_upload(self, step: Step) -> Found:
        """Whether it exists. A model's files are identified by name and size under the model's fingerprint."""
        request = step.request
        store, key = self._place(request)
        if step.id != UPLOAD_MODEL:
            return store.find(key, request["sha256"], request["bytes"])
        there = {entry["Key"]: entry["Size"] for entry in store.list(key)}
        wanted = {key + name: file["bytes"] for name, file in request["files"].items()}
        if wanted.items() <= there.items():
            return Done(outputs={"key": key, "url": store.url(key), "bytes": sum(wanted.values())})
        return Absent()

    def _place(self, request: Mapping[str, Any]) -> tuple[Storage, str]:
        key = request.get("key") or f"{request['below']}/{request['sha256']}/{request['name']}"
        return self._stores.at(f"{self._base}/{key}")

    def find_checkpoint(self, parent: JobRef) -> dict[str, Any]:
        """The newest complete checkpoint of an ended job. Raises InvalidRequest."""
        job = self._jobs.describe(self._jobs.name_of(parent))
        kept = [(checkpoint, marker) for checkpoint, marker in self._kept(job) if marker["whole"]]
        if kept:
            checkpoint, _ = kept[-1]
            url = _checkpoints_of(job)
            return {"url": url, "place": json.dumps(f"{START}/{checkpoint.id}"), "step": checkpoint.step}
        channels = {entry["ChannelName"]: entry for entry in job.get("InputDataConfig") or ()}
        if START in channels:  # it died before it had a checkpoint of its own
            url = channels[START]["DataSource"]["S3DataSource"]["S3Uri"]
            return {"url": url, "place": job["HyperParameters"]["resume_from"], "step": None}
        raise InvalidRequest(
            f"{parent} left no valid checkpoint to start from", hint="start a new attempt: `cloudtune submit --again`"
        )

    # -- results of a job ------------------------------------------------------------------------------------------

    def checkpoints(self, ref: JobRef) -> list[Checkpoint]:
        """Complete checkpoints, oldest first."""
        return [checkpoint for checkpoint, _ in self._kept(self._jobs.describe(self._jobs.name_of(ref)))]

    def _kept(self, job: Mapping[str, Any]) -> list[tuple[Checkpoint, dict[str, Any]]]:
        url = _checkpoints_of(job)
        if not url:
            return []
        store, prefix = self._stores.at(f"{url.rstrip('/')}/")
        keys = {entry["Key"] for entry in store.list(prefix)}
        found = []
        for key in sorted(key for key in keys if key.endswith(f"/{MARKER}")):
            folder = key.removesuffix(MARKER)
            try:
                marker = json.loads(store.read(key))
                whole = all(folder + name in keys for name in marker["files"])
                found.append((_checkpoint(marker, store.url(folder)), {**marker, "whole": whole}))
            except (ValueError, KeyError, TypeError, JobNotFound):  # incomplete: the service copies files one by one
                continue
        best = max((n for n, (checkpoint, _) in enumerate(found) if checkpoint.best), default=len(found) - 1)
        return [
            (_placed(checkpoint, best=number == best, last=number == len(found) - 1), marker)
            for number, (checkpoint, marker) in enumerate(found)
        ]

    def artefact(self, job: Mapping[str, Any]) -> str | None:
        """The URI of model.tar.gz, or of an unpacked model's folder, if there is one."""
        url = (job.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
        if not url:
            return None
        store, key = self._stores.at(url)
        there = [entry["Key"] for entry in store.list(key)]
        return str(url) if key in there or any(one.startswith(f"{key.rstrip('/')}/") for one in there) else None

    def fetch(self, url: str, path: Path) -> None:
        """Download an object."""
        store, key = self._stores.at(url)
        store.fetch(key, path)

    def fetch_all(self, url: str, folder: Path) -> None:
        """Download a folder. Raises JobNotFound if it is empty."""
        self._stores.fetch_all(url, folder)

    # -- deletion --------------------------------------------------------------------------------------------------

    def children(self, ref: JobRef) -> list[JobRef]:
        """Active jobs that started from a checkpoint of this one."""
        return [
            job.ref for job in self._jobs.listed()
            if not job.has_ended and _variable(job.raw, PARENT_VARIABLE) == str(ref)
        ]  # fmt: skip

    def clear(self, job: Mapping[str, Any]) -> None:
        """Delete the files of a deleted job: its model and checkpoints, and inputs that no other job reads."""
        places = [f"{_checkpoints_of(job).rstrip('/')}/"] if _checkpoints_of(job) else []
        output = (job.get("OutputDataConfig") or {}).get("S3OutputPath")
        if output:
            places.append(f"{output.rstrip('/')}/{job['TrainingJobName']}/")
        mine = _inputs(job) - {url for other in self._jobs.listed() for url in _inputs(other.raw)}
        for url in (*places, *sorted(mine)):
            store, key = self._stores.at(url)
            store.delete(key)


def base_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """The job's base model in S3, if it is there: an endpoint needs it besides the tuned weights."""
    given = job.get("HyperParameters") or {}
    source = json.loads(given.get("model.source", "null"))
    if source in (None, "hub", "config") or json.loads(given.get("adapter.type", "null")) == "full":
        return {}  # an endpoint downloads it itself, or the archive contains it
    for channel in job.get("InputDataConfig") or ():
        if channel["ChannelName"] == CHANNEL:
            below = json.loads(given["model.path"]).removeprefix(CHANNEL)
            return {"s3": channel["DataSource"]["S3DataSource"]["S3Uri"], "below": below}
    return {}


def _inputs(job: Mapping[str, Any]) -> set[str]:
    """A job's uploads under names derived from their content."""
    sources = [entry["DataSource"].get("S3DataSource") or {} for entry in job.get("InputDataConfig") or ()
               if entry["ChannelName"] in ("train", "validation", "test", "code")]  # fmt: skip
    urls = {str(source.get("S3Uri")) for source in sources}
    return {url for url in urls if "/data/" in url or "/code/" in url}


def _checkpoints_of(job: Mapping[str, Any]) -> str:
    return str((job.get("CheckpointConfig") or {}).get("S3Uri") or "")


def _variable(job: Mapping[str, Any], name: str) -> str | None:
    return (job.get("Environment") or {}).get(name)


def _checkpoint(marker: Mapping[str, Any], url: str) -> Checkpoint:
    made = marker.get("created_at")
    return Checkpoint(
        id=url.rstrip("/").rpartition("/")[2],
        step=int(marker["step"]),
        epoch=float(marker["epoch"]),
        best=bool(marker["best"]),
        resumable=True,
        metrics={str(name): float(value) for name, value in marker["metrics"].items()},
        created_at=datetime.fromisoformat(made) if isinstance(made, str) else None,
        uri=url,
    )


def _placed(checkpoint: Checkpoint, *, best: bool, last: bool) -> Checkpoint:
    import msgspec

    return msgspec.structs.replace(checkpoint, best=best, last=last)
