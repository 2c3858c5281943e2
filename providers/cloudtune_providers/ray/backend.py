"""The back end ``ray``: jobs of a Ray cluster whose state is their run folder, on storage that all nodes share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from cloudtune.backend import Absent, Capabilities, Done, Found, Intent, Journal, Probe
from cloudtune.errors import BackendError, ConfigError, Conflict, InvalidRequest, JobNotFound
from cloudtune.optional import Check
from cloudtune.state import JobRef
from cloudtune_providers.ray import options, translate
from cloudtune_providers.ray.cluster import Cluster
from cloudtune_providers.ray.states import PHASES, combined
from cloudtune_providers.run_folders.backend import RunFolderBackend
from cloudtune_providers.run_folders.jobs import RunFolderJobs
from cloudtune_providers.run_folders.planning import CREATE, FIND_CHECKPOINT
from cloudtune_providers.run_folders.resolving import resolve_model
from cloudtune_trainer.submit.bundle import Bundle, package_bundle, requirements
from cloudtune_trainer.worker.run import has_ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cloudtune.errors import Problem
    from cloudtune.plan import Plan, PlanRequest, Resolved, Step
    from cloudtune.spec import JobSpec
    from cloudtune.state import JobSnapshot
    from cloudtune_providers.run_folders.access import Folders
    from cloudtune_trainer.worker.run import RunStatus

NAME = translate.NAME


class RayBackend(RunFolderBackend):
    """Jobs on a Ray cluster. Their files lie in the shared folder; the cluster knows which of them run."""

    name: ClassVar[str] = NAME
    Options: ClassVar[type[options.Options]] = options.Options
    Overrides: ClassVar[type[options.Overrides]] = options.Overrides

    def __init__(self, settings: options.Options | None = None, *, code: Callable[[], Bundle] = package_bundle) -> None:
        self.options = settings or options.Options()
        self._cluster = Cluster(self.options.address or "")
        super().__init__(RunFolderJobs(NAME, python=self.options.python, ssh_config=None, code=code))
        self.jobs.correct = self._corrected

    def __repr__(self) -> str:
        return f"RayBackend(address={self.options.address!r}, shared_folder={self.options.shared_folder!r})"

    # -- before a job exists -----------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return translate.capabilities()

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """The problems of the settings and of the spec's values."""
        return list(translate.check(spec, self.options))

    def resolve(self, spec: JobSpec) -> Resolved:
        """Find the model and the trainer's code. Raises SpecError."""
        own = options.Overrides.model_validate(spec.overrides.get(NAME, {}))
        code = self.jobs.code().sha256
        resolved = resolve_model(spec, NAME, self.scope(), own, code=code, is_remote=True)
        packages = {"packages": requirements()} if self.options.install else {}
        return msgspec.structs.replace(resolved, facts={**resolved.facts, **packages})

    def plan(self, request: PlanRequest) -> Plan:
        """Create the plan. Pure. Raises SpecError if the spec does not fit the model."""
        return translate.to_plan(request, self.options)

    def preflight(self, spec: JobSpec | None = None, plan: Plan | None = None) -> Iterator[Check]:
        """See `Preflight`."""
        try:
            found = self._cluster.version()
        except BackendError as error:
            yield Check(what="the Ray cluster", verdict="denied", detail=str(error))
        else:
            yield Check(what="the Ray cluster", verdict="good", detail=f"Ray {found} at {self.options.address}")

    # -- creating a job ----------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """Upload files, create the run's folder, or submit the job."""
        request = step.request
        if step.kind == "upload":
            return self.jobs.upload(self.scope(), request)
        if step.id == FIND_CHECKPOINT:
            return self.jobs.starting_checkpoint(JobRef.parse(request["newest_checkpoint_of"]))
        if step.id == CREATE:
            return {"run": self.jobs.create(self.scope(), request).id}
        if step.id != translate.SUBMIT:
            raise InvalidRequest(f"the ray back end has no step {step.id!r}")
        folders = self.jobs.folders(self.scope())
        batch = {"address": self._cluster.address}
        folders.call("note_submitted", root=folders.root, run=request["job"], batch=batch)
        try:
            self._cluster.submit(request["job"], request["arguments"])
        except InvalidRequest:
            found = self._found(step)  # the cluster refuses a submission id that it has
            if found is None:
                raise
            return found
        return {"ref": str(JobRef(NAME, self.scope(), request["job"]))}

    def find(self, step: Step, intent: Intent) -> Found:
        """Whether the files, or the job, are there."""
        if step.kind == "upload":
            outputs = self.jobs.is_uploaded(self.scope(), step.request)
        else:
            outputs = self._found(step) if step.id == translate.SUBMIT else None
        return Absent() if outputs is None else Done(outputs=outputs)

    def _found(self, step: Step) -> dict[str, Any] | None:
        job = step.request["job"]
        try:
            _, metadata = self._cluster.find(job)
        except JobNotFound:
            return None
        if metadata.get(translate.TOKEN) != step.token:
            raise Conflict(
                f"the Ray job {job} exists and belongs to another submission", hint="delete it, or rename the job"
            )
        return {"ref": str(JobRef(NAME, self.scope(), job))}

    def probe(self, step: Step) -> Probe:
        """No step needs waiting while submitting."""
        return Probe(state="failed", message=f"the ray back end has no step {step.id!r} to wait for")

    # -- reading -----------------------------------------------------------------------------------------------------

    def scope(self) -> str:
        """The folder of the runs."""
        return str(self.options.shared_folder or "")

    def _corrected(self, folders: Folders, documents: Mapping[str, dict[str, Any]]) -> Mapping[str, RunStatus]:
        """The statuses, corrected by what the cluster says about the jobs that have not ended."""
        unfinished = [name for name, document in documents.items() if not has_ended(document["status"])]
        if not unfinished:
            return {name: combined(document, None, self._cluster.address) for name, document in documents.items()}
        known = self._cluster.jobs()
        ended = [name for name in unfinished if name not in known or PHASES.get(known[name].status) == "ended"]
        if ended:  # the run may have ended between the two questions
            documents = {**documents, **folders.call("statuses", root=folders.root, runs=ended)["runs"]}
        address = self._cluster.address
        return {name: combined(document, known.get(name), address) for name, document in documents.items()}

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """The runs in the shared folder, newest first."""
        if self.options.shared_folder is None:
            raise ConfigError("the ray back end is not configured", hint="set `shared_folder` in its settings")
        return self.jobs.listed(self.scope(), limit)

    # -- control -----------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """Ask the trainer to stop with a checkpoint; a job that has not started is stopped in Ray."""
        if self.jobs.status(ref).is_final:
            return
        self.jobs.ask(ref, "cancel")
        try:
            job, _ = self._cluster.find(ref.id)
        except JobNotFound:
            return
        if PHASES.get(job.status) == "waiting":
            self._cluster.stop(ref.id)

    def delete(self, ref: JobRef) -> None:
        """Delete an ended job with its checkpoints, its model and its record on the cluster."""
        self.jobs.delete(ref)
        with contextlib.suppress(JobNotFound):
            _, metadata = self._cluster.find(ref.id)
            if translate.TOKEN in metadata:  # else it is another program's, and the reference a mistake
                self._cluster.delete(ref.id)
