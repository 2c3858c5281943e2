"""Reinforcement on open-weight models through Bedrock's second API, which the model selects.

The API at ``https://bedrock-mantle.<region>.api.aws/v1`` is OpenAI-compatible and requires a Bedrock API key. It stores
rows as files, so there is neither bucket nor role; graders are Lambda functions; there is no suffix
(https://docs.aws.amazon.com/bedrock/latest/userguide/fine-tuning-openai-apis.html, seen 2026-11-21). It is not
documented that jobs return their metadata, so a job is identified by its training file, which no other submission and
no other request of this one uses (``openai_dialect.fencing``); the metadata contains the token too.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.catalog import load
from cloudtune.errors import BackendNotInstalled, CredentialsError, InvalidRequest, PermissionDenied, Problem
from cloudtune.install_command import install_command
from cloudtune.plan import output_ref
from cloudtune_providers.bedrock.responses import NAME
from cloudtune_providers.openai_dialect.account import Account
from cloudtune_providers.openai_dialect.requests import OUR_KEYS, Traits, metadata_of, method_of, plan_of, settings_of
from cloudtune_providers.openai_dialect.sdk_client import Wire, http_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import openai

    from cloudtune.backend import Capabilities
    from cloudtune.clock import Clock
    from cloudtune.optional import GenerateOptions, Prompt
    from cloudtune.plan import Plan, PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune.state import Generation, JobRef, JobSnapshot, TunedModel
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.bedrock.options import BedrockOptions

    Connect = Callable[[str], openai.OpenAI]

_log = logging.getLogger(__name__)
PREFIX = "rft/"
"""Prefix of the id in the reference of such a job."""
KEY = "AWS_BEARER_TOKEN_BEDROCK"
"""The variable from which AWS's own SDKs read a Bedrock API key (botocore 1.44.5)."""
API = "openai_compatible"
"""The API of the models of this route, in the catalog."""
FORMATS = {"rft": "bedrock-rft"}
LIST_LAG_S = 30.0
MOST_METADATA = 16
_CALLS = ("files.", "fine_tuning.")
_NOT_HERE = ("hyperparameters", "model_name", "max_prompt_length", "samples_per_prompt", "inference_max_tokens",
             "reasoning_effort", "eval_interval")  # fmt: skip
_MORE = frozenset({"verb:checkpoints", "verb:events"})
_LESS = {"verb:deploy": "models tuned through the OpenAI-compatible API need no deployment"}


class OpenWeight:
    """That API in one account and region. ``connect`` can create the SDK's client from the base URL."""

    def __init__(self, clients: Clients, options: BedrockOptions, clock: Clock, connect: Connect | None = None) -> None:
        self._clients = clients
        self._options = options
        self._clock = clock
        self._regions = regions()
        self._connect = connect or partial(connected, timeout=options.timeout)
        self._lock = threading.Lock()
        self._account: Account | None = None

    @property
    def account(self) -> Account:
        """Its files, jobs and models. Raises BackendNotInstalled if OpenAI's SDK is missing."""
        scope = self._clients.scope()
        with self._lock:
            if self._account is None:
                require()
                wire = Wire(NAME, lambda: self._connect(self.address()))
                self._account = Account(wire, NAME, scope, self._clock, filters=False, named=False, prefix=PREFIX)
            return self._account

    def close(self) -> None:
        """See `cloudtune.optional.Closeable`."""
        with self._lock:
            account = self._account
        if account is not None:
            account.close()

    def address(self) -> str:
        """Its base URL."""
        if self._options.open_weight_url:
            return self._options.open_weight_url.rstrip("/")
        if elsewhere := self._clients.elsewhere:
            return f"{elsewhere.rstrip('/')}/v1"
        return f"https://bedrock-mantle.{self._clients.region}.api.aws/v1"

    def listed(self, limit: int | None) -> Iterator[JobSnapshot]:
        """Its jobs, newest first. Empty without a key or an SDK, or in another region: most accounts have none."""
        if not (os.environ.get(KEY) and is_installed() and self._clients.region in self._regions):
            return
        try:
            yield from self.account.jobs.listed(limit)
        except (PermissionDenied, InvalidRequest) as error:  # the key may be valid for the runtime only
            _log.warning("jobs on open-weight models cannot be listed: %s", type(error).__name__)

    def look(self) -> tuple[str, str]:
        """Check whether the API accepts the key."""
        for _ in self.account.jobs.listed(1):
            break
        return "good", f"used for {self.address()}"

    def model(self, ref: JobRef) -> TunedModel:
        """The job's model. It needs no deployment."""
        return self.account.jobs.model(ref, lambda base: None, call="api")

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None
    ) -> Iterator[Generation]:
        """Calls the model, or its base model."""
        model_id = model.base if options is not None and options.base else model.id
        return self.account.answering.generate(model_id, prompts, options)


