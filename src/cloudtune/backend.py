"""The protocol of a back end. Read this file first.

A back end supplies facts and single calls. It says what it can do (`Capabilities`), writes down the requests that a job
needs (`Plan`), runs one step, says whether a step has already happened, and reports on jobs. It contains no loop, no
sleep, no retry and no vendor waiter. Core waits, retries, records and renders, once for all back ends.

The lifecycle of a job::

    resolve(spec) - plan(request) - [ find(step) - do(step) ]* - get/events/metrics/checkpoints(ref) - model(ref)
      may read        pure            core, against the ledger       read only, no side effects

What a back end may do beyond this is in `cloudtune.optional`, one protocol for each ability.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import msgspec

from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel

    from cloudtune.errors import Problem
    from cloudtune.plan import Plan, PlanRequest, Resolved, Step
    from cloudtune.spec import JobSpec
    from cloudtune.state import Checkpoint, Event, JobRef, JobSnapshot, Metric, TunedModel

VERBS = (
    "verb:cancel", "verb:checkpoints", "verb:continue", "verb:delete", "verb:deploy", "verb:events", "verb:export",
    "verb:generate", "verb:list", "verb:metrics", "verb:pause", "verb:resume",
)  # fmt: skip
"""What can be done with a job, as feature names. ``continue`` makes a new job from an ended one's checkpoint."""


class Capabilities(Value, frozen=True, kw_only=True):
    """What a back end can do, and for what it cannot, one sentence why. Asked before any I/O.

    Features are named as in ``JobSpec.asked`` (``method:sft``, ``hyperparameters.epochs``) and `VERBS`.
    """

    supports: frozenset[str]
    reasons: dict[str, str] = {}
    """Feature that is not supported -> why not, and what to use instead."""
    translated: dict[str, str] = {}
    """Supported feature -> what it becomes there, where that is not obvious."""
    inherent: frozenset[str] = frozenset()
    """Supported features that hold for every job there, so that nothing is sent for them; ``translated`` says why."""
    overridden_by: dict[str, str] = {}
    """Feature that is not supported -> the key of ``overrides`` that says it in the back end's own words.

    A spec that gives that override may keep the portable feature: it is left out here, and shown as dropped."""
    poll_s: float = 2.0
    """How soon a watch looks again while the job moves: a service is asked seldom, a file may be read often."""

    def can(self, feature: str) -> bool:
        """Whether the feature is supported."""
        return feature in self.supports

    def why_not(self, feature: str) -> str:
        """The reason for what is not supported."""
        return self.reasons.get(feature, "this back end has no equivalent")


class Intent(Value, frozen=True, kw_only=True):
    """What the ledger knows of a step that was begun."""

    begun_at: datetime
    sent_at: datetime | None = None
    """When it was last sent; None if it surely never was."""
    sends: int = 0
    notes: dict[str, Any] = {}
    """What ``do`` journaled on the way: upload ids, finished parts."""


class Done(Value, frozen=True, kw_only=True):
    """The step has been done; these are its outputs."""

    outputs: dict[str, Any] = {}
    duplicates: tuple[str, ...] = ()
    """References of further jobs that a late request made: core cancels them and records it."""


class Absent(Value, frozen=True, kw_only=True):
    """Nothing is to be seen of the step. Core believes it only once ``settle_s`` has passed since the last send."""


class Unsettled(Value, frozen=True, kw_only=True):
    """It cannot be told yet, for a reason that the vendor gives: ask again at ``until``."""

    until: datetime


Found = Done | Absent | Unsettled


class Probe(Value, frozen=True, kw_only=True):
    """How an ``await`` step stands."""

    state: Literal["ready", "pending", "failed"]
    outputs: dict[str, Any] = {}
    message: str = ""


class Journal(Protocol):
    """Durable notes inside one step: written before the act that they announce."""

    def note(self, name: str, value: Any) -> None:
        """Keep a JSON value under that name; it is durable when this returns."""

    @property
    def notes(self) -> Mapping[str, Any]:
        """All notes of this step so far, those of a dead process included."""


@runtime_checkable
class Backend(Protocol):
    """A place where jobs run. All methods may be called from several threads."""

    name: ClassVar[str]
    Options: ClassVar[type[BaseModel]]
    """Its settings in the configuration: where its files lie, region, endpoint. Secrets only as references."""
    Overrides: ClassVar[type[BaseModel]]
    """What ``overrides.<name>`` in a spec may hold."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do. No I/O."""

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """What is wrong with the values that the spec asks for here (ranges, names, combinations). No I/O.

        Core has checked already which features are asked for, and the shape of ``overrides``.
        """

    def resolve(self, spec: JobSpec) -> Resolved:
        """Look up what planning needs. May read the world; writes nothing."""

    def plan(self, request: PlanRequest) -> Plan:
        """Write down the steps. Pure: no I/O, the same request gives the same plan."""

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """Run one step whose output references are filled in, and return its outputs as JSON."""

    def find(self, step: Step, intent: Intent) -> Found:
        """Whether the step is already done. Reads only."""

    def probe(self, step: Step) -> Probe:
        """How an ``await`` step stands. Reads only."""

    def get(self, ref: JobRef) -> JobSnapshot:
        """The job now. Raises JobNotFound."""

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """Jobs of this scope, newest first, those that cloudtune did not make included."""

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """What happened, in order, after that cursor."""

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """Figures in order, after that cursor."""

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """What was kept, oldest first."""

    def cancel(self, ref: JobRef) -> None:
        """Ask the job to stop. Harmless when repeated or too late."""

    def delete(self, ref: JobRef) -> None:
        """Remove an ended job and what it holds. Not found is done."""

    def model(self, ref: JobRef) -> TunedModel:
        """What the job produced. Raises InvalidRequest while there is nothing usable."""


# msgspec works out a struct's types when it is first decoded, which two threads must not do at once (seen: a crash with
# msgspec 0.22). An import is made by one thread.
msgspec.json.Decoder(Intent)
