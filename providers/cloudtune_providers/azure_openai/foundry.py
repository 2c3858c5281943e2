"""The ``foundry`` route: jobs of an Azure OpenAI or Foundry resource in OpenAI's dialect, and its deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cloudtune.catalog import load
from cloudtune.document.validation import problems_of
from cloudtune.errors import InputError
from cloudtune_providers.azure_openai import translate
from cloudtune_providers.azure_openai.catalog_reader import catalog_of
from cloudtune_providers.azure_openai.deployments import Deployments
from cloudtune_providers.azure_openai.options import AzureOpenAIDeployment
from cloudtune_providers.openai_dialect.account import Account
from cloudtune_providers.openai_dialect.rules import Rules, is_loopback
from cloudtune_providers.openai_dialect.sdk_client import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import date

    import openai
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient

    from cloudtune.backend import Found, Intent, Journal, Probe
    from cloudtune.catalog import Catalog
    from cloudtune.clock import Clock
    from cloudtune.cost import CostEstimate
    from cloudtune.errors import Problem
    from cloudtune.optional import GenerateOptions, Prompt
    from cloudtune.plan import Plan, PlanRequest, Step
    from cloudtune.spec import JobSpec
    from cloudtune.state import Deployment, Generation, JobRef, TunedModel
    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions


class Foundry(Account):
    """One resource: its files and jobs, and its deployments."""

    def __init__(
        self,
        options: AzureOpenAIOptions,
        clock: Clock,
        connect: Callable[[], openai.OpenAI],
        manage: Callable[[], CognitiveServicesManagementClient],
    ) -> None:
        wire = Wire(translate.NAME, connect)
        super().__init__(wire, translate.NAME, options.scope(), clock, filters=False, named=False)
        self.capabilities = translate.capabilities()
        self.has_row_rules = True
        self._options = options
        self._clock = clock
        self._hosted = Deployments(options, load(translate.NAME), manage, clock)

    def _rules(self) -> Rules:
        return Rules(load(translate.NAME), translate.NAME, rehearsal=is_loopback(self._options.address()))

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """Reads the catalog and today's date."""
        return translate.check(spec, self._rules(), self._options, self._clock.now().date())

    def plan(self, request: PlanRequest) -> Plan:
        """The steps of a job."""
        return translate.plan(request, self._options, self._rules())

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """The cost of a job, by the price of its training type."""
        return self._rules().cost(request.spec, request.data, translate.tier_of(request.spec, self._options))

    def close(self) -> None:
        """Close the connections of both planes."""
        super().close()
        self._hosted.close()

    # -- steps: of deployments, and of jobs -------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `cloudtune.backend.Backend`."""
        if step.id == "deploy":
            return self._hosted.create(step.request)
        return self._hosted.remove(step.request) if step.id == "remove" else super().do(step, journal)

    def find(self, step: Step, intent: Intent) -> Found:
        """See `cloudtune.backend.Backend`."""
        return self._hosted.find(step.request) if step.id in ("deploy", "remove") else super().find(step, intent)

    def probe(self, step: Step) -> Probe:
        """See `cloudtune.backend.Backend`."""
        return self._hosted.probe(step.request) if step.id == "ready" else super().probe(step)

    # -- models ----------------------------------------------------------------------------------------------------

    def model(self, ref: JobRef) -> TunedModel:
        """The job's model. It has to be deployed before inference."""
        return self.jobs.model(ref, self._rules().retires, call="api", needs_deploy=True)

    def plan_deploy(self, model: TunedModel, options: dict[str, Any]) -> Plan:
        """The steps of a deployment."""
        try:
            deployment = AzureOpenAIDeployment.model_validate(options)
        except ValidationError as error:
            found = problems_of(error, model=AzureOpenAIDeployment, values=options, place=lambda path: (None, None))
            raise InputError(found) from error
        return self._hosted.plan_deploy(model, deployment.name, deployment.sku, deployment.capacity)

    def read_catalog(self, on: date) -> Catalog:
        """The models that the resource can tune."""
        return catalog_of(self._hosted.base_models(), load(translate.NAME), on)

    def plan_remove(self, deployment: Deployment) -> Plan:
        """Return the step that deletes it."""
        return self._hosted.plan_remove(deployment)

    def deployments(self) -> Iterable[Deployment]:
        """List the deployments."""
        return self._hosted.listed(self._options.scope())

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None
    ) -> Iterator[Generation]:
        """Calls the model's deployment; the base model needs one too."""
        scope = self._options.scope()
        if options is not None and options.base:
            name = self._options.base_deployment or self._hosted.serving(model.base, scope)
        else:
            name = self._hosted.serving(model.id, scope)
        return self.answering.generate(name, prompts, options, by=self._options.answers, base=model.base)
