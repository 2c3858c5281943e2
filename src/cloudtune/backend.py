"""The protocol of a back end. Read this file first.

A back end supplies facts and single calls. It declares what it supports (`Capabilities`), computes the requests of a
job (`Plan`), runs one step, reports whether a step has already happened, and reports on jobs. It contains no loop, no
sleep, no retry and no vendor waiter. Core waits, retries, records and renders for all back ends.

The lifecycle of a job::

    resolve(spec) - plan(request) - [ find(step) - do(step) ]* - get/events/metrics/checkpoints(ref) - model(ref)
      may read        pure            core, with the ledger          read-only, no side effects

`cloudtune.optional` has one protocol for each optional ability.
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
"""Operations on a job, as feature names. ``continue`` starts a new job from the checkpoint of one that has ended."""


class Capabilities(Value, frozen=True, kw_only=True):
    """What a back end supports, and one sentence of explanation for everything it does not. Needs no I/O.

    Features are named as in ``JobSpec.requested_fields`` (``method:sft``, ``hyperparameters.epochs``) and `VERBS`.
    """

    supports: frozenset[str]
    title: str = ""
    """The name of the service, if the back end is set to one other than its own."""
    reasons: dict[str, str] = {}
    """Maps unsupported features to the reason, and what to use instead."""
    translated: dict[str, str] = {}
    """Maps supported features to their native name, if it is not obvious."""
    inherent: frozenset[str] = frozenset()
    """Supported features that apply to every job, so nothing is sent for them; ``translated`` explains why."""
    overridden_by: dict[str, str] = {}
    """Maps unsupported features to the key of ``overrides`` that replaces them.

    A spec that gives that override may keep the portable feature: it is left out here, and shown as dropped."""
    common_overrides: dict[str, str] = {}
    """Maps keys of ``overrides`` to what they mean on any back end, so that a spec can move to another one: a field of
    the spec, or a name that other back ends map to theirs."""
    remote: bool = True
    """Whether a service over the network answers the calls.

    If so, core reports an AttributeError, LookupError, TypeError or ValueError of a call as `InvalidResponse`: the
    service's document does not have the shape that its API promises. Otherwise it is an internal error."""
    poll_s: float = 2.0
    """Polling interval of a watch in seconds: long for a service, short for a file."""

    def can(self, feature: str) -> bool:
        """Whether the feature is supported."""
        return feature in self.supports

    def why_not(self, feature: str) -> str:
        """Return the reason why the feature is not supported."""
        return self.reasons.get(feature, "this back end has no equivalent")


class Intent(Value, frozen=True, kw_only=True):
    """The ledger's record of a step that was started."""

    begun_at: datetime
    sent_at: datetime | None = None
    """When it was last sent. None if it was certainly never sent."""
    sends: int = 0
    notes: dict[str, Any] = {}
    """Notes that ``do`` recorded: upload ids, finished parts."""


class Done(Value, frozen=True, kw_only=True):
    """The step is done, with these outputs."""

    outputs: dict[str, Any] = {}
    duplicates: tuple[str, ...] = ()
    """References of duplicate jobs that a late request created. Core cancels and records them."""


class Absent(Value, frozen=True, kw_only=True):
    """The step has no visible effect. Core accepts this only when ``settle_s`` has passed since the last send."""


class Unsettled(Value, frozen=True, kw_only=True):
    """The result is unknown, for a reason that the vendor gives. Check again at ``until``."""

    until: datetime


Found = Done | Absent | Unsettled


class Probe(Value, frozen=True, kw_only=True):
    """The state of an ``await`` step."""

    state: Literal["ready", "pending", "failed"]
    outputs: dict[str, Any] = {}
    message: str = ""


class Journal(Protocol):
    """Durable notes of one step, written before the action that they describe."""

    def note(self, name: str, value: Any) -> None:
        """Store a JSON value under that name. It is durable when this returns."""

    @property
    def notes(self) -> Mapping[str, Any]:
        """All notes of this step so far, including those of earlier processes."""


@runtime_checkable
class Backend(Protocol):
    """A place where jobs run. All methods must be thread-safe."""

    name: ClassVar[str]
    Options: ClassVar[type[BaseModel]]
    """Settings in the configuration: folders, region, endpoint. Secrets only as references."""
    Overrides: ClassVar[type[BaseModel]]
    """The schema of ``overrides.<name>`` in a spec."""

    @property
    def capabilities(self) -> Capabilities:
        """What the back end supports. No I/O."""

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """Return problems of the spec's values on this back end (ranges, names, combinations). No I/O.

        Core has already checked that the features are supported, and the schema of ``overrides``.
        """

    def resolve(self, spec: JobSpec) -> Resolved:
        """Look up what planning needs. May read from anywhere; writes nothing."""

    def plan(self, request: PlanRequest) -> Plan:
        """Compute the steps. Pure: no I/O, and the same request gives the same plan."""

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """Run one step, with output references replaced, and return its outputs as JSON."""

    def find(self, step: Step, intent: Intent) -> Found:
        """Return whether the step is already done. Read-only."""

    def probe(self, step: Step) -> Probe:
        """Return the state of an ``await`` step. Read-only."""

    def get(self, ref: JobRef) -> JobSnapshot:
        """Return the current state of the job. Raises JobNotFound."""

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """Return the jobs of this scope, newest first, including jobs that cloudtune did not create."""

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """Return the events after that cursor, oldest first."""

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """Return the metrics after that cursor, in order."""

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """Return the checkpoints, oldest first."""

    def cancel(self, ref: JobRef) -> None:
        """Cancel the job. Has no effect if it is repeated or the job has ended."""

    def delete(self, ref: JobRef) -> None:
        """Delete a job that has ended, with its contents. Succeeds if the job does not exist."""

    def model(self, ref: JobRef) -> TunedModel:
        """Return the model of the job. Raises InvalidRequest if there is no usable model."""


# msgspec resolves a struct's types when it is first decoded, which is not thread-safe (msgspec 0.22 crashes).
# Imports run in one thread, so resolve them here.
msgspec.json.Decoder(Intent)
