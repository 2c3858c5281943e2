"""A model is deployed once and taken down once, whatever happens to the requests on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from tests.contract.emulated import AzureWorld
from tests.contract.fault_schedules import MOST_TRIES, FaultMix, OneWorldStorms, calm, tuned

from cloudtune.backend import Done, Intent
from cloudtune.errors import TransientError
from cloudtune.plan import filled

if TYPE_CHECKING:
    from cloudtune.plan import Plan, Step
    from cloudtune.state import TunedModel

FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lost_reply", {}), ("reset", {}), ("error_after", {"status": 500}), ("server_error", {"status": 503}),
    ("throttle", {"seconds": 2.0}), ("twice", {}), ("late", {"requests": 1}),
)  # fmt: skip


class _Notes:
    notes: dict[str, Any] = {}

    def note(self, name: str, value: Any) -> None:
        raise AssertionError("deployments journal nothing")


def carried_out(world: AzureWorld, plan: Plan) -> None:
    """By a new back end for every try, as after a crash: find before do, until it is done."""
    outputs: dict[str, dict[str, Any]] = {}
    for step in plan.steps:
        ready = msgspec.structs.replace(step, request=filled(step.request, outputs))
        for _ in range(MOST_TRIES):
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


class TestDeployments(OneWorldStorms):
    fault_mix = FaultMix(reads=("deployments.get",), faults=FAULTS, most=4)
    world = AzureWorld

    def prepared(self, world: AzureWorld) -> TunedModel:
        return tuned(world)

    def storm(self, world: AzureWorld, prepared: TunedModel, seed: int) -> None:
        injected = self.fault_mix.inject(world, seed, ("deployments.create", "deployments.delete"))
        backend: Any = world.backend()
        carried_out(world, backend.plan_deploy(prepared))
        standing = [one for one in backend.deployments() if one.model == prepared.id]
        assert len(standing) == 1, injected
        carried_out(world, backend.plan_remove(standing[0]))
        calm(world)
        held = world.emulator.store.all("deployment", "azure")
        assert [one["id"] for one in held if one["deleting"] is None] == ["the-base"], injected
