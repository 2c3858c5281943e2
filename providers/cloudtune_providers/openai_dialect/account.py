"""One account at the service: its files, jobs and models, and the execution of a plan's steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, Found, Intent, Journal, Probe
from cloudtune_providers.openai_dialect.fencing import Fence, is_fenced
from cloudtune_providers.openai_dialect.files import Files
from cloudtune_providers.openai_dialect.inference import Answering
from cloudtune_providers.openai_dialect.jobs import Jobs

if TYPE_CHECKING:
    from cloudtune.clock import Clock
    from cloudtune.plan import Step
    from cloudtune_providers.openai_dialect.sdk_client import Wire


class Account:
    """Executes the steps that ``requests`` creates. ``filters``, ``named`` and ``prefix`` as in `Jobs`."""

    def __init__(
        self, wire: Wire, backend: str, scope: str, clock: Clock, *, filters: bool = True, named: bool = True,
        prefix: str = "",
    ) -> None:  # fmt: skip
        self._wire = wire
        self.files = Files(wire, backend, scope, clock, prefix=prefix)
        self.answering = Answering(wire)
        self.jobs = Jobs(wire, self.files, backend, scope, filters=filters, named=named, prefix=prefix)
        self._fence = Fence(self.jobs, self.files)

    def secrets(self) -> tuple[str, ...]:
        """See `cloudtune.backend.HoldsSecrets`."""
        return self._wire.secrets()

    def close(self) -> None:
        """See `cloudtune.optional.Closeable`."""
        self._wire.close()

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `cloudtune.backend.Backend`."""
        if step.kind == "upload":
            return self.files.upload(step.request, journal)
        if step.id == "create" and is_fenced(step.request):
            return self._fence.create(step.request, journal)
        if step.id == "create":
            return self.jobs.create(step.request["body"])
        return self.jobs.settle(step.request)

    def find(self, step: Step, intent: Intent) -> Found:
        """See `cloudtune.backend.Backend`."""
        if step.kind == "upload":
            return self.files.find(step.request, intent)
        if step.id == "create" and is_fenced(step.request):
            return self._fence.find(step.request, intent)
        if step.id == "create":
            return self.jobs.find(step.request["marks"], intent)
        return Absent()  # cancelling a duplicate again is harmless

    def probe(self, step: Step) -> Probe:
        """See `cloudtune.backend.Backend`."""
        if step.id != "confirm":
            return self.files.probe(step.request)
        return self._fence.confirm(step.request) if "files" in step.request else self.jobs.confirm(step.request)
