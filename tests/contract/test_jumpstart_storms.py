"""Lost, late, doubled and refused requests, in random order: one training job, one set of rows, one endpoint."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_sagemaker import JumpStartWorld
from tests.contract.storms import MOST_TRIES, stubborn

from cloudtune.backend import Absent
from cloudtune.client import Client
from cloudtune.errors import TransientError
from cloudtune.state import JobState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FEW = range(10)
MANY = range(200)
_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lost_reply", {}), ("reset", {}), ("error_after", {"status": 500}), ("server_error", {"status": 503}),
    ("throttle", {"seconds": 3.0}), ("late", {"seconds": 20.0}), ("late", {"requests": 1}), ("late", {"requests": 3}),
    ("twice", {}), ("delay", {"seconds": 0.01}),
)  # fmt: skip
_JOB = ("s3.PutObject", "sagemaker.CreateTrainingJob")
_DEPLOY = ("sagemaker.CreateModel", "sagemaker.CreateEndpointConfig", "sagemaker.CreateEndpoint")
_REMOVE = ("sagemaker.DeleteModel", "sagemaker.DeleteEndpointConfig", "sagemaker.DeleteEndpoint")
_READS = ("sagemaker.Describe*", "sagemaker.List*", "s3.HeadObject", "s3.ListObjectsV2", "sts.*")
BASE = {"sm_model": 1, "sm_config": 1, "sm_endpoint": 1}
"""The base model's own, which stand from the start."""


def brew(world: JumpStartWorld, seed: int, sends: tuple[str, ...]) -> list[str]:
    """Let one to five things go wrong, most of them with what makes and removes. Tells which."""
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
        kind, call, details = dice.choice(
            (("list_lag", "sagemaker.List*", {"seconds": 25.0}), ("clock_skew", "*", {"seconds": 4000.0}))
        )
        world.emulator.faults.add(kind, call, **details)
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


def client_of(world: JumpStartWorld) -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


def job_weather(root: Path, seed: int) -> tuple[int, int]:
    """Jobs and files in the service's own store, after one submit in that weather."""
    world = JumpStartWorld(root)
    try:
        told = brew(world, seed, _JOB)
        ref = stubborn(client_of(world), world.spec())
        world.heal()
        world.emulator.app.land()
        assert list(world.jobs()) == [ref.id], told
        assert client_of(world).submit(world.spec()).ref == ref
        return len(world.jobs()), len(world.uploads())
    finally:
        world.close()


@pytest.mark.parametrize("seed", FEW)
def test_one_submit_makes_one_job_and_one_file(tmp_path: Path, seed: int) -> None:
    assert job_weather(tmp_path, seed) == (1, 1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_never_two_jobs_in_any_weather(tmp_path: Path) -> None:
    left = []
    for seed in MANY:
        root = tmp_path / str(seed)
        root.mkdir()
        left.append(job_weather(root, seed))
    assert set(left) == {(1, 1)}
    print(f"\n{len(left)} storms: one job and one file after each")


def test_whoever_does_not_look_first_is_saved_by_the_name(tmp_path: Path) -> None:
    """There is no token: the name is all that makes a second request harmless."""
    world = JumpStartWorld(tmp_path)
    try:
        backend = world.backend()
        backend.find = lambda step, intent: Absent()  # type: ignore[method-assign]
        world.emulator.faults.add("lost_reply", "sagemaker.CreateTrainingJob")
        ref = stubborn(Client(backend, ledger=f"sqlite:///{tmp_path}/l.db", clock=world.clock), world.spec())
        assert world.calls("create") == 2
        assert list(world.jobs()) == [ref.id]
    finally:
        world.close()


# -- endpoints ---------------------------------------------------------------------------------------------------------


def tuned(world: JumpStartWorld) -> Any:
    job = client_of(world).submit(world.spec())
    world.reach(job.ref, JobState.SUCCEEDED)
    return job.result()


def deploy_weather(world: JumpStartWorld, model: Any, seed: int) -> None:
    told = brew(world, seed, _DEPLOY)
    made = until_it_works(lambda: client_of(world).deploy(model))
    world.heal()
    world.emulator.app.land()
    assert world.endpoints() == {kind: count + 1 for kind, count in BASE.items()}, told
    told = brew(world, seed + 1000, _REMOVE)
    until_it_works(lambda: client_of(world).remove(made))
    world.heal()
    world.emulator.app.land()
    assert not list(world.backend().deployments()), told
    assert world.endpoints() == BASE, told


def test_one_endpoint_and_nothing_after(tmp_path: Path) -> None:
    world = JumpStartWorld(tmp_path)
    try:
        model = tuned(world)
        for seed in FEW:
            deploy_weather(world, model, seed)
    finally:
        world.close()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_one_endpoint_in_any_weather(tmp_path: Path) -> None:
    world = JumpStartWorld(tmp_path)
    try:
        model = tuned(world)
        for seed in MANY:
            deploy_weather(world, model, seed)
        print(f"\n{len(MANY)} storms: one endpoint after each deployment, none after each removal")
    finally:
        world.close()
