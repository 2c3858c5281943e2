"""Capabilities, checks and requests of the JumpStart back end: pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.backend import VERBS, Capabilities
from cloudtune.errors import Problem, UnsupportedError
from cloudtune.spec import spec_features
from cloudtune_providers.aws import hourly
from cloudtune_providers.aws.names import tag_problems
from cloudtune_providers.jumpstart import choices, requests
from cloudtune_providers.jumpstart.layouts import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.cost import CostEstimate
    from cloudtune.plan import Plan, PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune_providers.jumpstart.options import JumpStartOptions

_OTHERS = f"model documents name it differently or not at all; set overrides.{NAME}.hyperparameters"
REFUSED = {
    "adapter:full": "JumpStart's scripts train LoRA adapters",
    "adapter.targets": f"set overrides.{NAME}.hyperparameters.target_modules as in the model's document",
    "method.loss_on": "JumpStart's scripts choose it",
    "validation.every": "JumpStart's scripts choose when to evaluate",
    "validation.early_stopping": _OTHERS,
    "checkpoints.every": "JumpStart's scripts upload only the finished model",
    "checkpoints.keep": "JumpStart's scripts upload only the finished model",
    **dict.fromkeys(
        ("distributed.strategy", "distributed.processes"), "JumpStart's scripts use all GPUs of their instances"
    ),
    "distributed.nodes": f"set overrides.{NAME}.instance_count",
    "verb:checkpoints": "JumpStart's scripts upload only the finished model",
    "verb:continue": "JumpStart's scripts cannot continue a job that has ended; submit it again with --again",
    "verb:pause": "training jobs cannot be paused; cancel the job instead",
    "verb:resume": "training jobs cannot be paused; cancel the job instead",
}
INHERENT = frozenset({"adapter:lora", "data.test"})
TRANSLATED = {
    "adapter:lora": "JumpStart's scripts train LoRA adapters, unless the model's document says otherwise",
    "data.test": "not uploaded; the rows stay on this machine for evaluation",
    "hyperparameters.batch_size": "per_device_train_batch_size: divided by the GPUs of all instances",
    "limits.max_time": "StoppingCondition.MaxRuntimeInSeconds",
    "method:cpt": "domain adaptation: plain text",
    "method:sft": "conversations, or instruction and response, depending on the model's document",
    **{field: name for field, name in requests.NAMES.items() if field != "hyperparameters.batch_size"},
}


def capabilities() -> Capabilities:
    """The capabilities of JumpStart for any model. Plans are also validated against the model's document."""
    reasons = dict(REFUSED)
    supported = {
        "method:sft", "method:cpt", *INHERENT, *requests.NAMES, "data.validation", "tags", "limits.max_time", *VERBS,
    } - reasons.keys()  # fmt: skip
    for feature in {*spec_features(), *VERBS} - supported - reasons.keys():
        reasons[feature] = "JumpStart's text models do not support it" if ":" in feature else _OTHERS
    return Capabilities(
        supports=frozenset(supported), reasons=reasons, translated=TRANSLATED, inherent=INHERENT,
        common_overrides={"instance_type": "instance_type", "spot": "spot"} | {
            f"hyperparameters.{name}": field for field, name in requests.NAMES.items()
            if field.startswith("hyperparameters.") and field != "hyperparameters.batch_size"
        },
    )  # fmt: skip


def check(spec: JobSpec, options: JumpStartOptions) -> Iterator[Problem]:
    """Yield all problems that do not need the model's document."""
    for name, example in (("bucket", "my-bucket"), ("role_arn", "arn:aws:iam::123456789012:role/cloudtune")):
        if getattr(options, name) is None:
            yield Problem(
                code="setting", field=f"backends.{NAME}.{name}", message="required by JumpStart, but not set",
                fix=f"set it, e.g. {example}",
            )  # fmt: skip
    if bool(options.subnets) != bool(options.security_groups):
        message = "a VPC requires both subnets and security groups"
        yield Problem(code="setting", field=f"backends.{NAME}.subnets", message=message, fix="set the other one too")
    yield from tag_problems(spec.tags, "tags", others=len(options.tags) + requests.ROOM_FOR_TAGS)
    limit = spec.limits.max_time
    if limit is not None and limit > 2_419_200:
        yield Problem(code="range", field="limits.max_time", message="a training job can run for at most 28 days",
                      fix="use a smaller value")  # fmt: skip


def plan(request: PlanRequest, options: JumpStartOptions) -> Plan:
    """The steps. Raises UnsupportedError for values that the model's document does not allow."""
    chosen = choices.choose(request.spec, request.resolved, options, request.run_seconds)
    found = list(choices.problems(request.spec, chosen, options))
    if found:
        raise UnsupportedError(found)
    return requests.plan_of(request, options, chosen, tuple(_advice(request, chosen)))


def estimate(request: PlanRequest, options: JumpStartOptions) -> CostEstimate:
    """The cost of the job on the chosen instances. A job that its time limit stops has no model."""
    chosen = choices.choose(request.spec, request.resolved, options, request.run_seconds)
    hyper = request.spec.hyperparameters
    return hourly.training(
        chosen.instance_type, chosen.instances, chosen.seconds, request, spot=chosen.spot,
        epochs=hyper.epochs if hyper.max_steps is None else None, kept_s=options.keep_alive, time_limit="stops",
    )  # fmt: skip


def _advice(request: PlanRequest, chosen: choices.Choices) -> Iterator[Problem]:
    share = chosen.hyperparameters.get("validation_split_ratio")
    if share not in (None, "0") and "validation" not in request.data.splits:
        yield Problem(
            code="held_out", severity="warning", field="data.validation",
            message=f"the training script holds out {share} of the training rows (validation_split_ratio)",
            fix=f"set data.validation, or overrides.{NAME}.hyperparameters.validation_split_ratio",
        )  # fmt: skip
    if chosen.spot:
        yield Problem(
            code="spot", severity="warning", field=f"overrides.{NAME}.spot", fix="do not use spot for long jobs",
            message="JumpStart's scripts save no checkpoints: an interrupted job starts over",
        )  # fmt: skip
