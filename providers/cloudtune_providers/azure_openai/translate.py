"""Capabilities, checks and requests of the Azure OpenAI back end: pure functions.

Azure jobs return neither suffix nor metadata. A job is identified by its training file and its seed, which is derived
from the submission's token, or, if the spec sets the seed, by a training file that no other attempt uses.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import DataError, Problem
from cloudtune.methods import METHODS
from cloudtune.plan import Plan, PlanRequest, Setting, output_ref
from cloudtune_providers.openai_dialect.features import COMMON_OVERRIDES, complete
from cloudtune_providers.openai_dialect.requests import Traits, plan_of, settings_of
from cloudtune_providers.openai_dialect.rules import loss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from cloudtune.backend import Capabilities
    from cloudtune.spec import JobSpec
    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions
    from cloudtune_providers.openai_dialect.rules import Rules

NAME = "azure_openai"
# Microsoft asks for a byte order mark (learn.microsoft.com, fine-tuning how-to, seen 2026-11-21).
FORMATS = {"sft": "azure-openai", "dpo": "azure-openai-preference", "rft": "azure-openai-rft"}
DEFAULT_TYPE = "GlobalStandard"
DEFAULTS = {
    "hyperparameters.epochs": "auto", "hyperparameters.batch_size": "auto",
    f"overrides.{NAME}.learning_rate_multiplier": "auto",
}  # fmt: skip
MOST_SUFFIX = 18
_OWN_WAY = "Azure sets this itself and accepts no value for it"
REFUSED = {
    "method:cpt": "Azure trains on conversations only; convert the text to questions and answers",
    "method:distill": "Azure has no such job; collect the teacher's answers and fine-tune on them with sft",
    "adapter:full": "Azure trains low-rank adapters only",
    "hyperparameters.learning_rate": "Azure accepts only a multiplier of an unpublished rate, so an absolute rate "
    f"cannot be translated; set overrides.{NAME}.learning_rate_multiplier",
    "hyperparameters.max_steps": "Azure counts epochs; set hyperparameters.epochs",
    "hyperparameters.max_length": "determined by the base model's training context",
    "validation.every": "Azure chooses when to evaluate, and runs a full evaluation at the end of each epoch",
    "validation.early_stopping": "jobs run all their epochs; the checkpoint of every epoch can be deployed",
    "checkpoints.every": "Azure saves one at the end of each epoch",
    "checkpoints.keep": "Azure keeps those of the last three epochs",
    "limits.max_time": "Azure's limit is fixed at 720 hours; use `cloudtune watch --cancel-after`",
    "tags": "Azure supports tags on deployments, not on jobs",
    "verb:continue": "Azure cannot continue a job that has ended; start a new job from its model",
    "verb:delete": "Azure keeps job records; only the model and the files can be deleted",
    "verb:export": "Azure does not export weights",
}
INHERENT = frozenset({"adapter:lora", "data.test", "method.loss_on"})
TRANSLATED = {
    "adapter:lora": "Azure trains low-rank adapters and chooses their rank",
    "data.test": "not uploaded; the rows stay on this machine for evaluation",
    "hyperparameters.epochs": "n_epochs",
    "method.loss_on": "trains on every assistant turn; `weight: 0` excludes a turn",
    "method:rft": "reinforcement, with overrides.azure_openai.grader",
    "method:sft": "supervised",
}


def capabilities() -> Capabilities:
    """The capabilities of Azure."""
    methods = (f"method:{name}" for name in FORMATS)
    fields = ("method.beta", "hyperparameters.epochs", "hyperparameters.batch_size", "data.validation", "seed")
    return complete(
        [*methods, *fields], refused=REFUSED, inherent=INHERENT, translated=TRANSLATED,
        no_choice="Azure does not support it", no_value=_OWN_WAY,
        overridden_by={"hyperparameters.learning_rate": "learning_rate_multiplier"},
        common_overrides=COMMON_OVERRIDES | {"grader": "grader", "reasoning_effort": "reasoning_effort"},
    )  # fmt: skip


def check(spec: JobSpec, rules: Rules, options: AzureOpenAIOptions, today: date) -> Sequence[Problem]:
    """Values that Azure would refuse, and dates."""
    found = [*rules.dates(spec, today), *rules.values(spec), *loss(spec), *_reinforced(spec), *_other_route(spec)]
    given = spec.overrides.get(NAME, {})
    if not options.address():
        found.append(Problem(
            code="no_endpoint", field=f"backends.{NAME}.endpoint", message="no endpoint is set",
            fix="set it, or AZURE_OPENAI_ENDPOINT, to https://<resource>.openai.azure.com",
        ))  # fmt: skip
    if options.training_type is None and given.get("training_type") is None:
        found.append(Problem(
            code="training_type", severity="warning", field=f"overrides.{NAME}.training_type",
            message=f"{DEFAULT_TYPE}: data and weights may leave the resource's region",
            fix="set Standard to keep them there, or GlobalStandard to allow it",
        ))  # fmt: skip
    return found


def _reinforced(spec: JobSpec) -> Iterator[Problem]:
    # Azure needs a validation file for this method (learn.microsoft.com, reinforcement fine-tuning, seen 2026-11-21).
    grader = spec.overrides.get(NAME, {}).get("grader")
    if spec.method.name == "rft":
        if grader is None:
            message = "rft requires a grader, which scores the answers"
            yield Problem(code="no_grader", field=f"overrides.{NAME}.grader", message=message, fix="set one")
        if spec.data.validation is None:
            message = "rft on Azure requires validation rows"
            yield Problem(
                code="no_validation", field="data.validation", message=message, fix="hold out a share, e.g. 0.1"
            )
    elif grader is not None:
        message = f"{spec.method.name} does not use a grader"
        yield Problem(code="not_of_method", field=f"overrides.{NAME}.grader", message=message, fix="take it out")


def _other_route(spec: JobSpec) -> Iterator[Problem]:
    given = spec.overrides.get(NAME, {})
    for name in ("hyperparameters", "compute", "instance_types"):
        if given.get(name) is not None:
            message, fix = "only workspace jobs support it", "take it out, or set `route: ml_workspace`"
            yield Problem(code="other_route", field=f"overrides.{NAME}.{name}", message=message, fix=fix)


def plan(request: PlanRequest, options: AzureOpenAIOptions, rules: Rules) -> Plan:
    """The steps. Raises DataError for rows that Azure would refuse."""
    spec = request.spec
    problems = list(rules.rows(spec, request.data, kind=METHODS[spec.method.name].kinds[0]))
    if any(problem.severity == "error" for problem in problems):
        raise DataError(problems)
    given: dict[str, Any] = spec.overrides.get(NAME, {})
    tier = tier_of(spec, options)
    seed = spec.seed if spec.seed is not None else seed_of(request.token)
    traits = Traits(
        backend=NAME, formats=FORMATS, timeout_s=options.timeout, list_lag_s=options.list_lag,
        parts_from_bytes=float("inf"), suffix=given.get("suffix") or suffix_of(spec.name),
        marks={"training_file": output_ref("await_train", "file"), "seed": seed},
        extra={"seed": seed, "trainingType": tier}, file_label=spec.name,
        own_files=spec.seed is not None,
    )  # fmt: skip
    settings = [
        *settings_of(request, traits, DEFAULTS),
        Setting(field="trainingType", value=tier, source=_who(given, options)),
    ]
    if spec.seed is None:
        settings.append(Setting(field="seed", value=seed, source="derived: the submission's token"))
    return plan_of(request, traits, tuple(settings), tuple(problems))


def tier_of(spec: JobSpec, options: AzureOpenAIOptions) -> str:
    """The training type, which is also the tier of the price."""
    return spec.overrides.get(NAME, {}).get("training_type") or options.training_type or DEFAULT_TYPE


def _who(given: dict[str, Any], options: AzureOpenAIOptions) -> str:
    if given.get("training_type"):
        return "override"
    return "setting" if options.training_type else f"default of {NAME}"


def seed_of(token: str) -> int:
    """31 bits of the token."""
    return int(token[:8], 16) & 0x7FFFFFFF


def suffix_of(name: str) -> str:
    """The job's name, truncated to fit."""
    return name[:MOST_SUFFIX].rstrip("-")


