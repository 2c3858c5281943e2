"""Lost, late, doubled and refused requests, in random order: one job, one endpoint, one of each file, nothing left."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.sagemaker_world import SageMakerWorld, ServerlessWorld
from tests.contract.storms import MOST_TRIES, stubborn

from cloudtune.backend import Absent
from cloudtune.client import Client
from cloudtune.errors import Conflict, TransientError
from cloudtune.state import JobState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.contract.emulated_sagemaker import TrainingWorld

FEW, MANY = range(10), range(200)
_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lost_reply", {}), ("reset", {}), ("error_after", {"status": 500}), ("server_error", {"status": 503}),
    ("throttle", {"seconds": 3.0}), ("late", {"seconds": 20.0}), ("late", {"requests": 1}), ("late", {"requests": 3}),
    ("twice", {}), ("delay", {"seconds": 0.01}),
)  # fmt: skip
_JOB = ("s3.PutObject", "sagemaker.CreateTrainingJob", "sagemaker.CreateModelPackageGroup")
_DEPLOY = ("sagemaker.CreateModel", "sagemaker.CreateEndpointConfig", "sagemaker.CreateEndpoint")
_REMOVE = ("sagemaker.DeleteEndpoint", "sagemaker.DeleteEndpointConfig", "sagemaker.DeleteModel")
_READS = ("sagemaker.Describe*", "sagemaker.List*", "s3.HeadObject", "sts.*")


def brew(world: TrainingWorld, seed: int, sends: tuple[str, ...]) -> list[str]:
    dice = random.Random(seed)
    told = []
    for _ in range(dice.randint(1, 5)):
        kind, details = dice.choice(_FAULTS)
        call = dice.choice(sends * 2 + _READS)
        if call in _READS and kind in ("late", "twice"):
            kind, details = "reset", {}
        world.emulator.faults.add(kind, call, after=dice.randint(0, 1), **details)
        told.append(f"{kind} {call} {details}")
    if dice.random() < 0.4:
        kind, details = dice.choice(
            (("list_lag", {"seconds": 25.0}), ("truncated_page", {}), ("clock_skew", {"seconds": 4000.0}))
        )
        world.emulator.faults.add(kind, "sagemaker.List*", **details)
        told.append(f"{kind} {details}")
    return told


def until_it_works(act: Callable[[], Any]) -> Any:
    """As a person would who types the same command again until it works."""
    for _ in range(MOST_TRIES):
        try:
            return act()
        except TransientError:
            continue
    raise AssertionError(f"not done after {MOST_TRIES} tries")


def client_of(world: TrainingWorld) -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


def made(root: Path, way: str) -> TrainingWorld:
    return ServerlessWorld(root) if way == "serverless" else SageMakerWorld(root, root)


def job_weather(root: Path, way: str, seed: int) -> tuple[int, int]:
    """Jobs and files in the service's own store, after one submit in that weather."""
    world = made(root, way)
    try:
        told = brew(world, seed, _JOB)
        ref = stubborn(client_of(world), world.spec())
        world.heal()
        world.emulator.app.land()
        assert list(world.jobs()) == [ref.id], told
        assert client_of(world).submit(world.spec()).ref == ref
        assert isinstance(world, SageMakerWorld) or world.packages() == 1, told
        return len(world.jobs()), len(world.uploads())
    finally:
        world.close()


FILES = {"instances": 2, "serverless": 1}


@pytest.mark.parametrize(
    ("way", "seed"), [*(("instances", seed) for seed in FEW), *(("serverless", seed) for seed in FEW[:4])]
)
def test_one_submit_makes_one_job(tmp_path: Path, way: str, seed: int) -> None:
    assert job_weather(tmp_path, way, seed) == (1, FILES[way])


def endpoint_weather(root: Path, seed: int) -> list[dict[str, int]]:
    """Models, configurations and endpoints after a deploy, and after its end, in that weather."""
    world = ServerlessWorld(root)
    try:
        client = client_of(world)
        before = world.endpoints()
        job = client.submit(world.spec())
        world.reach(job.ref, JobState.SUCCEEDED)
        model, counts = job.result(), []
        told = brew(world, seed, _DEPLOY)
        standing = until_it_works(lambda: client_of(world).deploy(model))
        world.heal()
        world.emulator.app.land()
        counts.append({kind: count - before[kind] for kind, count in world.endpoints().items()})
        told += brew(world, seed + 1, _REMOVE)
        until_it_works(lambda: client_of(world).remove(standing))
        world.heal()
        world.emulator.app.land()
        assert [one for one in client.deployments() if one.model == model.id] == [], told
        return counts
    finally:
        world.close()


@pytest.mark.parametrize("seed", FEW[:4])
def test_one_deploy_makes_one_endpoint(tmp_path: Path, seed: int) -> None:
    assert endpoint_weather(tmp_path, seed) == [{"sm_model": 1, "sm_config": 1, "sm_endpoint": 1}]


def test_whoever_does_not_look_is_told_that_the_name_is_taken(tmp_path: Path) -> None:
    """The name alone keeps a second job from being made: even without looking first, and without a token in it."""
    world = made(tmp_path, "serverless")
    try:
        backend = world.backend()
        backend.find = lambda step, intent: Absent()  # type: ignore[method-assign]
        world.emulator.faults.add("lost_reply", "sagemaker.CreateTrainingJob")
        client = Client(backend, ledger=f"sqlite:///{tmp_path}/ledger.db", clock=world.clock)
        ref = stubborn(client, world.spec())
        assert list(world.jobs()) == [ref.id]
    finally:
        world.close()


def test_a_stranger_s_job_of_that_name_is_not_taken_for_ours(tmp_path: Path) -> None:
    world = made(tmp_path, "serverless")
    try:
        client = client_of(world)
        plan = client.plan(world.spec())
        client.submit(plan)
        job = world.emulator.store.get(world.kind, world.face, plan.steps[-1].request["body"]["TrainingJobName"])
        world.emulator.store.save("tags", world.face, {"id": job["arn"], "tags": {"owner": "somebody else"}})
        other = Client(world.backend(), ledger=f"sqlite:///{tmp_path}/other.db", clock=world.clock)
        with pytest.raises(Conflict, match="did not make it"):
            other.submit(world.spec())
    finally:
        world.close()


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("way", FILES)
def test_never_two_in_any_weather(tmp_path: Path, way: str) -> None:
    for seed in MANY:
        root = tmp_path / str(seed)
        root.mkdir()
        assert job_weather(root, way, seed) == (1, FILES[way]), seed
    print(f"\nsagemaker, {way}: {len(MANY)} storms, one job and one of each file after each")


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_never_two_endpoints_in_any_weather(tmp_path: Path) -> None:
    for seed in MANY:
        root = tmp_path / str(seed)
        root.mkdir()
        assert endpoint_weather(root, seed) == [{"sm_model": 1, "sm_config": 1, "sm_endpoint": 1}], seed
    print(f"\nsagemaker: {len(MANY)} storms over deploy and removal, one endpoint and then none after each")
