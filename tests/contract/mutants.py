"""Sloppy back ends, each broken in one way: the contract must catch every one of them."""

from __future__ import annotations

import contextlib
import logging
import uuid
from pathlib import Path
from typing import Any

import msgspec

from cloudtune.backend import Absent, Capabilities, Done
from cloudtune.errors import (
    BackendError,
    CloudtuneError,
    Conflict,
    InvalidRequest,
    JobNotFound,
    RateLimited,
    Unavailable,
)
from cloudtune.optional import GenerateOptions
from cloudtune.state import JobRef, JobSnapshot, JobState
from cloudtune.testing import translation
from cloudtune.testing.scripted import ScriptedBackend, ScriptedOverrides

replace = msgspec.structs.replace
S = JobState


def changed_create(plan: Any, **body: Any) -> Any:
    steps = {step.id: step for step in plan.steps}
    request = steps["create"].request
    steps["create"] = replace(steps["create"], request=request | {"body": request["body"] | body})
    return replace(plan, steps=tuple(steps.values()))


# -- 1 and 2 ---------------------------------------------------------------------------------------------------------


class RandomName(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        return changed_create(super().plan(request), name=uuid.uuid4().hex)


class AsksWhilePlanning(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        self._ask("whoami", {})
        return super().plan(request)


class OpensASocket(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        import socket

        socket.socket().close()
        return super().plan(request)


class ReadsTheRows(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        rows = Path(request.spec.data.train.paths[0]).read_bytes().splitlines()
        assert request.data.splits["train"].rows == len(rows)
        return super().plan(request)


class LooksForTheRows(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        if Path(request.spec.data.train.paths[0]).exists():
            return super().plan(request)
        return changed_create(super().plan(request), rows="far away")


class ImportsWhilePlanning(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        import colorsys  # noqa: F401 - a module that nothing else needs

        return super().plan(request)


class HidesWhatItReads(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        with contextlib.suppress(Exception):
            Path(__file__).read_bytes()
        return super().plan(request)


class ChecksWhilePlanning(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        self.check(request.spec)
        return super().plan(request)


class AnotherRequest(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        return changed_create(super().plan(request), priority="high")


class SendsMoreThanPlanned(ScriptedBackend):
    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        return super()._create(body | {"priority": "high"})


class KeyInPlan(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        return changed_create(super().plan(request), auth=self._key)


class KeyInRepr(ScriptedBackend):
    def __repr__(self) -> str:
        return f"KeyInRepr({self._key})"


class KeyInLog(ScriptedBackend):
    def get(self, ref: JobRef) -> JobSnapshot:
        logging.getLogger("sdk").debug("GET %s Authorization: Bearer %s", ref.id, self._key)
        return super().get(ref)


class KeyInLedger(ScriptedBackend):
    def do(self, step: Any, journal: Any) -> dict[str, Any]:
        return super().do(step, journal) | {"url": f"https://vendor/?key={self._key}"}


class KeyInNotes(ScriptedBackend):
    def do(self, step: Any, journal: Any) -> dict[str, Any]:
        journal.note("with", self._key)
        return super().do(step, journal)


class KeyInError(ScriptedBackend):
    def _ask(self, call: str, body: dict[str, Any], payload: bytes = b"") -> Any:
        from cloudtune.testing.service import VendorError

        try:
            return self._vendor.request(call, body, api_key=self._key, payload=payload)
        except VendorError as error:
            raise translation.to_error(error, call, "") from error


# -- 3 and 4 ---------------------------------------------------------------------------------------------------------


class AnyScope(ScriptedBackend):
    def _id(self, ref: JobRef) -> str:
        return ref.id


class AnotherRef(ScriptedBackend):
    def _snapshot(self, job: dict[str, Any]) -> JobSnapshot:
        seen = super()._snapshot(job)
        return replace(seen, ref=JobRef(seen.ref.backend, seen.ref.scope, seen.ref.id.upper()))


class Forgetful(ScriptedBackend):
    """Keeps its jobs in memory, and takes one that it does not remember for done."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._mine: set[str] = set()

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        made = super()._create(body)
        self._mine.add(made["id"])
        return made

    def get(self, ref: JobRef) -> JobSnapshot:
        seen = super().get(ref)
        return seen if ref.id in self._mine else replace(seen, state=S.SUCCEEDED)


# -- 5 to 11 ---------------------------------------------------------------------------------------------------------


class Reworded(ScriptedBackend):
    """Base of those that misread the vendor's words."""

    WORDS: dict[str, JobState] = {}
    UNSEEN = S.UNKNOWN

    def _snapshot(self, job: dict[str, Any]) -> JobSnapshot:
        seen = super()._snapshot(job)
        state = self.WORDS.get(seen.native_state, seen.state)
        return replace(seen, state=self.UNSEEN if state is S.UNKNOWN else state)


class LacksAWord(Reworded):
    WORDS = {"TimedOut": S.UNKNOWN}


class UnseenHasNoEnd(ScriptedBackend):
    def _snapshot(self, job: dict[str, Any]) -> JobSnapshot:
        seen = super()._snapshot(job)
        return replace(seen, finished_at=None) if seen.state is S.UNKNOWN else seen


class UnseenIsFailed(Reworded):
    UNSEEN = S.FAILED


class UnseenIsRunning(Reworded):
    UNSEEN = S.RUNNING


class LosesTheWord(ScriptedBackend):
    def _snapshot(self, job: dict[str, Any]) -> JobSnapshot:
        seen = super()._snapshot(job)
        return replace(seen, native_state=str(seen.state))


class ExpiredIsFailed(Reworded):
    WORDS = {"TimedOut": S.FAILED}


class CancelledIsFailed(Reworded):
    WORDS = {"Stopped": S.FAILED}


class PausedIsRunning(Reworded):
    WORDS = {"Paused": S.RUNNING}


class CompletedIsRunning(Reworded):
    WORDS = {"Completed": S.RUNNING}


class ResumesTheEnded(ScriptedBackend):
    def resume(self, ref: JobRef) -> None:
        try:
            super().resume(ref)
        except InvalidRequest:
            self._vendor.show(ref.id, "Training")


class ResumesTheEndedSilently(ScriptedBackend):
    def resume(self, ref: JobRef) -> None:
        try:
            super().resume(ref)
        except InvalidRequest:
            return


class Orphaning(ScriptedBackend):
    def _snapshot(self, job: dict[str, Any]) -> JobSnapshot:
        return replace(super()._snapshot(job), parent=None)


class CancelsOnce(ScriptedBackend):
    def cancel(self, ref: JobRef) -> None:
        self._ask("cancel_job", {"id": self._id(ref)})


class CancelsTheEnded(ScriptedBackend):
    def cancel(self, ref: JobRef) -> None:
        super().cancel(ref)
        if self.get(ref).state in (S.SUCCEEDED, S.FAILED):
            self._vendor.show(ref.id, "Stopped")


class WaitCancels(ScriptedBackend):
    """As if leaving a wait cancelled the job: every second look stops it."""

    looks = 0

    def get(self, ref: JobRef) -> JobSnapshot:
        self.looks += 1
        if self.looks > 3:
            self.cancel(ref)
        return super().get(ref)


class PretendsContact(ScriptedBackend):
    last: JobSnapshot | None = None

    def get(self, ref: JobRef) -> JobSnapshot:
        try:
            self.last = super().get(ref)
        except Unavailable:
            if self.last is None:
                raise
        return self.last


class Speechless(ScriptedBackend):
    def _snapshot(self, job: dict[str, Any]) -> JobSnapshot:
        seen = super()._snapshot(job)
        return replace(seen, problem=replace(seen.problem, message="it failed") if seen.problem else None)


class UnknownIsUnknown(ScriptedBackend):
    def get(self, ref: JobRef) -> JobSnapshot:
        try:
            return super().get(ref)
        except JobNotFound:
            return JobSnapshot(ref=ref, state=S.UNKNOWN, native_state="")


class CancelsNobody(ScriptedBackend):
    def cancel(self, ref: JobRef) -> None:
        try:
            super().cancel(ref)
        except JobNotFound:
            return


class NoEventsOfNobody(ScriptedBackend):
    def events(self, ref: JobRef, after: str | None = None) -> Any:
        try:
            return super().events(ref, after)
        except JobNotFound:
            return []


class DeletesOnce(ScriptedBackend):
    def delete(self, ref: JobRef) -> None:
        self._steer("delete_job", ref)


# -- 12 and 13 -------------------------------------------------------------------------------------------------------


class Translating(ScriptedBackend):
    """Base of those that misread the vendor's errors."""

    def misread(self, error: CloudtuneError) -> CloudtuneError:
        return error

    def _ask(self, call: str, body: dict[str, Any], payload: bytes = b"") -> Any:
        try:
            return super()._ask(call, body, payload)
        except CloudtuneError as error:
            raise self.misread(error) from error.__cause__


class ThrottleIsFinal(Translating):
    def misread(self, error: CloudtuneError) -> CloudtuneError:
        return BackendError(error.message) if isinstance(error, RateLimited) else error


class ForgetsRetryAfter(Translating):
    def misread(self, error: CloudtuneError) -> CloudtuneError:
        return RateLimited(error.message) if isinstance(error, RateLimited) else error


class OutageIsFinal(Translating):
    def misread(self, error: CloudtuneError) -> CloudtuneError:
        return InvalidRequest(error.message) if isinstance(error, Unavailable) else error


class RefusalIsAnOutage(Translating):
    def misread(self, error: CloudtuneError) -> CloudtuneError:
        return Unavailable(error.message, acted=False) if error.exit_code == 2 else error


class HidesTheCause(ScriptedBackend):
    def _ask(self, call: str, body: dict[str, Any], payload: bytes = b"") -> Any:
        try:
            return super()._ask(call, body, payload)
        except CloudtuneError as error:
            raise error from None


class RetriesByItself(ScriptedBackend):
    """As the vendors' SDKs do, unless that is switched off."""

    def _ask(self, call: str, body: dict[str, Any], payload: bytes = b"") -> Any:
        try:
            return super()._ask(call, body, payload)
        except (Unavailable, RateLimited):
            return super()._ask(call, body, payload)


class NewTokenEachSend(ScriptedBackend):
    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        return super()._create(body | {"token": uuid.uuid4().hex})


class NewNameEachSend(ScriptedBackend):
    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        return super()._create(body | {"name": uuid.uuid4().hex})


class NeverLooks(ScriptedBackend):
    def find(self, step: Any, intent: Any) -> Any:
        return Absent()

    def _confirm(self, request: dict[str, Any]) -> Any:
        found = super()._confirm(request)
        return replace(found, outputs=found.outputs | {"duplicates": []}) if found.outputs else found


class NeverLooksForFiles(ScriptedBackend):
    def _find_file(self, request: dict[str, Any]) -> Any:
        return Absent()


class Impatient(ScriptedBackend):
    """Believes at once that what it does not see is not there."""

    def plan(self, request: Any) -> Any:
        plan = super().plan(request)
        return replace(plan, steps=tuple(replace(step, settle_s=0.0) for step in plan.steps))


class AdoptsAnything(ScriptedBackend):
    """Takes any job of the same model for its own."""

    def find(self, step: Any, intent: Any) -> Any:
        if step.request.get("call") == "create_job" and (jobs := list(self._pages("list_jobs", {}))):
            return Done(outputs=self._made(jobs[-1]))
        return super().find(step, intent)


class NoAttempts(ScriptedBackend):
    """Derives the names that the vendor sees from the job, and not from the attempt at it."""

    def plan(self, request: Any) -> Any:
        plan = super().plan(replace(request, token=request.key, attempt=1))
        return replace(plan, token=request.token, attempt=request.attempt)


# -- 14 and 15 -------------------------------------------------------------------------------------------------------


class Unreasoned(ScriptedBackend):
    @property
    def capabilities(self) -> Capabilities:
        can = super().capabilities
        return replace(
            can, reasons={name: why for name, why in can.reasons.items() if name != "hyperparameters.packing"}
        )


class Boasting(ScriptedBackend):
    """Declares what it then leaves out."""

    @property
    def capabilities(self) -> Capabilities:
        can = super().capabilities
        reasons = {name: why for name, why in can.reasons.items() if name != "hyperparameters.packing"}
        return replace(can, supports=can.supports | {"hyperparameters.packing"}, reasons=reasons)

    def plan(self, request: Any) -> Any:
        hyper = request.spec.hyperparameters.model_copy(update={"packing": None})
        return super().plan(replace(request, spec=request.spec.model_copy(update={"hyperparameters": hyper})))


class IgnoresTheSeed(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        return super().plan(replace(request, spec=request.spec.model_copy(update={"seed": None})))


class IgnoresTheValidationRows(ScriptedBackend):
    def plan(self, request: Any) -> Any:
        splits = {"train": request.data.splits["train"]}
        return super().plan(replace(request, data=replace(request.data, splits=splits)))


class ChecksByAsking(ScriptedBackend):
    def check(self, spec: Any) -> Any:
        self._ask("whoami", {})
        return super().check(spec)


class _Anything(ScriptedOverrides):
    model_config = {"extra": "ignore"}


class TakesAnyOverride(ScriptedBackend):
    Overrides = _Anything


class PausesNothing(ScriptedBackend):
    def pause(self, ref: JobRef) -> None:
        self.get(ref)


class StaysPaused(ScriptedBackend):
    def resume(self, ref: JobRef) -> None:
        self.get(ref)


class NoBestCheckpoint(ScriptedBackend):
    def checkpoints(self, ref: JobRef) -> Any:
        return [replace(kept, best=False) for kept in super().checkpoints(ref)]


class NewestCheckpointFirst(ScriptedBackend):
    def checkpoints(self, ref: JobRef) -> Any:
        return super().checkpoints(ref)[::-1]


class AnswersOutOfOrder(ScriptedBackend):
    turn = 0

    def generate(self, model: Any, prompts: Any, options: Any = None) -> Any:
        self.turn += 1
        answers = list(super().generate(model, prompts, options))
        return iter(answers[:: -1 if self.turn % 2 else 1])


class OnlyTheTuned(ScriptedBackend):
    def generate(self, model: Any, prompts: Any, options: Any = None) -> Any:
        return super().generate(model, prompts, GenerateOptions())


class StreamsUnasked(ScriptedBackend):
    def generate(self, model: Any, prompts: Any, options: Any = None) -> Any:
        for answer in super().generate(model, prompts, options):
            yield from (replace(answer, text=letter, partial=True) for letter in answer.text)
            yield answer


class _Streams(ScriptedBackend):
    def generate(self, model: Any, prompts: Any, options: Any = None) -> Any:
        for answer in super().generate(model, prompts, options):
            yield from self._told(answer) if options is not None and options.stream else [answer]

    def _told(self, answer: Any) -> list[Any]:
        raise NotImplementedError


class LosesAPiece(_Streams):
    def _told(self, answer: Any) -> list[Any]:
        return [replace(answer, text=answer.text[1:], partial=True), answer]


class LeavesOutTheWhole(_Streams):
    def _told(self, answer: Any) -> list[Any]:
        return [replace(answer, partial=True)]


class DeploysAgain(ScriptedBackend):
    def do(self, step: Any, journal: Any) -> dict[str, Any]:
        if step.request.get("call") == "create_deployment":
            body = step.request["body"] | {"name": uuid.uuid4().hex}
            step = replace(step, request=step.request | {"body": body})
        return super().do(step, journal)


class ModelTooSoon(ScriptedBackend):
    def model(self, ref: JobRef) -> Any:
        try:
            return super().model(ref)
        except InvalidRequest:
            self._vendor.advance(ref.id, 1e6)
            return super().model(ref)


# -- 16 to 21 --------------------------------------------------------------------------------------------------------


class IgnoresTheCursor(ScriptedBackend):
    def events(self, ref: JobRef, after: str | None = None) -> Any:
        return super().events(ref)


class SkipsOneEvent(ScriptedBackend):
    def events(self, ref: JobRef, after: str | None = None) -> Any:
        return super().events(ref, after)[1 if after else 0 :]


class NewestEventFirst(ScriptedBackend):
    def events(self, ref: JobRef, after: str | None = None) -> Any:
        return super().events(ref, after)[::-1]


class RepeatsEvents(ScriptedBackend):
    def events(self, ref: JobRef, after: str | None = None) -> Any:
        return [translation.to_event(e) for e in self._pages("list_events", {"id": self._id(ref), "after": after})]


class InventsEvents(ScriptedBackend):
    def events(self, ref: JobRef, after: str | None = None) -> Any:
        return [replace(event, observed=True) for event in super().events(ref, after)]


class IgnoresTheMetricsCursor(ScriptedBackend):
    def metrics(self, ref: JobRef, after: str | None = None) -> Any:
        return super().metrics(ref)


class OldestFirst(ScriptedBackend):
    def list(self, limit: int | None = None) -> Any:
        return list(super().list())[::-1][:limit]


class IgnoresTheLimit(ScriptedBackend):
    def list(self, limit: int | None = None) -> Any:
        return super().list()


class ListsOnlyLiveJobs(ScriptedBackend):
    def list(self, limit: int | None = None) -> Any:
        return [job for job in super().list() if not job.state.is_terminal][:limit]


class ListSaysRunning(ScriptedBackend):
    def list(self, limit: int | None = None) -> Any:
        return [replace(job, state=S.RUNNING) for job in super().list(limit)]


class BatchInventsJobs(ScriptedBackend):
    def get_many(self, refs: Any) -> Any:
        blank = {ref: JobSnapshot(ref=ref, state=S.UNKNOWN, native_state="") for ref in refs}
        return blank | dict(super().get_many(refs))


class BareImport(ScriptedBackend):
    def __init__(self, *args: Any, **options: Any) -> None:
        import wave  # noqa: F401

        super().__init__(*args, **options)


class DeletesNothing(ScriptedBackend):
    def delete(self, ref: JobRef) -> None:
        if not self.get(ref).state.is_terminal:
            raise InvalidRequest("it runs")


class DeletesTheRunning(ScriptedBackend):
    def delete(self, ref: JobRef) -> None:
        try:
            super().delete(ref)
        except InvalidRequest:
            self._vendor.act(ref.id, "cancel")


class Nameless(ScriptedBackend):
    def _snapshot(self, job: dict[str, Any]) -> JobSnapshot:
        return replace(super()._snapshot(job), name="job")


class LocalTimes(ScriptedBackend):
    def _snapshot(self, job: dict[str, Any]) -> JobSnapshot:
        from datetime import timedelta

        seen = super()._snapshot(job)
        return replace(seen, created_at=seen.created_at + timedelta(hours=2) if seen.created_at else None)


class Grumbling(ScriptedBackend):
    def get(self, ref: JobRef) -> JobSnapshot:
        logging.getLogger("sdk").warning("deprecated")
        return super().get(ref)


class DeploysOnLooking(ScriptedBackend):
    """Looking at an ended job deploys its model."""

    def get(self, ref: JobRef) -> JobSnapshot:
        seen = super().get(ref)
        if seen.state is S.SUCCEEDED:
            self._ask("create_deployment", {"name": "handy", "model": self.model(ref).id})
        return seen


class UploadsOnFinding(ScriptedBackend):
    def find(self, step: Any, intent: Any) -> Any:
        if step.request.get("call") == "create_job":
            self._ask("post_file", {"name": "probe"}, payload=b"x")
        return super().find(step, intent)


class RegistersOnResolving(ScriptedBackend):
    def resolve(self, spec: Any) -> Any:
        self._ask("put_file", {"name": uuid.uuid4().hex}, payload=b"x")
        return super().resolve(spec)


class TakesLongRows(ScriptedBackend):
    def resolve(self, spec: Any) -> Any:
        from cloudtune.plan import Resolved

        return Resolved(scope=self.scope())


class CostsNothing(ScriptedBackend):
    """Counts a price that it does not know as zero."""

    def estimate(self, request: Any) -> Any:
        cost = super().estimate(request)
        return msgspec.structs.replace(cost, usd=0.0, at_least_usd=0.0, at_most_usd=0.0, unknown=())


class ConflictEscapes(ScriptedBackend):
    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._made(self._ask("create_job", body))

    def find(self, step: Any, intent: Any) -> Any:
        found = super().find(step, intent)
        if isinstance(found, Done) and step.request.get("call") == "create_job":
            raise Conflict("there is one already")
        return found
