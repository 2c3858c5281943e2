"""The handle of a job: the same class for every back end. Any process can create it from a reference."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, final

import msgspec

from cloudtune.data.spool import Spool
from cloudtune.errors import BackendError, JobNotFound, LedgerError, UnsupportedError
from cloudtune.ledger.costs import recorded_cost
from cloudtune.ledger.evaluations import forget_evaluation
from cloudtune.optional import (
    Exporter,
    GenerateOptions,
    Generator,
    Pausable,
    Predictor,
    capabilities_of,
    check_generation,
    check_inputs,
)
from cloudtune.retry import reading
from cloudtune.spending import is_awaited, settle
from cloudtune.trust import trust_fields
from cloudtune.watch import LONGEST_POLL_S, LOST_AFTER_S, Pause, Update, conclude, events_of, polls_of, sleeping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cloudtune.backend import Backend
    from cloudtune.client import Client
    from cloudtune.evaluation.result import Evaluation
    from cloudtune.execute import StepUpdate
    from cloudtune.optional import Input, Prompt
    from cloudtune.report.document import Report
    from cloudtune.state import (
        Checkpoint,
        Deployment,
        Event,
        Generation,
        JobRef,
        JobSnapshot,
        JobState,
        Metric,
        Prediction,
        TunedModel,
    )

T = TypeVar("T")


@final
class Job:
    """One job. It stores only its reference; every method reads from the back end."""

    def __init__(self, client: Client, ref: JobRef) -> None:
        self._client = client
        self.ref = ref

    def __repr__(self) -> str:
        return f"Job({str(self.ref)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.ref == self.ref

    def __hash__(self) -> int:
        return hash(self.ref)

    @property
    def _backend(self) -> Backend:
        return self._client.backend(self.ref.backend)

    # -- reading ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> JobSnapshot:
        """Return the current state of the job with its details. Raises JobNotFound."""
        return reading(self._client.clock, self._backend.get, self.ref)

    @property
    def state(self) -> JobState:
        """The current state. Sends a request."""
        return self.snapshot().state

    def events(self, after: str | None = None) -> Sequence[Event]:
        """Return the events, oldest first.

        If the vendor has no events, they are derived from the snapshot and marked ``observed``.

        Args:
            after: The cursor of the last event that you have seen.
        """
        return reading(self._client.clock, events_of, self._backend, self.snapshot(), after)

    def metrics(self, after: str | None = None) -> Sequence[Metric]:
        """Return the metrics in the order of their steps. ``after`` is the last seen cursor."""
        self._need("verb:metrics")
        return reading(self._client.clock, self._backend.metrics, self.ref, after)

    def checkpoints(self) -> Sequence[Checkpoint]:
        """Return the checkpoints, oldest first."""
        self._need("verb:checkpoints")
        return reading(self._client.clock, self._backend.checkpoints, self.ref)

    def model(self, *, trust_remote_code: bool = False) -> TunedModel:
        """Return the trained model, if there is a usable one. Expired jobs can have one too.

        Args:
            trust_remote_code: Allow code from the model's repository to run. Defaults to the setting of the submission.
        """
        model = reading(self._client.clock, self._backend.model, self.ref)
        return msgspec.structs.replace(model, trust_remote_code=trust_remote_code or self._is_trusted())

    def _is_trusted(self) -> bool:
        """Whether running the model's own code was confirmed when the job was submitted with this ledger."""
        with suppress(LedgerError):
            made = self._client.ledger.of_ref(self.ref)
            return made is not None and bool(trust_fields(made.plan.spec, made.plan.backend))
        return False

    def result(self) -> TunedModel:
        """Return the model of a succeeded job. Raises the same errors as `wait` otherwise."""
        conclude(self.snapshot())
        return self.model()

    def report(self, *, evaluation: Evaluation | None = None) -> Report:
        """Gather everything about the job in one document. See `Client.report`."""
        return self._client.report(self, evaluation=evaluation)

    # -- waiting ---------------------------------------------------------------------------------------------------

    def watch(
        self,
        *,
        timeout: float | None = None,
        stall_after: float | None = None,
        lost_after: float = LOST_AFTER_S,
        longest_poll: float = LONGEST_POLL_S,
        cancel_after: float | None = None,
    ) -> Iterator[Update]:
        """Yield updates of the job until it ends. See `cloudtune.watch` for how it ends.

        Args:
            timeout: Raise WaitTimeout after this many seconds. The job keeps running.
            stall_after: Warn after this many seconds without progress. Defaults to the spec's ``limits.stall_after``,
                for jobs in this ledger.
            longest_poll: Maximum seconds between two requests.
            lost_after: Raise LostContact after this many seconds without a response.
            cancel_after: Cancel the job when it has run this many seconds since its creation, and raise JobExpired.
        """
        polls = self._polls(
            timeout=timeout, stall_after=stall_after, lost_after=lost_after, longest_poll=longest_poll,
            cancel_after=cancel_after,
        )  # fmt: skip
        return sleeping(polls, self._client.clock)

    def _polls(self, *, stall_after: float | None, cancel_after: float | None, **how: Any) -> Iterator[Update | Pause]:
        stall_after = self._planned_stall() if stall_after is None else stall_after
        cap = None if cancel_after is None else partial(self._over, cancel_after)
        clock = self._client.clock
        for poll in polls_of(self._backend, self.ref, clock=clock, stall_after=stall_after, cap=cap, **how):
            if isinstance(poll, Update) and poll.snapshot.has_ended:
                with suppress(LedgerError):  # `cloudtune cost` records it later
                    self._settle(poll.snapshot)
            yield poll

    def _settle(self, snapshot: JobSnapshot) -> None:
        settle(self._client.ledger, self._backend, snapshot, self._client.clock.now())

    def _over(self, limit: float, snapshot: JobSnapshot) -> str | None:
        made = snapshot.created_at
        over = made is not None and (self._client.clock.now() - made).total_seconds() >= limit
        return f"it has run for more than {limit:.0f} s" if over else None

    def _planned_stall(self) -> float | None:
        with suppress(LedgerError):
            made = self._client.ledger.of_ref(self.ref)
            limits = made.plan.spec.get("limits") if made is not None else None
            stall = limits.get("stall_after") if isinstance(limits, dict) else None
            return float(stall) if isinstance(stall, int | float) else None
        return None

    def wait(
        self,
        timeout: float | None = None,
        *,
        stall_after: float | None = None,
        cancel_after: float | None = None,
        on_update: Callable[[Update], None] | None = None,
    ) -> TunedModel:
        """Wait until the job ends and return its model.

        Raises:
            JobFailed, JobCancelled, JobExpired: The job ended without success.
            JobInterrupted: A signal or a lost machine ended the job, a kind of JobFailed.
            OutcomeUnknown: The job ended in a state that this version does not know.
            WaitTimeout: The time is over, or the job is paused.
            LostContact: The back end does not respond.
        """
        for update in self.watch(timeout=timeout, stall_after=stall_after, cancel_after=cancel_after):
            if on_update is not None:
                on_update(update)
        return self.model()

    # -- control ---------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Cancel the job. Has no effect if it is repeated or the job has ended."""
        self._need("verb:cancel")
        if not self.snapshot().has_ended:
            reading(self._client.clock, self._backend.cancel, self.ref)

    def pause(self) -> None:
        """Pause the job. Its training state is saved."""
        reading(self._client.clock, self._able(Pausable, "verb:pause").pause, self.ref)

    def resume(self, *, accept_unknown_cost: bool = False) -> Job:
        """Resume a paused job, or continue one that has ended from its newest valid checkpoint, as a new job.

        ``accept_unknown_cost`` is for a new job: see `Client.plan`.
        """
        if self.snapshot().has_ended:
            return self._client.resume(self.ref, accept_unknown_cost=accept_unknown_cost)
        reading(self._client.clock, self._able(Pausable, "verb:resume").resume, self.ref)
        return self

    def delete(self) -> None:
        """Delete a job that has ended, with its contents, its encoded rows, its evaluation and stored answers.

        Succeeds if the job no longer exists.
        """
        self._need("verb:delete")
        ledger = self._client.ledger
        with suppress(JobNotFound, LedgerError):
            cost = recorded_cost(ledger, self.ref)
            if ledger.of_ref(self.ref) is not None and is_awaited(cost, self._client.clock.now()):
                self._settle(self.snapshot())  # it cannot be read later
        with suppress(JobNotFound):
            reading(self._client.clock, self._backend.delete, self.ref)
        forget_evaluation(ledger, self.ref)
        made = ledger.of_ref(self.ref)
        if made is not None:
            ledger.gone(self.ref)
            forget_evaluation(ledger, self.ref)  # again: an evaluation can have stored more before it saw the deletion
            if not self._client.unfinished():  # otherwise another process may be about to upload these rows
                Spool(ledger.folder / "spool").forget(made.plan)

    def clear(self) -> None:
        """Delete the model, metrics and rows of a job that has ended, if the vendor keeps the job record.

        Delete deployments of its model first. If the back end can delete whole jobs, use `delete`.
        """
        if capabilities_of(self._backend, self.ref).can("verb:delete"):
            raise UnsupportedError(f"{self.ref.backend} deletes a job together with its record", hint="use delete")
        reading(self._client.clock, self._backend.delete, self.ref)

    # -- using -----------------------------------------------------------------------------------------------------

    def deploy(
        self,
        *,
        on_step: Callable[[StepUpdate], None] | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> Deployment:
        """Deploy the tuned model. See `Client.deploy`.

        ``trust_remote_code``: see `model`.
        """
        self._need("verb:deploy")
        return self._client.deploy(self.model(trust_remote_code=trust_remote_code), on_step=on_step, **options)

    def generate(
        self, prompts: Sequence[Prompt], options: GenerateOptions | None = None, *, trust_remote_code: bool = False
    ) -> Iterator[Generation]:
        """Generate text with the tuned model, in the order of the prompts. ``options.base`` uses the base model.

        ``trust_remote_code``: see `model`.
        """
        host = self._able(Generator, "verb:generate")
        check_generation(prompts, options or GenerateOptions())
        return host.generate(self.model(trust_remote_code=trust_remote_code), prompts, options)

    def predict(self, inputs: Sequence[Input], *, trust_remote_code: bool = False) -> Iterator[Prediction]:
        """Predict with a model that does not continue prompts, such as a classifier, in the order of the inputs.

        ``trust_remote_code``: see `model`.
        """
        backend = self._predictor()
        check_inputs(inputs)
        return backend.predict(self.model(trust_remote_code=trust_remote_code), inputs)

    def _predictor(self) -> Predictor:
        self._need("verb:generate")
        backend = self._backend
        if not isinstance(backend, Predictor):
            raise UnsupportedError(f"{self.ref.backend} has only models that generate text", hint="use generate")
        return backend

    def _answering_model(self, *, predicts: bool, trust_remote_code: bool) -> TunedModel:
        """The model, if the back end can answer with it: with `predict`, or else with `generate`. Asks no model."""
        if predicts:
            self._predictor()
        else:
            self._able(Generator, "verb:generate")
        return self.model(trust_remote_code=trust_remote_code)

    def export(self, to: Path, *, merged: bool = False, trust_remote_code: bool = False) -> Sequence[Path]:
        """Export the adapter, or the merged weights, to a new folder, and return its files.

        ``trust_remote_code``: see `model`.
        """
        exporter = self._able(Exporter, "verb:export")
        return exporter.export(self.model(trust_remote_code=trust_remote_code), to, merged=merged)

    def _able(self, protocol: type[T], verb: str) -> T:
        """Return the back end if it implements the optional protocol. Raises UnsupportedError with the reason."""
        self._need(verb)
        backend = self._backend
        if not isinstance(backend, protocol):
            raise BackendError(f"{self.ref.backend} declares {verb} but does not implement {protocol.__name__}")
        return backend

    def _need(self, verb: str) -> None:
        capabilities = capabilities_of(self._backend, self.ref)
        if not capabilities.can(verb):
            name = verb.partition(":")[2]
            raise UnsupportedError(f"{self.ref.backend} cannot {name} a job: {capabilities.why_not(verb)}")
