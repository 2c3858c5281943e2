"""Fine-tuning jobs of a workspace: create by name, read, cancel and delete."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, Done, Found
from cloudtune.errors import Conflict, InvalidRequest, InvalidResponse, JobNotFound, PermissionDenied
from cloudtune.state import JobRef, JobState, TunedModel
from cloudtune_providers.azure_openai.ml_workspace import translate
from cloudtune_providers.azure_openai.ml_workspace.connection import Run
from cloudtune_providers.openai_dialect.responses import TOKEN_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cloudtune.state import Checkpoint, Event, JobSnapshot, Metric
    from cloudtune_providers.azure_openai.ml_workspace.connection import Connection
    from cloudtune_providers.azure_openai.ml_workspace.storage import Storage

MOST_RUNS = 10_000
_NOT_BEGUN = (JobState.QUEUED, JobState.PREPARING)


class WorkspaceJobs:
    """All fine-tuning jobs of one workspace."""

    def __init__(self, connection: Connection, storage: Storage, datastore: str, scope: str) -> None:
        self._connection = connection
        self._storage = storage
        self._datastore = datastore
        self._scope = scope
        self._runs: dict[str, Run] = {}

    # -- creating --------------------------------------------------------------------------------------------------

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Put the job under its name: a repeated request returns the same job."""
        made = self._connection.jobs("create_or_update", "create", id=request["name"], body=request["body"])
        return self._made(made.as_dict())

    def find(self, request: Mapping[str, Any]) -> Found:
        """The job of that name. Raises Conflict if another submission created it."""
        try:
            job = self._retrieve(request["name"])
        except JobNotFound:
            return Absent()
        token = request["body"]["properties"]["tags"][TOKEN_KEY]
        if ((job.get("properties") or {}).get("tags") or {}).get(TOKEN_KEY) != token:
            raise Conflict(f"a job named {request['name']!r} exists in the workspace, but cloudtune did not create it")
        return Done(outputs=self._made(job))

    def _made(self, job: Mapping[str, Any]) -> dict[str, Any]:
        return {"ref": str(JobRef(translate.NAME, self._scope, str(job["name"])))}

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, ref: JobRef) -> JobSnapshot:
        """The job's current state."""
        return self._seen(self._retrieve(self._id(ref)))

    def get_many(self, refs: Sequence[JobRef]) -> dict[JobRef, JobSnapshot]:
        """The existing jobs: from the list back to the last one, and the others one by one."""
        wanted = {ref for ref in refs if ref.scope == self._scope}
        found: dict[JobRef, JobSnapshot] = {}
        for job in self._each() if wanted else ():
            if (ref := JobRef(translate.NAME, self._scope, job["name"])) in wanted:
                found[ref] = self._seen(job)
            if len(found) == len(wanted):
                break
        for ref in wanted - found.keys():
            try:
                found[ref] = self.get(ref)
            except JobNotFound:
                continue
        return found

    def listed(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """The workspace's list of jobs, newest first."""
        return (self._seen(job) for job in islice(self._each(), limit))

    def _seen(self, job: Mapping[str, Any]) -> JobSnapshot:
        bare = translate.to_snapshot(job, self._scope)
        if bare.state in _NOT_BEGUN:
            return bare
        return translate.to_snapshot(job, self._scope, self._run(bare))

    def _run(self, job: JobSnapshot) -> Run:
        """Return the record of the job's run. It costs a request, so it is read only until it is complete."""
        name = job.ref.id
        kept = self._runs.get(name)
        if kept is not None and (kept.ended_at if job.state.may_have_ended else kept.started_at):
            return kept
        try:
            details = self._connection.run(name)
        except (JobNotFound, PermissionDenied):  # records have separate permissions, and can appear later than jobs
            return Run()
        if len(self._runs) >= MOST_RUNS:
            self._runs.clear()
        self._runs[name] = details
        return details

    def model(self, ref: JobRef) -> TunedModel:
        """The model that a succeeded job has registered in the workspace."""
        job = self._retrieve(self._id(ref))
        seen = translate.to_snapshot(job, self._scope)
        output = (job["properties"].get("outputs") or {}).get(translate.OUTPUT) or {}
        if seen.state is not JobState.SUCCEEDED or not output.get("assetName"):
            raise InvalidRequest(f"{ref} has no model; its state is {seen.native_state}")
        version = output.get("assetVersion")
        named = f"azureml:{output['assetName']}" + (f":{version}" if version else "@latest")
        return TunedModel(
            id=named, base=seen.model, backend=translate.NAME, scope=self._scope, ref=ref, needs_deploy=True,
            uri=output.get("uri"), raw=job,
        )  # fmt: skip

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """None: the workspace has no events of a job."""
        return ()

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """None: the capabilities describe where the metrics are."""
        return ()

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """None."""
        return ()

    # -- control ---------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """Cancel the job. A repeated or late call has no effect."""
        try:
            self._connection.jobs("begin_cancel", f"job {ref.id}", id=self._id(ref), polling=False)
        except InvalidRequest:  # the response for an ended job is not documented: its state decides
            if not self.get(ref).has_ended:
                raise

    def clear(self, ref: JobRef) -> None:
        """Delete the ended job, and cloudtune's blobs that no other job uses. The registered model is kept."""
        try:
            job = self._retrieve(self._id(ref))
        except JobNotFound:
            return
        seen = self._seen(job)
        if not seen.has_ended:
            raise InvalidRequest(f"{ref} is {seen.state}", hint="cancel it first, or wait until it ends")
        used = {uri for other in self._each() if other["name"] != job["name"] for uri in translate.inputs_of(other)}
        own_folder = translate.blob_uri(self._datastore, f"{translate.FOLDER}/")
        for uri in sorted(translate.inputs_of(job) - used):
            if uri.startswith(own_folder):
                self._storage.delete(f"{translate.FOLDER}/{uri.removeprefix(own_folder)}")
        try:
            self._connection.jobs("begin_delete", f"job {ref.id}", id=ref.id, polling=False)
        except JobNotFound:
            return

    # -- shared ----------------------------------------------------------------------------------------------------

    def _retrieve(self, name: str) -> dict[str, Any]:
        job = self._connection.jobs("get", f"job {name}", id=name).as_dict()
        if not job.get("name"):
            raise InvalidResponse(f"job {name}: the response names no job")
        if not translate.is_tuning(job):
            raise JobNotFound(f"{name} is a workspace job, but not a fine-tuning job")
        return dict(job)

    def _each(self) -> Iterator[dict[str, Any]]:
        pages = self._connection.jobs("list", "list of jobs")
        with self._connection.asking("list of jobs"):
            for job in pages:
                if translate.is_tuning(plain := job.as_dict()):
                    yield dict(plain)

    def _id(self, ref: JobRef) -> str:
        if ref.scope != self._scope:
            raise JobNotFound(
                f"{ref} belongs to another workspace than the current one, {self._scope}",
                hint="use the profile it was submitted with",
            )
        return ref.id
