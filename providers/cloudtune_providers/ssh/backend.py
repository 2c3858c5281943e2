"""The back end ``ssh``: runs on a machine that the user's own OpenSSH client reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from cloudtune.backend import Absent, Capabilities, Done, Found, Intent, Journal, Probe
from cloudtune.errors import BackendNotInstalled, ConfigError, InvalidRequest, Problem, SpecError
from cloudtune.state import JobRef
from cloudtune_providers.run_folders import planning
from cloudtune_providers.run_folders.backend import RunFolderBackend, seconds_used
from cloudtune_providers.run_folders.jobs import RunFolderJobs
from cloudtune_providers.run_folders.resolving import resolve_model
from cloudtune_providers.ssh import capabilities, options
from cloudtune_providers.ssh.capabilities import NAME
from cloudtune_providers.ssh.translate import AWAIT_INSTALL, INSTALL, estimate, to_plan
from cloudtune_trainer.submit.bundle import Bundle, package_bundle, requirements
from cloudtune_trainer.submit.inference import NEEDS
from cloudtune_trainer.worker.environment import environment_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cloudtune.cost import CostEstimate, Usage
    from cloudtune.plan import Plan, PlanRequest, Resolved, Step
    from cloudtune.spec import JobSpec
    from cloudtune.state import JobSnapshot


class SshBackend(RunFolderBackend):
    """Trains on another machine. All state is in its run folders, and a worker there supervises each run."""

    name: ClassVar[str] = NAME
    Options: ClassVar[type[options.Options]] = options.Options
    Overrides: ClassVar[type[options.Overrides]] = options.Overrides

    def __init__(self, settings: options.Options | None = None, *, code: Callable[[], Bundle] = package_bundle) -> None:
        self.options = settings or options.Options()
        config = self.options.ssh_config
        super().__init__(RunFolderJobs(NAME, python=self.options.python, ssh_config=config, code=code))

    def __repr__(self) -> str:
        return f"SshBackend(scope={self.scope()!r})"

    # -- before a job exists -----------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return capabilities.capabilities()

    def scope(self) -> str:
        """The machine and the folder of the runs."""
        return f"{self.options.host or 'host'}:{self.options.folder or '/'}"

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """The problems of the spec's values."""
        return capabilities.check(spec, self.options)

    def resolve(self, spec: JobSpec) -> Resolved:
        """Find the model, and look at the machine. Raises SpecError, BackendNotInstalled, Unavailable."""
        own = options.Overrides.model_validate(spec.overrides.get(NAME, {}))
        if self.options.host is None or self.options.folder is None:
            raise SpecError(list(self.check(spec)))
        resolved = resolve_model(spec, NAME, self.scope(), own, code=self.jobs.code().sha256, is_remote=True)
        wanted = [*NEEDS, *(["bitsandbytes"] if spec.adapter is not None and spec.adapter.type == "qlora" else [])]
        return msgspec.structs.replace(resolved, facts={**resolved.facts, **self._machine(wanted)})

    def _machine(self, wanted: Sequence[str]) -> dict[str, Any]:
        """The facts of the machine: its interpreter and its GPUs. Raises BackendNotInstalled, SpecError."""
        folders = self.jobs.folders(self.scope())
        found = folders.call("describe", root=folders.root, modules=list(wanted))
        if not found["writable"]:
            message = f"this user cannot write to {folders.root} on {self.options.host}"
            field = f"backends.{NAME}.folder"
            raise SpecError([Problem(code="not_writable", field=field, message=message, fix="choose another folder")])
        facts = {"python": found["python"], "gpus": found["gpus"]}
        if not found["missing"]:
            return facts
        if self.options.install:
            base, packages = found["python"], ["torch", *requirements()]
            python = environment_python(folders.root, base, packages)
            return facts | {"python": python, "base_python": base, "packages": packages}
        raise BackendNotInstalled(
            f"{found['python']} on {self.options.host} lacks {', '.join(found['missing'])}",
            hint="set `python` to an interpreter that has them, or `install: true`",
        )

    def plan(self, request: PlanRequest) -> Plan:
        """Create the plan. Pure. Raises SpecError if the spec does not fit the model or the machine."""
        return to_plan(request, self.options)

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """See `Priced`."""
        return estimate(request, self.options)

    def usage(self, job: JobSnapshot) -> Usage:
        """See `Priced`. The time from the trainer's start to its end."""
        return seconds_used(job)

    # -- creating a job ----------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """Run one step."""
        request = step.request
        if step.id == planning.FIND_CHECKPOINT:
            return self.jobs.starting_checkpoint(JobRef.parse(request["newest_checkpoint_of"]))
        if step.id == INSTALL:
            return self.jobs.folders(self.scope()).call("install", **request)
        if step.kind == "upload":
            return self.jobs.upload(self.scope(), request)
        if step.id != planning.CREATE:
            raise InvalidRequest(f"the ssh back end has no step {step.id!r}")
        return {"ref": str(self.jobs.create(self.scope(), request))}

    def find(self, step: Step, intent: Intent) -> Found:
        """Whether the step has happened. A queued run without a worker is not done: `do` starts one."""
        request = step.request
        if step.kind == "upload":
            found = self.jobs.is_uploaded(self.scope(), request)
            return Absent() if found is None else Done(outputs=found)
        if step.id != planning.CREATE:
            return Absent()
        status = self.jobs.statuses(self.scope(), [request["run"]]).get(request["run"])
        if status is None or status.job.get("token") != step.token:
            return Absent()
        if status.state == "queued" and status.worker is None:
            return Absent()
        return Done(outputs={"ref": str(JobRef(NAME, self.scope(), request["run"]))})

    def probe(self, step: Step) -> Probe:
        """Whether the packages are installed."""
        if step.id != AWAIT_INSTALL:
            return Probe(state="failed", message=f"the ssh back end has no step {step.id!r} to wait for")
        found = self.jobs.folders(self.scope()).call("installed", **step.request)
        return Probe(state=found["state"], message=found["message"])

    # -- reading -----------------------------------------------------------------------------------------------------

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """The runs under the folder, newest first."""
        if self.options.host is None or self.options.folder is None:
            raise ConfigError("the ssh back end is not configured", hint="set `host` and `folder` in its settings")
        return self.jobs.listed(self.scope(), limit)

    # -- control -----------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """Cancel the job; a queued one ends at once. No effect after the end."""
        if not self.jobs.status(ref).is_final and not self.jobs.ask(ref, "cancel"):
            self.jobs.end(ref, "cancelled", "cancelled before it started")

    def pause(self, ref: JobRef) -> None:
        """Pause the job. Other jobs can overtake a queued job; a running job keeps its slot and its memory."""
        status = self.jobs.status(ref)
        if status.is_final:
            raise InvalidRequest(f"{ref} has already ended ({status.state}) and cannot be paused")
        if not self.jobs.ask(ref, "pause"):
            self.jobs.end(ref, "paused", "paused in the queue")

    def resume(self, ref: JobRef) -> None:
        """Resume the job. A queued job whose worker is gone, for example after a reboot, gets a new one."""
        status = self.jobs.status(ref)
        if status.is_final:
            raise InvalidRequest(f"{ref} has ended ({status.state}); a new job must continue from its checkpoint")
        if not self.jobs.ask(ref, "pause", withdraw=True):
            self.jobs.start(ref)
