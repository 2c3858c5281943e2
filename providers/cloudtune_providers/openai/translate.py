"""Capabilities, checks and requests of the OpenAI back end: pure functions.

``openai_dialect`` has the parts that it shares with Azure OpenAI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.errors import DataError
from cloudtune.methods import METHODS
from cloudtune_providers.openai_dialect.features import COMMON_OVERRIDES, complete
from cloudtune_providers.openai_dialect.requests import (
    OUR_KEYS,
    Traits,
    metadata_of,
    plan_of,
    settings_of,
)
from cloudtune_providers.openai_dialect.responses import TOKEN_KEY
from cloudtune_providers.openai_dialect.rules import loss

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from cloudtune.backend import Capabilities
    from cloudtune.errors import Problem
    from cloudtune.plan import Plan, PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune_providers.openai.options import OpenAIOptions
    from cloudtune_providers.openai_dialect.rules import Rules

NAME = "openai"
FORMATS = {"sft": "openai", "dpo": "openai-preference"}
ROWS = FORMATS | {"rft": "openai-rft"}
"""The format of rows for each method, including methods that accept no new jobs."""
DEFAULTS = {
    "hyperparameters.epochs": "auto", "hyperparameters.batch_size": "auto",
    f"overrides.{NAME}.learning_rate_multiplier": "auto",
}  # fmt: skip
_OWN_WAY = "OpenAI sets this itself and accepts no value for it"
REFUSED = {
    "method:cpt": "OpenAI trains on conversations only; convert the text to conversations, or use sft",
    "method:rft": "its only base, o4-mini, was shut down on 2026-10-23; Azure OpenAI has it until 2027",
    "method:distill": "OpenAI has no such job; collect the teacher's answers and fine-tune on them with sft",
    "adapter:full": "OpenAI does not say which weights it trains, and offers no choice",
    "hyperparameters.learning_rate": "OpenAI accepts only a multiplier of an unpublished learning rate, so an "
    "absolute rate cannot be translated; set overrides.openai.learning_rate_multiplier",
    "hyperparameters.max_steps": "OpenAI counts epochs; set hyperparameters.epochs",
    "hyperparameters.max_length": "determined by the base model's training context; the plan rejects longer rows",
    "validation.every": "OpenAI chooses when to evaluate, and runs a full evaluation at the end of each epoch",
    "validation.early_stopping": "jobs run all epochs; every epoch's checkpoint can be used, and the best is marked",
    "checkpoints.every": "OpenAI saves one at the end of each epoch",
    "checkpoints.keep": "OpenAI keeps those of the last three epochs",
    "limits.max_time": "OpenAI has no time limit for jobs; use `cloudtune watch --cancel-after`",
    "verb:continue": "OpenAI cannot continue a job that has ended; start a new job from its checkpoint",
    "verb:delete": "OpenAI keeps job records permanently; only the model and the files can be deleted",
    "verb:deploy": "tuned models are available without deployment and cost nothing while idle",
    "verb:export": "OpenAI does not export weights",
}
INHERENT = frozenset({"adapter:lora", "data.test", "method.loss_on"})
TRANSLATED = {
    "adapter:lora": "OpenAI does not publish how it adapts models",
    "data.test": "not uploaded; the rows stay on this machine for evaluation",
    "hyperparameters.epochs": "n_epochs",
    "method.loss_on": "trains on every assistant turn; `weight: 0` excludes a turn",
    "method:sft": "supervised",
    "tags": "the job's metadata",
}


def capabilities() -> Capabilities:
    """The capabilities of OpenAI."""
    methods = (f"method:{name}" for name in FORMATS)
    fields = ("method.beta", "hyperparameters.epochs", "hyperparameters.batch_size", "data.validation", "seed", "tags")
    return complete(
        [*methods, *fields], refused=REFUSED, inherent=INHERENT, translated=TRANSLATED,
        no_choice="OpenAI does not support it", no_value=_OWN_WAY,
        overridden_by={"hyperparameters.learning_rate": "learning_rate_multiplier"}, common_overrides=COMMON_OVERRIDES,
    )  # fmt: skip


def check(spec: JobSpec, rules: Rules, today: date) -> Sequence[Problem]:
    """Values that OpenAI would refuse, and dates."""
    return [*rules.dates(spec, today), *rules.values(spec), *rules.tags(spec, len(OUR_KEYS)), *loss(spec)]


def plan(request: PlanRequest, options: OpenAIOptions, rules: Rules) -> Plan:
    """The steps. Raises DataError for rows that OpenAI would refuse."""
    spec = request.spec
    problems = list(rules.rows(spec, request.data, kind=METHODS[spec.method.name].kinds[0]))
    if any(problem.severity == "error" for problem in problems):
        raise DataError(problems)
    given: dict[str, Any] = spec.overrides.get(NAME, {})
    traits = Traits(
        backend=NAME, formats=FORMATS, timeout_s=options.timeout, list_lag_s=options.list_lag,
        parts_from_bytes=options.parts_above, suffix=given.get("suffix") or spec.name,
        marks={"metadata": {TOKEN_KEY: request.token}}, extra={"metadata": metadata_of(request)},
    )  # fmt: skip
    return plan_of(request, traits, settings_of(request, traits, DEFAULTS), tuple(problems))
