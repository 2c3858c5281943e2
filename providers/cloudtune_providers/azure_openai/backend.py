"""The Azure OpenAI back end: one of two routes, as selected in the settings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from cloudtune.catalog import load
from cloudtune.clock import Clock, SystemClock
from cloudtune.errors import UnsupportedError
from cloudtune.redaction.redactor import setting_secrets
from cloudtune_providers.azure_openai import signing, translate
from cloudtune_providers.azure_openai.foundry import Foundry
from cloudtune_providers.azure_openai.ml_workspace.service import Workspace
from cloudtune_providers.azure_openai.options import AzureOpenAIOptions, AzureOpenAIOverrides
from cloudtune_providers.azure_openai.row_rules import REINFORCEMENT
from cloudtune_providers.openai_dialect import costs
from cloudtune_providers.openai_dialect.delegation import DelegatingBackend, Service
from cloudtune_providers.openai_dialect.inference import why_no_tools
from cloudtune_providers.openai_dialect.row_rules import rules_for
from cloudtune_providers.openai_dialect.targets import target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import date

    import openai
    from azure.ai.ml import MLClient
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
    from pydantic import BaseModel

    from cloudtune.backend import Capabilities
    from cloudtune.catalog import Catalog
    from cloudtune.cost import CostEstimate, Usage
    from cloudtune.data.checks.targets import Target
    from cloudtune.data.row_rules import VendorRule
    from cloudtune.errors import Problem
    from cloudtune.optional import GenerateOptions, Prompt
    from cloudtune.plan import Plan, PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune.state import Deployment, Generation, JobRef, JobSnapshot, TunedModel


class Route(Service, Protocol):
    """The common interface of the two routes besides their jobs and steps."""

    capabilities: Capabilities
    has_row_rules: bool
    """Whether the rules for rows are known."""

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """The problems of the values."""

    def plan(self, request: PlanRequest) -> Plan:
        """The steps of a job."""

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """The cost of a job."""

    def model(self, ref: JobRef) -> TunedModel:
        """The results of a job."""


class AzureOpenAIBackend(DelegatingBackend):
    """Implements `Backend`, `BatchStatus`, `Closeable`, `DataRules`, `Generator`, `Host`, `Pausable` and `Priced`.

    ``connect``, ``manage`` and ``workspace`` can create the SDKs' clients, for tests, proxies and other credentials.
    ``delete`` deletes what Azure allows: for a resource's job the model, result files and uploads, after its
    deployments; for a workspace the job itself.
    """

    name: ClassVar[str] = translate.NAME
    Options: ClassVar[type[BaseModel]] = AzureOpenAIOptions
    Overrides: ClassVar[type[BaseModel]] = AzureOpenAIOverrides

    def __init__(
        self,
        options: AzureOpenAIOptions | None = None,
        *,
        connect: Callable[[AzureOpenAIOptions], openai.OpenAI] | None = None,
        manage: Callable[[AzureOpenAIOptions], CognitiveServicesManagementClient] | None = None,
        workspace: Callable[[AzureOpenAIOptions], MLClient] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._options = chosen = options or AzureOpenAIOptions()
        self._sign_in = signing.SignIn()
        self._foundry: Foundry | None = None
        self._route: Route
        if chosen.route == "ml_workspace":
            place = workspace or partial(signing.workspace_client, sign_in=self._sign_in)
            self._route = Workspace(chosen, lambda: place(chosen))
        else:
            make = connect or partial(signing.connected, sign_in=self._sign_in)
            manager = manage or partial(signing.managed, sign_in=self._sign_in)
            foundry = Foundry(chosen, clock or SystemClock(), lambda: make(chosen), lambda: manager(chosen))
            self._route = self._foundry = foundry
        super().__init__(self._route, chosen.scope(), self._route.capabilities)

    def secrets(self) -> tuple[str, ...]:
        """See `HoldsSecrets`."""
        return (*setting_secrets(self._options), *super().secrets())

    def close(self) -> None:
        """See `Closeable`."""
        super().close()
        self._sign_in.close()

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """See `Backend`."""
        return self._route.check(spec)

    @classmethod
    def target_for(cls, model: str | None, method: str | None = None) -> Target:
        """See `DataRules`."""
        return target_of(cls.name, translate.FORMATS, model, method)

    @classmethod
    def row_rules(cls, model: str | None, method: str | None) -> Sequence[VendorRule]:
        """See `RowRules`."""
        found = rules_for(load(cls.name), model, method)
        return (*found, REINFORCEMENT) if method == "rft" else found

    def data_target(self, spec: JobSpec) -> Target | None:
        """See `DataRules`."""
        return self.target_for(spec.model_for(self.name), spec.method.name) if self._route.has_row_rules else None

    def plan(self, request: PlanRequest) -> Plan:
        """See `Backend`."""
        return self._route.plan(request)

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """See `Priced`."""
        return self._route.estimate(request)

    def usage(self, job: JobSnapshot) -> Usage:
        """See `Priced`."""
        return costs.usage(job)

    def model(self, ref: JobRef) -> TunedModel:
        """See `Backend`."""
        return self._route.model(ref)

    def read_catalog(self, on: date) -> Catalog:
        """See `CatalogReader`. Requires the route of a resource."""
        return self._resource("verb:deploy").read_catalog(on)

    # -- only for the foundry route --------------------------------------------------------------------------------

    def _resource(self, verb: str) -> Foundry:
        if self._foundry is None:
            raise UnsupportedError(f"{self.name}: {self._capabilities.why_not(verb)}")
        return self._foundry

    def pause(self, ref: JobRef) -> None:
        """See `Pausable`."""
        self._resource("verb:pause").jobs.pause(ref)

    def resume(self, ref: JobRef) -> None:
        """See `Pausable`."""
        self._resource("verb:resume").jobs.resume(ref)

    def plan_deploy(self, model: TunedModel, **options: Any) -> Plan:
        """See `Host`. Options: ``name``, ``sku`` (GlobalStandard), ``capacity`` (1, in thousand tokens a minute)."""
        return self._resource("verb:deploy").plan_deploy(model, options)

    def plan_remove(self, deployment: Deployment) -> Plan:
        """See `Host`."""
        return self._resource("verb:deploy").plan_remove(deployment)

    def deployments(self) -> Iterable[Deployment]:
        """See `Host`."""
        return self._resource("verb:deploy").deployments()

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """See `Generator`. The deployment of the model answers."""
        return self._resource("verb:generate").generate(model, prompts, options)

    def why_no_tools(self, model: TunedModel) -> str:
        """See `ToolCaller`."""
        return why_no_tools(self._options.answers)
