"""What the trainer accepts as rows: any canonical record, for every method that it knows."""

from __future__ import annotations

from cloudtune.data.checks.targets import Target
from cloudtune_trainer.submit.plan import METHODS

TARGET = Target("local", dict.fromkeys(METHODS, "cloudtune"))
