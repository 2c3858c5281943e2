"""Lost, late, doubled and refused requests, in random order: one submit makes one job and one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest
from tests.contract.emulated import KEY, MODEL, AzureWorld, EmulatedWorld
from tests.contract.storms import brew, stubborn

from cloudtune.backend import Absent
from cloudtune.client import Client

if TYPE_CHECKING:
    from pathlib import Path

WORLDS = {"openai": EmulatedWorld, "azure_openai": AzureWorld}
FEW = range(10)
MANY = range(200)


def weather(root: Path, face: str, seed: int) -> tuple[int, int]:
    """Jobs that are not cancelled and files, counted in the service's own store, after one submit in that weather."""
    world = WORLDS[face](root)
    try:
        told = brew(world, seed)
        client = Client(world.backend(), ledger=f"sqlite:///{root}/ledger.db", clock=world.clock)
        ref = stubborn(client, world.spec())
        world.heal()
        assert list(world.alive()) == [ref.id], told
        assert client.submit(world.spec()).ref == ref
        return len(world.alive()), len(world.uploads())
    finally:
        world.close()


@pytest.mark.parametrize("face", WORLDS)
@pytest.mark.parametrize("seed", FEW)
def test_one_submit_makes_one_job_and_one_file(tmp_path: Path, face: str, seed: int) -> None:
    assert weather(tmp_path, face, seed) == (1, 1)


@pytest.mark.parametrize("face", WORLDS)
@pytest.mark.parametrize("call", ["files.create", "jobs.create"])
def test_whoever_does_not_look_first_makes_two(tmp_path: Path, face: str, call: str) -> None:
    """The counting can fail: a back end that never finds anything is caught by a single lost reply."""
    world = WORLDS[face](tmp_path)
    try:
        backend = world.backend()
        backend.find = lambda step, intent: Absent()  # type: ignore[method-assign]
        world.emulator.faults.add("lost_reply", call)
        client = Client(backend, ledger=f"sqlite:///{tmp_path}/ledger.db", clock=world.clock)
        stubborn(client, world.spec())
        made = world.jobs() if call == "jobs.create" else [f for f in world.emulator.requests if f["call"] == call]
        assert len(made) == 2
    finally:
        world.close()


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("face", WORLDS)
def test_never_two_in_any_weather(tmp_path: Path, face: str) -> None:
    """And the bare SDK in the same weather, for comparison."""
    ours, bare = [], []
    for seed in MANY:
        root = tmp_path / str(seed)
        root.mkdir()
        ours.append(weather(root, face, seed))
        if face == "openai":
            (root / "bare").mkdir()
            bare.append(bare_weather(root / "bare", seed))
    assert set(ours) == {(1, 1)}
    print(f"\n{face}: {len(ours)} storms, one job and one file after each")
    if bare:
        print(f"the bare SDK left too many jobs or files in {sum(max(counts) > 1 for counts in bare)} of them")


def bare_weather(root: Path, seed: int) -> tuple[int, int]:
    """What a script without cloudtune leaves: the SDK with its own retries, run again while it fails."""
    world = EmulatedWorld(root)
    try:
        brew(world, seed)
        path = world.spec().data.train.path
        with openai.OpenAI(base_url=world.emulator.openai_url, api_key=KEY) as client:
            for _ in range(30):
                try:
                    rows = b'{"messages":[{"role":"user","content":"?"},{"role":"assistant","content":"!"}]}\n' * 12
                    file = client.files.create(file=(str(path), rows), purpose="fine-tune")
                    client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
                    break
                except openai.OpenAIError:
                    continue
        world.heal()
        return len(world.alive()), len(world.uploads())
    finally:
        world.close()
