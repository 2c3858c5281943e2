"""The capabilities of the local back end, with a reason for each missing one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.backend import VERBS, Capabilities
from cloudtune.errors import Problem
from cloudtune.spec import spec_features
from cloudtune_trainer.submit.plan import COMMON_OVERRIDES, contradictions, unsupported_features

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.spec import JobSpec

_OTHER = {
    "verb:deploy": "local models need no deployment; use `cloudtune generate`",
    "distributed.nodes": "it trains on this machine alone; use the ray back end for several",
}


def capabilities() -> Capabilities:
    """What it can do."""
    reasons = _OTHER | unsupported_features()
    return Capabilities(
        supports=frozenset({*spec_features(), *VERBS} - set(reasons)),
        reasons=reasons,
        translated={
            "data.validation": "its metric (loss, F1, accuracy or mean reward) chooses the checkpoint to keep",
            "data.test": "evaluated once, at the end",
            "distributed.processes": "processes on this machine: on GPUs each takes a slot, on the CPU they share one",
            "limits.max_time": "training stops with a checkpoint and the best model so far; queue time is free",
            "tags": "kept in job.json",
        },
        remote=False,
        common_overrides={name: name for name in COMMON_OVERRIDES},
        poll_s=0.25,
    )


def check(spec: JobSpec) -> list[Problem]:
    """The problems of the spec's values."""
    return [*contradictions(spec, "local"), *_precision(spec)]


def _precision(spec: JobSpec) -> Iterator[Problem]:
    precision, device = spec.hyperparameters.precision, spec.overrides.get("local", {}).get("device", "auto")
    if precision == "fp16" and device == "cpu":
        message = "fp16 requires a GPU"
        yield Problem(code="range", field="hyperparameters.precision", message=message, fix="use fp32 or bf16")
    if precision == "bf16" and device == "cpu":
        message = "three to four times slower than fp32 on a CPU without bf16 support"
        yield Problem(
            code="slow", field="hyperparameters.precision", message=message, severity="warning", fix="use fp32"
        )
