"""The OpenAI back end: calls, translates, returns. No loop waits here, and nothing is sent twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from cloudtune.backend import Absent, Capabilities, Found, GenerateOptions, Intent, Journal, Plan, Probe, Resolved
from cloudtune.catalog import load
from cloudtune.clock import Clock, SystemClock
from cloudtune.errors import UnsupportedError
from cloudtune_providers.openai import translate
from cloudtune_providers.openai.options import OpenAIOptions, OpenAIOverrides
from cloudtune_providers.openai_dialect.files import Files
from cloudtune_providers.openai_dialect.jobs import Jobs
from cloudtune_providers.openai_dialect.rules import Rules, is_loopback
from cloudtune_providers.openai_dialect.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import openai
    from pydantic import BaseModel

    from cloudtune.backend import PlanRequest, Prompt, Step
    from cloudtune.errors import Problem
    from cloudtune.spec import JobSpec
    from cloudtune.state import Checkpoint, Deployment, Event, Generation, JobRef, JobSnapshot, Metric, TunedModel


class OpenAIBackend:
    """Implements `Backend`, `BatchStatus` and `Host`.

    ``connect`` may make the SDK's client instead of us, for tests and proxies; its own retries are switched off anyway.
    """

    name: ClassVar[str] = translate.NAME
    Options: ClassVar[type[BaseModel]] = OpenAIOptions
    Overrides: ClassVar[type[BaseModel]] = OpenAIOverrides

    def __init__(
        self,
        options: OpenAIOptions | None = None,
        *,
        connect: Callable[[OpenAIOptions], openai.OpenAI] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._options = options or OpenAIOptions()
        self._clock = clock or SystemClock()
        self._scope = self._options.scope()
        make = connect or connected
        self._wire = Wire(self.name, lambda: make(self._options))
        self._files = Files(self._wire, self.name, self._scope, self._clock)
        self._jobs = Jobs(self._wire, self._files, self.name, self._scope)
        self._capabilities = translate.capabilities()

    def __repr__(self) -> str:
        return f"OpenAIBackend({self._scope!r})"

    @property
    def capabilities(self) -> Capabilities:
        """See `Backend`."""
        return self._capabilities

    # -- planning --------------------------------------------------------------------------------------------------

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """See `Backend`. Reads the catalog and today's date."""
        return translate.check(spec, self._rules())

    def resolve(self, spec: JobSpec) -> Resolved:
        """See `Backend`. Nothing has to be looked up: the scope stands in the settings."""
        return Resolved(scope=self._scope)

    def plan(self, request: PlanRequest) -> Plan:
        """See `Backend`."""
        return translate.plan(request, self._options, self._rules())

    def _rules(self) -> Rules:
        today = self._clock.now().date()
        return Rules(load("openai"), self.name, today, rehearsal=is_loopback(self._options.address()))

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        """See `Backend`."""
        request = step.request
        if step.kind == "upload":
            return self._files.upload(request, journal)
        if step.id == "create":
            return self._jobs.create(request["body"])
        return self._jobs.settle(request)

    def find(self, step: Step, intent: Intent) -> Found:
        """See `Backend`."""
        if step.kind == "upload":
            return self._files.find(step.request, intent)
        if step.id == "create":
            return self._jobs.find(step.request["marks"], intent)
        return Absent()  # cancelling a twin once more is harmless

    def probe(self, step: Step) -> Probe:
        """See `Backend`."""
        return self._jobs.confirm(step.request) if step.id == "confirm" else self._files.probe(step.request)

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
        """See `Backend`. The ``uri`` of one is a model that answers at once."""
        return self._jobs.checkpoints(ref)

    def model(self, ref: JobRef) -> TunedModel:
        """See `Backend`."""
        return self._jobs.model(ref, self._rules().retires, call="api")

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
        """Remove the ended job's model, its result files and the uploads that no other job learns from.

        The record of the job stays for ever, so that ``verb:delete`` is not among the capabilities.
        """
        self._jobs.clear(ref)

    # -- answering -------------------------------------------------------------------------------------------------

    def plan_deploy(self, model: TunedModel, **options: Any) -> Plan:
        """See `Host`. There is nothing to deploy."""
        raise UnsupportedError(f"{self.name} needs no deployment: {self._capabilities.why_not('verb:deploy')}")

    def plan_remove(self, deployment: Deployment) -> Plan:
        """See `Host`. There is nothing to take down."""
        raise UnsupportedError(f"{self.name} needs no deployment: {self._capabilities.why_not('verb:deploy')}")

    def deployments(self) -> Iterable[Deployment]:
        """See `Host`. None."""
        return ()

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """See `Host`."""
        asked = model.base if options is not None and options.base else model.id
        return self._jobs.generate(asked, prompts, options, by=self._options.answers)


def connected(options: OpenAIOptions) -> openai.OpenAI:
    """The SDK's client with these settings. Raises what the SDK raises where there is no key."""
    import openai

    return openai.OpenAI(
        api_key=options.api_key.get_secret_value() if options.api_key else None,
        base_url=options.address(),
        organization=options.organization,
        project=options.project,
        timeout=options.timeout,
        max_retries=0,
    )
