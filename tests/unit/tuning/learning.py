"""A scripted back end whose jobs learn better with some parameters than with others."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloudtune.state import JobRef, Metric
from cloudtune.testing.scripted import ScriptedBackend


class Learning(ScriptedBackend):
    """Jobs whose validation loss depends on their parameters."""

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        hyper = self._vendor.body(ref.id)["hyperparameters"]
        distance = abs(hyper["learning_rate"] / 3e-4 - 1) + abs(hyper["batch_size"] - 8) / 8
        return [
            msgspec.structs.replace(one, split="validation", values={"loss": one.values["loss"] * (1 + distance)})
            for one in super().metrics(ref, after)
        ]
