"""The back end ``slurm``: batch jobs of a Slurm cluster, whose run folders are on shared storage."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from cloudtune.backend import Absent, Capabilities, Done, Found, Intent, Journal, Probe
from cloudtune.errors import ConfigError, InvalidRequest, Problem, SpecError
from cloudtune.state import JobRef, JobSnapshot
from cloudtune_providers.run_folders import planning
from cloudtune_providers.run_folders.backend import RunFolderBackend, seconds_used
from cloudtune_providers.run_folders.jobs import RunFolderJobs
from cloudtune_providers.run_folders.resolving import resolve_model
from cloudtune_providers.slurm import capabilities, options, states
from cloudtune_providers.slurm.capabilities import NAME
from cloudtune_providers.slurm.cluster import Cluster, Partition, QueueEntry
from cloudtune_providers.slurm.translate import SUBMIT, estimate, to_plan
from cloudtune_trainer.submit.bundle import Bundle, package_bundle
from cloudtune_trainer.submit.snapshots import to_time
from cloudtune_trainer.worker.run import has_ended, is_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cloudtune.cost import CostEstimate, Usage
    from cloudtune.plan import Plan, PlanRequest, Resolved, Step
    from cloudtune.spec import JobSpec
    from cloudtune_providers.run_folders.access import Folders
    from cloudtune_trainer.worker.run import RunStatus


class SlurmBackend(RunFolderBackend):
    """Trains on the nodes of a cluster. All state is in the run folders and in Slurm's queue."""

    name: ClassVar[str] = NAME
    Options: ClassVar[type[options.Options]] = options.Options
    Overrides: ClassVar[type[options.Overrides]] = options.Overrides

    def __init__(self, settings: options.Options | None = None, *, code: Callable[[], Bundle] = package_bundle) -> None:
        self.options = settings or options.Options()
        self._cluster = Cluster(self.options.pass_env)
        config = self.options.ssh_config
        super().__init__(RunFolderJobs(NAME, python=self.options.login_python, ssh_config=config, code=code))
        self.jobs.correct = self._corrected

    def __repr__(self) -> str:
        return f"SlurmBackend(scope={self.scope()!r})"

    # -- before a job exists -----------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return capabilities.capabilities(self.options)

    def scope(self) -> str:
        """The folder of the runs, with the login node in front if it is reached by ssh."""
        folder = self.options.folder or "/"
        return folder if self.options.host is None else f"{self.options.host}:{folder}"

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """The problems of the spec's values."""
        return capabilities.check(spec, self.options)

    def resolve(self, spec: JobSpec) -> Resolved:
        """Find the model, and the partition's time limit. Raises SpecError, BackendNotInstalled, Unavailable."""
        own = options.Overrides.model_validate(spec.overrides.get(NAME, {}))
        if self.options.folder is None:
            raise SpecError(list(self.check(spec)))
        is_remote = self.options.host is not None
        resolved = resolve_model(spec, NAME, self.scope(), own, code=self.jobs.code().sha256, is_remote=is_remote)
        limit = _time_limit(self._cluster.partitions(self.jobs.folders(self.scope())), own, self.options)
        python, source = self.options.python, "settings"
        if python is None:
            elsewhere = self.options.host is not None or self.options.container is not None
            python, source = ("python3" if elsewhere else sys.executable), f"default of {NAME}"
        return msgspec.structs.replace(
            resolved, facts={**resolved.facts, "python": python, "python_source": source, "time_limit_s": limit}
        )

    def plan(self, request: PlanRequest) -> Plan:
        """Create the plan. Pure. Raises SpecError if the spec does not fit the model."""
        return to_plan(request, self.options)

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """See `Priced`."""
        return estimate(request, self.options)

    def usage(self, job: JobSnapshot) -> Usage:
        """See `Priced`. The time from the trainer's first start to its end."""
        return seconds_used(job)

    # -- creating a job ----------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """Run one step."""
        request = step.request
        if step.id == planning.FIND_CHECKPOINT:
            return self.jobs.starting_checkpoint(JobRef.parse(request["newest_checkpoint_of"]))
        if step.kind == "upload":
            return self.jobs.upload(self.scope(), request)
        if step.id == planning.CREATE:
            return {"run": self.jobs.create(self.scope(), request).id}
        if step.id != SUBMIT:
            raise InvalidRequest(f"the Slurm back end has no step {step.id!r}")
        folders = self.jobs.folders(self.scope())
        said = self._cluster.run(folders, request["arguments"], request["script"])
        batch = {"job": said.strip().split(";")[0]}
        folders.call("note_submitted", root=folders.root, run=request["run"], batch=batch)
        return {"ref": str(self._ref(request["run"])), **batch}

    def find(self, step: Step, intent: Intent) -> Found:
        """Whether the step has happened. A batch job is found by its comment, which is the token."""
        request = step.request
        if step.kind == "upload":
            found = self.jobs.is_uploaded(self.scope(), request)
            return Absent() if found is None else Done(outputs=found)
        if step.id not in (planning.CREATE, SUBMIT):
            return Absent()
        folders = self.jobs.folders(self.scope())
        runs = folders.call("statuses", root=folders.root, runs=[request["run"]])["runs"]
        if request["run"] not in runs or runs[request["run"]]["job"].get("token") != step.token:
            return Absent()
        if step.id == planning.CREATE:
            return Done(outputs={"run": request["run"]})
        entry = _newest(self._cluster.queue(folders), step.token)
        if entry is None and is_waiting(runs[request["run"]]["status"]) and not runs[request["run"]]["submitted"]:
            return Absent()
        return Done(outputs={"ref": str(self._ref(request["run"])), "job": entry.job_id if entry else ""})

    def probe(self, step: Step) -> Probe:
        """No step needs waiting while submitting."""
        return Probe(state="failed", message=f"the Slurm back end has no step {step.id!r} to wait for")

    def _ref(self, run: str) -> JobRef:
        return JobRef(NAME, self.scope(), run)

    # -- reading -----------------------------------------------------------------------------------------------------

    def _corrected(self, folders: Folders, found: Mapping[str, dict[str, Any]]) -> dict[str, RunStatus]:
        """The recorded statuses, corrected by the queue, or by the accounting for jobs that have left it."""
        asked = any(states.needs_queue(document) for document in found.values())
        entries = self._cluster.queue(folders) if asked else []
        corrected = {}
        for name, document in found.items():
            job, recorded = document["job"], None
            entry = _newest(entries, str(job.get("token")))
            created = to_time(job.get("created_at"))
            if entry is None and created is not None and document["submitted"] and not has_ended(document["status"]):
                recorded = self._cluster.recorded_state(folders, name, created)
            corrected[name] = states.combined(document, entry, recorded)
        return corrected

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """The runs under the folder, newest first."""
        if self.options.folder is None:
            raise ConfigError("the slurm back end is not configured", hint="set `folder` in its settings")
        return self.jobs.listed(self.scope(), limit)

    # -- control -----------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """Cancel the job; one in the queue ends at once, a running one saves a checkpoint. No effect after the end."""
        status = self.jobs.status(ref)
        if status.is_final:
            return
        self.jobs.ask(ref, "cancel")
        folders = self.jobs.folders(ref.scope)
        entry = self._entry(folders, status)
        if entry is None:
            self.jobs.end(ref, "cancelled", "cancelled before it started")
            return
        runs = states.PHASES.get(entry.state) == "running"
        wake = ("--batch", "--signal=USR1") if runs else ()
        with contextlib.suppress(InvalidRequest):  # it has ended meanwhile
            self._cluster.run(folders, ["scancel", *wake, entry.job_id])
        if not runs:
            self.jobs.end(ref, "cancelled", "cancelled before it started")

    def pause(self, ref: JobRef) -> None:
        """Hold a queued job; a running one stops training, and keeps its allocation."""
        status = self.jobs.status(ref)
        if status.is_final:
            raise InvalidRequest(f"{ref} has already ended ({status.state}) and cannot be paused")
        self.jobs.ask(ref, "pause")
        self._hold(ref, status, "hold")

    def resume(self, ref: JobRef) -> None:
        """Resume the job."""
        status = self.jobs.status(ref)
        if status.is_final:
            raise InvalidRequest(f"{ref} has ended ({status.state}); a new job must continue from its checkpoint")
        self.jobs.ask(ref, "pause", withdraw=True)
        self._hold(ref, status, "release")

    def _hold(self, ref: JobRef, status: RunStatus, word: str) -> None:
        folders = self.jobs.folders(ref.scope)
        entry = self._entry(folders, status)
        if entry is not None and states.PHASES.get(entry.state) == "waiting":
            self._cluster.run(folders, ["scontrol", word, entry.job_id])

    def _entry(self, folders: Folders, status: RunStatus) -> QueueEntry | None:
        entry = _newest(self._cluster.queue(folders), str(status.job.get("token")))
        return None if entry is None or states.PHASES.get(entry.state) == "ended" else entry


