"""The OpenAI back end. It never polls or retries."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from cloudtune.catalog import load
from cloudtune.clock import Clock, SystemClock
from cloudtune.errors import CredentialsError
from cloudtune.pricing import answer_price
from cloudtune.redaction.redactor import setting_secrets
from cloudtune_providers.openai import translate
from cloudtune_providers.openai.options import OpenAIOptions, OpenAIOverrides
from cloudtune_providers.openai_dialect import costs
from cloudtune_providers.openai_dialect.account import Account
from cloudtune_providers.openai_dialect.delegation import DelegatingBackend
from cloudtune_providers.openai_dialect.inference import why_no_tools
from cloudtune_providers.openai_dialect.model_names import base_of
from cloudtune_providers.openai_dialect.row_rules import rules_for
from cloudtune_providers.openai_dialect.rules import Rules, is_loopback
from cloudtune_providers.openai_dialect.sdk_client import KEY_VARIABLE, Wire, http_client
from cloudtune_providers.openai_dialect.targets import target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import openai
    from pydantic import BaseModel

    from cloudtune.catalog import Catalog
    from cloudtune.cost import AnswerPrice, CostEstimate, Usage
    from cloudtune.data.checks.targets import Target
    from cloudtune.data.row_rules import VendorRule
    from cloudtune.errors import Problem
    from cloudtune.optional import GenerateOptions, Prompt
    from cloudtune.plan import Plan, PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune.state import Generation, JobRef, JobSnapshot, TunedModel


_HEADERS = "OPENAI_CUSTOM_HEADERS"


class OpenAIBackend(DelegatingBackend):
    """Implements `Backend`, `BatchStatus`, `DataRules`, `Generator`, `Pausable` and `Priced`.

    ``delete`` deletes the ended job's model, its result files and the uploads that no other job uses; the record of the
    job is permanent, so that ``verb:delete`` is not among the capabilities.

    ``connect`` can create the SDK's client, for tests and proxies; its own retries are disabled in any case.
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
        scope = self._options.scope()
        make = connect or connected
        self._profile = self._options.profile()
        marked = self._profile is None or self._profile.metadata
        wire = Wire(self.name, lambda: make(self._options))
        self._account = Account(wire, self.name, scope, self._clock, filters=marked, named=marked)
        super().__init__(
            self._account, scope, self._profile.capabilities() if self._profile else translate.capabilities()
        )

    # -- planning --------------------------------------------------------------------------------------------------

    def secrets(self) -> tuple[str, ...]:
        """See `HoldsSecrets`."""
        return (*setting_secrets(self._options), *super().secrets())

    def check(self, spec: JobSpec) -> Sequence[Problem]:
        """See `Backend`. Reads the catalog and today's date."""
        rules, today = self._rules(), self._clock.now().date()
        if self._profile:
            return list(self._profile.check(spec, rules, today, OpenAIOverrides.model_fields))
        return translate.check(spec, rules, today)

    @classmethod
    def target_for(cls, model: str | None, method: str | None = None) -> Target:
        """See `DataRules`."""
        return target_of(cls.name, translate.ROWS, model, method)

    @classmethod
    def row_rules(cls, model: str | None, method: str | None) -> Sequence[VendorRule]:
        """See `RowRules`."""
        return rules_for(load(cls.name), model, method)

    def data_target(self, spec: JobSpec) -> Target:
        """See `DataRules`."""
        target = self._profile.target if self._profile else self.target_for
        return target(spec.model_for(self.name), spec.method.name)

    def plan(self, request: PlanRequest) -> Plan:
        """See `Backend`."""
        options, rules = self._options, self._rules()
        if self._profile:
            return self._profile.plan(request, rules, timeout_s=options.timeout, list_lag_s=options.list_lag)
        return translate.plan(request, options, rules)

    def estimate(self, request: PlanRequest) -> CostEstimate:
        """See `Priced`."""
        return self._rules().cost(request.spec, request.data)

    def usage(self, job: JobSnapshot) -> Usage:
        """See `Priced`."""
        return costs.usage(job)

    def _rules(self) -> Rules:
        return Rules(self._catalog(), self.name, rehearsal=is_loopback(self._options.address()))

    def _catalog(self) -> Catalog:
        return self._profile.catalog if self._profile else load(self.name)

    def model(self, ref: JobRef) -> TunedModel:
        """See `Backend`."""
        return self._account.jobs.model(ref, self._rules().retires, call="api")

    # -- pausing ---------------------------------------------------------------------------------------------------

    def pause(self, ref: JobRef) -> None:
        """See `Pausable`."""
        self._account.jobs.pause(ref)

    def resume(self, ref: JobRef) -> None:
        """See `Pausable`."""
        self._account.jobs.resume(ref)

    # -- inference -------------------------------------------------------------------------------------------------

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """See `Generator`."""
        model_id = model.base if options is not None and options.base else model.id
        return self._account.answering.generate(model_id, prompts, options, by=self._options.answers)

    def answer_price(self, model: TunedModel, *, base: bool = False) -> AnswerPrice | None:
        """See `PricedAnswers`."""
        is_base = base or not model.id.startswith("ft:")
        return answer_price(self._catalog(), base_of(model.base if base else model.id), base=is_base)

    def why_no_tools(self, model: TunedModel) -> str:
        """See `ToolCaller`."""
        return why_no_tools(self._options.answers)


def connected(options: OpenAIOptions) -> openai.OpenAI:
    """The SDK's client with these settings. Raises the SDK's exception if there is no key, or CredentialsError."""
    import openai

    # The SDK would send the account of OpenAI that the environment names to a compatible service.
    account = {"OpenAI-Organization": options.organization, "OpenAI-Project": options.project}
    headers: Any = {name: value or openai.Omit() for name, value in account.items()}
    return openai.OpenAI(
        api_key=_key(options),
        base_url=options.address(),
        organization=options.organization,
        project=options.project,
        timeout=options.timeout,
        max_retries=0,
        default_headers=None if options.service is None else headers,
        http_client=http_client(),
    )


def _key(options: OpenAIOptions) -> str | None:
    """The key; None = the SDK reads OPENAI_API_KEY, which is never sent to another service."""
    given = options.api_key.get_secret_value() if options.api_key else None
    service = options.profile()
    if service is None:
        return given
    key = os.environ.get(service.key_variable) or given
    if not key:
        raise CredentialsError(f"no API key for {service.title}", hint=f"set {service.key_variable}")
    if is_loopback(options.address()):
        return key
    if key == os.environ.get(KEY_VARIABLE):
        hint = f"set {service.key_variable} to the key of the service"
        raise CredentialsError(f"the key of OpenAI is not sent to {service.title}", hint=hint)
    if os.environ.get(_HEADERS):
        raise CredentialsError(f"the SDK would send {_HEADERS} to {service.title}", hint=f"unset {_HEADERS}")
    return key
