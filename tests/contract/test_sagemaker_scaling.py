"""Endpoints that scale to zero without requests: created, scaled down, scaled up, deleted; exactly once each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_aws import REGION
from tests.contract.emulated_sagemaker import JumpStartWorld
from tests.contract.sagemaker_world import SageMakerWorld, ServerlessWorld
from tests.contract.test_sagemaker_storms import client_of, inject, until_it_works

from cloudtune.errors import Conflict, InputError, InvalidRequest, Unavailable
from cloudtune.optional import GenerateOptions
from cloudtune.state import JobState
from cloudtune_emulator.sagemaker import capacity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contract.emulated_sagemaker import TrainingWorld

    from cloudtune.client import Client
    from cloudtune.job import Job

FEW, MANY = range(2), range(200)
KINDS = ("sm_model", "sm_config", "sm_endpoint", "sm_component", "sm_scaling_target", "sm_scaling_policy")
MADE = ["model", "config", "endpoint", "endpoint_ready", "component", "component_ready", "target", "tracking",
        "waking", "alarm"]  # fmt: skip
TAKEN = ["remove_alarm", "remove_waking", "remove_tracking", "remove_target", "remove_component", "component_gone",
         "remove_endpoint", "remove_config", "remove_model"]  # fmt: skip
ASKED = GenerateOptions(max_tokens=5)


@pytest.fixture(params=[ServerlessWorld, JumpStartWorld])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TrainingWorld]:
    world = request.param(tmp_path)
    yield world
    world.close()


@pytest.fixture
def customised(tmp_path: Path) -> Iterator[TrainingWorld]:
    world = ServerlessWorld(tmp_path)
    yield world
    world.close()


def tuned(world: TrainingWorld) -> tuple[Client, Job]:
    client = client_of(world)
    job = client.submit(world.spec())
    world.reach(job.ref, JobState.SUCCEEDED)
    return client, job


def counts(world: TrainingWorld) -> dict[str, int]:
    """What there is, in the services' own stores."""
    found = {kind: world.emulator.store.count(kind, world.api) for kind in KINDS}
    going = [one for one in world.emulator.store.all("sm_component", world.api) if one["deleting"] is not None]
    gone = [one for one in world.emulator.store.all("sm_endpoint", world.api) if one["deleting"] is not None]
    found["sm_component"] -= len(going)
    found["sm_endpoint"] -= len(gone)
    return found | {"alarm": len(world.emulator.context.aws.backend("cloudwatch", REGION).alarms)}


def test_it_sleeps_while_nobody_asks_and_wakes_when_somebody_does(world: TrainingWorld) -> None:
    client, job = tuned(world)
    before = counts(world)
    plan = client.plan_deploy(job.result(), min_copies=0)
    assert [step.id for step in plan.steps] == MADE
    assert "while in use" in plan.warnings[0].message
    standing = client.deploy(plan)
    hour = {"sagemaker": 1.4084, "jumpstart": 1.515}[standing.backend]
    assert (standing.state, standing.hourly_cost_usd) == ("ready", hour)
    assert "no cost while idle" in standing.ends
    assert next(job.generate(["What is 2 plus 0?"], ASKED)).text == "2"

    world.emulator.clock.advance(capacity.IDLE_S + 1)
    (same,) = client.deployments()
    assert same.state == "ready", "its instance is kept for some minutes more"
    world.emulator.clock.advance(capacity.RELEASE_S)
    (asleep,) = client.deployments()
    assert (asleep.id, asleep.state, asleep.hourly_cost_usd) == (standing.id, "asleep", 0.0)
    assert client.deploy(plan).state == "asleep", "the same deployment, and nothing is made anew"
    with pytest.raises(Unavailable, match="no capacity") as refused:
        list(job.generate(["What is 2 plus 0?"], ASKED))
    assert refused.value.acted is False
    assert "scales to zero when idle" in str(refused.value.hint)
    world.emulator.clock.advance(61)
    assert next(job.generate(["What is 2 plus 0?"], ASKED)).text == "2"
    (awake,) = client.deployments()
    assert (awake.state, awake.hourly_cost_usd) == ("ready", hour)

    removal = world.backend().plan_remove(awake)  # type: ignore[attr-defined]
    assert [step.id for step in removal.steps] == TAKEN
    client.remove(awake)
    client.remove(awake)
    assert client.deployments() == []
    assert counts(world) == before


def test_without_its_alarm_it_would_sleep_for_ever(customised: TrainingWorld) -> None:
    client, job = tuned(customised)
    client.deploy(job.result(), min_copies=0)
    customised.emulator.context.aws.backend("cloudwatch", REGION).alarms.clear()
    customised.emulator.clock.advance(capacity.IDLE_S + 1)
    for _ in range(3):
        with pytest.raises(Unavailable, match="no capacity"):
            list(job.generate(["?"], ASKED))
        customised.emulator.clock.advance(10_000)
    client.deploy(job.result(), min_copies=0)  # a deployment that is not whole is made whole
    assert counts(customised)["alarm"] == 1
    with pytest.raises(Unavailable, match="no capacity"):
        list(job.generate(["?"], ASKED))
    customised.emulator.clock.advance(61)
    assert next(job.generate(["What is 2 plus 0?"], ASKED)).text == "2"


