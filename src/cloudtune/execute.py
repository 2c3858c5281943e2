"""Executes a Plan step by step with the ledger: exactly once, even after a crash.

For each step: take its lease; record the intent; ask the back end whether it is already done; record that it is being
sent; do it; record the outcome. After a crash, the next run of the same plan determines the outcome before it sends
anything again. Absence is accepted only after the step's settle time since the last send, because a late request may
still arrive.
"""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cloudtune.backend import Done, Intent, Unsettled
from cloudtune.errors import (
    BackendError,
    Conflict,
    CredentialsError,
    InvalidRequest,
    JobNotFound,
    LedgerError,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    TransientError,
)
from cloudtune.ledger.ledger import RENEW_EVERY_S
from cloudtune.ledger.rows import REMEDY
from cloudtune.plan import Step, filled
from cloudtune.processes.identity import Owner
from cloudtune.retry import reading, sending
from cloudtune.state import JobRef, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudtune.backend import Backend
    from cloudtune.clock import Clock
    from cloudtune.data.spool import Spool
    from cloudtune.ledger.ledger import Claim, Ledger
    from cloudtune.plan import Plan
    from cloudtune.spec import JobSpec

HELD_POLL_S = 0.2
LONGEST_SETTLE_WAIT_S = 60.0
FIRST_PROBE_S = 0.5
LONGEST_PROBE_S = 15.0
DEFAULT_AWAIT_LIMIT_S = 3600.0
_REFUSALS = (InvalidRequest, PermissionDenied, CredentialsError, QuotaExceeded, JobNotFound, Conflict)
"""The back end understood the request and refused it."""


class StepUpdate(Value, frozen=True, kw_only=True):
    """The progress of a step, for observers of the submission."""

    step: Step
    number: int
    """Step number, starting at 1."""
    of: int
    what: Literal["begun", "waiting", "found", "done"]
    message: str = ""


class Executor:
    """Runs plans of one back end. Safe for several threads and processes."""

    def __init__(
        self,
        backend: Backend,
        ledger: Ledger,
        clock: Clock,
        *,
        spool: Spool,
        trace: Callable[[str], None] | None = None,
        on_step: Callable[[StepUpdate], None] | None = None,
    ) -> None:
        self._backend = backend
        self._ledger = ledger
        self._clock = clock
        self._spool = spool
        self._trace = trace or (lambda name: None)
        self._tell = on_step or (lambda update: None)

    def run(self, plan: Plan, spec: JobSpec | None) -> JobRef:
        """Run the remaining steps of the plan, and return the reference of its job.

        Raises the back end's error when retries are exhausted. Run it again to continue.
        """
        if [step.makes_job for step in plan.steps] != [False] * (len(plan.steps) - 1) + [True]:
            raise BackendError(f"a plan of {plan.backend} must end with the only step that creates the job")
        ref = self._finish(plan, spec).get("ref")
        try:
            return JobRef.parse(str(ref))
        except ValueError as error:
            raise _damaged(plan.steps[-1]) from error

    def host(self, plan: Plan) -> dict[str, Any]:
        """Run the remaining steps of a plan that deploys or undeploys a model, and return the last step's outputs.

        Steps that the ledger records as done are checked again, because a deployment can have ended.
        """
        if not plan.steps or any(step.makes_job or step.kind == "encode" for step in plan.steps):
            raise BackendError(
                f"a plan of {plan.backend} to {plan.purpose} must have steps, none of which creates a job"
            )
        return self._finish(plan, None)

    def _finish(self, plan: Plan, spec: JobSpec | None) -> dict[str, Any]:
        """Run each step, and return the last one's outputs."""
        outputs: dict[str, dict[str, Any]] = {}
        for number, step in enumerate(plan.steps, 1):
            outputs[step.id] = _StepRun(self, plan, step, spec, number).finish(outputs)
        return outputs[plan.steps[-1].id]


def _damaged(step: Step) -> LedgerError:
    return LedgerError(f"the ledger's record of the step {step.id}, or of an earlier step, is damaged", hint=REMEDY)


