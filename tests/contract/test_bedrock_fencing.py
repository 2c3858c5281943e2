"""Where nothing marks a request, each has a training file of its own: one that lands late makes no job."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.contract.emulated_open_weight import OpenWeightWorld
from tests.contract.fault_schedules import stubborn

from cloudtune.backend import Absent
from cloudtune.client import Client
from cloudtune.job import Job
from cloudtune.state import JobState
from cloudtune_providers.bedrock import open_weight
from cloudtune_providers.openai_dialect.files import Files
from cloudtune_providers.openai_dialect.requests import Traits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.backend import Backend, Probe


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OpenWeightWorld]:
    world = OpenWeightWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
def client(world: OpenWeightWorld) -> Client:
    return client_of(world)


def client_of(world: OpenWeightWorld, backend: Backend | None = None) -> Client:
    return Client(backend or world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


NEVER = 1_000_000
"""Requests later than any that a submit sends: it lands when the test says so."""


def test_a_request_that_lands_long_after_the_submit_makes_no_job(world: OpenWeightWorld, client: Client) -> None:
    """What it names is gone by then: the second send has a file of its own."""
    world.emulator.faults.add("late", "jobs.create", requests=NEVER)
    world.emulator.faults.add("late", "jobs.create", requests=NEVER)
    ref = stubborn(client, world.spec())
    assert world.emulator.app.deliver_delayed() == 2
    assert list(world.alive()) == [ref.id]
    landed = [one["status"] for one in world.emulator.requests if one["note"] == "late"][-2:]
    assert landed == [400, 400]
    names = [world.emulator.store.get("file", world.api, file)["filename"] for file in world.uploads()]  # type: ignore[index]
    token = client.plan(world.spec()).token[:12]
    assert [name.split(".")[-2] for name in names] == [f"{token}02"]
    assert Job(client, ref).snapshot().name == "small-0"
    world.reach(ref, JobState.SUCCEEDED)
    Job(client, ref).clear()
    assert not world.uploads()


@pytest.mark.parametrize("kind", ["reset", "lost_reply"])
@pytest.mark.parametrize("call", ["files.create", "files.delete", "files.get", "files.list"])
def test_what_fails_on_the_way_to_another_send_is_gone_on_with(
    world: OpenWeightWorld, client: Client, call: str, kind: str
) -> None:
    world.emulator.faults.add("late", "jobs.create", requests=NEVER)
    world.emulator.faults.add(kind, call, after=1 if call in ("files.create", "files.list", "files.get") else 0)
    ref = stubborn(client, world.spec())
    world.emulator.app.deliver_delayed()
    assert list(world.alive()) == [ref.id]
    assert len(world.uploads()) == 1


def test_a_job_that_was_made_just_before_its_file_went_is_cancelled(world: OpenWeightWorld, client: Client) -> None:
    """The list does not show it yet when the second request is sent; it has lost its rows."""
    backend = world.backend()
    honest = backend.find

    def find(step: Any, intent: Any) -> Any:
        lags = step.id == "create" and intent.sends == 1
        return Absent() if lags else honest(step, intent)

    backend.find = find  # type: ignore[method-assign]
    world.emulator.faults.add("lost_reply", "jobs.create")
    ref = stubborn(client_of(world, backend), world.spec())
    assert len(world.jobs()) == 2
    assert list(world.alive()) == [ref.id]
    assert world._job(ref)["request"]["training_file"] in world.uploads()


def test_a_file_that_is_not_ready_yet_is_waited_for(world: OpenWeightWorld, client: Client) -> None:
    probe = Files.probe
    said = iter(["pending", "pending", "ready"])
    requested: list[str] = []

    def slow(files: Files, request: dict[str, Any]) -> Probe:
        found = probe(files, request)
        if requested:  # the first file is ready, as it says
            found = msgspec.structs.replace(found, state=next(said))  # type: ignore[arg-type]
        requested.append(request["file"])
        return found

    world.emulator.faults.add("late", "jobs.create", requests=NEVER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Files, "probe", slow)
        ref = stubborn(client, world.spec())
    first, *others = requested
    assert len(others) == 3
    assert set(others) == set(world.uploads()) != {first}
    assert list(world.alive()) == [ref.id]


def test_without_a_file_of_its_own_a_late_request_makes_a_twin(
    world: OpenWeightWorld, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counting can fail."""
    monkeypatch.setattr(open_weight, "Traits", lambda **traits: Traits(**traits | {"fenced": False}))
    world.emulator.faults.add("late", "jobs.create", requests=NEVER)
    stubborn(client, world.spec())
    world.emulator.app.deliver_delayed()
    assert len(world.alive()) == 2


# -- storms of late requests -------------------------------------------------------------------------------------------

_WRONG = ("late", "late", "late", "lost_reply", "error_after", "reset", "twice", "throttle", "server_error")
_SENDS = ("jobs.create", "jobs.create", "jobs.create", "files.create", "files.delete")
_LISTS = (("list_lag", {"seconds": 25.0}), ("truncated_page", {}), (None, {}), (None, {}))


def storm(root: Path, seed: int) -> None:
    """One submit, again and again until it works; then everything lands that the network has held back."""
    world = OpenWeightWorld(root)
    try:
        rng = random.Random(seed)
        for _ in range(rng.randint(1, 6)):
            lateness = rng.choice([1, 3, 5, 8, 13, NEVER])
            kind = rng.choice(_WRONG)
            details = {"requests": lateness} if kind == "late" else {"seconds": 3.0} if kind == "throttle" else {}
            world.emulator.faults.add(kind, rng.choice(_SENDS), after=rng.randint(0, 1), **details)  # type: ignore[arg-type]
        condition, details = rng.choice(_LISTS)
        if condition is not None:
            world.emulator.faults.add(condition, "*.list", **details)
        ref = stubborn(client_of(world), world.spec())
        world.heal()
        world.emulator.app.deliver_delayed()
        assert list(world.alive()) == [ref.id], seed
        assert world._job(ref)["request"]["training_file"] in world.uploads(), seed
        assert client_of(world).submit(world.spec()).ref == ref
    finally:
        world.close()


@pytest.mark.parametrize("seed", range(6))
def test_one_submit_makes_one_job_however_late(tmp_path: Path, seed: int) -> None:
    storm(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_never_two_however_late(tmp_path: Path) -> None:
    for seed in range(200):
        root = tmp_path / str(seed)
        root.mkdir()
        storm(root, seed)
