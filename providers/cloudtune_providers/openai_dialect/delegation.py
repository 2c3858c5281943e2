"""The verbs of a back end that only pass on to its account, written once."""

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
    """Jobs at a service, as a back end follows and steers them. A service may lack what its capabilities refuse."""

    def get(self, ref: JobRef) -> JobSnapshot:
        """One job."""

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """Those that exist, of many."""

    def listed(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """All, newest first."""

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """What happened."""

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """Figures."""

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """What was kept."""

    def cancel(self, ref: JobRef) -> None:
        """Ask it to stop."""

    def clear(self, ref: JobRef) -> None:
        """Remove what can be removed of an ended one."""


class Service(Protocol):
    """Where the steps of a plan are done, and the jobs are."""

    @property
    def jobs(self) -> JobService:
        """The jobs."""

    def secrets(self) -> tuple[str, ...]:
        """The secret values in use."""

    def close(self) -> None:
        """Close the connections."""

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """Do a step."""

    def find(self, step: Step, intent: Intent) -> Found:
        """Whether it is done."""

    def probe(self, step: Step) -> Probe:
        """Return the state of the awaited resource."""


class DelegatingBackend:
    """Part of `Backend`, `BatchStatus`, `Closeable` and `HoldsSecrets`: passes on to the service that it is given."""

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
        """See `Backend`. Removes what can be removed: the capabilities say whether that is the record too."""
        self._service.jobs.clear(ref)
