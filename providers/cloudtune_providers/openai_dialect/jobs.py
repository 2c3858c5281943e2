"""Fine-tuning jobs at the service: create once, find, read and control."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.backend import Absent, Done, Found, Intent, Probe
from cloudtune.errors import InvalidRequest, JobNotFound
from cloudtune.state import Checkpoint, Event, JobRef, JobSnapshot, JobState, Metric, TunedModel
from cloudtune_providers.openai_dialect import responses
from cloudtune_providers.openai_dialect.requests import label_of
from cloudtune_providers.openai_dialect.sdk_client import Wire, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import date

    from cloudtune_providers.openai_dialect.files import Files

_SDK_FIELDS = frozenset(
    {
        "model",
        "training_file",
        "validation_file",
        "method",
        "suffix",
        "seed",
        "integrations",
        "metadata",
        "hyperparameters",
    }
)
_OLDER_S = 86_400.0
"""Lists are read back this many seconds before the first attempt, because clocks can differ."""
_PAGE = 100
_FEW = 20
"""Page size of events when only the newest are needed."""
_CSV = "csv/"


class Jobs:
    """The jobs of one account.

    ``filters``: whether the list supports a metadata filter (which can be ignored). ``named``: whether jobs return
    their names; otherwise the training file's name contains it. ``prefix``: prefix of the ids in references, if the
    back end has other kinds of jobs too.
    """

    def __init__(
        self, wire: Wire, files: Files, backend: str, scope: str, *, filters: bool = True, named: bool = True,
        prefix: str = "",
    ) -> None:  # fmt: skip
        self._wire = wire
        self._files = files
        self._backend = backend
        self._scope = scope
        self._filters = filters
        self._named = named
        self._prefix = prefix

    # -- creating --------------------------------------------------------------------------------------------------

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send the create request. A 404 here is about a model or a file that it names."""
        known = {key: value for key, value in body.items() if key in _SDK_FIELDS}
        extra = {key: value for key, value in body.items() if key not in _SDK_FIELDS}
        with self._wire.asking("create", missing=InvalidRequest):
            made = plain(self._wire.client.fine_tuning.jobs.create(**known, extra_body=extra or None))
        return self._made(made)

    def _made(self, job: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": job["id"], "created_at": job.get("created_at") or 0, "ref": str(self._ref(job))}

    def find(self, marks: Mapping[str, Any], intent: Intent) -> Found:
        """The oldest job with those marks; other active ones are duplicates."""
        jobs = self._marked(marks, intent.begun_at.timestamp() - _OLDER_S)
        if not jobs:
            return Absent()
        return Done(outputs=self._made(jobs[0]), duplicates=tuple(str(self._ref(job)) for job in jobs[1:]))

    def confirm(self, request: Mapping[str, Any]) -> Probe:
        """Ready when the list shows the job. The outputs are the job to keep, and its duplicates."""
        jobs = self._marked(request["marks"], request["created_at"] - _OLDER_S)
        if request["id"] not in {job["id"] for job in jobs}:
            job = self._retrieve(str(request["id"]))
            if not _is_cancelled(job):
                return Probe(state="pending", message="the job is not in the list yet")
            jobs = jobs or [job]
        refs = [str(self._ref(job)) for job in jobs]
        spare = self._files.spare([*request["uploads"], *request.get("more_uploads", ())])
        return Probe(state="ready", outputs={"ref": refs[0], "duplicates": refs[1:], "spare": spare})

    def alive(self, marks: Mapping[str, Any], since: float) -> list[str]:
        """References of the jobs with those marks that were not cancelled."""
        jobs = self._marked(marks, since - _OLDER_S)
        return [str(self._ref(job)) for job in jobs if not _is_cancelled(job)]

    def settle(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Cancel the job's duplicates and delete duplicate files. Can be repeated."""
        for duplicate in request["duplicates"]:
            self.cancel(JobRef.parse(duplicate))
        for file in request["spare"]:
            self._files.delete(file)
        return {"ref": request["ref"]}

    def _marked(self, marks: Mapping[str, Any], since: float) -> list[dict[str, Any]]:
        """Return jobs with those marks, oldest first, except cancelled duplicates; all, if there are no others.

        The list is read with the filter, and without it back to ``since``, in case the filter is ignored or delayed.
        """
        found: dict[str, dict[str, Any]] = {}
        queries: list[dict[str, Any]] = [{}]
        if self._filters and isinstance(marks.get("metadata"), dict):
            queries.append({"metadata": marks["metadata"]})
        for query in queries:
            for number, page in enumerate(self._pages(query)):
                fitting = [job for job in page if _holds(job, marks)]
                found |= {job["id"]: job for job in fitting}
                if not fitting and number and all((job.get("created_at") or 0) < since for job in page):
                    break
        jobs = sorted(found.values(), key=lambda job: (job.get("created_at") or 0, job["id"]))
        return [job for job in jobs if not _is_cancelled(job)] or jobs[:1]

    def _pages(self, query: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
        return self._wire.pages(self._wire.client.fine_tuning.jobs.list, "list of jobs", limit=_PAGE, **query)

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, ref: JobRef) -> JobSnapshot:
        """The job's current state."""
        return self._snapshot(self._retrieve(self._id(ref)))

    def get_many(self, refs: Sequence[JobRef]) -> dict[JobRef, JobSnapshot]:
        """Jobs on the newest pages of the list, the others one by one."""
        wanted = {ref for ref in refs if ref.scope == self._scope}
        found: dict[JobRef, JobSnapshot] = {}
        most_pages = 2 + len(wanted) // _PAGE
        for number, page in enumerate(self._pages({}), 1):
            shown = {snapshot.ref: snapshot for snapshot in map(self._snapshot, page)}
            found |= {ref: shown[ref] for ref in wanted & shown.keys()}
            if len(found) == len(wanted) or number >= most_pages:
                break
        for ref in wanted - found.keys():
            try:
                found[ref] = self.get(ref)
            except JobNotFound:
                continue
        return found

    def listed(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """Jobs of the account, newest first."""
        size = min(limit or _PAGE, _PAGE)
        entries = self._wire.each(self._wire.client.fine_tuning.jobs.list, "list of jobs", limit=size)
        for number, job in enumerate(entries):
            if limit is not None and number >= limit:
                return
            yield self._snapshot(job)

    def events(self, ref: JobRef, after: str | None = None) -> list[Event]:
        """Events, in order."""
        return self._told(ref, after)

    def _told(self, ref: JobRef, back_to: str | None, *, inclusive: bool = False) -> list[Event]:
        """The service returns the newest first: pages are read back to that event, and reversed."""
        found: list[Event] = []
        job = self._id(ref)
        call = self._wire.client.fine_tuning.jobs.list_events
        size = _PAGE if back_to is None else _FEW
        listed = self._wire.each(
            lambda **page: call(job, **page), f"events of {ref.id}", limit=size, missing=JobNotFound
        )
        for entry in listed:
            is_there = entry["id"] == back_to
            if inclusive or not is_there:
                found.append(responses.to_event(entry))
            if is_there:
                break
        return found[::-1]

    def metrics(self, ref: JobRef, after: str | None = None) -> list[Metric]:
        """Metrics from events; for an ended job whose events have none, from its result file."""
        if after is None or not after.startswith(_CSV):
            # An event can have metrics of two splits: the cursor's own event is read again.
            event = after.rpartition("/")[0] if after else None
            events = self._told(ref, event, inclusive=True)
            found = [metric for entry in events for metric in responses.metrics_of(entry)]
            if found or after is not None:
                return _after(found, after)
        return _after(self._of_result_files(ref), after)

    def _of_result_files(self, ref: JobRef) -> list[Metric]:
        job = self._retrieve(self._id(ref))
        if not responses.to_snapshot(job, self._backend, self._scope).has_ended:
            return []
        contents = [self._files.content(file) for file in job.get("result_files") or ()]
        return [metric for content in contents for metric in responses.result_metrics(content)]

    def checkpoints(self, ref: JobRef) -> list[Checkpoint]:
        """Checkpoints; each is a model for inference by its ``uri``."""
        job = self._id(ref)
        call = self._wire.client.fine_tuning.jobs.checkpoints.list
        entries = self._wire.each(
            lambda **page: call(job, **page), f"checkpoints of {ref.id}", limit=_PAGE, missing=JobNotFound
        )
        return responses.to_checkpoints(list(entries))

    def model(self, ref: JobRef, retires: Callable[[str], date | None], **traits: Any) -> TunedModel:
        """The tuned model; for a stopped, failed or paused job, or without a name, its newest checkpoint."""
        job = self._retrieve(self._id(ref))
        name, state = job.get("fine_tuned_model"), responses.state_of(str(job.get("status")))
        if not name and (state.is_terminal or state is JobState.PAUSED):
            kept = self.checkpoints(ref)
            name = kept[-1].uri if kept else None
        if not name:
            raise InvalidRequest(f"{ref} has no model; its state is {job.get('status')}")
        base = str(job.get("model"))
        ends = retires(base)
        return TunedModel(
            id=str(name), base=base, backend=self._backend, scope=self._scope, ref=ref, raw=job,
            retires_at=datetime.combine(ends, time(), UTC) if ends else None, **traits,
        )  # fmt: skip

    # -- control ---------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """Cancel the job. A repeated or late call has no effect. Also deletes a file duplicated by a late request."""
        if (file := self._id(ref)).startswith("file-"):
            return self._files.delete(file)
        return self._steer(ref, self._wire.client.fine_tuning.jobs.cancel, {JobState.CANCELLING})

    def pause(self, ref: JobRef) -> None:
        """Pause the job."""
        self._steer(ref, self._wire.client.fine_tuning.jobs.pause, {JobState.PAUSED}, ended=False)

    def resume(self, ref: JobRef) -> None:
        """Resume the job."""
        self._steer(ref, self._wire.client.fine_tuning.jobs.resume, {JobState.RUNNING}, ended=False)

    def _steer(self, ref: JobRef, call: Callable[[str], Any], there: set[JobState], *, ended: bool = True) -> None:
        job = self._id(ref)
        try:
            with self._wire.asking(f"job {ref.id}"):
                plain(call(job))
        except InvalidRequest:
            # The response for a job in the wrong state is not documented: its state decides.
            seen = self.get(ref)
            if seen.state not in there and not (ended and seen.has_ended):
                raise

    def clear(self, ref: JobRef) -> None:
        """Delete the ended job's model, result files and the uploads that no other job uses; its record is kept."""
        try:
            job = self._retrieve(self._id(ref))
        except JobNotFound:
            return
        if not responses.to_snapshot(job, self._backend, self._scope).has_ended:
            raise InvalidRequest(f"{ref} is {job.get('status')}", hint="cancel it first, or wait until it ends")
        if job.get("fine_tuned_model"):
            self._delete_model(job["fine_tuned_model"])
        for file in (*(job.get("result_files") or ()), *self._own_files(job)):
            self._files.delete(file)

    def _delete_model(self, name: str) -> None:
        try:
            with self._wire.asking(f"model {name}"):
                plain(self._wire.client.models.delete(name))
        except JobNotFound:
            return

    def _own_files(self, job: Mapping[str, Any]) -> list[str]:
        """The job's uploads, except those that a job still uses: equal rows are uploaded once."""
        files = {job.get("training_file"), job.get("validation_file")} - {None}
        for page in self._pages({}):
            for other in page:
                if not responses.to_snapshot(other, self._backend, self._scope).has_ended:
                    files -= {other.get("training_file"), other.get("validation_file")}
        return sorted(str(file) for file in files)

    # -- shared ----------------------------------------------------------------------------------------------------

    def _retrieve(self, job: str) -> dict[str, Any]:
        with self._wire.asking(f"job {self._prefix}{job}"):
            return plain(self._wire.client.fine_tuning.jobs.retrieve(job))

    def _id(self, ref: JobRef) -> str:
        if ref.scope != self._scope:
            raise JobNotFound(
                f"{ref} belongs to another account or endpoint than the current one, {self._scope}",
                hint="use the profile it was submitted with",
            )
        return ref.id.removeprefix(self._prefix)

    def _ref(self, job: Mapping[str, Any]) -> JobRef:
        return JobRef(self._backend, self._scope, f"{self._prefix}{job['id']}")

    def _snapshot(self, job: Mapping[str, Any]) -> JobSnapshot:
        snapshot = responses.to_snapshot(job, self._backend, self._scope)
        if self._prefix:
            snapshot = msgspec.structs.replace(snapshot, ref=self._ref(job))
        if self._named or snapshot.name:
            return snapshot
        return msgspec.structs.replace(snapshot, name=label_of(self._files.name(str(job.get("training_file") or ""))))


def _is_cancelled(job: Mapping[str, Any]) -> bool:
    return responses.state_of(str(job.get("status"))) is JobState.CANCELLED


def _holds(job: Mapping[str, Any], marks: Mapping[str, Any]) -> bool:
    """Whether the job has every mark: an equal value, all entries of an object, or one value of a list."""
    for name, value in marks.items():
        there = job.get(name)
        if isinstance(value, dict):
            if not isinstance(there, dict) or not value.items() <= there.items():
                return False
        elif isinstance(value, list):
            if there not in value:
                return False
        elif there != value:
            return False
    return True


def _after(metrics: list[Metric], after: str | None) -> list[Metric]:
    cursors = [metric.cursor for metric in metrics]
    return metrics[cursors.index(after) + 1 :] if after in cursors else metrics
