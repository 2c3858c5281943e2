"""The one submit path: jobs, deployments, removals and imports are numbered, recorded and executed here.

A plan belongs to an attempt of its key. The runner assigns the attempt of a new plan, records it in the ledger, and
executes what is left of it. After a crash, the same call continues with the plan that was recorded.

A key is the hash of (spec, data content, back end, scope), so the same key always means the same job. A token is the
hash of (key, attempt). Every name and idempotency token at a vendor is derived from it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.spool import Spool
from cloudtune.errors import BackendError, JobNotFound, LedgerError, TransientError
from cloudtune.execute import Executor
from cloudtune.ledger.deployments import replace_plan
from cloudtune.ledger.rows import REMEDY
from cloudtune.retry import reading
from cloudtune.state import JobRef, JobSnapshot, JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.execute import StepUpdate
    from cloudtune.ledger.ledger import Ledger
    from cloudtune.plan import DataReport, Plan, Resolved
    from cloudtune.spec import JobSpec

# The rows' location is not their content (which is hashed separately), the place of the job is part of the scope,
# and neither a watch's timeouts nor the evaluation nor a search around the job affect its training.
_NOT_IDENTITY = {"backend", "data", "evaluation", "model", "overrides", "tune", "unsupported", "version"}


def job_key(spec: JobSpec, data: DataReport, backend: str, resolved: Resolved) -> str:
    """Return 32 hex digits. The same spec and rows on the same back end and account give the same key."""
    document: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True, exclude=_NOT_IDENTITY)
    for name in ("stall_after", "max_cost_usd"):  # a job can continue with a higher limit
        document.get("limits", {}).pop(name, None)
    return _digest(
        {
            "spec": document,
            "model": spec.model_for(backend),
            "overrides": spec.overrides.get(backend, {}),
            "data": data.fingerprint,
            "backend": backend,
            "scope": resolved.scope,
            "identity": resolved.identity,
        }
    )


def job_token(key: str, attempt: int) -> str:
    """Return 32 hex digits, different for each attempt of the same key."""
    return _digest({"key": key, "attempt": attempt})


def _digest(document: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()[:32]


class Runner:
    """Submits the plans of one back end. Safe for several threads and processes."""

    def __init__(
        self, backend: Backend, ledger: Ledger, clock: Clock, trace: Callable[[str], None] | None = None
    ) -> None:
        self.backend = backend
        self.ledger = ledger
        self.clock = clock
        self._trace = trace

    def next_attempt(self, key: str, *, again: bool, resume: bool = False) -> tuple[int, JobRef | None]:
        """The attempt that a new plan of a job or an import is, and the job whose checkpoint it starts from.

        That is the last attempt, unless it was deleted, or it has ended and ``again`` or ``resume`` ask for a new one.
        A job that succeeded is not resumed. An attempt without a job is planned again: see `submit`.
        """
        last = self.ledger.latest(key)
        if last is None:
            return 1, None
        if last.gone_at is not None:
            return last.attempt + 1, None
        parent = JobRef.parse(last.plan.parent) if last.plan.parent else None
        if last.ref is None:
            if parent is None and resume and (made := self.ledger.latest(key, made=True)) and not made.gone_at:
                parent = made.ref
            return last.attempt, parent if parent and not again and self._is_resumable(parent) else None
        if not (again or resume):
            return last.attempt, parent
        job = self.snapshot(last.ref)
        if job is not None and (not job.has_ended or (resume and job.state is JobState.SUCCEEDED)):
            return last.attempt, parent
        return last.attempt + 1, last.ref if resume and job is not None else None

    def _is_resumable(self, ref: JobRef) -> bool:
        job = self.snapshot(ref)
        return job is not None and job.has_ended and job.state is not JobState.SUCCEEDED

    def next_deployment(self, key: str) -> int:
        """The attempt that a new plan to deploy or to remove is: the last one, or a new one once that has ended."""
        last = self.ledger.latest(key)
        if last is None:
            return 1
        if not last.plan.steps:
            raise LedgerError(f"the plan of {last.name} is damaged in the ledger: it has no steps", hint=REMEDY)
        return last.attempt + 1 if self.ledger.is_done(last.token, last.plan.steps[-1].id) else last.attempt

    def submit(
        self, plan: Plan, spec: JobSpec | None = None, on_step: Callable[[StepUpdate], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> JobRef:  # fmt: skip
        """Create the job of a plan, or find it if the plan was submitted before.

        ``spec`` locates the rows of its ``encode`` steps. ``check`` may refuse a new attempt; see `Ledger.begin`.
        Raises what the back end raises once its retries are used up; the same call then continues from there.

        An attempt whose job was never requested follows the new plan, for example one that starts over instead of
        resuming. If a resumed attempt is refused before that, it is forgotten, so nothing has changed.
        """
        attempt = self.ledger.begin(plan, check)
        if attempt.ref is not None:
            return attempt.ref
        attempt = self.ledger.revise(plan)
        try:
            return self._executor(on_step).run(attempt.plan, spec)
        except BackendError as error:
            if attempt.plan.parent is not None and not isinstance(error, TransientError):
                self.ledger.withdraw(attempt.plan)
            raise

    def run_deployment(self, plan: Plan, on_step: Callable[[StepUpdate], None] | None = None) -> dict[str, Any]:
        """Execute a plan that deploys or removes, and return the outputs of its last step.

        An attempt that an earlier call began continues with its steps, and with the time to live of this call.
        """
        recorded = self.ledger.begin(plan).plan
        if recorded.spec != plan.spec:
            recorded = msgspec.structs.replace(recorded, spec=plan.spec)
            replace_plan(self.ledger, recorded)
        return self._executor(on_step).host(recorded)

    def snapshot(self, ref: JobRef) -> JobSnapshot | None:
        """The job's current state; None if the back end has no such job."""
        try:
            return reading(self.clock, self.backend.get, ref)
        except JobNotFound:
            return None

    def _executor(self, on_step: Callable[[StepUpdate], None] | None) -> Executor:
        spool = Spool(self.ledger.folder / "spool")
        return Executor(self.backend, self.ledger, self.clock, spool=spool, trace=self._trace, on_step=on_step)
