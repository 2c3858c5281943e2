"""What the Bedrock back end can do, what it refuses, and what it would send: pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.backend import VERBS, Capabilities
from cloudtune.errors import DataError, UnsupportedError
from cloudtune.plan import CostEstimate, Plan, PlanRequest
from cloudtune.spec import spec_features
from cloudtune_providers.bedrock import open_weight
from cloudtune_providers.bedrock.parameters import hyperparameters
from cloudtune_providers.bedrock.requests import plan_of
from cloudtune_providers.bedrock.responses import NAME
from cloudtune_providers.bedrock.rules import TYPES, family_of

if TYPE_CHECKING:
    from cloudtune.catalog import Catalog
    from cloudtune_providers.bedrock.options import BedrockOptions
    from cloudtune_providers.bedrock.rules import Rules

CHARS_PER_TOKEN = 6
"""docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html, seen 2026-11-21."""
_OWN_WAY = "Bedrock decides this itself and takes no value for it"
REFUSED = {
    "method:cpt": "continued pre-training has no base model left on Bedrock since Titan Text ended: turn the text into "
    "questions and answers, or use sagemaker or local",
    "method:dpo": "Bedrock has no such job; Nova's runs on sagemaker",
    "adapter:full": "Bedrock tunes adapters that it manages itself, and offers no choice",
    "method.loss_on": "Bedrock does not say which tokens it learns from, and takes no choice",
    "hyperparameters.batch_size": "Nova takes none, Llama only 1: for reinforcement say overrides.bedrock.batch_size",
    "hyperparameters.warmup_ratio": "Bedrock counts warm-up in steps: say hyperparameters.warmup_steps",
    "hyperparameters.max_steps": "Bedrock counts epochs: say hyperparameters.epochs",
    "hyperparameters.max_length": "the base model's training context decides; longer rows are refused in the plan",
    "validation.every": "Bedrock looks at the validation rows when it likes, and tells at the end",
    "validation.early_stopping": "no live base model of Bedrock stops early",
    "checkpoints.every": "a Bedrock job keeps no checkpoints",
    "checkpoints.keep": "a Bedrock job keeps no checkpoints",
    "limits.max_time": "Bedrock stops no job by its time: watch it with a timeout, and cancel it",
    "limits.max_cost_usd": "cloudtune does not know Bedrock's prices well enough yet to keep a cap",
    "seed": "Bedrock takes no seed",
    "verb:checkpoints": "a Bedrock job keeps no checkpoints; only those that tune open-weight models do",
    "verb:continue": "Bedrock cannot finish an ended job: to train on, name its model's ARN as the model of a new job",
    "verb:delete": "Bedrock keeps the record of every job for ever; only the model and the files can be removed",
    "verb:events": "Bedrock keeps events of open-weight models' jobs only; of the others EventBridge publishes changes "
    "of state, as they happen and best effort",
    "verb:export": "Bedrock does not give weights away",
    "verb:pause": "a Bedrock job cannot stand still, only stop",
    "verb:resume": "a Bedrock job cannot stand still, only stop",
}
INHERENT = frozenset({"adapter:lora", "data.test"})
TRANSLATED = {
    "adapter:lora": "Bedrock tunes adapters that it manages itself, whose rank it chooses",
    "data.test": "never uploaded: the rows stay here for the evaluation",
    "hyperparameters.epochs": "epochCount",
    "hyperparameters.learning_rate": "learningRate",
    "hyperparameters.warmup_steps": "learningRateWarmupSteps, Nova only",
    "method:distill": "DISTILLATION, with overrides.bedrock.teacher",
    "method:rft": "REINFORCEMENT_FINE_TUNING, with overrides.bedrock.grader",
    "method:sft": "FINE_TUNING",
    "tags": "jobTags and customModelTags",
}


def capabilities() -> Capabilities:
    """What Bedrock can do."""
    reasons = dict(REFUSED)
    supported = {
        *(f"method:{name}" for name in TYPES), *INHERENT, "hyperparameters.epochs", "hyperparameters.learning_rate",
        "hyperparameters.warmup_steps", "data.validation", "tags", *VERBS,
    } - reasons.keys()  # fmt: skip
    for feature in {*spec_features(), *VERBS} - supported - reasons.keys():
        reasons[feature] = "Bedrock does not offer it" if ":" in feature else _OWN_WAY
    return Capabilities(
        supports=frozenset(supported), reasons=reasons, translated=TRANSLATED, inherent=INHERENT,
        overridden_by={"hyperparameters.batch_size": "batch_size"},
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
    return plan_of(request, options, catalog, tuple(found), cost(request, catalog))


def cost(request: PlanRequest, catalog: Catalog) -> CostEstimate | None:
    """Tokens by their characters, times epochs, times the price of training."""
    spec = request.spec
    model, method = family_of(spec.model_for(NAME) or ""), spec.method.name
    price = catalog.price("training", model, method)
    if price is None:
        return None
    default = catalog.range("epochCount", model, method)
    given = hyperparameters(spec).get("epochCount") or (default.default if default else None) or 1
    epochs, tokens = float(given), request.data.splits["train"].bytes / CHARS_PER_TOKEN
    basis = (
        f"about {tokens:,.0f} tokens (one for {CHARS_PER_TOKEN} characters) in {epochs:g} epochs at {price.usd:g} USD "
        f"for {price.per} ({catalog.cite(price.source)})"
    )
    seen = catalog.sources[price.source].seen
    return CostEstimate(usd=round(tokens * epochs * price.usd / 1e6, 4), basis=basis, prices_as_of=str(seen))
