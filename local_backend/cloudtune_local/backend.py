"""The back end ``local``: jobs are run folders, and all state is read from them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from cloudtune.backend import Absent, Capabilities, Done, Found, Intent, Journal, Probe
from cloudtune.cost import Usage
from cloudtune.errors import BackendError, BackendNotInstalled, InvalidRequest, JobNotFound, SpecError
from cloudtune.install_command import install_command
from cloudtune.plan import Plan, PlanRequest, Resolved, Step
from cloudtune.state import (
    Checkpoint,
    Event,
    Generation,
    JobRef,
    JobSnapshot,
    Likelihood,
    Metric,
    Prediction,
    TunedModel,
)
from cloudtune_local import capabilities, launch, options
from cloudtune_local.queue_lines import QueueLines
from cloudtune_local.translate import CREATE, FIND_CHECKPOINT, NAME, estimate, to_plan
from cloudtune_trainer.submit import inference, rows, run_reading, snapshots
from cloudtune_trainer.submit.adapter_facts import find_adapter
from cloudtune_trainer.submit.distillation import find_teacher
from cloudtune_trainer.submit.locks import is_held, take_lock
from cloudtune_trainer.submit.model_facts import find_model
from cloudtune_trainer.submit.plan import row_limit
from cloudtune_trainer.submit.policy import find_reward
from cloudtune_trainer.submit.tuned_model import tuned_model
from cloudtune_trainer.worker import creation, devices, processes
from cloudtune_trainer.worker.run import UNREADABLE, Run, is_waiting, listed_status_of, run_status_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cloudtune.cost import CostEstimate
    from cloudtune.data.checks.targets import Target
    from cloudtune.errors import Problem
    from cloudtune.optional import GenerateOptions, Input, Prompt
    from cloudtune.prompts import Passage
    from cloudtune.spec import JobSpec


class LocalBackend:
    """Trains on this machine. All state is on disk: every process sees the same jobs, also after a reboot."""

    name: ClassVar[str] = NAME
    Options: ClassVar[type[options.Options]] = options.Options
    Overrides: ClassVar[type[options.Overrides]] = options.Overrides

    def __init__(self, settings: options.Options | None = None) -> None:
        self.options = settings or options.Options()
        self.root = self.options.root_folder()
        self._answering = inference.Answering()

    def __repr__(self) -> str:
        return f"LocalBackend(root={str(self.root)!r})"

    # -- before a job exists -----------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return capabilities.capabilities()

    @classmethod
    def target_for(cls, model: str | None, method: str | None = None) -> Target:
        """See `DataRules`."""
        return rows.target_for(model)

    def data_target(self, spec: JobSpec) -> Target:
        """See `DataRules`."""
        return rows.target_of(spec)

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """The problems of the spec's values."""
        return capabilities.check(spec)

    def resolve(self, spec: JobSpec) -> Resolved:
        """Find the model, the interpreter and the machine's devices. Raises SpecError, BackendNotInstalled."""
        python = self._python(spec)
        overrides = options.Overrides.model_validate(spec.overrides.get(NAME, {}))
        model = find_model(spec.model_for(NAME) or "", revision=overrides.revision)
        facts = {
            "model": msgspec.to_builtins(model),
            "python": python,
            "gpus": len(devices.visible_gpus()),
        }
        identity = {"model": model.fingerprint}
        if (adapter := find_adapter(spec)) is not None:
            facts["adapter"], identity["adapter"] = adapter, adapter["fingerprint"]
        if (reward := find_reward(spec)) is not None:
            facts["reward"], identity["reward"] = reward, reward["fingerprint"]
        if (teacher := find_teacher(spec, NAME)) is not None:
            facts["teacher"], identity["teacher"] = teacher, teacher["fingerprint"]
        limit = row_limit(spec, facts["model"])
        return Resolved(scope=str(self.root), facts=facts, identity=identity, row_limit=limit)

    def _python(self, spec: JobSpec) -> str:
        """The trainer's interpreter. A different one is not run to check its packages: planning runs nothing."""
        chosen = self.options.python
        if chosen is None:
            if missing := inference.missing_here():
                raise BackendNotInstalled(
                    f"the local back end requires {', '.join(missing)}, not installed for {sys.executable}",
                    hint=f"run: {sys.executable} -m {install_command('local')}",
                )
            if spec.adapter is not None and spec.adapter.type == "qlora" and find_spec("bitsandbytes") is None:
                raise BackendNotInstalled(
                    f"adapter.type qlora requires bitsandbytes, not installed for {sys.executable}",
                    hint=f"run: {sys.executable} -m {install_command('qlora')}",
                )
            return sys.executable
        python = chosen.expanduser().absolute()
        if not (python.is_file() and os.access(python, os.X_OK)):
            raise SpecError(f"cannot use the interpreter {python}: no such program",
                            hint="fix `python` in the settings")  # fmt: skip
        return str(python)

    def plan(self, request: PlanRequest) -> Plan:
        """Create the plan. Pure. Raises SpecError if the spec does not fit the model or the machine."""
        return to_plan(request, self.options)

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """See `Priced`."""
        return estimate(request, self.options)

    def usage(self, job: JobSnapshot) -> Usage:
        """See `Priced`. The time from the trainer's start to its end, pauses included."""
        if job.started_at is None or job.finished_at is None:
            return Usage(seconds=0.0, note="it never started")
        seconds = (job.finished_at - job.started_at).total_seconds()
        return Usage(seconds=max(0.0, seconds))  # the clock may have been set back meanwhile

    # -- creating a job ----------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """Create the run and start its worker; or find the checkpoint from which it starts."""
        if step.id == FIND_CHECKPOINT:
            parent = JobRef.parse(step.request["newest_checkpoint_of"])
            return run_reading.starting_checkpoint(self._run(parent), parent)
        if step.id != CREATE:
            raise InvalidRequest(f"the local back end has no step {step.id!r}")
        run = launch.create(step.request)
        return {"ref": str(self._ref(run))}

    def find(self, step: Step, intent: Intent) -> Found:
        """Whether the run exists and has, or had, a worker. A queued run without one is not done: `do` starts one."""
        if step.id != CREATE:
            return Absent()
        run = Run(Path(step.request["root"]) / step.request["run"])
        if not run.exists():
            return Absent()
        run_status = run.run_status()
        if run_status.state == "queued" and run_status.worker is None:
            return Absent()
        return Done(outputs={"ref": str(self._ref(run))})

    def probe(self, step: Step) -> Probe:
        """No step needs waiting while submitting."""
        return Probe(state="failed", message=f"the local back end has no step {step.id!r} to wait for")

    # -- reading -----------------------------------------------------------------------------------------------------

    def _run(self, ref: JobRef) -> Run:
        run = Run(_folder(ref)) if _may_exist(ref) else None
        if run is None or not run.exists():
            raise JobNotFound(f"no run {ref.id!r} in {ref.scope}")
        return run

    def _ref(self, run: Run) -> JobRef:
        return JobRef(NAME, str(run.path.parent), run.slug)

    def get(self, ref: JobRef) -> JobSnapshot:
        """The job's current state. Raises JobNotFound."""
        found = self.get_many([ref])
        if ref not in found:
            raise JobNotFound(f"no run {ref.id!r} in {ref.scope}")
        return found[ref]

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """The existing jobs, with two or three small reads each."""
        lines = QueueLines()
        found = {}
        for ref in refs:
            run_status = run_status_of(_folder(ref)) if _may_exist(ref) else None
            if run_status is not None:
                found[ref] = snapshots.to_snapshot(ref, run_status, lines.ahead(ref, run_status))
        return found

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """The runs under the root, newest first, including those that were not created by this back end."""
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return []
        refs = (JobRef(NAME, str(self.root), name) for name in names if not name.startswith("."))
        found = [(ref, run_status) for ref in refs if (run_status := listed_status_of(_folder(ref))) is not None]
        found.sort(key=lambda pair: (int(pair[1].job.get("number", 0)), pair[0].id), reverse=True)
        lines = QueueLines()
        return [
            snapshots.to_snapshot(ref, run_status, lines.ahead(ref, run_status)) for ref, run_status in found[:limit]
        ]

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """The events after that line."""
        run = self._run(ref)
        return run_reading.events(run, run.run_status(), after)

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """The metrics after that line."""
        return run_reading.metrics(self._run(ref), after)

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """Complete checkpoints, oldest first."""
        return run_reading.saved_checkpoints(self._run(ref))

    # -- control -----------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """Cancel the job; a queued one ends at once. No effect after the end."""
        run = self._run(ref)
        if run.run_status().is_final:
            return
        with _change(run):
            run.ask("cancel")
            if self._wake(run):
                return
            self._alone(run, lambda: run.end("cancelled", "cancelled before it started"))

    def pause(self, ref: JobRef) -> None:
        """Pause the job. Other jobs can overtake a queued job; a running job keeps its slot and its memory."""
        run = self._run(ref)
        run_status = run.run_status()
        if run_status.is_final:
            raise InvalidRequest(f"{ref} has already ended ({run_status.state}) and cannot be paused")
        with _change(run):
            run.ask("pause")
            if not self._wake(run):
                self._alone(run, lambda: run.tell("paused", "paused in the queue"))

    def resume(self, ref: JobRef) -> None:
        """Resume the job. A queued job whose worker is gone, for example after a reboot, gets a new one."""
        run = self._run(ref)
        run_status = run.run_status()
        if run_status.is_final:
            raise InvalidRequest(f"{ref} has ended ({run_status.state}); a new job must continue from its checkpoint")
        with _change(run):
            run.withdraw("pause")
            if not self._wake(run):
                launch.start(run)

    def _wake(self, run: Run) -> bool:
        """Notify the worker of a request. Returns whether there is one."""
        run_status = run.run_status()
        if run_status.worker is not None and processes.is_alive(run_status.worker):  # type: ignore[arg-type]
            try:
                os.kill(run_status.worker["pid"], signal.SIGUSR1)
            except ProcessLookupError:
                return False
            return True
        return run_status.worker is not None  # on another machine, or only its trainer is alive: they poll

    def _alone(self, run: Run, act: Any) -> None:
        """Act in place of a worker, for a queued job without one."""
        lock = take_lock(run.lock)
        if lock is None:
            return  # a worker has started meanwhile, and will see the request
        try:
            status = run.recorded_status()
            if is_waiting(status) or status["state"] == UNREADABLE:
                creation.leave_queue(run)
                act()
        finally:
            os.close(lock)

    def delete(self, ref: JobRef) -> None:
        """Delete an ended job with its checkpoints and its model. A missing job counts as deleted."""
        try:
            run = self._run(ref)
        except JobNotFound:
            return
        run_status = run.run_status()
        if not run_status.is_final and (run_status.state != UNREADABLE or is_held(run.lock)):
            raise InvalidRequest(f"{ref} has not ended ({run_status.state})", hint="cancel it first")
        children = [str(job.ref) for job in self._others(ref) if job.parent == ref and not job.has_ended]
        if children:
            message = f"{', '.join(children)} started from a checkpoint of {ref} and has not ended"
            raise InvalidRequest(message, hint="wait for it, or cancel it first")
        with contextlib.suppress(JobNotFound), _change(run):
            creation.remove(run)

    def _others(self, ref: JobRef) -> Iterable[JobSnapshot]:
        return LocalBackend(options.Options(root=Path(ref.scope))).list()

    # -- the model ---------------------------------------------------------------------------------------------------

    def model(self, ref: JobRef) -> TunedModel:
        """The job's model. Raises InvalidRequest while there is none."""
        run = self._run(ref)
        return tuned_model(ref, run, run.run_status())

    def scope(self) -> str:
        """The folder of the runs."""
        return str(self.root)

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """Answers in the order of the prompts, from this process."""
        return self._answering.generate(model, prompts, options)

    def why_no_tools(self, model: TunedModel) -> str:
        """See `ToolCaller`. A chat template that does not show tools is found at the first question."""
        return ""

    def score(self, model: TunedModel, passages: Sequence[Passage], *, base: bool = False) -> Iterator[Likelihood]:
        """See `Scorer`."""
        return self._answering.score(model, passages, base=base)

    def predict(self, model: TunedModel, inputs: Sequence[Input]) -> Iterator[Prediction]:
        """Predictions in the order of the inputs, from this process."""
        return self._answering.predict(model, inputs)

    def export(self, model: TunedModel, to: Path, *, merged: bool = False) -> Sequence[Path]:
        """Export the adapter, or the merged weights, to a new folder."""
        return inference.export(model, to, merged=merged)


def _folder(ref: JobRef) -> str:
    """The run's folder. The scope names the root, so that a reference to another root stays valid."""
    return f"{ref.scope}/{ref.id}"


@contextlib.contextmanager
def _change(run: Run) -> Iterator[None]:
    """Convert errors. Raises JobNotFound if another process has deleted the run meanwhile."""
    try:
        with launch.translate_errors(run.path):
            yield
    except BackendError as error:
        if isinstance(error.__cause__, FileNotFoundError) and not run.exists():
            raise JobNotFound(f"no run {run.slug!r} in {run.path.parent}") from error
        raise


def _may_exist(ref: JobRef) -> bool:
    return bool(ref.id) and "/" not in ref.id and not ref.id.startswith(".")
