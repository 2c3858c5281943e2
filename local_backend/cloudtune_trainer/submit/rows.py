"""The rows that the trainer accepts: any canonical record, for every method that it supports."""

from __future__ import annotations

from cloudtune.data.checks.targets import Target
from cloudtune_trainer.submit.plan import TRAINED

TARGET = Target("local", dict.fromkeys(TRAINED, "cloudtune"))


def target_for(model: str | None) -> Target:
    """The same, with a check of each row against the model's chat template."""
    return TARGET._replace(row_check=("chat-template", model)) if model else TARGET
