"""SIGKILL on the way of a deploy and of a removal, wherever it may strike: one of each thing, then none."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_aws import REGION
from tests.contract.sagemaker_world import SageMakerWorld
from tests.contract.service_models import SHARE_SERVICE_MODELS

from cloudtune.client import Client
from cloudtune.state import Deployment, to_json
from cloudtune.testing.fork_server import Order, Outcome, shared_fork_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.job import Job

MOST = 400
FEW = 1
ONCE = {"sm_model": 1, "sm_config": 1, "sm_endpoint": 1, "sm_component": 1}
WAYS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "asleep": ({"min_copies": 0}, ONCE | {"sm_scaling_target": 1, "sm_scaling_policy": 2, "alarm": 1}),
    "shared": ({"onto": "shared"}, ONCE | {"sm_component": 2, "sm_scaling_target": 0, "sm_scaling_policy": 0,
                                           "alarm": 0}),
}  # fmt: skip
"""Options of the deploy -> what it makes."""


class Stage:
    """A job that has succeeded, whose model children deploy and take down."""

    def __init__(self, root: Path, way: str) -> None:
        self.world = SageMakerWorld(root, root)
        self.fork_server = shared_fork_server((SHARE_SERVICE_MODELS,))
        self.ledger = f"sqlite:///{root}/ledger.db"
        self.options, self.whole = WAYS[way]
        self.job = self.submitted()

    def close(self) -> None:
        self.world.close()

    def client(self) -> Client:
        return Client(self.world.backend(), ledger=self.ledger, clock=self.world.clock)

    def submitted(self) -> Job:
        job = self.client().submit(self.world.spec())
        self.world.training(job.ref)
        self.world.emulator.clock.advance(300_000)
        return job

    def run(self, do: str, options: dict[str, Any], kill_at: int | None = None) -> Outcome:
        return self.fork_server.run(Order(
            do=do, recipe=self.world.recipe(), ledger=self.ledger, ref=str(self.job.ref), options=options,
            kill_at=kill_at,
        ))  # fmt: skip

    def counts(self) -> dict[str, int]:
        store, found = self.world.emulator.store, dict.fromkeys(self.whole, 0)
        for kind in found:
            found[kind] = sum(one.get("deleting") is None for one in store.all(kind, self.world.api))
        return found | {"alarm": len(self.world.emulator.context.aws.backend("cloudwatch", REGION).alarms)}

    def standing(self) -> list[Deployment]:
        """Adapters before what they are on."""
        return sorted(self.client().deployments(), key=lambda one: one.id == "shared")

    def taken_down(self, kill_at: int | None = None) -> bool:
        """Everything that stands; returns whether a process was killed on the way."""
        was_killed = False
        for one in self.standing():
            outcome = self.run("remove", to_json(one), kill_at)
            was_killed = was_killed or outcome.killed
            if outcome.killed:
                again = self.run("remove", to_json(one))
                assert again.error is None, again.error
            else:
                assert outcome.error is None, outcome.error
        return was_killed

    def holds(self, kill_at: int) -> bool:
        """Killed there while it was deployed and while it was taken down: one of each, then none."""
        first = self.run("deploy", self.options, kill_at)
        assert all(number <= self.whole[kind] for kind, number in self.counts().items())
        done = self.run("deploy", self.options) if first.killed else first
        assert done.error is None, done.error
        assert self.counts() == self.whole
        assert done.result["id"] in [one.id for one in self.standing()]
        removed = self.taken_down(kill_at)
        assert self.counts() == dict.fromkeys(self.whole, 0)
        assert self.standing() == []
        return first.killed or removed


def numbers() -> list[int]:
    """Some failpoint, another every day."""
    rng = random.Random(datetime.now(UTC).toordinal())
    return rng.sample(range(1, 50), FEW)


@pytest.fixture(params=WAYS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path, request.param)
    yield stage
    stage.close()


@pytest.mark.timeout(300)
def test_killed_at_some_failpoints(stage: Stage) -> None:
    assert [stage.holds(number) for number in numbers()] == [True] * FEW


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_killed_at_every_failpoint(stage: Stage) -> None:
    number = next(number for number in range(1, MOST) if not stage.holds(number))
    print(f"\nsagemaker, {stage.options}: killed at each of {number - 1} failpoints, one of each thing and then none")
    assert number > 50