# -- deployments -----------------------------------------------------------------------------------------------------

TAG = "cloudtune"
_DATED = re.compile(r"(.+)-(\d{4}-\d{2}-\d{2})")


def deployment_name(model: str) -> str:
    """A deterministic name for the deployment of that model, of at most 64 characters."""
    readable = re.sub(r"[^A-Za-z0-9-]+", "-", model.rpartition(".ft-")[2])[-40:].strip("-")
    return f"ct-{readable}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def deployment_body(model: str, sku: str, capacity: int, token: str) -> dict[str, Any]:
    """The body of the management plane's PUT."""
    dated = _DATED.fullmatch(model)
    name, version = (dated.group(1), dated.group(2)) if dated else (model, "1")
    return {
        "sku": {"name": sku, "capacity": capacity},
        "properties": {"model": {"format": "OpenAI", "name": name, "version": version}},
        "tags": {TAG: token},
    }


def serves(body: dict[str, Any], model: str) -> bool:
    """Whether a deployment serves that model; the version of base models is a separate field."""
    served = (body.get("properties") or {}).get("model") or {}
    return model in (served.get("name"), f"{served.get('name')}-{served.get('version')}")


def is_ours(body: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Return whether the existing deployment matches the request: cloudtune's tag and the model."""
    model, other = (body.get("properties") or {}).get("model"), wanted["properties"]["model"]
    same = {key: (model or {}).get(key) for key in other} == other
    return bool(same and (body.get("tags") or {}).get(TAG) == wanted["tags"][TAG])


def token_of(*parts: str) -> str:
    """32 hex digits of the values' hash."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]
