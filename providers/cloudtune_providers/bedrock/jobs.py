"""Bedrock's customization jobs: create once, find, read, stop, and delete their results."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, Done, Found
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound, PermissionDenied
from cloudtune.state import JobRef, JobSnapshot, JobState, Metric, TunedModel
from cloudtune_providers.aws.s3 import Objects
from cloudtune_providers.bedrock import calls, responses
from cloudtune_providers.bedrock.responses import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune_providers.aws.clients import Clients

_log = logging.getLogger(__name__)
_HASH_LENGTH = 64
_CSVS: tuple[tuple[str, responses.Split], ...] = (
    ("step_wise_training_metrics.csv", "train"), ("validation_metrics.csv", "validation")
)  # fmt: skip


class Jobs:
    """The customization jobs of one account and region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    @property
    def _bedrock(self) -> Any:
        return self._clients.client(NAME)

    # -- creating --------------------------------------------------------------------------------------------------

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send the create request. The name may be taken by the job that an earlier request created."""

        def send() -> dict[str, Any]:
            response = self._bedrock.create_model_customization_job(**body)
            return calls.made(self._clients, "", body["jobName"], response["jobArn"])

        return calls.create_once(self._clients, "create", send, lambda: self.find(body))

    def find(self, body: Mapping[str, Any]) -> Found:
        """Return the job with that name. Raises Conflict if another submission created it."""
        try:
            job = self.read(str(body["jobName"]))
        except JobNotFound:
            return Absent()
        token = job.get("clientRequestToken")
        if token is not None and token != body["clientRequestToken"]:
            raise Conflict(
                f"a job named {body['jobName']!r} exists, but this submission did not create it",
                hint="use another name in the spec",
            )
        return Done(outputs=calls.made(self._clients, "", job["jobName"], job["jobArn"]))

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, name: str) -> dict[str, Any]:
        """Return the response of Get for a job, by name or ARN."""
        with self._clients.asking(f"job {name}"):
            return dict(self._bedrock.get_model_customization_job(jobIdentifier=name))

    def get(self, name: str) -> JobSnapshot:
        """The job's current state."""
        return responses.to_snapshot(self.read(name), self._clients.scope())

    def pages(self, **filters: Any) -> Iterator[list[JobSnapshot]]:
        """Jobs of the account and region, newest first, up to a thousand at a time."""
        scope = self._clients.scope()
        call, key = "list_model_customization_jobs", "modelCustomizationJobSummaries"
        for page in calls.newest(self._clients, call, key, filters):
            yield [responses.to_snapshot(entry, scope) for entry in page]

    def metrics(self, name: str) -> list[Metric]:
        """From the result files, which Bedrock writes when the job has ended."""
        job = self.read(name)
        if not responses.to_snapshot(job, "").has_ended:
            return []
        objects, prefix = self._output(job)
        if objects is None:
            return []
        try:
            return self._figures(objects, f"{prefix}model-customization-job-{_id(job)}/")
        except PermissionDenied as error:  # permission to read a job does not include its bucket
            _log.warning("cannot read the metrics of %s: %s", name, type(error).__name__)
            return []

    def _figures(self, objects: Objects, folder: str) -> list[Metric]:
        found: list[Metric] = []
        # The documentation's tree omits a folder: files are found by their names.
        keys = [entry["Key"] for entry in objects.list(folder)]
        for ending, split in _CSVS:
            for key in (key for key in keys if key.endswith(f"/{ending}")):
                found += responses.metrics_of(objects.read(key).decode("utf-8", "replace"), split)
        return sorted(found, key=lambda metric: metric.cursor)

    def model(self, ref: JobRef, name: str) -> TunedModel:
        """The job's model. Raises InvalidRequest while there is none."""
        job = self.read(name)
        model = responses.to_model(job, ref, self._clients.scope())
        if model is None:
            raise InvalidRequest(f"{ref} has no model; its state is {job.get('status')}")
        return model

    # -- control ---------------------------------------------------------------------------------------------------

    def stop(self, name: str) -> None:
        """Stop the job. A repeated or late call has no effect."""
        try:
            with self._clients.asking(f"job {name}"):
                self._bedrock.stop_model_customization_job(jobIdentifier=name)
        except (Conflict, InvalidRequest):
            # The response for a job in the wrong state is not documented: its state decides.
            seen = self.get(name)
            if seen.state is not JobState.CANCELLING and not seen.has_ended:
                raise

    def clear(self, ref: JobRef, name: str) -> None:
        """Delete the ended job's model, its metrics and the rows that no other job reads; its record is kept."""
        try:
            job = self.read(name)
        except JobNotFound:
            return
        if not responses.to_snapshot(job, "").has_ended:
            raise InvalidRequest(f"{ref} is {job.get('status')}", hint="cancel it first, or wait until it ends")
        if arn := job.get("outputModelArn"):
            calls.delete_model(self._clients, str(arn))
        objects, prefix = self._output(job)
        if objects is not None and _is_own(prefix, name):
            objects.delete(prefix)
        for url in self._own_rows(job):
            bucket, key = calls.split_url(url)
            Objects(self._clients, bucket).delete(key)

    def _own_rows(self, job: Mapping[str, Any]) -> list[str]:
        """The job's uploads, except those that a job still reads: equal rows are uploaded once."""
        urls = {url for url in inputs_of(job) if "/data/" in url and len(url.split("/")[-2]) >= _HASH_LENGTH}
        if not urls:
            return []
        for word in ("InProgress", "Stopping"):
            for page in self.pages(statusEquals=word):
                for other in page:
                    urls -= inputs_of(self.read(other.name))
        return sorted(urls)

    def _output(self, job: Mapping[str, Any]) -> tuple[Objects | None, str]:
        url = str((job.get("outputDataConfig") or {}).get("s3Uri") or "")
        if not url.startswith("s3://"):
            return None, ""
        bucket, key = calls.split_url(url)
        return Objects(self._clients, bucket), f"{key.rstrip('/')}/" if key else ""


def inputs_of(job: Mapping[str, Any]) -> set[str]:
    """The location of a job's rows."""
    train = (job.get("trainingDataConfig") or {}).get("s3Uri")
    held_out = [one.get("s3Uri") for one in (job.get("validationDataConfig") or {}).get("validators") or ()]
    return {str(url) for url in (train, *held_out) if url}


def _id(job: Mapping[str, Any]) -> str:
    return str(job["jobArn"]).rpartition("/")[2]


def _is_own(prefix: str, name: str) -> bool:
    """Whether an output prefix belongs to that job only: only then can all below it be deleted."""
    return prefix.endswith(f"/output/{name}/")
