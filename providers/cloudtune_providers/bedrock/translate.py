"""Capabilities, checks and requests of the Bedrock back end: pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.backend import VERBS, Capabilities
from cloudtune.errors import DataError, UnsupportedError
from cloudtune.pricing import by_tokens
from cloudtune.spec import spec_features
from cloudtune_providers.bedrock import open_weight
from cloudtune_providers.bedrock.parameters import hyperparameters
from cloudtune_providers.bedrock.requests import plan_of
from cloudtune_providers.bedrock.responses import NAME
from cloudtune_providers.bedrock.rules import TYPES, family_of

if TYPE_CHECKING:
    from cloudtune.catalog import Catalog
    from cloudtune.cost import CostEstimate
    from cloudtune.plan import Plan, PlanRequest
    from cloudtune_providers.bedrock.options import BedrockOptions
    from cloudtune_providers.bedrock.rules import Rules

CHARS_PER_TOKEN = 6
"""docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html, seen 2026-11-21."""
_OWN_WAY = "Bedrock sets this itself and accepts no value for it"
REFUSED = {
    "method:cpt": "Bedrock has no base model for continued pretraining since Titan Text ended; convert the text to "
    "questions and answers, or use sagemaker or local",
    "method:dpo": "Bedrock has no such job; for Nova, use the sagemaker back end",
    "adapter:full": "Bedrock manages its own adapters and offers no choice",
    "method.loss_on": "Bedrock does not say which tokens it trains on, and offers no choice",
    "hyperparameters.batch_size": "Nova supports none, Llama only 1; for rft set overrides.bedrock.batch_size",
    "hyperparameters.warmup_ratio": "Bedrock counts warmup in steps; set hyperparameters.warmup_steps",
    "hyperparameters.max_steps": "Bedrock counts epochs; set hyperparameters.epochs",
    "hyperparameters.max_length": "determined by the base model's training context; the plan rejects longer rows",
    "validation.every": "Bedrock chooses when to evaluate, and reports the results at the end",
    "validation.early_stopping": "no current Bedrock base model supports early stopping",
    "checkpoints.every": "Bedrock jobs save no checkpoints",
    "checkpoints.keep": "Bedrock jobs save no checkpoints",
    "limits.max_time": "Bedrock has no time limit for jobs; use `cloudtune watch --cancel-after`",
    "seed": "Bedrock accepts no seed",
    "verb:checkpoints": "Bedrock jobs save no checkpoints, except jobs on open-weight models",
    "verb:continue": "Bedrock cannot continue a job that has ended; start a new job from its model's ARN",
    "verb:delete": "Bedrock keeps job records permanently; only the model and the files can be deleted",
    "verb:events": "Bedrock records events for jobs on open-weight models only; for other jobs, EventBridge publishes "
    "state changes, best effort",
    "verb:export": "Bedrock does not export weights",
    "verb:pause": "Bedrock jobs cannot be paused; cancel the job instead",
    "verb:resume": "Bedrock jobs cannot be paused; cancel the job instead",
}
INHERENT = frozenset({"adapter:lora", "data.test"})
TRANSLATED = {
    "adapter:lora": "Bedrock manages its own adapters and chooses their rank",
    "data.test": "not uploaded; the rows stay on this machine for evaluation",
    "hyperparameters.epochs": "epochCount",
    "hyperparameters.learning_rate": "learningRate",
    "hyperparameters.warmup_steps": "learningRateWarmupSteps, Nova only",
    "method:distill": "DISTILLATION, with overrides.bedrock.teacher",
    "method:rft": "REINFORCEMENT_FINE_TUNING, with overrides.bedrock.grader",
    "method:sft": "FINE_TUNING",
    "tags": "jobTags and customModelTags",
}
COMMON_OVERRIDES = {
    "batch_size": "hyperparameters.batch_size", "hyperparameters.epochCount": "hyperparameters.epochs",
    "hyperparameters.batchSize": "hyperparameters.batch_size",
    "hyperparameters.learningRate": "hyperparameters.learning_rate",
    "hyperparameters.learningRateWarmupSteps": "hyperparameters.warmup_steps",
}  # fmt: skip


def capabilities() -> Capabilities:
    """The capabilities of Bedrock."""
    reasons = dict(REFUSED)
    supported = {
        *(f"method:{name}" for name in TYPES), *INHERENT, "hyperparameters.epochs", "hyperparameters.learning_rate",
        "hyperparameters.warmup_steps", "data.validation", "tags", *VERBS,
    } - reasons.keys()  # fmt: skip
    for feature in {*spec_features(), *VERBS} - supported - reasons.keys():
        reasons[feature] = "Bedrock does not support it" if ":" in feature else _OWN_WAY
    return Capabilities(
        supports=frozenset(supported), reasons=reasons, translated=TRANSLATED, inherent=INHERENT,
        overridden_by={"hyperparameters.batch_size": "batch_size"}, common_overrides=COMMON_OVERRIDES,
    )  # fmt: skip


def plan(request: PlanRequest, options: BedrockOptions, rules: Rules, catalog: Catalog) -> Plan:
    """The steps. Raises DataError for rows that would be refused, UnsupportedError for a model of another region."""
    spec = request.spec
    region = request.resolved.scope.partition("/")[2].partition("@")[0]
    if wrong := list(rules.region(spec, region)):
        raise UnsupportedError(wrong)
    found = [*rules.counts(spec, request.data), *rules.contents(spec, request.data)]
    if errors := [problem for problem in found if problem.severity == "error"]:
        raise DataError(errors)
    if rules.is_open_weight(spec.model_for(NAME)):
        open_weight.require()
        return open_weight.plan(request, options, tuple(found))
    return plan_of(request, options, catalog, tuple(found))


def estimate(request: PlanRequest, catalog: Catalog) -> CostEstimate:
    """The cost of the training tokens: between their bounds, most likely one for every six characters."""
    spec, train = request.spec, request.data.splits["train"]
    model, method = family_of(spec.model_for(NAME) or ""), spec.method.name
    default = catalog.range("epochCount", model, method)
    epochs = hyperparameters(spec).get("epochCount") or (default.default if default else None) or 1
    likely = train.bytes / CHARS_PER_TOKEN
    return by_tokens(catalog, model, method, train, epochs=float(epochs), likely=likely)
