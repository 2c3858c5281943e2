"""Randomized faults between a back end and its service: schedules of faults from a seed, and checks of the result.

A back end's own file says which requests are hit and what is counted; the rest is here: `JobStorms` for what one submit
makes, `OneWorldStorms` for what is done to one world again and again, `HostStorms` for deploying and removing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from cloudtune.backend import Absent
from cloudtune.client import Client
from cloudtune.errors import TransientError
from cloudtune.state import JobState

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.backend import Backend
    from cloudtune.spec import JobSpec
    from cloudtune.state import Deployment, JobRef, TunedModel

MOST_TRIES = 30
FEW = range(3)
MANY = range(200)
Fault = tuple[str, dict[str, Any]]
REQUEST_FAULTS: tuple[Fault, ...] = (
    ("lost_reply", {}), ("reset", {}), ("error_after", {"status": 500}), ("server_error", {"status": 503}),
    ("throttle", {"seconds": 3.0}), ("late", {"seconds": 20.0}), ("late", {"requests": 1}), ("late", {"requests": 3}),
    ("late", {"requests": 5}), ("twice", {}), ("delay", {"seconds": 0.01}),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FaultMix:
    """What may go wrong: one to ``most`` requests, most of them among those that make or remove something."""

    reads: Sequence[str]
    conditions: Sequence[tuple[str, str, dict[str, Any]]] = ()
    """What may lie over all of it: kind, call and details."""
    chance: float = 0.4
    """That one of the conditions does."""
    faults: Sequence[Fault] = REQUEST_FAULTS
    most: int = 5
    weight: int = 2
    """How often the sends lie in the hat; the reads lie in it once."""

    def inject(self, world: Any, seed: int, sends: Sequence[str]) -> list[str]:
        """Let it come over a world. Tells what was chosen."""
        rng = random.Random(seed)
        injected = []
        for _ in range(rng.randint(1, self.most)):
            kind, details = rng.choice(self.faults)
            call = rng.choice([*list(sends) * self.weight, *self.reads])
            if call in self.reads and kind in ("late", "twice"):
                kind, details = "reset", {}
            world.emulator.faults.add(kind, call, after=rng.randint(0, 1), **details)
            injected.append(f"{kind} {call} {details}")
        if self.conditions and rng.random() < self.chance:
            kind, call, details = rng.choice(self.conditions)
            world.emulator.faults.add(kind, call, **details)
            injected.append(f"{kind} {call} {details}")
        return injected


DIALECT = FaultMix(
    reads=("files.list", "jobs.list", "files.get", "jobs.get"), chance=0.5, weight=3,
    conditions=(
        ("list_lag", "*.list", {"seconds": 25.0}), ("ignore_filter", "jobs.list", {}), ("truncated_page", "*.list", {}),
        ("clock_skew", "*", {"seconds": 4000.0}), ("clock_skew", "*", {"seconds": -4000.0}),
    ),
)  # fmt: skip
"""Over what speaks OpenAI's files and jobs."""
DIALECT_SENDS = ("files.create", "jobs.create")


def until_it_works(act: Callable[[], Any]) -> Any:
    """As a person would who types the same command again until it works."""
    for _ in range(MOST_TRIES):
        try:
            return act()
        except TransientError:
            continue
    raise AssertionError(f"not done after {MOST_TRIES} tries")


def stubborn(client: Client, spec: JobSpec) -> JobRef:
    """Submit until it works."""
    ref: JobRef = until_it_works(lambda: client.submit(spec).ref)
    return ref