def regions() -> list[str]:
    """The regions in which open-weight models are tuned."""
    return sorted({region for model in load(NAME).models if model.api == API for region in model.regions})


def region_for(region: str) -> str:
    """That region, if it is one of them; else another one."""
    return region if region in regions() else regions()[0]


def is_its_step(request: Mapping[str, Any]) -> bool:
    """Whether a step is for this API."""
    return str(request.get("call")).startswith(_CALLS)


def connected(address: str, timeout: float) -> openai.OpenAI:
    """The SDK's client with the key of AWS's own chain. Raises CredentialsError if there is none."""
    import openai

    key = os.environ.get(KEY)
    if not key:
        # The SDK would use OPENAI_API_KEY instead, which is another vendor's secret.
        raise CredentialsError(
            "no Bedrock API key is set, and tuning open-weight models requires one",
            hint=f"create one in the Bedrock console, and set {KEY}",
        )
    nobody: Any = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
    return openai.OpenAI(
        api_key=key, base_url=address, timeout=timeout, max_retries=0, default_headers=nobody, http_client=http_client()
    )


def is_installed() -> bool:
    """Whether OpenAI's SDK is installed. Imports nothing."""
    return importlib.util.find_spec("openai") is not None


def require() -> None:
    """Raises BackendNotInstalled if OpenAI's SDK is missing."""
    if not is_installed():
        raise BackendNotInstalled(
            "reinforcement fine-tuning of open-weight models on bedrock requires openai, which is not installed",
            hint=f"run: {install_command('aws,openai')}",
        )


def capabilities_of(bedrock: Capabilities) -> Capabilities:
    """The capabilities for a job of this route."""
    supports = (bedrock.supports | _MORE) - _LESS.keys()
    reasons = {feature: reason for feature, reason in bedrock.reasons.items() if feature not in _MORE} | _LESS
    return msgspec.structs.replace(bedrock, supports=supports, reasons=reasons)


# -- planning ----------------------------------------------------------------------------------------------------------


def problems(spec: JobSpec, options: BedrockOptions) -> Iterator[Problem]:
    """Problems for features of Bedrock that this API lacks."""
    hyperparameters, given = spec.hyperparameters, spec.overrides.get(NAME, {})
    if hyperparameters.learning_rate is not None:
        message = "this API accepts only a multiplier of an unpublished rate, so an absolute rate cannot be translated"
        fix = f"set overrides.{NAME}.learning_rate_multiplier"
        yield Problem(code="not_of_route", field="hyperparameters.learning_rate", message=message, fix=fix)
    if hyperparameters.warmup_steps is not None:
        message = f"the API that tunes {spec.model_for(NAME)} does not support warmup"
        yield Problem(code="not_of_route", field="hyperparameters.warmup_steps", message=message, fix="take it out")
    if hyperparameters.epochs is not None and hyperparameters.epochs != int(hyperparameters.epochs):
        message, fix = f"this API accepts only whole epochs, not {hyperparameters.epochs:g}", "use a whole number"
        yield Problem(code="out_of_range", field="hyperparameters.epochs", message=message, fix=fix)
    for name in (name for name in _NOT_HERE if given.get(name)):
        message = f"not documented for the API that tunes {spec.model_for(NAME)}"
        yield Problem(code="not_of_route", field=f"overrides.{NAME}.{name}", message=message, fix="take it out")
    most = MOST_METADATA - len(OUR_KEYS) - len(options.tags)
    if len(spec.tags) > most:
        message = f"{len(spec.tags)} tags, but the job's metadata holds at most {most}"
        yield Problem(code="too_many_tags", field="tags", message=message, fix=f"keep at most {most}")
    for name in (name for name in ("kms_key", "subnets") if getattr(options, name)):
        message = "ignored for this job: the API that tunes open-weight models does not support it"
        yield Problem(code="not_of_route", severity="warning", field=f"backends.{NAME}.{name}", message=message)


def plan(request: PlanRequest, options: BedrockOptions, warnings: tuple[Problem, ...]) -> Plan:
    """The steps of OpenAI's dialect."""
    traits = Traits(
        backend=NAME, formats=FORMATS, timeout_s=options.timeout, list_lag_s=LIST_LAG_S, parts_from_bytes=float("inf"),
        suffix=None, marks={"training_file": output_ref("await_train", "file")}, own_files=True,
        fenced=True,
        file_label=request.spec.name,
        extra={"metadata": options.tags | metadata_of(request), "method": _method(request.spec)},
    )  # fmt: skip
    return plan_of(request, traits, settings_of(request, traits, {}), warnings)


def _method(spec: JobSpec) -> dict[str, Any]:
    method = method_of(spec, NAME)
    grader = {"type": "lambda", "lambda": {"function": spec.overrides[NAME]["grader"]}}
    return method | {"reinforcement": method["reinforcement"] | {"grader": grader}}
