"""The workspace as the service that executes the steps of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.backend import Absent, Done
from cloudtune.cost import CostEstimate
from cloudtune.errors import BackendError
from cloudtune.registry import describe, not_installed
from cloudtune_providers.azure_openai.ml_workspace import translate
from cloudtune_providers.azure_openai.ml_workspace.connection import Connection
from cloudtune_providers.azure_openai.ml_workspace.jobs import WorkspaceJobs
from cloudtune_providers.azure_openai.ml_workspace.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from azure.ai.ml import MLClient

    from cloudtune.backend import Found, Intent, Journal, Probe
    from cloudtune.errors import Problem
    from cloudtune.plan import Plan, PlanRequest, Step
    from cloudtune.spec import JobSpec
    from cloudtune.state import JobRef, TunedModel
    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions


_NEEDS = ("azure.ai.ml", "azure.storage.blob")


class Workspace:
    """Jobs and blobs of one workspace."""

    def __init__(self, options: AzureOpenAIOptions, connect: Callable[[], MLClient]) -> None:
        info = describe(translate.NAME)
        if missing := msgspec.structs.replace(info, needs=(*info.needs, *_NEEDS)).missing:
            raise not_installed(info, missing[0])
        self.capabilities = translate.capabilities()
        self.has_row_rules = False  # the parameters of a model's training component are not known
        self._options = options
        self._connection = connection = Connection(options, connect)
        self._storage = Storage(connection, options)
        self.jobs = WorkspaceJobs(connection, self._storage, options.datastore, options.scope())

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """Makes no request."""
        return translate.check(spec, self._options)

    def plan(self, request: PlanRequest) -> Plan:
        """The steps of a job."""
        return translate.plan(request, self._options)

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """Unknown: the catalog has no prices of a workspace's compute."""
        return CostEstimate(
            usd=None, basis="unknown: the price of a workspace's jobs", unknown=("the price of training",)
        )

    def secrets(self) -> tuple[str, ...]:
        """See `cloudtune.backend.HoldsSecrets`: the datastore's credentials."""
        return self._storage.secrets()

    def close(self) -> None:
        """See `cloudtune.optional.Closeable`."""
        self._storage.close()
        self._connection.close()

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `cloudtune.backend.Backend`."""
        return self._storage.put(step.request) if step.kind == "upload" else self.jobs.create(step.request)

    def find(self, step: Step, intent: Intent) -> Found:
        """See `cloudtune.backend.Backend`."""
        if step.kind != "upload":
            return self.jobs.find(step.request)
        outputs = self._storage.found(step.request)
        return Absent() if outputs is None else Done(outputs=outputs)

    def probe(self, step: Step) -> Probe:
        """See `cloudtune.backend.Backend`. No step waits."""
        raise BackendError(f"{step.id}: workspace plans have no wait steps")

    def model(self, ref: JobRef) -> TunedModel:
        """The model registered in the workspace."""
        return self.jobs.model(ref)