def test_copies_may_also_stay(customised: TrainingWorld) -> None:
    client, job = tuned(customised)
    plan = client.plan_deploy(job.result(), min_copies=1, instances=3, requests_per_minute=20, cooldown=120)
    assert [step.id for step in plan.steps] == MADE[:-2]
    config = plan.steps[1].request["body"]["ProductionVariants"][0]
    assert config["ManagedInstanceScaling"] == {"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": 3}
    tracking = plan.steps[-1].request["body"]["TargetTrackingScalingPolicyConfiguration"]
    assert (tracking["TargetValue"], tracking["ScaleInCooldown"]) == (20.0, 120)
    standing = client.deploy(plan)
    customised.emulator.clock.advance(100_000)
    assert next(job.generate(["What is 2 plus 0?"], ASKED)).text == "2"
    client.remove(standing)
    assert client.deployments() == []


def test_what_does_not_fit_together_is_refused(world: TrainingWorld) -> None:
    client, job = tuned(world)
    with pytest.raises(InputError, match="min_copies 2 exceeds instances 1"):
        client.plan_deploy(job.result(), min_copies=2)
    model = job.result()
    if model.backend == "sagemaker":
        with pytest.raises(InputError, match="min_copies cannot be combined with serverless_memory_mb"):
            client.plan_deploy(model, min_copies=0, serverless_memory_mb=2048)
    name = str(client.plan_deploy(model, min_copies=0).name)
    watching: dict[str, Any] = {"AlarmName": f"{name}-waking", "MetricName": "m", "Namespace": "n", "Period": 60,
                                "EvaluationPeriods": 1, "ComparisonOperator": "LessThanThreshold", "Threshold": 1.0,
                                "Statistic": "Sum"}  # fmt: skip
    clients = world.backend()._clients  # type: ignore[attr-defined]
    clients.client("cloudwatch").put_metric_alarm(**watching)
    with pytest.raises(Conflict, match="does not watch"):
        client.deploy(model, min_copies=0)


def test_an_endpoint_with_a_stranger_s_component_is_not_taken_down(customised: TrainingWorld) -> None:
    client, job = tuned(customised)
    standing = client.deploy(job.result(), min_copies=0)
    clients = customised.backend()._clients  # type: ignore[attr-defined]
    clients.client("sagemaker").create_inference_component(
        InferenceComponentName="a-stranger", EndpointName=standing.id, VariantName="AllTraffic",
        Specification={"ModelName": standing.id, "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 1024}},
        RuntimeConfig={"CopyCount": 1},
    )  # fmt: skip
    with pytest.raises(InvalidRequest, match="a-stranger is on"):
        client.remove(standing)
    clients.client("sagemaker").delete_inference_component(InferenceComponentName="a-stranger")
    client.remove(standing)
    assert client.deployments() == []


_DEPLOY = ("sagemaker.Create*", "application-autoscaling.*", "monitoring.*")
_REMOVE = ("sagemaker.Delete*", "application-autoscaling.*", "monitoring.*")


def fault_mix(root: Path, seed: int) -> None:
    """One of each after a deploy in that weather, and none after its end."""
    world = ServerlessWorld(root)
    try:
        client, job = tuned(world)
        before, model = counts(world), job.result()
        injected = inject(world, seed, _DEPLOY)
        standing = until_it_works(lambda: client_of(world).deploy(model, min_copies=0))
        world.heal()
        world.emulator.app.deliver_delayed()
        made = {kind: number - before[kind] for kind, number in counts(world).items()}
        assert made == dict.fromkeys(made, 1) | {"sm_scaling_policy": 2}, injected
        injected = inject(world, seed + 1, _REMOVE)
        until_it_works(lambda: client_of(world).remove(standing))
        world.heal()
        world.emulator.app.deliver_delayed()
        assert client.deployments() == [], injected
        assert counts(world) == before, injected
    finally:
        world.close()


def shared_weather(root: Path, seed: int) -> None:
    """Two jobs' adapters come onto one endpoint and leave it, in that weather: one base, and in the end none."""
    world = SageMakerWorld(root, root)
    try:
        client = client_of(world)
        jobs = [client.submit(world.spec()), client.submit(world.spec(hyperparameters={"epochs": 2}))]
        for job in jobs:
            world.training(job.ref)
        world.emulator.clock.advance(300_000)
        models = [job.result() for job in jobs]
        injected = inject(world, seed, ("sagemaker.Create*",))
        for model in models:
            until_it_works(lambda model=model: client_of(world).deploy(model, onto="shared"))  # type: ignore[misc]
        world.heal()
        world.emulator.app.deliver_delayed()
        once = dict.fromkeys((*KINDS, "alarm"), 0)
        assert counts(world) == once | dict.fromkeys(KINDS[:3], 1) | {"sm_component": 3}, injected
        injected = inject(world, seed + 1, ("sagemaker.Delete*",))
        for one in sorted(client.deployments(), key=lambda one: one.id == "shared"):
            until_it_works(lambda one=one: client_of(world).remove(one))  # type: ignore[misc]
        world.heal()
        world.emulator.app.deliver_delayed()
        assert client.deployments() == [], injected
        assert counts(world) == once, injected
    finally:
        world.close()


@pytest.mark.parametrize("seed", FEW[:1])
def test_adapters_share_one_base(tmp_path: Path, seed: int) -> None:
    shared_weather(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_never_two_bases_in_any_weather(tmp_path: Path) -> None:
    for seed in MANY:
        root = tmp_path / str(seed)
        root.mkdir()
        shared_weather(root, seed)
    print(f"\nsagemaker: {len(MANY)} storms over two adapters on one endpoint: one base, and then none")


@pytest.mark.parametrize("seed", FEW)
def test_one_deploy_is_one_of_each(tmp_path: Path, seed: int) -> None:
    fault_mix(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_never_two_in_any_weather(tmp_path: Path) -> None:
    for seed in MANY:
        root = tmp_path / str(seed)
        root.mkdir()
        fault_mix(root, seed)
    print(f"\nsagemaker: {len(MANY)} storms over an endpoint that sleeps: one of each, and then none")
