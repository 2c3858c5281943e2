"""SIGKILL of the submitting process at every failpoint: one job, nothing lost, and correct reports."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.chaos.scene import MOST_FAILPOINTS, ONE_PERSONALITY, Scene, seeds

from cloudtune.state import JobRef, JobState
from cloudtune.testing import faults
from cloudtune.testing.fork_server import ForkServer
from cloudtune.testing.vendor import PERSONALITIES


@pytest.mark.timeout(600)
@pytest.mark.parametrize("personality", ONE_PERSONALITY)
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
@pytest.mark.parametrize("failpoints", ["near", pytest.param("all", marks=pytest.mark.soak)])
def test_killed_while_the_create_goes_wrong(
    tmp_path: Path, fork_server: ForkServer, personality: str, fault: str, failpoints: str
) -> None:
    """The reply to create is lost, or create lands late, or arrives twice; and then the process dies somewhere."""
    # One that arrives twice is told from the first by nothing but a list: there the second is cancelled.
    duplicates = fault == "twice" and personality == "neither"
    wrong = {"lost_reply": faults.lost_reply(), "late": faults.late(10.0), "twice": faults.twice()}[fault]
    scene = Scene(tmp_path, fork_server, personality)
    whole = len(scene.submit(999).trace)
    # The last failpoints are before and after the request, and before and after its result is written down.
    for number in (whole - 3, whole - 2, whole + 3) if failpoints == "near" else range(whole // 2, whole + 12):
        scene.vendor.heal()
        scene.vendor.fail("create_job", wrong)
        scene.submit(number, kill_at=number)
        scene.nothing_is_lost()
        scene.exactly_one(number, scene.submit(number), duplicates_cancelled=duplicates)
    scene.jobs_tells_the_truth()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("how", "personality", "failpoints"),
    [
        ("again", "token", "steps"),
        ("resume", "neither", "steps"),
        *[pytest.param(how, personality, "all", marks=pytest.mark.soak)
          for how in ("again", "resume") for personality in ("token", "neither")],
    ],
)  # fmt: skip
def test_killed_while_a_new_attempt_is_made(
    tmp_path: Path, fork_server: ForkServer, how: str, personality: str, failpoints: str
) -> None:
    """``--again`` and ``--resume`` of a failed job make one new job, wherever they are killed."""
    scene = Scene(tmp_path, fork_server, personality)

    def failed(variant: int) -> JobRef:
        ref = JobRef.parse(scene.submit(variant).result)
        scene.world.reach(ref, JobState.RUNNING)
        scene.world.reach(ref, JobState.FAILED, message="told by the vendor")
        return ref

    failed(999)
    whole = scene.submit(999, options={how: True})
    assert len(whole.trace) > 8
    for number, point in enumerate(whole.trace, 1):
        if failpoints == "steps" and not point.startswith("step ") and "begin" not in point:
            continue
        parent = failed(number)
        before = len(scene.vendor.jobs())
        first = scene.submit(number, options={how: True}, kill_at=number)
        assert (first.killed, first.trace[-1]) == (True, point)
        second = scene.submit(number, options={how: True})
        assert second.error is None, second.error
        assert len(scene.vendor.jobs()) - before == 1, point
        child = scene.client().attach(second.result).snapshot()
        assert child.ref.id == scene.vendor.jobs()[-1]
        assert child.parent == (parent if how == "resume" else None)
    scene.nothing_is_lost()


def _killed_at_random(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    random_ = random.Random(seed)
    scene = Scene(tmp_path, fork_server, random_.choice(PERSONALITIES))
    for _ in range(random_.randint(1, 6)):
        scene.submit(kill_at=random_.randint(1, 60))
        scene.nothing_is_lost()
    scene.exactly_one(0, scene.submit())
    scene.jobs_tells_the_truth()


@pytest.mark.parametrize("seed", seeds(4))
def test_killed_at_random(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    _killed_at_random(tmp_path, fork_server, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(300))
def test_killed_at_random_many_times(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    _killed_at_random(tmp_path, fork_server, seed)