class _StepRun:
    """One step in progress."""

    def __init__(self, executor: Executor, plan: Plan, step: Step, spec: JobSpec | None, number: int) -> None:
        self._x = executor
        self._ledger = executor._ledger
        self._clock = executor._clock
        self._plan = plan
        self._planned = step
        self._step = step
        self._spec = spec
        self._number = number
        self._owner = Owner.here()
        self._intent: Intent
        self._sent_at: float | None = None  # monotonic; the last send of this process

    def finish(self, outputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        try:
            request = filled(self._planned.request, outputs)
        except (KeyError, TypeError) as error:  # the result of an earlier step is not among its outputs
            raise _damaged(self._planned) from error
        self._step = msgspec.structs.replace(self._planned, request=request)
        self._say("begun")
        while True:
            claim = self._take()
            if claim.state == "ours":
                break
            if (good := self._still_good(claim.outputs)) is not None:
                self._say("found", "already done")
                return good
            self._ledger.undo(self._plan.token, self._step.id)
        assert claim.intent is not None
        try:
            return self._work(claim.intent)
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        try:
            self._ledger.release(self._plan.token, self._step.id, self._owner)
        except LedgerError:  # the original error is more useful; the lease ends with this process
            return

    def _take(self) -> Claim:
        while True:
            claim = self._ledger.claim(self._plan.token, self._step.id, self._owner)
            if claim.state != "held":
                return claim
            holder = Owner.load(claim.holder)
            self._say("waiting", f"process {holder.pid} on {holder.host} is running this step")
            self._clock.sleep(HELD_POLL_S * (1 + random.random()))  # noqa: S311 - jitter

    def _still_good(self, outputs: dict[str, Any]) -> dict[str, Any] | None:
        """Return the outputs of a step that is already done, or None if its result no longer exists."""
        if self._step.kind == "encode":
            return outputs if self._x._spool.holds(outputs) else None
        if self._plan.purpose == "job":
            return outputs  # jobs are permanent
        if self._step.kind == "await":
            return None  # costs one request
        found = reading(self._clock, self._x._backend.find, self._step, Intent(begun_at=self._clock.now()))
        return found.outputs if isinstance(found, Done) else None

    def _work(self, intent: Intent) -> dict[str, Any]:
        if self._step.kind == "encode":
            assert self._spec is not None
            return self._record(self._x._spool.encode(self._step, self._spec))
        if self._step.kind == "await":
            return self._record(self._await())
        self._intent = intent
        for attempt in sending(self._clock):
            with attempt:
                found = self._found()
                if found is not None:
                    self._say("found", "already exists")
                    return self._record(self._adopt(found))
                return self._record(self._send())
        raise AssertionError("the retry policy re-raises")

    def _found(self) -> Done | None:
        """Return what the back end has of the step, when that is certain."""
        start = self._clock.monotonic()
        while True:
            found = self._x._backend.find(self._step, self._intent)
            if isinstance(found, Unsettled):
                left = (found.until - self._clock.now()).total_seconds()
            else:
                left = self._unsettled_for(start)
            if isinstance(found, Done) and (left <= 0 or self._intent.sends < 2):
                return found  # both of two sends may have taken effect, so look for both when they are visible
            if left <= 0:
                return None
            self._say("waiting", f"an earlier request may still take effect; checking again in {left:.0f} s")
            self._clock.sleep(min(left, LONGEST_SETTLE_WAIT_S))

    def _unsettled_for(self, start: float) -> float:
        """Return the seconds until absence is reliable, regardless of wall-clock changes."""
        settle, intent = self._step.settle_s, self._intent
        if intent.sent_at is None or not settle:
            return 0.0
        if self._sent_at is not None:
            return self._sent_at + settle - self._clock.monotonic()
        by_wall = (intent.sent_at + timedelta(seconds=settle) - self._clock.now()).total_seconds()
        # If the clock was set back after the other process sent it, do not wait longer than this.
        return min(by_wall, start + settle - self._clock.monotonic())

    def _send(self) -> dict[str, Any]:
        token, step = self._plan.token, self._step
        before, sent_before = self._intent, self._sent_at
        # Kept even if the send fails: the next run must know that a request may still arrive.
        self._intent = intent = self._ledger.sending(token, step.id, self._owner)
        self._sent_at = self._clock.monotonic()
        notes = _Notes(self, intent)
        self._x._trace(f"step before {step.id}")
        try:
            with _Heartbeat(self._ledger, token, step.id, self._owner):
                outputs = self._x._backend.do(step, notes)
        except TransientError as error:
            if isinstance(error, RateLimited) or getattr(error, "acted", None) is False:
                self._undo_send(before, sent_before)
            raise
        except _REFUSALS:
            self._undo_send(before, sent_before)
            raise
        finally:
            self._intent = msgspec.structs.replace(self._intent, notes=dict(notes.notes))  # the next run sees them
            self._x._trace(f"step after {step.id}")
        if before.sent_at is not None and step.once == "reconciled":
            # The earlier request may have arrived late, so two can exist now.
            again = reading(self._clock, self._x._backend.find, step, self._intent)
            if isinstance(again, Done):
                outputs = self._adopt(_beside(again, outputs.get("ref")))
        return outputs

    def _undo_send(self, before: Intent, sent_before: float | None) -> None:
        """Record that the last request was refused."""
        self._intent = self._ledger.not_sent(self._plan.token, self._step.id, self._owner, before)
        self._sent_at = sent_before

    def _adopt(self, found: Done, *, journaled: bool = True) -> dict[str, Any]:
        """Accept what was found, cancel duplicates from late requests, and record it while the lease is valid."""
        for text in found.duplicates:
            try:
                reading(self._clock, self._x._backend.cancel, JobRef.parse(text))
            except JobNotFound:
                continue
            if journaled:
                self._note("duplicates_cancelled", list(found.duplicates))
        return found.outputs

    def _await(self) -> dict[str, Any]:
        limit = self._step.limit_s or DEFAULT_AWAIT_LIMIT_S
        start, pause = self._clock.monotonic(), FIRST_PROBE_S
        while True:
            probe = reading(self._clock, self._x._backend.probe, self._step)
            if probe.state == "ready":
                return probe.outputs
            if probe.state == "failed":
                raise BackendError(f"{self._step.title}: {probe.message or 'the back end reported a failure'}")
            if self._clock.monotonic() - start > limit:
                raise TransientError(
                    f"{self._step.title}: still not ready after {limit:.0f} s",
                    hint="run the same command again to continue",
                )
            self._say("waiting", probe.message)
            self._clock.sleep(pause * (0.8 + 0.4 * random.random()))  # noqa: S311 - jitter
            pause = min(pause * 1.5, LONGEST_PROBE_S)

    def _record(self, outputs: dict[str, Any]) -> dict[str, Any]:
        ref = JobRef.parse(outputs["ref"]) if self._step.makes_job else None
        try:
            stands = self._ledger.done(self._plan.token, self._step.id, outputs, ref)
        except LedgerError as error:
            if ref is not None:
                raise LedgerError(
                    f"the job {ref} exists, but could not be recorded: {error.message}",
                    hint="repair the ledger and run the same command again; the existing job is reused",
                ) from error
            raise
        if ref is not None and stands["ref"] != outputs["ref"]:  # both processes created one
            stands = self._adopt(Done(outputs=stands, duplicates=(outputs["ref"],)), journaled=False)
        self._say("done")
        return stands

    def _note(self, name: str, value: Any) -> None:
        self._ledger.note(self._plan.token, self._step.id, self._owner, name, value)

    def _say(self, what: Literal["begun", "waiting", "found", "done"], message: str = "") -> None:
        update = StepUpdate(step=self._step, number=self._number, of=len(self._plan.steps), what=what, message=message)
        self._x._tell(update)


def _beside(found: Done, made: str | None) -> Done:
    """Return what was found, with the new job as a duplicate: a delayed list does not show it yet."""
    if made is None or made == found.outputs.get("ref") or made in found.duplicates:
        return found
    return msgspec.structs.replace(found, duplicates=(*found.duplicates, made))


class _Heartbeat:
    """Renew the lease during a step, which can take hours, so other hosts do not consider its holder dead."""

    def __init__(self, ledger: Ledger, token: str, step: str, owner: Owner) -> None:
        self._ledger = ledger
        self._lease = (token, step, owner)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"cloudtune lease of {step}", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(RENEW_EVERY_S):
            try:
                self._ledger.renew(*self._lease)
            except LedgerError:
                continue  # busy, or temporarily full; recording the outcome reports the state


class _Notes:
    """The journal for ``do``."""

    def __init__(self, run: _StepRun, intent: Intent) -> None:
        self._run = run
        self._notes = dict(intent.notes)

    def note(self, name: str, value: Any) -> None:
        self._run._note(name, value)
        self._notes[name] = value

    @property
    def notes(self) -> Mapping[str, Any]:
        return self._notes
