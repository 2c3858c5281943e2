"""The Azure OpenAI back end: jobs by OpenAI's dialect, deployments by the management plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from cloudtune.backend import Absent, Capabilities, Found, GenerateOptions, Intent, Journal, Plan, Probe, Resolved
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
from cloudtune_providers.openai_dialect.files import Files
from cloudtune_providers.openai_dialect.jobs import Jobs
from cloudtune_providers.openai_dialect.rules import Rules, is_loopback
from cloudtune_providers.openai_dialect.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import openai
    from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
    from pydantic import BaseModel

    from cloudtune.backend import PlanRequest, Prompt, Step
    from cloudtune.errors import Problem
    from cloudtune.spec import JobSpec
    from cloudtune.state import Checkpoint, Deployment, Event, Generation, JobRef, JobSnapshot, Metric, TunedModel


class AzureOpenAIBackend:
    """Implements `Backend`, `BatchStatus` and `Host`.

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
        self._scope = self._options.scope()
        make, make_management = connect or signing.connected, manage or signing.managed
        self._wire = Wire(self.name, lambda: make(self._options))
        self._files = Files(self._wire, self.name, self._scope, self._clock)
        self._jobs = Jobs(self._wire, self._files, self.name, self._scope, filters=False, named=False)
        self._hosted = Deployments(self._options, load(self.name), lambda: make_management(self._options), self._clock)
        self._capabilities = translate.capabilities()

    def __repr__(self) -> str:
        return f"AzureOpenAIBackend({self._scope!r})"

    @property
    def capabilities(self) -> Capabilities:
        """See `Backend`."""
        return self._capabilities

    # -- planning --------------------------------------------------------------------------------------------------

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """See `Backend`. Reads the catalog and today's date."""
        return translate.check(spec, self._rules(), self._options)

    def resolve(self, spec: JobSpec) -> Resolved:
        """See `Backend`. Nothing has to be looked up: the scope stands in the settings."""
        return Resolved(scope=self._scope)

    def plan(self, request: PlanRequest) -> Plan:
        """See `Backend`."""
        return translate.plan(request, self._options, self._rules())

    def _rules(self) -> Rules:
        today = self._clock.now().date()
        return Rules(load(self.name), self.name, today, rehearsal=is_loopback(self._options.address()))

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `Backend`."""
        request = step.request
        match step.id:
            case "create":
                return self._jobs.create(request["body"])
            case "deploy":
                return self._hosted.create(request)
            case "remove":
                return self._hosted.remove(request)
            case "settle":
                return self._jobs.settle(request)
            case _:
                return self._files.upload(request, journal)

    def find(self, step: Step, intent: Intent) -> Found:
        """See `Backend`."""
        match step.id:
            case "create":
                return self._jobs.find(step.request["marks"], intent)
            case "deploy" | "remove":
                return self._hosted.find(step.request)
            case "settle":
                return Absent()  # cancelling a twin once more is harmless
            case _:
                return self._files.find(step.request, intent)

    def probe(self, step: Step) -> Probe:
        """See `Backend`."""
        match step.id:
            case "confirm":
                return self._jobs.confirm(step.request)
            case "ready":
                return self._hosted.probe(step.request)
            case _:
                return self._files.probe(step.request)

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, ref: JobRef) -> JobSnapshot:
        """See `Backend`."""
        return self._jobs.get(ref)

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """See `BatchStatus`."""
        return self._jobs.get_many(refs)

    def list(self, limit: int | None = None) -> Iterable[JobSnapshot]:
        """See `Backend`."""
        return self._jobs.listed(limit)

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """See `Backend`."""
        return self._jobs.events(ref, after)

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """See `Backend`."""
        return self._jobs.metrics(ref, after)

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """See `Backend`. The ``uri`` of one is a model that can be deployed."""
        return self._jobs.checkpoints(ref)

    def model(self, ref: JobRef) -> TunedModel:
        """See `Backend`. It answers only once it is deployed."""
        return self._jobs.model(ref, self._rules().retires, call="api", needs_deploy=True)

    # -- steering --------------------------------------------------------------------------------------------------

    def cancel(self, ref: JobRef) -> None:
        """See `Backend`. A file that a late request made twice is removed."""
        if ref.id.startswith("file-"):
            self._files.delete(ref.id)
        else:
            self._jobs.cancel(ref)

    def pause(self, ref: JobRef) -> None:
        """See `Backend`."""
        self._jobs.pause(ref)

    def resume(self, ref: JobRef) -> None:
        """See `Backend`."""
        self._jobs.resume(ref)

    def delete(self, ref: JobRef) -> None:
        """Remove the ended job's model, result files and uploads; its record stays. Deployments go first."""
        self._jobs.clear(ref)

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
        return self._jobs.generate(name, prompts, options, by=self._options.answers)
