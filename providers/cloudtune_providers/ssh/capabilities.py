"""Capabilities of the ssh back end, with a reason for each missing one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.backend import VERBS, Capabilities
from cloudtune.errors import Problem
from cloudtune.spec import spec_features
from cloudtune_providers.run_folders.planning import not_uploaded
from cloudtune_trainer.submit.plan import COMMON_OVERRIDES, contradictions, unsupported_features

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.spec import JobSpec
    from cloudtune_providers.ssh.options import Options

NAME = "ssh"


def capabilities() -> Capabilities:
    """What it can do."""
    reasons = {
        "verb:deploy": "its models need no deployment; use `cloudtune generate`",
        "distributed.nodes": "it trains on one machine; use the ray back end for several",
    }
    reasons |= unsupported_features() | not_uploaded("use the local back end on that machine")
    return Capabilities(
        supports=frozenset({*spec_features(), *VERBS} - set(reasons)),
        reasons=reasons,
        translated={
            "data.validation": "its metric (loss, F1, accuracy or mean reward) chooses the checkpoint to keep",
            "data.test": "evaluated once, at the end",
            "limits.max_time": "training stops with a checkpoint and the best model so far; queue time is free",
            "tags": "kept in job.json",
        },
        common_overrides={name: name for name in COMMON_OVERRIDES},
        poll_s=5.0,
    )


def check(spec: JobSpec, options: Options) -> list[Problem]:
    """The problems of the spec's values."""
    return [*contradictions(spec, NAME), *_missing_settings(options)]


def _missing_settings(options: Options) -> Iterator[Problem]:
    if options.host is None:
        fix = "set `host` to a name of your ssh configuration, or USER@HOST"
        yield Problem(code="no_host", field=f"backends.{NAME}.host", message="the machine is not set", fix=fix)
    if options.folder is None:
        fix = "set `folder` to an absolute path on the machine"
        message = "the folder of the runs is not set"
        yield Problem(code="no_folder", field=f"backends.{NAME}.folder", message=message, fix=fix)
