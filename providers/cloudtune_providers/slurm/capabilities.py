"""Capabilities of the Slurm back end, with a reason for each missing one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from cloudtune.backend import VERBS, Capabilities
from cloudtune.errors import Problem
from cloudtune.spec import spec_features
from cloudtune_providers.run_folders.planning import no_media, not_uploaded
from cloudtune_providers.slurm.options import Options, Overrides
from cloudtune_trainer.submit.plan import COMMON_OVERRIDES, contradictions, unsupported_features

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.spec import JobSpec

NAME = "slurm"
_OTHER = {
    "verb:deploy": "its models need no deployment; use `cloudtune generate`",
    "distributed.nodes": "a job trains on one node; use the ray back end for several",
}


def capabilities(options: Options) -> Capabilities:
    """What it can do."""
    reasons = _OTHER | unsupported_features()
    if options.host is not None:
        reasons |= not_uploaded("run cloudtune on the login node")
    reasons |= no_media("use the local back end")
    return Capabilities(
        supports=frozenset({*spec_features(), *VERBS} - set(reasons)),
        reasons=reasons,
        translated={
            "data.validation": "its metric (loss, F1, accuracy or mean reward) chooses the checkpoint to keep",
            "data.test": "evaluated once, at the end",
            "limits.max_time": "training stops with a checkpoint and the best model so far; queue time is free",
            "tags": "kept in job.json",
            "verb:pause": "a queued job is held; a running one keeps its allocation and loses time",
        },
        common_overrides={name: name for name in COMMON_OVERRIDES},
        poll_s=5.0 if options.host is not None else 2.0,
    )


def check(spec: JobSpec, options: Options) -> list[Problem]:
    """The problems of the spec's values."""
    return [*contradictions(spec, NAME), *_own_problems(spec, options)]


def _own_problems(spec: JobSpec, options: Options) -> Iterator[Problem]:
    try:
        own = Overrides.model_validate(spec.overrides.get(NAME, {}))
    except ValidationError:  # cloudtune reports this
        return
    if options.folder is None:
        message = "the folder of the runs is not set"
        fix = "set `folder` to a path that the login node and all compute nodes share"
        yield Problem(code="no_folder", field=f"backends.{NAME}.folder", message=message, fix=fix)
    if own.gres is not None and own.gpus is not None:
        message = "gres and gpus both ask for GPUs"
        yield Problem(code="contradiction", field=f"overrides.{NAME}.gpus", message=message, fix="remove one of them")
    limit = spec.limits.max_time
    if limit is not None and own.time is not None and own.time <= limit:
        message = f"Slurm's time limit of {own.time:g} s ends the job before limits.max_time of {limit:g} s"
        yield Problem(
            code="time", severity="warning", field=f"overrides.{NAME}.time", message=message, fix="use a longer time"
        )
