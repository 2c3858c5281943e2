"""Imports of models that were trained elsewhere: import jobs, and deletion of the models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, Done, Found
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound, UnsupportedError
from cloudtune_providers.aws.s3 import Objects
from cloudtune_providers.bedrock import calls, responses
from cloudtune_providers.bedrock.responses import IMPORT, NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.state import JobRef, JobSnapshot, Metric, TunedModel
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.bedrock.options import BedrockOptions


class Imports:
    """The import jobs of one account and region."""

    def __init__(self, clients: Clients, options: BedrockOptions) -> None:
        self._clients = clients
        self._options = options

    @property
    def _bedrock(self) -> Any:
        return self._clients.client(NAME)

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send the create request. The SDK adds no token to this call, so the body contains one."""

        def send() -> dict[str, Any]:
            response = self._bedrock.create_model_import_job(**body)
            return calls.made(self._clients, IMPORT, body["jobName"], response["jobArn"])

        return calls.create_once(self._clients, "import", send, lambda: self.find(body))

    def find(self, body: Mapping[str, Any]) -> Found:
        """The import job of that name. Raises Conflict if it imports something else."""
        try:
            job = self.read(str(body["jobName"]))
        except JobNotFound:
            return Absent()
        if job.get("modelDataSource") != body["modelDataSource"]:
            raise Conflict(
                f"an import job named {body['jobName']!r} exists, with other files", hint="use another --name"
            )
        return Done(outputs=calls.made(self._clients, IMPORT, job["jobName"], job["jobArn"]))

    def read(self, name: str) -> dict[str, Any]:
        """Return the response of Get for an import job."""
        with self._clients.asking(f"import job {IMPORT}{name}"):
            return dict(self._bedrock.get_model_import_job(jobIdentifier=name))

    def get(self, name: str) -> JobSnapshot:
        """The job's current state."""
        return responses.to_import_snapshot(self.read(name), self._clients.scope())

    def pages(self, **filters: Any) -> Iterator[list[JobSnapshot]]:
        """Import jobs, newest first."""
        scope = self._clients.scope()
        for page in calls.newest(self._clients, "list_model_import_jobs", "modelImportJobSummaries", filters):
            yield [responses.to_import_snapshot(entry, scope) for entry in page]

    def metrics(self, name: str) -> list[Metric]:
        """None: it was trained elsewhere. Raises JobNotFound."""
        self.get(name)
        return []

    def model(self, ref: JobRef, name: str) -> TunedModel:
        """The imported model. Raises InvalidRequest while there is none."""
        job = self.read(name)
        model = responses.to_imported_model(job, ref, self._clients.scope())
        if model is None:
            raise InvalidRequest(f"{ref} has no model; its state is {job.get('status')}")
        return model

    def stop(self, name: str) -> None:
        """Raises an error for an active import, which Bedrock cannot stop. No effect on an ended one."""
        if not self.get(name).has_ended:
            raise UnsupportedError(f"import job {name}: Bedrock cannot stop an import; it ends by itself")

    def clear(self, ref: JobRef, name: str) -> None:
        """Delete the ended job's model and the files that were uploaded for it; its record is kept."""
        try:
            job = self.read(name)
        except JobNotFound:
            return
        if not responses.to_import_snapshot(job, "").has_ended:
            raise InvalidRequest(f"{ref} is {job.get('status')}", hint="wait until it ends")
        if arn := job.get("importedModelArn"):
            calls.delete_model(self._clients, str(arn))
        bucket, key = calls.split_url(_source(job))
        if bucket == self._options.bucket and self._is_own(key) and not self._is_read(_source(job)):
            Objects(self._clients, bucket).delete(key)

    def _is_own(self, key: str) -> bool:
        """Whether an import uploaded to it: a model that was imported in place is not deleted."""
        return bool(re.fullmatch(rf"{re.escape(self._options.prefix)}/models/[0-9a-f]{{32}}/", key))

    def _is_read(self, url: str) -> bool:
        """Whether an active import reads those files: equal files are uploaded once."""
        going = (job.name for page in self.pages(statusEquals="InProgress") for job in page)
        return any(_source(self.read(name)) == url for name in going)


def _source(job: Mapping[str, Any]) -> str:
    """The location of an import job's files."""
    return str(((job.get("modelDataSource") or {}).get("s3DataSource") or {}).get("s3Uri") or "")
