"""A model is deployed once and taken down once, whatever happens to the requests on their way."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.contract.emulated import AzureWorld

from cloudtune.backend import Done, Intent, filled
from cloudtune.client import Client
from cloudtune.errors import TransientError
from cloudtune.state import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.backend import Plan, Step
    from cloudtune.state import TunedModel

_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lost_reply", {}), ("reset", {}), ("error_after", {"status": 500}), ("server_error", {"status": 503}),
    ("throttle", {"seconds": 2.0}), ("twice", {}), ("late", {"requests": 1}),
)  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AzureWorld]:
    world = AzureWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
def model(world: AzureWorld) -> TunedModel:
    job = Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock).submit(world.spec())
    world.reach(job.ref, JobState.SUCCEEDED)
    return job.result()


class _Notes:
    notes: dict[str, Any] = {}

    def note(self, name: str, value: Any) -> None:
        raise AssertionError("deployments journal nothing")


def carried_out(world: AzureWorld, plan: Plan) -> None:
    """By a new back end for every try, as after a crash: find before do, until it is done."""
    outputs: dict[str, dict[str, Any]] = {}
    for step in plan.steps:
        ready = msgspec.structs.replace(step, request=filled(step.request, outputs))
        for _ in range(30):
            try:
                outputs[step.id] = _once(world, ready)
                break
            except TransientError:
                world.clock.sleep(1.0)
        assert step.id in outputs


def _once(world: AzureWorld, step: Step) -> dict[str, Any]:
    backend = world.backend()
    if step.kind == "await":
        probe = backend.probe(step)
        assert probe.state == "ready"
        return probe.outputs
    found = backend.find(step, Intent(begun_at=world.clock.now()))
    return found.outputs if isinstance(found, Done) else backend.do(step, _Notes())


def weather(world: AzureWorld, model: TunedModel, seed: int) -> None:
    dice = random.Random(seed)
    told = []
    for _ in range(dice.randint(1, 4)):
        (kind, details), call = dice.choice(_FAULTS), dice.choice(("create", "create", "delete", "delete", "get"))
        if call == "get" and kind in ("late", "twice"):
            continue
        world.emulator.faults.add(kind, f"deployments.{call}", **details)
        told.append(f"{kind} {call}")
    backend: Any = world.backend()
    carried_out(world, backend.plan_deploy(model))
    standing = [one for one in backend.deployments() if one.model == model.id]
    assert len(standing) == 1, told
    carried_out(world, backend.plan_remove(standing[0]))
    world.heal()
    world.emulator.app.land()
    assert [one["id"] for one in world.emulator.store.all("deployment", "azure") if one["deleting"] is None] == [
        "the-base"
    ], told


def test_one_deployment_and_none_after(world: AzureWorld, model: TunedModel) -> None:
    for seed in range(10):
        weather(world, model, seed)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_one_deployment_in_any_weather(world: AzureWorld, model: TunedModel) -> None:
    for seed in range(200):
        weather(world, model, seed)
