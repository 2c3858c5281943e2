"""What the local back end can do, and for what it cannot, one sentence why. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.backend import VERBS, Capabilities
from cloudtune.errors import Problem
from cloudtune.spec import spec_features

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.spec import JobSpec

METHODS = ("sft", "cpt")
ADAPTERS = ("full", "lora")
_NOT_YET = "the local trainer does not have it yet"
_OTHER = {
    "method.beta": "it belongs to preference methods, which the local trainer does not have yet",
    "limits.max_cost_usd": "a run on your own machine has no price; limit its time with `limits.max_time`",
    "verb:deploy": "a local model answers in process: `cloudtune generate` asks it without any deployment",
}


def capabilities() -> Capabilities:
    """What it can do."""
    reasons = dict(_OTHER)
    for feature in spec_features():
        kind, _, name = feature.partition(":")
        if (kind == "method" and name not in METHODS) or (kind == "adapter" and name and name not in ADAPTERS):
            reasons[feature] = _NOT_YET
    return Capabilities(
        supports=frozenset({*spec_features(), *VERBS} - set(reasons)),
        reasons=reasons,
        translated={
            "data.validation": "its loss chooses the best checkpoint, which becomes the model",
            "data.test": "measured once, at the end",
            "limits.max_time": "training stops with a checkpoint and the best model so far; time in line is free",
            "tags": "kept in job.json",
        },
        poll_s=0.25,
    )


def check(spec: JobSpec) -> list[Problem]:
    """What does not fit together in the values that the spec asks for."""
    return [*_adapter(spec), *_method(spec), *_evaluation(spec), *_batches(spec), *_precision(spec)]


def _adapter(spec: JobSpec) -> Iterator[Problem]:
    if spec.adapter is None or spec.adapter.type != "full":
        return
    for name in ("rank", "alpha", "dropout", "targets"):
        if getattr(spec.adapter, name) is not None:
            message = "full training has no adapter that it could apply to"
            yield Problem(code="no_effect", field=f"adapter.{name}", message=message, fix="take it out, or use lora")


def _method(spec: JobSpec) -> Iterator[Problem]:
    if spec.method.name == "cpt" and spec.method.loss_on not in (None, "all"):
        message = "continued pre-training learns every token"
        yield Problem(code="no_effect", field="method.loss_on", message=message, fix="take it out, or use sft")


def _evaluation(spec: JobSpec) -> Iterator[Problem]:
    asked = spec.evaluation
    if spec.data.validation is None:
        for name in ("every", "early_stopping"):
            if getattr(asked, name) not in (None, "never"):
                message = "there are no validation rows to look at"
                fix = "add `data.validation`: a file, or a share such as 0.1"
                yield Problem(code="no_validation", field=f"evaluation.{name}", message=message, fix=fix)
    elif asked.early_stopping is not None and asked.every == "never":
        message = "it looks at the validation loss, and `every: never` says not to measure it"
        yield Problem(code="contradiction", field="evaluation.early_stopping", message=message, fix="set `every`")


def _batches(spec: JobSpec) -> Iterator[Problem]:
    hyper = spec.hyperparameters
    parts, batch = hyper.gradient_accumulation_steps or 1, hyper.batch_size
    if batch is not None and parts > batch:
        message = f"a batch of {batch} cannot be computed in {parts} parts"
        fix = f"use at most {batch}"
        yield Problem(code="range", field="hyperparameters.gradient_accumulation_steps", message=message, fix=fix)
    if hyper.max_length == 1:
        message = "one token has nothing before it to be predicted from"
        yield Problem(code="range", field="hyperparameters.max_length", message=message, fix="use more")


def _precision(spec: JobSpec) -> Iterator[Problem]:
    precision, device = spec.hyperparameters.precision, spec.overrides.get("local", {}).get("device", "auto")
    if precision == "fp16" and device == "cpu":
        message = "half precision needs a GPU"
        yield Problem(code="range", field="hyperparameters.precision", message=message, fix="use fp32 or bf16")
    if precision == "bf16" and device == "cpu":
        message = "on a CPU without bf16 arithmetic it is three to four times slower than fp32"
        yield Problem(
            code="slow", field="hyperparameters.precision", message=message, severity="warning", fix="use fp32"
        )
