"""SageMaker training jobs: create, find by name, read, stop. Shared by the back ends that use training jobs.

Only the name, unique in account and region, makes a request idempotent: an existing job is adopted only if it has the
submission's token as a tag. Log lines from CloudWatch are part of the job's events.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, Done, Found
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound
from cloudtune.state import JobRef, JobSnapshot
from cloudtune_providers.aws import training_responses as answers
from cloudtune_providers.aws.names import TOKEN_TAG
from cloudtune_providers.aws.training_log import TrainingLog, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cloudtune.state import Event, Metric
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.aws.training_log import LineReader

_PAGE = 100
_REMEMBERED = 5000


class TrainingJobs:
    """The training jobs of one account and region. ``scope`` returns them, and may call STS. Thread-safe."""

    def __init__(self, clients: Clients, backend: str, scope: Callable[[], str]) -> None:
        self._clients = clients
        self._backend = backend
        self._scope = scope
        self._log = TrainingLog(clients)
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[Any, dict[str, Any]]] = {}

    # -- creating --------------------------------------------------------------------------------------------------

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send CreateTrainingJob. If the name is taken, adopt the job or raise Conflict."""
        name = str(body["TrainingJobName"])
        try:
            with self._clients.asking(f"training job {name}", missing=InvalidRequest):
                self._client.create_training_job(**body)
        except Conflict:
            found = self.find(body)
            if not isinstance(found, Done):
                raise
            return found.outputs
        return self._made(name)

    def find(self, body: Mapping[str, Any]) -> Found:
        """Return the job with that name, if its token matches. Raises Conflict otherwise."""
        name = str(body["TrainingJobName"])
        try:
            job = self.describe(name)
        except JobNotFound:
            return Absent()
        wanted = {tag["Key"]: tag["Value"] for tag in body.get("Tags", ())}.get(TOKEN_TAG)
        held = self.tags(str(job["TrainingJobArn"])).get(TOKEN_TAG)
        if wanted is None or held != wanted:
            raise Conflict(
                f"a training job named {name!r} exists, but cloudtune did not create it for this submission",
                hint="use another name in the spec",
            )
        return Done(outputs=self._made(name))

    def _made(self, name: str) -> dict[str, Any]:
        return {"name": name, "ref": str(JobRef(self._backend, self._scope(), name))}

    def tags(self, arn: str) -> dict[str, str]:
        """A resource's tags."""
        found: dict[str, str] = {}
        more: dict[str, str] = {}
        while True:
            with self._clients.asking(f"tags of {arn}"):
                page = self._client.list_tags(ResourceArn=arn, **more)
                found |= {tag["Key"]: tag["Value"] for tag in page["Tags"]}
            if not page.get("NextToken"):
                return found
            more = {"NextToken": page["NextToken"]}

    # -- reading ---------------------------------------------------------------------------------------------------

    def describe(self, name: str) -> dict[str, Any]:
        """The service's own response. Raises JobNotFound."""
        with self._clients.asking(f"training job {name}"):
            return dict(self._client.describe_training_job(TrainingJobName=name))

    def get(self, ref: JobRef) -> JobSnapshot:
        """The job's current state."""
        return answers.to_snapshot(self.describe(self.name_of(ref)), self._backend, ref.scope)

    def get_many(self, refs: Sequence[JobRef]) -> dict[JobRef, JobSnapshot]:
        """From the newest pages of the list: only jobs that changed since the last call are read one by one."""
        wanted = {ref.id: ref for ref in refs if ref.scope == self._scope()}
        found: dict[JobRef, JobSnapshot] = {}
        most_pages = 2 + len(wanted) // _PAGE
        for number, page in enumerate(self._pages(_PAGE), 1):
            for entry in page:
                if (ref := wanted.get(entry["TrainingJobName"])) is not None and (job := self._whole(entry)):
                    found[ref] = answers.to_snapshot(job, self._backend, ref.scope)
            if len(found) == len(wanted) or number >= most_pages:
                break
        for ref in wanted.values():
            if ref not in found:
                try:
                    found[ref] = self.get(ref)
                except JobNotFound:
                    continue
        return found

    def listed(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """Every training job of account and region, newest first."""
        shown, scope = 0, self._scope()
        for page in self._pages(min(limit or _PAGE, _PAGE)):
            for entry in page:
                if limit is not None and shown >= limit:
                    return
                if (job := self._whole(entry)) is not None:
                    shown += 1
                    yield answers.to_snapshot(job, self._backend, scope)

    def _pages(self, size: int) -> Iterator[list[dict[str, Any]]]:
        more: dict[str, str] = {}
        while True:
            with self._clients.asking("list of training jobs"):
                page = self._client.list_training_jobs(
                    SortBy="CreationTime", SortOrder="Descending", MaxResults=size, **more
                )
            yield page["TrainingJobSummaries"]
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}

    def _whole(self, entry: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the job of a summary, read only if it has changed. None if it no longer exists."""
        name = str(entry["TrainingJobName"])
        mark = (entry.get("TrainingJobStatus"), entry.get("SecondaryStatus"), entry.get("LastModifiedTime"))
        with self._lock:
            seen = self._seen.get(name)
        if seen is not None and seen[0] == mark and mark[-1] is not None:
            return seen[1]
        try:
            job = self.describe(name)
        except JobNotFound:
            return None
        now = (job.get("TrainingJobStatus"), job.get("SecondaryStatus"), job.get("LastModifiedTime"))
        with self._lock:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[name] = (now, job)
        return job

    def events(self, ref: JobRef, after: str | None = None) -> list[Event]:
        """The service's transitions and the log's lines, in order of their times."""
        job = self.describe(self.name_of(ref))
        return merged(job, self._log, after)

    def metrics(self, ref: JobRef, after: str | None, read: LineReader) -> list[Metric]:
        """The metrics in the log; ``read`` parses a line."""
        return self._log.metrics(self.describe(self.name_of(ref)), after, read)

    # -- control ---------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """Stop the job. A repeated or late call has no effect."""
        name = self.name_of(ref)
        try:
            with self._clients.asking(f"training job {name}"):
                self._client.stop_training_job(TrainingJobName=name)
        except (InvalidRequest, Conflict):
            # The response for an ended job is not documented: its state decides.
            job = self.describe(name)
            if job["TrainingJobStatus"] in ("InProgress", ""):
                raise

    def delete(self, ref: JobRef) -> dict[str, Any] | None:
        """Delete an ended job's record, and return it; None if there is none."""
        name = self.name_of(ref)
        try:
            job = self.describe(name)
        except JobNotFound:
            return None
        if not answers.to_snapshot(job, "", "").has_ended and job["TrainingJobStatus"] != "Deleting":
            raise InvalidRequest(f"{ref} is {job['TrainingJobStatus']}", hint="cancel it first, or wait until it ends")
        if job["TrainingJobStatus"] != "Deleting":
            try:
                with self._clients.asking(f"training job {name}"):
                    self._client.delete_training_job(TrainingJobName=name)
            except JobNotFound:
                return None
        return job

    # -- shared ----------------------------------------------------------------------------------------------------

    @property
    def _client(self) -> Any:
        return self._clients.client("sagemaker")

    def name_of(self, ref: JobRef) -> str:
        """The job's name. Raises JobNotFound for a reference to another account, region or endpoint."""
        if ref.scope != self._scope():
            raise JobNotFound(
                f"{ref} belongs to another account, region or endpoint than the current one, {self._scope()}",
                hint="use the profile and region it was submitted with",
            )
        return ref.id
