"""The client: plan, submit, attach and list jobs. One client serves all back ends and is thread-safe."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from cloudtune.backend import Backend
from cloudtune.capability_check import Fitted, fit, row_rules
from cloudtune.clock import SystemClock
from cloudtune.errors import (
    CloudtuneError,
    InputError,
    InvalidRequest,
    JobNotFound,
    Problem,
    SpecError,
    UnsupportedError,
)
from cloudtune.hosting import Deployments, Hosting, hosts
from cloudtune.importing import Importing, is_address
from cloudtune.job import Job
from cloudtune.ledger.costs import JobCost, job_costs
from cloudtune.ledger.ledger import Ledger
from cloudtune.ledger.rows import Attempt, Rows, spec_of
from cloudtune.optional import Closeable, InPlace, capabilities_of
from cloudtune.plan import DataReport, Plan, PlannedEvaluation, PlanRequest, Resolved
from cloudtune.redaction.boundary import guarded
from cloudtune.registry import describe, open_backend
from cloudtune.retry import reading
from cloudtune.runner import Runner, job_key, job_token
from cloudtune.snapshots import snapshots_of
from cloudtune.spec import JobSpec
from cloudtune.spending import check_budgets, estimated, is_awaited, settle
from cloudtune.state import Deployment, JobRef, JobSnapshot, JobState, TunedModel
from cloudtune.trust import check_trust, trust_warnings
from cloudtune.watch import Pause, polls_of_many, sleeping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.config.config import Config
    from cloudtune.evaluation.costs import EvaluationCost
    from cloudtune.evaluation.models import Address
    from cloudtune.evaluation.result import EvaluateOptions, Evaluation
    from cloudtune.execute import StepUpdate
    from cloudtune.moving import Move
    from cloudtune.report.document import Report
    from cloudtune.spec import Data, Source
    from cloudtune.tuning.result import TuneResult
    from cloudtune.tuning.study import TuneUpdate


class Client:
    """Plans, submits and finds jobs.

    ``backend`` is the default for calls that name none: a name, or an object (calls then refer to it by its name).
    Without it the configuration decides. ``ledger`` is a URL such as ``sqlite:///path``; ``trace`` is called with the
    name of every point at which a test may want to kill the process.

    Back ends keep connections to their services open. `close` closes them, as does the end of a ``with`` block.
    """

    def __init__(
        self,
        backend: str | Backend | None = None,
        *,
        config: Config | None = None,
        ledger: str | Ledger | None = None,
        clock: Clock | None = None,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._config = config
        self._clock = clock or SystemClock()
        self._trace = trace
        self._open: dict[str, Backend] = {}
        self._default = backend if isinstance(backend, str) else None
        if backend is not None and not isinstance(backend, str):
            self._open[backend.name] = guarded(backend)
            self._default = backend.name
        self._ledger = ledger if isinstance(ledger, Ledger) else None
        self._ledger_url = ledger if isinstance(ledger, str) else None

    # -- configuration ---------------------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """The source of time of this client."""
        return self._clock

    @property
    def config(self) -> Config:
        """The configuration, read on first use."""
        from cloudtune.config.config import load_config

        with self._lock:
            if self._config is None:
                self._config = load_config()
            return self._config

    @property
    def ledger(self) -> Ledger:
        """The ledger, opened on first use."""
        if self._ledger is None:
            url = self._ledger_url or self.config.ledger
            self._ledger = Ledger.open(url, self._clock, self._trace)
        return self._ledger

    def backend(self, name: str | None = None) -> Backend:
        """Return the back end with that name, opened once. Raises UnknownBackend, BackendNotInstalled, ConfigError."""
        name = name or self._default or self.config.backend
        with self._lock:
            if name in self._open:
                return self._open[name]
        settings = self.config.settings(name)
        opened = guarded(open_backend(name, settings), settings)
        with self._lock:
            return self._open.setdefault(name, opened)

    def close(self) -> None:
        """Close the connections of all back ends in use, a given one included. A later call opens new ones."""
        with self._lock:
            opened = list(self._open.values())
        for backend in opened:
            if isinstance(backend, Closeable):
                backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- planning --------------------------------------------------------------------------------------------------

    def plan(
        self,
        spec: JobSpec,
        *,
        backend: str | None = None,
        again: bool = False,
        resume: bool = False,
        accept_unknown_cost: bool = False,
    ) -> Plan:
        """Check a spec and its data and return everything that `submit` would do. Sends nothing.

        Args:
            spec: The job.
            backend: The back end. Defaults to the client's.
            again: Plan a new attempt if the last one has ended.
            resume: Start the new attempt from the newest valid checkpoint of the last one, if that one failed, expired
                or was cancelled.
            accept_unknown_cost: Plan a job whose cost is unknown although it has a cost limit or a budget.

        Raises:
            SpecError, UnsupportedError, DataError: Each with all its problems.
            PolicyRefused: The job may cost more than its limit or a budget, or its cost is unknown.
        """
        chosen = self.backend(backend or self._default or spec.backend)
        fitted = fit(spec, chosen)
        resolved, data, evaluation = self._look(fitted.spec, chosen, with_evaluation=True)
        key = job_key(fitted.spec, data, chosen.name, resolved)
        attempt, parent = self._runner(chosen).next_attempt(key, again=again, resume=resume)
        plan = self._planned(
            fitted, chosen, resolved, data, key, attempt, parent, accept_unknown_cost=accept_unknown_cost
        )
        plan = msgspec.structs.replace(plan, evaluation=evaluation)
        if spec.tune is not None:
            message = "a single job does not search: it has the spec's own parameters"
            untuned = Problem(code="not_tuned", severity="warning", field="tune", message=message,
                              fix="to search: cloudtune tune SPEC")  # fmt: skip
            plan = msgspec.structs.replace(plan, warnings=(*plan.warnings, untuned))
        if resume and attempt == 1:
            plan = msgspec.structs.replace(plan, warnings=(*plan.warnings, *self._not_resumed(plan)))
        return plan

    def _not_resumed(self, plan: Plan) -> list[Problem]:
        """Warn if the last job of that name is not resumed, because it is another job: something has changed."""
        for made in self.ledger.named(plan.name):
            if made.name == plan.name and made.backend == plan.backend and made.ref and not made.gone_at:
                if made.key == plan.key:
                    return []
                what = _what_changed(made.plan, plan.resolved, plan.data) or "the spec"
                message = f"this is a new job, not a continuation of {made.ref}: {what} has changed"
                fix = f"to continue that job as it was: cloudtune resume {made.ref}"
                return [Problem(code="not_resumed", severity="warning", message=message, fix=fix)]
        return []

    def _planned(
        self, fitted: Fitted, backend: Backend, resolved: Resolved, data: DataReport, key: str, attempt: int,
        parent: JobRef | None, *, accept_unknown_cost: bool,
    ) -> Plan:  # fmt: skip
        request = PlanRequest(
            spec=fitted.spec, data=data, resolved=resolved, key=key, attempt=attempt, token=job_token(key, attempt),
            parent=parent,
        )  # fmt: skip
        is_limited = fitted.spec.limits.max_cost_usd is not None
        if is_limited and parent is not None and (ended := self._runner(backend).snapshot(parent)) is not None:
            settle(self.ledger, backend, ended, self._clock.now())  # its cost counts for the limit
        request, cost, limits = estimated(request, backend, self.ledger, accept_unknown=accept_unknown_cost)
        plan = backend.plan(request)
        warnings = (*data.problems, *fitted.advice, *trust_warnings(plan.spec, plan.backend), *plan.warnings, *limits)
        plan = msgspec.structs.replace(plan, dropped=fitted.dropped, warnings=warnings, cost=cost)
        self._check_budgets(plan, accept_unknown_cost=accept_unknown_cost)
        return plan

    def _check_budgets(self, plan: Plan, *, accept_unknown_cost: bool) -> None:
        budgets = self.config.budgets
        check_budgets(budgets, self.ledger, plan, self._clock.now(), accept_unknown=accept_unknown_cost)

    def _look(
        self, spec: JobSpec, backend: Backend, *, with_evaluation: bool = False
    ) -> tuple[Resolved, DataReport, PlannedEvaluation | None]:
        """Resolve the spec and read the data. Problems of all parts are reported together."""
        from cloudtune.data.checks.check_cache import Verdicts

        problems: list[InputError] = []
        resolved: Resolved | None = None
        report: DataReport | None = None
        try:
            resolved = reading(self._clock, backend.resolve, spec)
        except InputError as error:
            problems.append(error)
        try:
            limit = resolved.row_limit if resolved is not None else None
            known = Verdicts(self.ledger.folder / "verdicts")
            report = known.prepare(
                spec.data, method=spec.method.name, problem=spec.method.label_problem, limit=limit,
                target=row_rules(spec, backend),
            )  # fmt: skip
        except InputError as error:
            problems.append(error)
        evaluation: PlannedEvaluation | None = None
        if with_evaluation and spec.evaluation is not None:
            from cloudtune.evaluation.prepared import planned

            try:
                evaluation = planned(spec, self._subject)
            except InputError as error:
                problems.append(error)
        if resolved is not None and report is not None and not problems:
            return resolved, report, evaluation
        if len(problems) == 1:
            raise problems[0]
        raise SpecError([problem for error in problems for problem in error.problems])

    def move(self, job: JobSpec | Job | JobRef | str, to: str, *, model: str | None = None) -> Move:
        """Return the spec of a job for another back end, with every difference. Sends nothing.

        Args:
            job: A spec, a job, or what `attach` takes.
            to: The back end to move to. The spec's own one if its settings are now for a compatible service.
            model: The base model there. Default: the one that the catalog names for it.

        Raises:
            InputError: The base model must be named, or the ledger does not have the job.
            UnsupportedError: The target does not support the method, or not the model.
        """
        from cloudtune.data.checks.check_cache import Verdicts
        from cloudtune.moving import move

        if isinstance(job, JobSpec):
            spec, source = job, self._default or job.backend or self.config.backend
        else:
            job = job if isinstance(job, Job) else self.attach(job)
            spec, source = self.spec_of(job), job.ref.backend
        target = self.backend(to)
        origin = open_backend(source) if source == to else self.backend(source)  # the settings are those of the target
        moved = move(spec, origin, target, model=model)
        rules = row_rules(moved.spec, target)
        try:
            problems = Verdicts(self.ledger.folder / "verdicts").prepare(
                moved.spec.data, method=spec.method.name, problem=spec.method.label_problem, target=rules
            ).problems  # fmt: skip
        except InputError as error:
            problems = error.problems
        return moved._replace(problems=(*moved.problems, *problems))

    def spec_of(self, job: Job | JobRef | str) -> JobSpec:
        """Return the spec with which a job was submitted. Raises InputError if the ledger does not have it."""
        from cloudtune.evaluation.models import trained_with

        ref = (job if isinstance(job, Job) else self.attach(job)).ref
        made = self.ledger.of_ref(ref)
        if (spec := trained_with(made)) is None:
            reason = "was not submitted with this ledger" if made is None else "was imported, not trained"
            raise InputError(f"{ref} has no spec: it {reason}", hint="use a spec file")
        return spec

    # -- submitting ------------------------------------------------------------------------------------------------

    def submit(
        self,
        spec: JobSpec | Plan,
        *,
        backend: str | None = None,
        again: bool = False,
        resume: bool = False,
        trust_remote_code: bool = False,
        trust_reward: bool = False,
        accept_unknown_cost: bool = False,
        on_step: Callable[[StepUpdate], None] | None = None,
    ) -> Job:
        """Create the job, or return the existing one if the same spec and data were submitted before.

        After a crash or a lost response, the same call continues where it stopped.

        Args:
            spec: The job, or its plan.
            backend: The back end. Defaults to the client's.
            again: See `plan`.
            resume: See `plan`.
            trust_remote_code: Confirm that code from the model's repository can run.
            trust_reward: Confirm that the spec's reward function can run, or that its endpoint gets the rows.
            accept_unknown_cost: See `plan`.
            on_step: Called with every step of the submission.

        Raises:
            PolicyRefused: The spec requests remote code or a reward, and the call does not confirm it; or the cost
                exceeds a limit or a budget.
        """
        if isinstance(spec, Plan):
            plan = spec
        else:
            plan = self.plan(spec, backend=backend, again=again, resume=resume, accept_unknown_cost=accept_unknown_cost)
        if plan.purpose != "job":
            raise InputError(f"this plan is to {plan.purpose} a model, not to create a job")
        check_trust(plan, confirmed=trust_remote_code, reward_confirmed=trust_reward)
        if trust_reward and plan.parent is None:  # a resumed job keeps the decision about its parent
            from cloudtune.evaluation.function_trust import trust_functions

            trust_functions(plan.spec)
        # Continue the recorded plan. Only the location of the rows may have changed.
        runner = self._runner(self.backend(plan.backend))

        def check() -> None:
            self._check_budgets(plan, accept_unknown_cost=accept_unknown_cost)

        return Job(self, runner.submit(plan, spec_of(plan), on_step, check))

    def resume(
        self, ref: JobRef, *, accept_unknown_cost: bool = False, on_step: Callable[[StepUpdate], None] | None = None
    ) -> Job:
        """Continue a job that has ended: a new job starts from its newest valid checkpoint, with it as the parent.

        The same call returns the new job again. If that has failed, resume it instead.

        Args:
            ref: The job.
            accept_unknown_cost: See `plan`.
            on_step: Called before and after each step of the submission.

        Raises:
            UnsupportedError: The back end cannot continue a job that has ended.
            InvalidRequest: The job has no valid checkpoint, its data or model has changed, or a newer attempt of its
                spec has not ended.
            PolicyRefused: The cost limit or a budget does not allow the new job.
        """
        backend = self.backend(ref.backend)
        capabilities = capabilities_of(backend, ref)
        if not capabilities.can("verb:continue"):
            reason = capabilities.why_not("verb:continue")
            raise UnsupportedError(f"{ref.backend} cannot continue a job that has ended: {reason}")
        made = self.ledger.of_ref(ref)
        if made is None:
            raise InvalidRequest(
                f"{ref} was not submitted with this ledger, so its spec is unknown",
                hint="submit its spec file with --resume, or use the ledger it was submitted with",
            )
        last = self.ledger.latest(made.key) or made
        if last.ref is not None and last.ref != ref and last.gone_at is None:
            newest = self._runner(backend).snapshot(last.ref)
            if newest is not None and last.plan.parent == str(ref):
                return Job(self, last.ref)
            if newest is not None and not newest.has_ended:
                raise InvalidRequest(
                    f"{last.ref}, a newer attempt of the same spec, has not ended", hint="watch it, or cancel it first"
                )
        spec = spec_of(made.plan)
        resolved, data, _ = self._look(spec, backend)
        if job_key(spec, data, backend.name, resolved) != made.key:
            raise InvalidRequest(
                f"{_what_changed(made.plan, resolved, data) or 'scope'} of {ref} has changed since it was submitted",
                hint="put the original back, or submit its spec file as a new job",
            )
        attempt = last.attempt + 1 if last.ref is not None else last.attempt
        advice = tuple(problem for problem in backend.check(spec) if problem.severity != "error")
        fitted = Fitted(spec, (), advice)  # what it dropped was left out of the recorded spec
        plan = self._planned(
            fitted, backend, resolved, data, made.key, attempt, ref, accept_unknown_cost=accept_unknown_cost
        )
        return self.submit(  # both kinds of trust were confirmed when ``ref`` was submitted
            plan, trust_remote_code=True, trust_reward=True, accept_unknown_cost=accept_unknown_cost, on_step=on_step
        )

    # -- hosting ---------------------------------------------------------------------------------------------------

    def plan_deploy(self, model: TunedModel, *, ttl: float | None = None, **options: Any) -> Plan:
        """Return everything that deploying the model would do. Sends nothing.

        Args:
            model: The tuned model.
            ttl: Time to live in seconds from now, after which `sweep` deletes the deployment. Deploying again sets
                another one, or none.
            options: Options of the back end.

        Raises:
            UnsupportedError: The back end does not deploy models.
        """
        return self._hosting(model.backend).plan_deploy(model, options, ttl)

    def deploy(
        self,
        model_or_plan: TunedModel | Plan,
        *,
        on_step: Callable[[StepUpdate], None] | None = None,
        ttl: float | None = None,
        **options: Any,
    ) -> Deployment:
        """Deploy the model and wait until it is ready. A repeated call returns the same deployment.

        After a crash or a lost response, the same call continues where it stopped. ``ttl`` and ``options``: see
        `plan_deploy`.
        """
        if isinstance(model_or_plan, Plan) and (options or ttl is not None):
            raise InputError("a plan already includes its options", hint="pass them to plan_deploy")
        hosting = self._hosting(model_or_plan.backend)
        if isinstance(model_or_plan, TunedModel):
            model_or_plan = hosting.plan_deploy(model_or_plan, options, ttl)
        return hosting.deploy(model_or_plan, on_step)

    def deployments(self, *, backend: str | None = None) -> Deployments:
        """List the deployments of a back end, or of the default and all back ends in the ledger.

        With several back ends, errors of one do not fail the call: ``unanswered`` of the result has the reasons.
        """
        found = Deployments()
        if backend is not None:
            found.extend(self._hosting(backend).existing())
            return found
        for name in dict.fromkeys([self._default or self.config.backend, *self.ledger.backends()]):
            try:
                if hosts(self.backend(name)):
                    found.extend(self._hosting(name).existing())
            except CloudtuneError as error:
                found.unanswered[name] = error.message
        return found

    def sweep(self, *, backend: str | None = None, apply: bool = False) -> Deployments:
        """Return the deployments that are past their time to live, and delete them with ``apply``.

        Only deployments that were made with a ``ttl`` and this ledger are affected. An error of one does not fail the
        call: ``failed`` of the result has the reasons.
        """
        found, now = self.deployments(backend=backend), self._clock.now()
        found[:] = [one for one in found if one.expires_at is not None and one.expires_at <= now]
        for one in list(found) if apply else ():
            try:
                if self._hosting(one.backend).expiry(one) != one.expires_at:
                    found.remove(one)  # deployed again since the list was read
                    continue
                self.remove(one)
            except CloudtuneError as error:
                found.failed[one.backend, one.scope, one.id] = error.message
        return found

    def undeployed(self, deployments: Deployments, *, backend: str | None = None) -> list[TunedModel]:
        """The tuned models of the ledger's jobs that answer only when deployed, and are not in the list.

        Args:
            deployments: What `deployments` has returned. Models of back ends that did not respond are left out.
            backend: Only models of this back end, for a list that has only its deployments.
        """
        served = {(one.backend, one.scope, one.model) for one in deployments}
        refs: list[JobRef] = []
        for name in self.ledger.backends():
            if name in deployments.unanswered or backend not in (None, name):
                continue
            with suppress(CloudtuneError):  # `deployments` reports why a back end cannot be opened
                refs += self.ledger.refs(backend=name) if hosts(self.backend(name)) else []
        found = []
        for job in self.snapshots(refs):
            with suppress(CloudtuneError):  # it has no usable model
                if job.state is JobState.SUCCEEDED:
                    model = reading(self._clock, self.backend(job.ref.backend).model, job.ref)
                    if model.needs_deploy and (model.backend, model.scope, model.id) not in served:
                        found.append(model)
        return found

    def remove(self, deployment: Deployment, *, on_step: Callable[[StepUpdate], None] | None = None) -> None:
        """Delete the deployment. Succeeds if it no longer exists."""
        hosting = self._hosting(deployment.backend)
        hosting.remove(hosting.plan_remove(deployment), on_step)

    def _hosting(self, backend: str) -> Hosting:
        return Hosting(self._runner(self.backend(backend)))

    def _runner(self, backend: Backend) -> Runner:
        return Runner(backend, self.ledger, self._clock, self._trace)

    # -- importing -------------------------------------------------------------------------------------------------

    def plan_import(
        self,
        source: Path | str | Job | InPlace,
        *,
        backend: str | None = None,
        name: str | None = None,
        again: bool = False,
        on_export: Callable[[Path], None] | None = None,
    ) -> Plan:
        """Check a model and return everything that `import_model` would do. Sends nothing to the back end.

        Args:
            source: A folder in the transformers layout, an address (``s3://...``, an ARN), a `Job`, or the reference or
                name of a job. If the back end cannot read the weights of a job in place, they are merged and exported
                next to the ledger.
            backend: The back end.
            name: Name of the imported model.
            again: Plan a new attempt if the last one has ended.
            on_export: Called with the folder before an export starts.

        Raises:
            UnsupportedError: The back end imports no models.
            InputError: The model cannot be imported, with all problems.
        """
        importing = Importing(self._runner(self.backend(backend)))
        if isinstance(source, str) and not is_address(source) and not Path(source).expanduser().is_dir():
            source = self.attach(source)
        if isinstance(source, Job):
            return importing.plan_of_job(source, name=name, again=again, on_export=on_export)
        return importing.plan(source, name=name, again=again)

    def import_model(
        self,
        source_or_plan: Path | str | Job | InPlace | Plan,
        *,
        backend: str | None = None,
        name: str | None = None,
        again: bool = False,
        on_step: Callable[[StepUpdate], None] | None = None,
    ) -> Job:
        """Import a model that was trained elsewhere. The import is a job, identified by name and files.

        Takes the arguments of `plan_import`, or a plan that it returned.
        """
        if isinstance(source_or_plan, Plan):
            plan = source_or_plan
        else:
            plan = self.plan_import(source_or_plan, backend=backend, name=name, again=again)
        return Job(self, Importing(self._runner(self.backend(plan.backend))).submit(plan, on_step))

    # -- finding ---------------------------------------------------------------------------------------------------

    def attach(self, ref: JobRef | str) -> Job:
        """Return the handle of a job, from any process. Sends no request.

        Args:
            ref: A reference, or an id, name or id prefix of a job in the ledger. An exact id or name is preferred.

        Raises:
            JobNotFound: The ledger has no such job.
            InputError: Several jobs match.
        """
        if isinstance(ref, JobRef):
            return Job(self, ref)
        try:
            return Job(self, JobRef.parse(ref))
        except ValueError:
            return Job(self, self._named(ref))

    def _named(self, text: str) -> JobRef:
        known = [(attempt.ref, attempt) for attempt in self.ledger.named(text) if attempt.ref is not None]
        by_id = [(ref, attempt) for ref, attempt in known if text in (ref.id, str(ref))]
        by_name = [(ref, attempt) for ref, attempt in known if attempt.name == text]
        for matches in (by_id, by_name, known):
            found = {ref: attempt.key for ref, attempt in matches if not attempt.gone_at}
            if len(set(found.values())) > 1:
                refs = ", ".join(map(str, list(found)[:5])) + (", ..." if len(found) > 5 else "")
                raise InputError(f"{text!r} matches several jobs: {refs}", hint="use the full reference of one of them")
            if found:
                return next(iter(found))  # the newest of several attempts
            if matches:  # the name of a deleted job must not be taken for the beginning of another one's id
                raise JobNotFound(f"the job {text!r} was deleted", hint="run `cloudtune jobs` to list jobs")
        raise JobNotFound(f"no job named {text!r} in {self.ledger}", hint="run `cloudtune jobs` to list jobs")

    def jobs(self, *, backend: str | None = None, remote: bool = False, limit: int | None = None) -> list[JobSnapshot]:
        """List the ledger's jobs with their current state, newest first.

        A job whose back end does not respond, or does not know the job, has the state unknown and the reason.

        Args:
            backend: Only jobs of this back end.
            remote: Also list jobs that cloudtune did not create.
            limit: Maximum number of jobs.
        """
        refs = self.ledger.refs(backend=backend, limit=limit)
        found = {snapshot.ref: snapshot for snapshot in self.snapshots(refs)}
        jobs = [found[ref] for ref in refs]
        if remote:
            chosen = self.backend(backend)
            jobs += [job for job in reading(self._clock, lambda: list(chosen.list(limit))) if job.ref not in found]
            jobs.sort(key=lambda job: job.created_at.timestamp() if job.created_at else 0.0, reverse=True)
        return jobs[:limit]

    def snapshots(self, refs: Iterable[JobRef]) -> list[JobSnapshot]:
        """Read many jobs in as few calls as each back end allows. Errors of single jobs do not fail the call."""
        return snapshots_of(refs, open_backend=self.backend, clock=self._clock)

    def watch_many(
        self, refs: Sequence[JobRef], *, timeout: float | None = None, repeat_after: float | None = None
    ) -> Iterator[JobSnapshot]:
        """Watch the states of many jobs, in few calls, until all have ended. See `cloudtune.watch.polls_of_many`."""
        return sleeping(self._polls(refs, timeout=timeout, repeat_after=repeat_after), self._clock)

    def _polls(self, refs: Sequence[JobRef], **how: Any) -> Iterator[JobSnapshot | Pause]:
        pace = 0.0
        for name in {ref.backend for ref in refs}:
            with suppress(CloudtuneError):  # `snapshots` reports why a back end cannot be opened
                pace = max(pace, self.backend(name).capabilities.poll_s)
        yield from polls_of_many(self.snapshots, refs, clock=self._clock, shortest_poll=pace, **how)

    def costs(self, *, backend: str | None = None) -> Rows[JobCost]:
        """Return every job of the ledger with its estimate and its cost, newest first.

        The cost of a job that has ended is recorded first, if it is not yet: this reads the job's state. A cost that
        the vendor has not reported is read again for a week.
        """
        now = self._clock.now()
        waiting = [
            one.attempt.ref for one in job_costs(self.ledger, backend=backend)
            if one.attempt.ref is not None and one.attempt.gone_at is None and is_awaited(one.actual, now)
        ]  # fmt: skip
        for job in self.snapshots(waiting):
            if job.has_ended:
                settle(self.ledger, self.backend(job.ref.backend), job, now)
        return job_costs(self.ledger, backend=backend)

    # -- tuning ----------------------------------------------------------------------------------------------------

    def tune(
        self,
        spec: JobSpec,
        *,
        backend: str | None = None,
        trust_remote_code: bool = False,
        trust_reward: bool = False,
        accept_unknown_cost: bool = False,
        on_update: Callable[[TuneUpdate], None] | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> TuneResult:
        """Search for better parameters, as ``tune`` of the spec says, and measure what they are worth.

        Each trial is a job. The best parameters and the original ones are then trained again with other seeds, and
        compared on the test rows. After a crash, the same call continues where it stopped.

        Args:
            spec: The job, with its section ``tune``.
            backend: The back end. Defaults to the client's.
            trust_remote_code: See `submit`.
            trust_reward: See `submit`.
            accept_unknown_cost: See `plan`.
            on_update: Called when a trial starts, is pruned or ends.
            on_progress: See `evaluate`.

        Raises:
            SpecError: The search space does not fit the spec or the back end, with all problems.
            DataError: The rows have changed since the search began.
            PolicyRefused: The budget does not suffice for one complete trial.
            JobFailed: All trials have failed.
        """
        from cloudtune.evaluation.evaluating import Evaluator
        from cloudtune.tuning.result import tuned
        from cloudtune.tuning.study import Study

        study = Study(
            self, spec, self.backend(backend or self._default or spec.backend), trust_remote_code=trust_remote_code,
            trust_reward=trust_reward, accept_unknown_cost=accept_unknown_cost,
            on_update=on_update or (lambda update: None),
        )  # fmt: skip

        def evaluator() -> Evaluator:
            return Evaluator(self.ledger, self._clock, self.backend, progress=on_progress,
                             trust_remote_code=trust_remote_code, trust_reward=trust_reward)  # fmt: skip

        return tuned(study, evaluator)

    # -- evaluating ------------------------------------------------------------------------------------------------

    def evaluate(
        self, model: Job | JobRef | str, data: Source | Data | str | None = None, *,
        against: Sequence[Job | JobRef | str] = (), guard: Source | str | None = None,
        options: EvaluateOptions | None = None, spec: JobSpec | None = None, store: bool = True,
        trust_remote_code: bool = False, trust_reward: bool = False,
        on_progress: Callable[[str, int, int], None] | None = None,
        on_cost: Callable[[EvaluationCost], None] | None = None,
    ) -> Evaluation:  # fmt: skip
        """Compare the answers of a model with those of its base model and of other models, on held-out rows.

        Answers are stored next to the ledger. A repeated call asks no model again. After a crash, at most the
        answers in flight are asked for again.

        Args:
            model: A job, or what `attach` takes; a folder with a model, for the local back end (with a slash in its
                path); or ``backend=id``: a deployment or a vendor's id of a model, such as ``openai=gpt-4.1-mini``.
            data: The held-out rows: a file, a source of a spec, or the data of a spec, whose test rows are used.
                Without it, `JobSpec.evaluation` decides about everything but the trust, and other options are refused.
            against: Other models.
            guard: General rows that show what the model has forgotten, in ``guard`` of the result.
            options: Metrics, baselines and settings.
            spec: Has the evaluation, if there is no ``data``. Default: the spec with which the job was submitted.
            store: Store the result as the job's last evaluation: see `evaluation`.
            trust_remote_code: See `Job.model`.
            trust_reward: Confirm that metrics that are Python functions can run. The submission has confirmed those in
                files that its spec names, on this machine and unless a file has changed.
            on_progress: Called with a model's name, the number of its answers and of all rows.
            on_cost: Called with the estimated cost before any question.

        Raises:
            DataError: Rows that cannot be evaluated, all of them.
            InputError: A metric that does not fit the rows, or a model that is named twice.
            PolicyRefused: A metric is a Python function, and the call does not confirm it; or the answers may cost more
                than ``options.max_cost_usd``.
            InvalidRequest: Prompts that the back end rejects. All other answers are stored.
        """
        from cloudtune.evaluation.evaluating import Evaluator
        from cloudtune.evaluation.prepared import evaluation_in_spec
        from cloudtune.evaluation.result import EvaluateOptions
        from cloudtune.spec import Source

        subject, from_spec = self._subject(model), data is None
        if data is None:
            if against or guard is not None or options not in (None, EvaluateOptions()):
                raise InputError("without data, the spec decides about all options", hint="name the held-out rows")
            (data, against, guard, options), trust_reward = evaluation_in_spec(self.ledger, subject, spec, trust_reward)
        options = options or EvaluateOptions()
        evaluator = Evaluator(self.ledger, self._clock, self.backend, progress=on_progress, on_cost=on_cost,
                              trust_remote_code=trust_remote_code, trust_reward=trust_reward)  # fmt: skip
        return evaluator.evaluate(
            subject, [self._subject(one) for one in against], Source(path=data) if isinstance(data, str) else data,
            options, guard=Source(path=guard) if isinstance(guard, str) else guard,
            judge=None if options.judge is None else self._subject(options.judge.model), from_spec=from_spec,
            store=store,
        )  # fmt: skip

    def evaluation(self, job: Job | JobRef | str) -> Evaluation | None:
        """The last evaluation of a job that is stored next to this ledger, or None. Asks no model."""
        from cloudtune.evaluation.result import load

        return load(self.ledger, (job if isinstance(job, Job) else self.attach(job)).ref)

    def _subject(self, model: Job | JobRef | Address | str) -> Job | Address:
        from cloudtune.evaluation.models import Address, is_folder

        if isinstance(model, Job | Address):
            return model
        if isinstance(model, str):
            if is_folder(model):
                return Address(model, self.backend("local"))
            backend, equals, address = model.partition("=")
            if equals and backend.isidentifier():
                return Address(address, self.backend(backend))
        return self.attach(model)

    def report(self, job: Job | JobRef | str, *, evaluation: Evaluation | None = None) -> Report:
        """Gather everything about a job in one document, which `Report` writes as HTML, Markdown or JSON.

        Args:
            job: A job, or what `attach` takes.
            evaluation: What `evaluate` returned for the job. Default: its last evaluation, see `evaluation`.

        Raises:
            JobNotFound: Neither the ledger nor the back end knows the job.
            InputError: Several jobs match.
        """
        from cloudtune.report.document import make_report

        found = job if isinstance(job, Job) else self.attach(job)
        return make_report(found, self.backend(found.ref.backend), self.ledger, self._clock.now(), evaluation)

    def unfinished(self) -> Rows[Attempt]:
        """Return submissions that started but have no job yet. Submit again to continue. See `Ledger.attempts`."""
        found = self.ledger.attempts()
        return Rows([attempt for attempt in found if attempt.ref is None], found.damaged)


def _what_changed(plan: Plan, resolved: Resolved, data: DataReport) -> str:
    """Name what differs from a submitted plan, with both fingerprints."""
    pairs: dict[str, tuple[str | None, str | None]] = {"the data": (plan.data.fingerprint, data.fingerprint)}
    names = sorted({*plan.resolved.identity, *resolved.identity})
    pairs |= {f"the {name}": (plan.resolved.identity.get(name), resolved.identity.get(name)) for name in names}
    differing = [f"{name} (fingerprint {was}, now {is_now})" for name, (was, is_now) in pairs.items() if was != is_now]
    return " and ".join(differing)


def connect(backend: str | None = None, **settings: Any) -> Client:
    """Return a client for a back end, and open the back end.

    Args:
        backend: The name. Default: the one in the configuration.
        settings: Settings of the back end. They take precedence over those in the configuration.
    """
    client = Client()
    name = backend or client.config.backend
    describe(name)  # before the settings are read: an unknown name is the first problem to report
    merged = {**client.config.settings(name), **settings}
    return Client(guarded(open_backend(name, merged), merged), config=client.config)
