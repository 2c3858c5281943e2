"""The Azure OpenAI back end: jobs by OpenAI's dialect, deployments by the management plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from cloudtune.catalog import load
from cloudtune.clock import Clock, SystemClock
from cloudtune.errors import InputError
from cloudtune.validation import problems_of
from cloudtune_providers.azure_openai import signing, translate
from cloudtune_providers.azure_openai.deployments import Deployments
from cloudtune_providers.azure_openai.options import (
    AzureOpenAIDeployment,
    AzureOpenAIOptions,
    AzureOpenAIOverrides,
)
from cloudtune_providers.openai_dialect.account import Account
from cloudtune_providers.openai_dialect.passing import Passing
from cloudtune_providers.openai_dialect.rules import Rules, is_loopback
from cloudtune_providers.openai_dialect.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import openai
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
    from pydantic import BaseModel

    from cloudtune.backend import Found, GenerateOptions, Intent, Journal, Plan, PlanRequest, Probe, Prompt, Step
    from cloudtune.errors import Problem
    from cloudtune.spec import JobSpec
    from cloudtune.state import Deployment, Generation, JobRef, TunedModel


class AzureOpenAIBackend(Passing):
    """Implements `Backend`, `BatchStatus` and `Host`.

    ``delete`` removes the ended job's model, result files and uploads; its record stays. Deployments go first.

    ``connect`` and ``manage`` may make the SDKs' clients instead of us, for tests, proxies and unusual credentials.
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
        clock: Clock | None = None,
    ) -> None:
        self._options = options or AzureOpenAIOptions()
        self._clock = clock or SystemClock()
        scope = self._options.scope()
        make, make_management = connect or signing.connected, manage or signing.managed
        wire = Wire(self.name, lambda: make(self._options))
        self._account = Account(wire, self.name, scope, self._clock, filters=False, named=False)
        self._hosted = Deployments(self._options, load(self.name), lambda: make_management(self._options), self._clock)
        super().__init__(self._account, scope, translate.capabilities())

    # -- planning --------------------------------------------------------------------------------------------------

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """See `Backend`. Reads the catalog and today's date."""
        return translate.check(spec, self._rules(), self._options)

    def plan(self, request: PlanRequest) -> Plan:
        """See `Backend`."""
        return translate.plan(request, self._options, self._rules())

    def _rules(self) -> Rules:
        today = self._clock.now().date()
        return Rules(load(self.name), self.name, today, rehearsal=is_loopback(self._options.address()))

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `Backend`."""
        if step.id == "deploy":
            return self._hosted.create(step.request)
        return self._hosted.remove(step.request) if step.id == "remove" else super().do(step, journal)

    def find(self, step: Step, intent: Intent) -> Found:
        """See `Backend`."""
        return self._hosted.find(step.request) if step.id in ("deploy", "remove") else super().find(step, intent)

    def probe(self, step: Step) -> Probe:
        """See `Backend`."""
        return self._hosted.probe(step.request) if step.id == "ready" else super().probe(step)

    def model(self, ref: JobRef) -> TunedModel:
        """See `Backend`. It answers only once it is deployed."""
        return self._account.jobs.model(ref, self._rules().retires, call="api", needs_deploy=True)

    # -- answering -------------------------------------------------------------------------------------------------

    def plan_deploy(self, model: TunedModel, **options: Any) -> Plan:
        """See `Host`. Options: ``name``, ``sku`` (GlobalStandard), ``capacity`` (1, in thousand tokens a minute)."""
        try:
            asked = AzureOpenAIDeployment.model_validate(options)
        except ValidationError as error:
            found = problems_of(error, model=AzureOpenAIDeployment, values=options, place=lambda path: (None, None))
            raise InputError(found) from error
        return self._hosted.plan_deploy(model, asked.name, asked.sku, asked.capacity)

    def plan_remove(self, deployment: Deployment) -> Plan:
        """See `Host`."""
        return self._hosted.plan_remove(deployment)

    def deployments(self) -> Iterable[Deployment]:
        """See `Host`."""
        return self._hosted.listed(self._scope)

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """See `Host`. Asks the model's deployment; the base model needs one too."""
        if options is not None and options.base:
            name = self._options.base_deployment or self._hosted.serving(model.base, self._scope)
        else:
            name = self._hosted.serving(model.id, self._scope)
        return self._account.jobs.generate(name, prompts, options, by=self._options.answers)
