"""What the trainer accepts as rows: any canonical record, for every method that it knows."""

from __future__ import annotations

from cloudtune.data.checks.targets import Target
from cloudtune_trainer.submit.plan import TRAINED

TARGET = Target("local", dict.fromkeys(TRAINED, "cloudtune"))


def target_for(model: str | None) -> Target:
    """The same, with a check of what the model's chat template makes of each row."""
    return TARGET._replace(row_check=("chat-template", model)) if model else TARGET