def client_of(world: Any, backend: Backend | None = None) -> Client:
    """A new back end on the world's ledger, as in another process."""
    return Client(backend or world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


def blind(world: Any, lost: str) -> JobRef:
    """Submit by a back end that never finds anything, while the reply to that call is lost."""
    backend = world.backend()
    backend.find = lambda step, intent: Absent()
    world.emulator.faults.add("lost_reply", lost)
    return stubborn(client_of(world, backend), world.spec())


def calm(world: Any) -> None:
    """The weather is over, and what was late has landed."""
    world.heal()
    world.emulator.app.deliver_delayed()


def folders(root: Path, seeds: Sequence[int]) -> Sequence[tuple[int, Path]]:
    """A folder of its own for each seed."""
    made = [(seed, root / str(seed)) for seed in seeds]
    for _, folder in made:
        folder.mkdir()
    return made


def tuned(world: Any) -> TunedModel:
    """The model of a job that has ended well."""
    job = client_of(world).submit(world.spec())
    world.reach(job.ref, JobState.SUCCEEDED)
    return job.result()


class _Seeded:
    """Runs a test once for each of the class's seeds."""

    world: ClassVar[Any]
    """Makes a new world in a folder."""
    seeds: ClassVar[Sequence[int]] = FEW
    fault_mix: ClassVar[FaultMix]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "seed" in metafunc.fixturenames:
            metafunc.parametrize("seed", self.seeds)


class JobStorms(_Seeded):
    """Whatever happens to the requests of one submit, typed again until it works: one job, and one of each file."""

    sends: ClassVar[Sequence[str]]
    files: ClassVar[int] = 1
    counts_again: ClassVar[bool] = True
    """Also after the same command was typed once more. What a network delivers by then may be a second file where no
    key makes a request harmless."""

    def alive(self, world: Any) -> Sequence[str]:
        """Jobs in the service's own store, after all that was late has landed."""
        world.emulator.app.deliver_delayed()
        jobs: Sequence[str] = world.jobs()
        return jobs

    def check(self, world: Any, ref: JobRef, injected: list[str]) -> None:
        """What else must hold after."""

    def storm(self, root: Path, seed: int) -> None:
        """One submit in that weather."""
        with closing(self.world(root)) as world:
            injected = self.fault_mix.inject(world, seed, self.sends)
            ref = stubborn(client_of(world), world.spec())
            world.heal()
            assert (list(self.alive(world)), len(world.uploads())) == ([ref.id], self.files), injected
            assert client_of(world).submit(world.spec()).ref == ref
            if self.counts_again:
                assert (list(self.alive(world)), len(world.uploads())) == ([ref.id], self.files), injected
            self.check(world, ref, injected)

    def test_one_submit_makes_one_job_and_one_of_each_file(self, tmp_path: Path, seed: int) -> None:
        self.storm(tmp_path, seed)

    @pytest.mark.soak
    @pytest.mark.timeout(7200)
    def test_never_two_jobs_in_any_weather(self, tmp_path: Path) -> None:
        for seed, root in folders(tmp_path, MANY):
            self.storm(root, seed)
        print(f"\n{type(self).__module__}: {len(MANY)} storms: one job and one of each file after each")


class OneWorldStorms(_Seeded):
    """The same is done to one world in each weather, one after the other, with nothing cleared away between."""

    def prepared(self, world: Any) -> Any:
        """What all the storms need, made once in good weather."""

    def storm(self, world: Any, prepared: Any, seed: int) -> None:
        """What is done, and what must stand after."""
        raise NotImplementedError

    def run(self, root: Path, seeds: Sequence[int]) -> None:
        with closing(self.world(root)) as world:
            prepared = self.prepared(world)
            for seed in seeds:
                self.storm(world, prepared, seed)

    def test_one_and_none_after(self, tmp_path: Path) -> None:
        self.run(tmp_path, self.seeds)

    @pytest.mark.soak
    @pytest.mark.timeout(7200)
    def test_one_and_none_after_in_any_weather(self, tmp_path: Path) -> None:
        self.run(tmp_path, MANY)
        print(f"\n{type(self).__module__} {type(self).__name__}: {len(MANY)} storms")


class HostStorms(OneWorldStorms):
    """A model is deployed, and taken down: one of each of its things stands between, and nothing after."""

    makes: ClassVar[Sequence[str]]
    removes: ClassVar[Sequence[str]]

    def prepared(self, world: Any) -> TunedModel:
        return tuned(world)

    def sends(self, seed: int) -> tuple[Sequence[str], Sequence[str]]:
        """Requests that make, and that take down."""
        return self.makes, self.removes

    def options(self, seed: int) -> dict[str, Any]:
        """How it is deployed."""
        return {}

    def standing(self, world: Any) -> Any:
        """What there is, in the service's own store."""
        return world.endpoints()

    def joined(self, before: Any, made: Deployment) -> Any:
        """What there has to be beside what was there before."""
        return {kind: count + 1 for kind, count in before.items()}

    def storm(self, world: Any, prepared: Any, seed: int) -> None:
        before = self.standing(world), list(world.backend().deployments())
        make, remove = self.sends(seed)
        injected = self.fault_mix.inject(world, seed, make)
        made = until_it_works(lambda: client_of(world).deploy(prepared, **self.options(seed)))
        calm(world)
        assert self.standing(world) == self.joined(before[0], made), injected
        injected = self.fault_mix.inject(world, seed + 1000, remove)
        until_it_works(lambda: client_of(world).remove(made))
        calm(world)
        assert (self.standing(world), list(world.backend().deployments())) == before, injected
