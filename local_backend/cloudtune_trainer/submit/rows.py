"""The rows that the trainer accepts: any canonical record, for every method that it supports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.data.checks.targets import Target
from cloudtune_trainer.submit.plan import TRAINED

if TYPE_CHECKING:
    from cloudtune.spec import JobSpec

_TARGET = Target("local", dict.fromkeys(TRAINED, "cloudtune"))


def target_for(model: str | None) -> Target:
    """The same, with a check of each row against the model's chat template."""
    return _TARGET._replace(row_check=("chat-template", model)) if model else _TARGET


def target_of(spec: JobSpec) -> Target:
    """The same for a job, with a check of each row against the loss that the spec names."""
    return _TARGET._replace(row_check=("embedding-loss", spec.method.loss)) if spec.method.loss else _TARGET
