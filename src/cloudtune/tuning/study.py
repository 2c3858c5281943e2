"""Runs a search: starts trials within the budget, follows their jobs, and records how they ended.

Everything that the search knows is in the ledger, and a trial is recorded before its job is submitted. The same call
therefore continues a search whose process was killed: an open trial gets its job, or is found to have one.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from pydantic import ValidationError

from cloudtune.capability_check import with_parameters
from cloudtune.errors import (
    DataError,
    InputError,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    PolicyRefused,
    Problem,
    QuotaExceeded,
    SpecError,
    UnsupportedError,
    WaitTimeout,
)
from cloudtune.ledger.trials import Outcome, Trial, begin_trial, end_trial, trials_of
from cloudtune.retry import reading
from cloudtune.spending import committed, settle
from cloudtune.state import JobRef, JobState, Value
from cloudtune.trust import check_trust
from cloudtune.tuning.budget import Budget
from cloudtune.tuning.outcomes import outcome_of, run_time
from cloudtune.tuning.sampler import Sampler
from cloudtune.tuning.space import check_space, parameters_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloudtune.backend import Backend
    from cloudtune.client import Client
    from cloudtune.job import Job
    from cloudtune.plan import Plan
    from cloudtune.spec import JobSpec
    from cloudtune.spec_tune import Tune
    from cloudtune.state import JobSnapshot

READ_METRICS_AFTER_S = 20.0
"""Metrics of a job that reports no progress are read after this time, to decide whether to prune it."""
_FAILURES, _FAILURES_IN_A_ROW = 3, 8
"""A search is not continued if its first 3 trials fail, or 8 in a row."""


class TuneUpdate(Value, frozen=True, kw_only=True):
    """The progress of a search."""

    what: Literal["started", "pruning", "ended", "budget"]
    trial: Trial | None = None
    ref: str = ""
    best: Trial | None = None
    """The best complete trial so far."""
    message: str = ""


class Study:
    """One search on one back end. Safe to run in several processes: each trial is started once."""

    def __init__(
        self, client: Client, spec: JobSpec, backend: Backend, *, trust_remote_code: bool, trust_reward: bool,
        accept_unknown_cost: bool, on_update: Callable[[TuneUpdate], None],
    ) -> None:  # fmt: skip
        if spec.tune is None:
            fix = "say what to vary, for example tune: {parameters: {adapter.rank: [4, 16]}}"
            problem = Problem(code="missing", field="tune", message="the spec has no section tune", fix=fix)
            raise SpecError([problem])
        self.tune: Tune = spec.tune
        self.spec, self.client, self.ledger = spec, client, client.ledger
        self.backend = backend
        self._trust_remote_code, self._trust_reward = trust_remote_code, trust_reward
        self._accept = accept_unknown_cost
        self._tell = on_update
        self._sampler = Sampler(spec.tune)
        self._plans: dict[str, Plan] = {}
        self._jobs: dict[str, Job] = {}
        self._curves: dict[str, list[tuple[int, float]]] = {}
        self._cursors: dict[str, str] = {}
        self._judged: dict[str, tuple[int | None, int]] = {}
        self.budget = Budget(spec.tune, self.ledger, self._plan)
        self.stopped = ""
        """Why the search has ended before all its trials."""
        self._check()
        self._rows: str | None = None
        first = self._plan(with_parameters(spec, {}))
        self._rows = first.data.fingerprint
        check_trust(first, confirmed=trust_remote_code, reward_confirmed=trust_reward)
        searched = {"job": first.key, "tune": spec.tune.model_dump(
            mode="json", include={"parameters", "metric", "direction", "seed", "prune"})}  # fmt: skip
        digest = hashlib.sha256(msgspec.json.encode(searched, order="deterministic"))
        self.id = digest.hexdigest()[:32]
        """The same for the same spec, data, back end, account and search space, with any budget."""

    def _check(self) -> None:
        problems: list[Problem] = []
        if self.spec.data.validation is None:
            message = "the metric that chooses is measured on validation rows, and the spec has none"
            problems.append(Problem(code="no_validation", field="data.validation", message=message,
                                    fix="add validation: FILE, or a share such as 0.1"))  # fmt: skip
        if not self.backend.capabilities.can("verb:metrics"):
            reason = self.backend.capabilities.why_not("verb:metrics")
            message = f"{self.backend.name} reports no metrics: {reason}"
            problems.append(Problem(code="no_metrics", field="tune.metric", message=message))
        try:
            check_space(self.spec, self.tune, self.backend)
        except SpecError as error:
            problems += error.problems
        if problems:
            raise SpecError(problems)

    # -- the trials ------------------------------------------------------------------------------------------------

    def every(self) -> list[Trial]:
        """The trials and repetitions that the ledger has."""
        return trials_of(self.ledger, self.id)

    def trials(self) -> list[Trial]:
        """The trials that the ledger has, without repetitions."""
        return [one for one in self.every() if one.rerun is None]

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The complete trial with the best value, the earlier one of two equal ones."""
        complete = [one for one in trials if one.outcome is not None and one.outcome.state == "complete"]
        sign = 1.0 if self.tune.minimizes else -1.0
        return min(complete, key=lambda one: (sign * _value(one), one.number), default=None)

    def search(self, *, final_trainings: int) -> None:
        """Run all trials, or as many as the budget allows beside so many final trainings."""
        self._run(self._next_trial, reserve=final_trainings)
        trials = self.trials()
        failed = [one for one in trials if one.outcome is not None and one.outcome.state == "failed"]
        if failed and self.best(trials) is None:
            last = failed[-1].outcome
            assert last is not None
            message = f"all trials have failed: {last.message}"
            hint = "to start a new search with the same spec, set another tune.seed"
            if last.ref is None:
                raise InvalidRequest(message, hint=hint)
            raise JobFailed(message, ref=JobRef.parse(last.ref), snapshot=None, hint=hint)

    def rerun(self, numbers: Sequence[int]) -> list[Trial]:
        """Train the parameters of these trials again with other seeds, and return these trainings."""
        wanted = [(number, rerun) for rerun in range(1, self.tune.seeds + 1) for number in numbers]

        def following(trials: Sequence[Trial]) -> Trial | None:
            begun = {(one.number, one.rerun) for one in trials}
            by_number = {one.number: one for one in trials if one.rerun is None}
            return next((self._trial(number, by_number[number].parameters, rerun) for number, rerun in wanted
                         if (number, rerun) not in begun), None)  # fmt: skip

        self._run(following, reserve=0)
        return [one for one in self.every() if (one.number, one.rerun) in wanted]

    def job(self, trial: Trial) -> Job:
        """The job of an ended trial."""
        assert trial.outcome is not None
        assert trial.outcome.ref is not None
        return self.client.attach(JobRef.parse(trial.outcome.ref))

    def spec_of(self, trial: Trial) -> JobSpec:
        """The spec of the trial's job."""
        more: dict[str, Any] = {"name": trial.name}
        if trial.rerun is not None and self.backend.capabilities.can("seed"):
            more["seed"] = (self.spec.seed or 0) + trial.rerun
        return with_parameters(self.spec, trial.parameters, **more)

    def _trial(self, number: int, parameters: dict[str, Any], rerun: int | None = None) -> Trial:
        again = "" if rerun is None else f"-s{rerun}"
        stem = self.spec.name[: 40 - len(f"-{number}{again}") - 9].rstrip("-")
        name = f"{stem}-{self.id[:8]}-{number}{again}"
        return Trial(study=self.id, number=number, rerun=rerun, name=name, parameters=parameters)

    def _next_trial(self, every: Sequence[Trial]) -> Trial | None:
        trials = [one for one in every if one.rerun is None]
        taken = {one.number for one in trials}
        number = next(number for number in itertools.count() if number not in taken)  # one may have been repaired away
        states = [one.outcome.state for one in trials if one.outcome is not None]
        last = states[-_FAILURES_IN_A_ROW:] if "complete" in states else states[-_FAILURES:]
        if len(last) >= _FAILURES and set(last) == {"failed"}:
            self.stopped = f"the last {len(last)} trials have failed"
            return None
        if number >= self.tune.trials:
            return None
        if not number:
            return self._trial(0, parameters_in(self.spec, self.tune))
        return self._trial(number, self._sampler.suggest([one for one in trials if one.number < number], number))

    # -- the loop --------------------------------------------------------------------------------------------------

    def _run(self, following: Callable[[Sequence[Trial]], Trial | None], *, reserve: int) -> None:
        """Start what ``following`` proposes, as many at a time as the spec says, until it proposes nothing."""
        self.stopped = ""
        while True:
            every = self.every()
            running = [one for one in every if one.outcome is None]
            if len(running) < self.tune.parallel and (proposed := following(every)) is not None:
                if self._begin(proposed, every, self.tune.parallel - len(running), reserve):
                    continue
                if not running and self.stopped:
                    self._tell(TuneUpdate(what="budget", message=self.stopped))
                    return
            if not running:
                return
            self._follow(running)

    def _begin(self, trial: Trial, every: Sequence[Trial], free: int, reserve: int) -> bool:
        """Record the trial, unless the budget is used up: ``stopped`` then has the reason."""
        self.stopped = self.budget.why_out_of_time(every, reserve)
        if self.stopped:
            return False
        try:
            spec = self.spec_of(trial)
            plan = self.budget.affordable(spec, every, free, reserve)
        except (InputError, ValidationError) as error:
            if not every:
                raise
            refusal = self._refusal(error)
            if begin_trial(self.ledger, trial):
                self._end(trial, refusal)
            return True
        except PolicyRefused as error:
            if not every:
                raise
            self.stopped = error.message
            return False
        cost = committed(plan)
        limit = plan.spec.get("limits", {}).get("max_cost_usd")
        trial = msgspec.structs.replace(trial, limit_usd=limit, committed_usd=cost)
        if begin_trial(self.ledger, trial):
            self._plans[trial.name] = plan
        return True

    def _refusal(self, error: InputError | PolicyRefused | ValidationError) -> Outcome:
        """The outcome of a trial whose plan is refused. Raises if the cause is not its parameters."""
        with suppress(PolicyRefused):
            self._plan(with_parameters(self.spec, {}))
        text = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error.message
        return Outcome(state="failed", message=f"refused: {text}")

    def _plan(self, spec: JobSpec) -> Plan:
        plan = self.client.plan(spec, backend=self.backend.name, accept_unknown_cost=self._accept)
        if self._rows not in (None, plan.data.fingerprint):
            raise DataError("the rows have changed since the search began, so its trials cannot be compared",
                            hint="put them back, or run the same command again for a new search")  # fmt: skip
        return plan

    # -- the jobs --------------------------------------------------------------------------------------------------

    def _follow(self, running: Sequence[Trial]) -> None:
        """Watch the jobs of these trials until one of them has ended."""
        by_ref: dict[JobRef, Trial] = {}
        for trial in running:
            try:
                job = self._submitted(trial)
            except QuotaExceeded:
                if not by_ref:
                    raise
                break  # the back end runs no more jobs at a time; it is tried again when one has ended
            except InvalidRequest as error:
                if trial.number == 0:
                    raise
                self._end(trial, Outcome(state="failed", message=f"refused: {error.message}"))
                return
            if job is None:
                return
            by_ref[job.ref] = trial
        watched = self.client.watch_many(
            list(by_ref), timeout=self._time_left(by_ref), repeat_after=READ_METRICS_AFTER_S
        )
        with suppress(WaitTimeout):  # the next call reads for how long the jobs have run
            for snapshot in watched:
                if self._has_ended(by_ref[snapshot.ref], snapshot):
                    return

    def _time_left(self, by_ref: Mapping[JobRef, Trial]) -> float | None:
        """For how many seconds these jobs can continue; None without a limit. Cancels them if the time is over."""
        if self.tune.max_time is None:
            return None
        jobs, now = self.client.snapshots(by_ref), self.client.clock.now()
        self.budget.running = {by_ref[job.ref].name: run_time(job, now) for job in jobs}
        left = self.budget.time_left(self.every(), len(by_ref))
        if left != 0:
            return left
        self.budget.is_out_of_time = True
        for job in jobs:
            if not job.has_ended:
                self._cancel(job.ref)
        return None

    def _submitted(self, trial: Trial) -> Job | None:
        """The job of the trial. A search that was killed between the record and the job submits it now.

        None if its plan is now refused, for example because a price has changed: the trial has then failed.
        """
        if trial.name in self._jobs:
            return self._jobs[trial.name]
        try:
            plan = self._plans.pop(trial.name, None) or self._plan(self._limited(trial))
        except (InputError, PolicyRefused, ValidationError) as error:
            refusal = self._refusal(error)
            made = [one for one in self.ledger.named(trial.name) if one.ref is not None and one.name == trial.name]
            if not made or made[0].ref is None:
                self._end(trial, refusal)
                return None
            job = self.client.attach(made[0].ref)
        else:
            job = self.client.submit(
                plan, trust_remote_code=self._trust_remote_code, trust_reward=self._trust_reward,
                accept_unknown_cost=self._accept,
            )  # fmt: skip
        self._jobs[trial.name] = job
        self._tell(TuneUpdate(what="started", trial=trial, ref=str(job.ref)))
        return job

    def _limited(self, trial: Trial) -> JobSpec:
        """The spec of an open trial, with the limit that was recorded."""
        spec = self.spec_of(trial)
        limits = spec.limits.model_copy(update={"max_cost_usd": trial.limit_usd})
        return spec.model_copy(update={"limits": limits})

    def _cancel(self, ref: JobRef) -> None:
        with suppress(JobNotFound, UnsupportedError):
            self.client.attach(ref).cancel()

    def _has_ended(self, trial: Trial, snapshot: JobSnapshot) -> bool:
        """Look at a trial's job: prune it if it is worse than others, and record its outcome if it has ended."""
        if not snapshot.native_state:  # its state cannot be read now
            return False
        curve = self._curve(snapshot.ref)
        position = None if trial.rerun is not None else self._pruned_at(trial, curve)
        if not snapshot.has_ended:
            if position is not None and snapshot.state is not JobState.CANCELLING:
                self._tell(TuneUpdate(what="pruning", trial=trial, ref=str(snapshot.ref)))
                self._cancel(snapshot.ref)
            return False
        reading(self.client.clock, settle, self.ledger, self.backend, snapshot, self.client.clock.now())
        outcome = outcome_of(
            snapshot, curve, position, self.tune, self.client.clock.now(), is_out_of_time=self.budget.is_out_of_time
        )  # fmt: skip
        self._end(trial, outcome)
        return True

    def _pruned_at(self, trial: Trial, curve: Sequence[tuple[int, float]]) -> int | None:
        """The position of the curve at which the trial is not worth continuing. Each position is judged once."""
        if not self.backend.capabilities.can("verb:cancel"):
            return None
        position, judged = self._judged.get(trial.name, (None, 0))
        if position is None and judged < len(curve):
            others = [one for one in self.trials() if one.name != trial.name]
            position = self._sampler.pruned_at(others, curve, judged)
            self._judged[trial.name] = position, len(curve)
        return position

    def _curve(self, ref: JobRef) -> list[tuple[int, float]]:
        """The values of the metric on validation rows by step, as far as the job has reported them."""
        key = str(ref)
        curve = self._curves.setdefault(key, [])
        for metric in reading(self.client.clock, self.backend.metrics, ref, self._cursors.get(key)):
            self._cursors[key] = metric.cursor
            value = metric.values.get(self.tune.metric)
            if metric.split == "validation" and value is not None and math.isfinite(value):
                curve.append((metric.step, value))
        return curve

    def _end(self, trial: Trial, outcome: Outcome) -> None:
        end_trial(self.ledger, trial, outcome)
        ended = next(one for one in self.every() if one.name == trial.name)
        self._tell(TuneUpdate(what="ended", trial=ended, ref=outcome.ref or "", best=self.best(self.trials())))


def _value(trial: Trial) -> float:
    assert trial.outcome is not None
    assert trial.outcome.value is not None
    return trial.outcome.value
