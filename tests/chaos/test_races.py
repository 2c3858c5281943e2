"""Several processes, or threads, submit the same spec at the same moment: one job, and all are given it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.chaos.scene import Scene, seeds

from cloudtune.client import Client
from cloudtune.state import JobRef, JobState
from cloudtune.testing import faults
from cloudtune.testing.fork_server import ForkServer
from cloudtune.testing.vendor import PERSONALITIES


def live(root: Path, fork_server: ForkServer, personality: str) -> Scene:
    """Processes that wait for each other need a clock that goes by itself: real time, and a quick vendor."""
    return Scene(root, fork_server, personality, real_time=True, processing_s=0.05, list_lag_s=0.2)


def _race(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    random_ = random.Random(seed)
    scene = live(tmp_path, fork_server, PERSONALITIES[seed % 3])
    if random_.random() < 0.5:
        scene.vendor.fail("*", faults.delay(random_.uniform(0.01, 0.3), times=random_.randint(1, 5)))
    racers = [scene.order() for _ in range(random_.randint(2, 3))]
    if random_.random() < 0.5:  # one of them dies on the way, and another must take over
        racers.append(scene.order(kill_at=random_.randint(1, 40)))
    outcomes = [outcome for outcome in scene.fork_server.race(racers) if not outcome.killed]
    assert {outcome.raised() for outcome in outcomes} == {""}, [outcome.error for outcome in outcomes]
    assert len({outcome.result for outcome in outcomes}) == 1
    scene.exactly_one(0, outcomes[0])
    scene.nothing_is_lost()
    scene.jobs_tells_the_truth()


@pytest.mark.parametrize("seed", seeds(4))
def test_two_processes_submit_at_once(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    _race(tmp_path, fork_server, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(300))
def test_two_processes_submit_at_once_many_times(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    _race(tmp_path, fork_server, seed)


def test_two_processes_say_again_at_once(tmp_path: Path, fork_server: ForkServer) -> None:
    scene = live(tmp_path, fork_server, "token")
    for round_ in range(1, 4):
        last = JobRef.parse(scene.submit(options={"again": True}).result)
        assert len(scene.vendor.jobs()) == round_ if round_ == 1 else True
        scene.world.reach(last, JobState.FAILED, message="reported by the vendor")
        before = len(scene.vendor.jobs())
        outcomes = scene.fork_server.race([scene.order(options={"again": True})] * 2)
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert outcomes[0].result == outcomes[1].result
        assert len(scene.vendor.jobs()) == before + 1
        scene.world.reach(JobRef.parse(outcomes[0].result), JobState.FAILED, message="reported by the vendor")


def test_different_specs_at_once_do_not_wait_for_each_other(tmp_path: Path, fork_server: ForkServer) -> None:
    scene = live(tmp_path, fork_server, "unique_names")
    outcomes = scene.fork_server.race([scene.order(variant) for variant in range(4)])
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert len({outcome.result for outcome in outcomes}) == len(scene.vendor.jobs()) == 4
    scene.jobs_tells_the_truth()


@pytest.mark.parametrize("shared", [True, False])
def test_threads_submit_at_once(tmp_path: Path, fork_server: ForkServer, shared: bool) -> None:
    """Of one client, or of a client each."""
    scene = live(tmp_path, fork_server, "token")
    clients: list[Client] = [scene.client()] * 4 if shared else [scene.client() for _ in range(4)]
    spec = scene.world.spec()  # once: making it writes its rows
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda client: client.submit(spec), clients))
    assert len({job.ref for job in jobs}) == 1
    assert [jobs[0].ref.id] == scene.vendor.jobs()
