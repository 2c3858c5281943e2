"""A base class for back ends whose verbs delegate to an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cloudtune.plan import Resolved

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloudtune.backend import Capabilities, Found, Intent, Journal, Probe
    from cloudtune.plan import Step
    from cloudtune.spec import JobSpec
    from cloudtune.state import Checkpoint, Event, JobRef, JobSnapshot, Metric


class JobService(Protocol):
    """Jobs at a service, for a back end. A service can lack calls that its capabilities exclude."""

    def get(self, ref: JobRef) -> JobSnapshot:
        """The state of one job."""

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """The states of the existing jobs among many."""

    def listed(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """All jobs, newest first."""

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """The job's events."""

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """The job's metrics."""

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """The job's checkpoints."""

    def cancel(self, ref: JobRef) -> None:
        """Cancel the job."""

    def clear(self, ref: JobRef) -> None:
        """Delete what can be deleted of an ended job."""


class Service(Protocol):
    """An account that executes the steps of a plan and has the jobs."""

    @property
    def jobs(self) -> JobService:
        """The jobs."""

    def secrets(self) -> tuple[str, ...]:
        """The secret values in use."""

    def close(self) -> None:
        """Close the connections."""

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """Execute a step."""

    def find(self, step: Step, intent: Intent) -> Found:
        """Whether a step is done."""

    def probe(self, step: Step) -> Probe:
        """Return the state of the awaited resource."""


class DelegatingBackend:
    """Part of `Backend`, `BatchStatus`, `Closeable` and `HoldsSecrets`: delegates to the given service."""

    def __init__(self, service: Service, scope: str, capabilities: Capabilities) -> None:
        self._service = service
        self._scope = scope
        self._capabilities = capabilities

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._scope!r})"

    @property
    def capabilities(self) -> Capabilities:
        """See `Backend`."""
        return self._capabilities

    def scope(self) -> str:
        """See `Generator`."""
        return self._scope

    def resolve(self, spec: JobSpec) -> Resolved:
        """See `Backend`. No lookup is needed, because the settings define the scope."""
        return Resolved(scope=self._scope)

    def secrets(self) -> tuple[str, ...]:
        """See `HoldsSecrets`."""
        return self._service.secrets()

    def close(self) -> None:
        """See `Closeable`."""
        self._service.close()

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `Backend`."""
        return self._service.do(step, journal)

    def find(self, step: Step, intent: Intent) -> Found:
        """See `Backend`."""
        return self._service.find(step, intent)

    def probe(self, step: Step) -> Probe:
        """See `Backend`."""
        return self._service.probe(step)

    def get(self, ref: JobRef) -> JobSnapshot:
        """See `Backend`."""
        return self._service.jobs.get(ref)

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """See `BatchStatus`."""
        return self._service.jobs.get_many(refs)

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """See `Backend`."""
        return self._service.jobs.listed(limit)

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """See `Backend`."""
        return self._service.jobs.events(ref, after)

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """See `Backend`."""
        return self._service.jobs.metrics(ref, after)

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """See `Backend`. The ``uri`` of one is a model."""
        return self._service.jobs.checkpoints(ref)

    def cancel(self, ref: JobRef) -> None:
        """See `Backend`."""
        self._service.jobs.cancel(ref)

    def delete(self, ref: JobRef) -> None:
        """See `Backend`. Deletes what can be deleted: the capabilities define whether this includes the record."""
        self._service.jobs.clear(ref)