def _newest(entries: Sequence[QueueEntry], token: str) -> QueueEntry | None:
    """The job with that token as its comment: a job id alone may belong to a later job of another user's making.

    If a lost response has made two, the one that runs comes first, and one that has ended last.
    """
    found = [entry for entry in entries if entry.comment == token]
    ranks = {"ended": 0, "waiting": 1}
    found.sort(key=lambda entry: (ranks.get(states.PHASES.get(entry.state, ""), 2), entry.submitted))
    return found[-1] if found else None


def _time_limit(partitions: Sequence[Partition], own: options.Overrides, settings: options.Options) -> float | None:
    """The job's time limit in seconds. Raises SpecError for a partition that cannot run the job."""
    name = own.partition or settings.partition
    known = {one.name: one for one in partitions}
    place = f"overrides.{NAME}.partition" if own.partition else f"backends.{NAME}.partition"
    if name is not None and name not in known:
        fix = f"use one of {', '.join(known) or 'none that this user can see'}"
        message = f"the cluster has no partition {name!r}"
        raise SpecError([Problem(code="unknown_partition", field=place, message=message, fix=fix)])
    chosen = known.get(name) if name else next((one for one in partitions if one.is_default), None)
    if chosen is None:
        message = "the cluster has no default partition"
        raise SpecError(
            [Problem(code="no_partition", field=place, message=message, fix=f"use one of {', '.join(known)}")]
        )
    if not chosen.is_up:
        message, fix = f"the partition {chosen.name} is down: a job in it never starts", "use another partition"
        raise SpecError([Problem(code="partition_down", field=place, message=message, fix=fix)])
    if own.time is not None and chosen.limit_s is not None and own.time > chosen.limit_s:
        message = f"the partition {chosen.name} runs jobs for at most {chosen.limit_s:g} s"
        field = f"overrides.{NAME}.time"
        raise SpecError([Problem(code="range", field=field, message=message, fix="use a shorter time")])
    return own.time if own.time is not None else chosen.default_s
