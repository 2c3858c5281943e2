"""SIGKILL of the submitting process at every failpoint: one job, nothing lost, and the truth is told."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.chaos.scene import MOST_FAILPOINTS, Scene, seeds

from cloudtune.state import JobRef, JobState
from cloudtune.testing import faults
from cloudtune.testing.fork_server import ForkServer
from cloudtune.testing.vendor import PERSONALITIES


@pytest.mark.timeout(600)
@pytest.mark.parametrize("personality", PERSONALITIES)
def test_killed_at_every_failpoint(tmp_path: Path, fork_server: ForkServer, personality: str) -> None:
    """Before and after every ledger write and every step, until none is left that was not tried."""
    scene = Scene(tmp_path, fork_server, personality)
    tried: set[str] = set()
    for number in range(1, MOST_FAILPOINTS):
        first = scene.submit(number, kill_at=number)
        scene.nothing_is_lost()
        if not first.killed:
            break
        tried.add(first.trace[-1])
        scene.exactly_one(number, scene.submit(number))
    scene.exactly_one(number, first)
    assert tried == set(first.trace), "a failpoint of the whole way was never killed at"
    scene.jobs_tells_the_truth()
    acts = {name.partition(" ")[2] for name in tried if name.startswith("step ")}
    assert {"before create", "after create", "before upload_train", "after upload_validation"} <= acts


@pytest.mark.timeout(600)
@pytest.mark.parametrize("personality", PERSONALITIES)
def test_killed_again_and_again(tmp_path: Path, fork_server: ForkServer, personality: str) -> None:
    """Each process gets one failpoint further than the last one did, and dies there."""
    scene = Scene(tmp_path, fork_server, personality)
    deaths = 0
    for kill_at in range(1, MOST_FAILPOINTS):
        last = scene.submit(kill_at=kill_at)
        scene.nothing_is_lost()
        if not last.killed:
            break
        deaths += 1
    assert deaths > 5
    scene.exactly_one(0, last)
    scene.jobs_tells_the_truth()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("personality", PERSONALITIES)
@pytest.mark.parametrize("fault", ["lost_reply", "late", "twice"])
def test_killed_while_the_create_goes_wrong(
    tmp_path: Path, fork_server: ForkServer, personality: str, fault: str
) -> None:
    """The reply to create is lost, or create lands late, or arrives twice; and then the process dies somewhere."""
    # One that arrives twice is told from the first by nothing but a list: there the second is cancelled.
    twins = fault == "twice" and personality == "neither"
    wrong = {"lost_reply": faults.lost_reply(), "late": faults.late(10.0), "twice": faults.twice()}[fault]
    scene = Scene(tmp_path, fork_server, personality)
    whole = len(scene.submit(999).trace)
    for number in range(whole // 2, whole + 12, 3):
        scene.vendor.heal()
        scene.vendor.fail("create_job", wrong)
        scene.submit(number, kill_at=number)
        scene.nothing_is_lost()
        scene.exactly_one(number, scene.submit(number), twins_cancelled=twins)
    scene.jobs_tells_the_truth()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("personality", ["token", "neither"])
@pytest.mark.parametrize("how", ["again", "resume"])
def test_killed_while_a_new_attempt_is_made(
    tmp_path: Path, fork_server: ForkServer, personality: str, how: str
) -> None:
    """``--again`` and ``--resume`` of a failed job make one new job, wherever they are killed."""
    scene = Scene(tmp_path, fork_server, personality)
    for number in range(1, MOST_FAILPOINTS):
        parent = JobRef.parse(scene.submit(number).result)
        scene.world.reach(parent, JobState.RUNNING)
        scene.world.reach(parent, JobState.FAILED, message="reported by the vendor")
        before = len(scene.vendor.jobs())
        first = scene.submit(number, options={how: True}, kill_at=number)
        second = scene.submit(number, options={how: True})
        assert second.error is None, second.error
        assert len(scene.vendor.jobs()) - before == 1, first.trace[-1:]
        child = scene.client().attach(second.result).snapshot()
        assert child.ref.id == scene.vendor.jobs()[-1]
        assert child.parent == (parent if how == "resume" else None)
        if not first.killed:
            break
    assert number > 8
    scene.nothing_is_lost()


def _killed_at_random(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    random_ = random.Random(seed)
    scene = Scene(tmp_path, fork_server, random_.choice(PERSONALITIES))
    for _ in range(random_.randint(1, 6)):
        scene.submit(kill_at=random_.randint(1, 60))
        scene.nothing_is_lost()
    scene.exactly_one(0, scene.submit())
    scene.jobs_tells_the_truth()


@pytest.mark.parametrize("seed", seeds(10))
def test_killed_at_random(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    _killed_at_random(tmp_path, fork_server, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(300))
def test_killed_at_random_many_times(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    _killed_at_random(tmp_path, fork_server, seed)
