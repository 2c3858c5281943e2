"""Capabilities of the SageMaker back end with cloudtune's trainer, with a reason for everything else. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.backend import VERBS, Capabilities
from cloudtune.errors import Problem
from cloudtune.methods import METHODS, methods_of
from cloudtune.spec import spec_features
from cloudtune_providers.aws.names import tag_problems
from cloudtune_providers.sagemaker.options import SageMakerOptions, SageMakerOverrides
from cloudtune_trainer.submit import policy
from cloudtune_trainer.submit.plan import COMMON_OVERRIDES, contradictions, unsupported_features

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.spec import JobSpec

NAME = "sagemaker"
MOST_SECONDS = 28 * 86400
LEAST_SECONDS = 60
_OTHER = {
    "verb:pause": "training jobs cannot be paused: cancel; `cloudtune resume` continues from the last checkpoint",
    "method:distill": "its containers get one model, without a teacher: use the local back end",
    **{
        f"method:{name}": "its endpoints serve causal language models: train this method on the local back end"
        for name in methods_of(
            "reward_model",
            "sequence_classification",
            "token_classification",
            "question_answering",
            "seq2seq",
            "text_embedding",
        )
    },
    **{
        f"method:{name}": "images and recordings are not uploaded to its containers: use the local back end"
        for name, method in METHODS.items()
        if method.media is not None
    },
    **dict.fromkeys(
        ("method.problem", "method.class_weights"),
        "it belongs to text classification, which is not supported here",
    ),
    **dict.fromkeys(
        ("method.loss", "method.pooling", "method.margin"), "it belongs to text embedding, which is not supported here"
    ),
    "distributed.strategy": "each GPU has the whole model: its instances share no folder for sharded checkpoints",
    "distributed.processes": "one process runs on each GPU of its instances",
    "distributed.nodes": f"set overrides.{NAME}.instances",
    "adapter.path": "an adapter's files are not uploaded: train on the local back end, or resume the job",
    "adapter:head_only": "use adapter: full, and freeze layers with layers.freeze_depth",
    **dict.fromkeys(
        (
            "adapter:dora",
            "adapter:ia3",
            "adapter:prefix",
            "adapter:prompt",
            "adapter:p_tuning",
            "adapter:bottleneck",
            "adapter:qlora",
        ),
        "its endpoints load LoRA adapters and whole models: use lora, or train on the local back end",
    ),
    **dict.fromkeys(
        ("adapter.virtual_tokens", "adapter.bottleneck_size", "adapter.placement"),
        "only adapters that are not supported here use it",
    ),
    **dict.fromkeys(
        ("adapter.modules_to_save", "adapter.bias"),
        "its endpoints load low-rank weights only: train on the local back end, and export merged weights",
    ),
    "verb:resume": "jobs cannot be paused; an ended job continues as a new one",
}
_REWARDS = "rewards are computed where the job runs, and its containers get rows alone: use the local back end"
_HERE = {"verb:deploy": "local test runs have no endpoints; the model runs in this process"}


def capabilities(options: SageMakerOptions) -> Capabilities:
    """The capabilities with these settings."""
    reasons = (
        _OTHER | policy.unsupported(_REWARDS) | unsupported_features() | (_HERE if options.compute == "local" else {})
    )
    return Capabilities(
        supports=frozenset({*spec_features(), *VERBS} - set(reasons)),
        reasons=reasons,
        translated={
            "data.validation": "the checkpoint with the lowest validation loss becomes the model",
            "data.test": "evaluated once, at the end, in the container",
            "limits.max_time": "MaxRuntimeInSeconds; the trainer stops shortly before, to save the best model so far",
            "tags": "the job's tags",
            "seed": "the trainer's",
        },
        remote=options.compute != "local",
        common_overrides={name: name for name in (*COMMON_OVERRIDES, "instance_type", "spot")},
    )


def check(spec: JobSpec, options: SageMakerOptions) -> list[Problem]:
    """The problems of the spec's values."""
    own = _own(spec)
    found = [*contradictions(spec, NAME), *_limits(spec), *_precision(spec, own), *places(options)]
    if own.unpacked and options.compute == "local":
        message, field = "local test runs always pack the job's output", f"overrides.{NAME}.unpacked"
        found.append(Problem(code="unpacked", field=field, message=message, fix="remove it"))
    return found + list(tag_problems(spec.tags, "tags", others=len(options.tags)))


def _own(spec: JobSpec) -> SageMakerOverrides:
    from pydantic import ValidationError

    try:
        return SageMakerOverrides.model_validate(spec.overrides.get(NAME, {}))
    except ValidationError:  # core reports it
        return SageMakerOverrides()


def _limits(spec: JobSpec) -> Iterator[Problem]:
    limit = spec.limits.max_time
    if limit is not None and not LEAST_SECONDS <= limit <= MOST_SECONDS:
        message = f"SageMaker supports limits from {LEAST_SECONDS} s to {MOST_SECONDS} s (28 days), not {limit:g} s"
        yield Problem(code="range", field="limits.max_time", message=message, fix="use another limit")


def _precision(spec: JobSpec, own: SageMakerOverrides) -> Iterator[Problem]:
    if spec.hyperparameters.precision == "fp16" and own.device == "cpu":
        message = "fp16 requires a GPU"
        yield Problem(code="range", field="hyperparameters.precision", message=message, fix="use fp32 or bf16")


def places(options: SageMakerOptions) -> Iterator[Problem]:
    """Missing settings that every job needs."""
    if options.compute == "local":
        return
    for name, what in (("bucket", "the bucket for data and models"), ("role_arn", "the role that the job assumes")):
        if getattr(options, name) is None:
            message = f"{what} is required for SageMaker jobs"
            yield Problem(code="setting", field=f"backends.{NAME}.{name}", message=message, fix="set it")
    if bool(options.subnets) != bool(options.security_groups):
        message = "a VPC requires both subnets and security groups"
        yield Problem(code="setting", field=f"backends.{NAME}.subnets", message=message, fix="set both, or neither")
