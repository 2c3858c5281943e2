"""A search over a scripted vendor: what it chooses, spends, prunes, and what is left after a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloudtune.client import Client
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef, Metric
from cloudtune.testing import Script
from cloudtune.testing.scripted import ScriptedBackend
from cloudtune.testing.scripted_world import ScriptedWorld

pytest.importorskip("optuna")
SPACE = {
    "hyperparameters.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "hyperparameters.batch_size": [4, 8, 16],
}


class Learning(ScriptedBackend):
    """Jobs whose validation loss depends on their parameters."""

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        hyper = self._vendor.body(ref.id)["hyperparameters"]
        distance = abs(hyper["learning_rate"] / 3e-4 - 1) + abs(hyper["batch_size"] - 8) / 8
        return [
            msgspec.structs.replace(one, split="validation", values={"loss": one.values["loss"] * (1 + distance)})
            for one in super().metrics(ref, after)
        ]


class Killed(BaseException):
    """The process of the search ends here."""


class Scene:
    def __init__(self, root: Path) -> None:
        self.world = ScriptedWorld(root)
        self.vendor = self.world.vendor
        self.vendor.follow(Script(queue_s=0.0, prepare_s=1.0, step_s=1.0, steps=6, stop_s=1.0))
        self.trace: list[str] = []

    def client(self, kill_at: int | None = None, **options: Any) -> Client:
        """A client of a process that is killed at that point."""
        points = iter(range(1 << 30))

        def trace(name: str) -> None:
            self.trace.append(name)
            if next(points) == kill_at:
                raise Killed(name)

        backend = Learning(vendor=self.vendor)
        backend._key = self.world.secrets[0]
        return Client(backend, ledger=f"sqlite:///{self.world.root}/ledger.db", clock=self.world.clock, trace=trace)

    def spec(self, **tune: Any) -> JobSpec:
        tune = {"parameters": SPACE, "trials": 8, "seeds": 1, **tune}
        return self.world.spec(with_validation=True, tune=tune)


@pytest.fixture
def scene(memory_path: Path) -> Scene:
    return Scene(memory_path)


def test_a_search_finds_better_parameters(scene: Scene) -> None:
    found = scene.client().tune(scene.spec(trials=12))
    print(found)
    assert len(found.trials) == 12
    assert found.trials[0].outcome.value > found.best.outcome.value
