"""A search over a scripted vendor: what it chooses, spends, prunes, and what is left after a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
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
from cloudtune.tuning.result import TuneResult
from cloudtune.tuning.study import TuneUpdate

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
        root.mkdir(exist_ok=True)
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
        return self.world.spec(with_validation=True, hyperparameters={"learning_rate": 1e-5}, tune=tune)


@pytest.fixture
def scene(memory_path: Path) -> Scene:
    return Scene(memory_path)


def numbers(vendor: Any) -> Counter[str]:
    """How many jobs the vendor has of each trial."""
    return Counter(vendor.body(job)["name"].rpartition("-")[0] for job in vendor.jobs())


def choices(found: TuneResult) -> list[Any]:
    return [(one.name, one.parameters, one.outcome.state, one.outcome.value) for one in found.trials if one.outcome]


def test_a_search_finds_better_parameters(scene: Scene) -> None:
    updates: list[TuneUpdate] = []
    found = scene.client().tune(scene.spec(), on_update=updates.append)
    assert [one.number for one in found.trials] == list(range(8))
    assert found.trials[0].parameters == {"hyperparameters.learning_rate": 1e-5}
    values = [one.outcome.value for one in found.trials if one.outcome and one.outcome.state == "complete"]
    assert found.best.outcome is not None and found.best.outcome.value == min(v for v in values if v is not None)
    assert found.best.number > 0
    assert [(one.number, one.rerun) for one in found.reruns] == [(0, 1), (found.best.number, 1)]
    assert set(numbers(scene.vendor).values()) == {1}
    assert found.spec["hyperparameters"]["learning_rate"] == found.best.parameters["hyperparameters.learning_rate"]
    assert "tune" not in found.spec
    assert [update.what for update in updates].count("ended") == 10


def test_a_killed_search_continues_as_if_nothing_happened(scene: Scene, tmp_path_factory: Any) -> None:
    whole = scene.client().tune(scene.spec(trials=7, seeds=0))
    points = len(scene.trace)
    other = Scene(scene.world.root / "other")
    found = None
    for kill_at in [*range(0, points, 17), None]:
        with suppress(Killed):
            found = other.client(kill_at).tune(other.spec(trials=7, seeds=0))
    assert found is not None
    assert choices(found) == choices(whole)
    assert len(other.vendor.jobs()) == 7
    assert {other.vendor.status(job).word for job in other.vendor.jobs()} <= {"Completed", "Stopped"}
