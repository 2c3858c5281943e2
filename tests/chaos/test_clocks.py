"""The wall clock jumps, by NTP or by hand, while a job is being submitted or watched."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.chaos.scene import Scene

from cloudtune.state import JobRef, JobState
from cloudtune.testing import faults
from cloudtune.testing.clock import FakeClock
from cloudtune.testing.fork_server import ForkServer
from cloudtune.testing.vendor import PERSONALITIES

DAY = 86400.0


def _jump(scene: Scene, at: int, seconds: float) -> dict[str, object]:
    return {
        "prepare": "tests.chaos.limits:jump",
        "prepare_with": {"root": str(scene.world.root), "at": at, "seconds": seconds},
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("personality", PERSONALITIES)
@pytest.mark.parametrize("seconds", [DAY, -DAY])
@pytest.mark.parametrize("stride", [15, pytest.param(1, marks=pytest.mark.soak)])
def test_the_clock_jumps_while_submitting(
    tmp_path: Path, fork_server: ForkServer, personality: str, seconds: float, stride: int
) -> None:
    """At every failpoint, or every fifteenth, with the reply to create lost, the process killed there or living on."""
    scene = Scene(tmp_path, fork_server, personality)
    whole = len(scene.submit(999).trace)
    for number in range(1 + datetime.now(UTC).day % stride, whole + 6, stride):
        for variant, kill in ((1000 + number, None), (2000 + number, number)):
            scene.vendor.heal()
            scene.vendor.fail("create_job", faults.lost_reply())
            start = scene.world.clock.monotonic()
            first = scene.submit(variant, kill_at=kill, **_jump(scene, number, seconds))
            scene.nothing_is_lost()
            outcome = scene.submit(variant) if first.killed else first
            # Where only patience tells one job from two, a clock that was set forward between two processes takes the
            # patience away: a second job is made then, found, and cancelled.
            scene.exactly_one(variant, outcome, duplicates_cancelled=personality == "neither" and seconds > 0)
            assert scene.world.clock.monotonic() - start < 3600, "a clock that was set back was waited for"
    scene.jobs_tells_the_truth()


@pytest.mark.parametrize("seconds", [DAY, -DAY])
def test_the_clock_jumps_while_watching(tmp_path: Path, fork_server: ForkServer, seconds: float) -> None:
    """Timeouts, stalls and lost contact are durations; the hands of the clock do not matter."""
    scene = Scene(tmp_path, fork_server)
    clock = scene.world.clock
    assert isinstance(clock, FakeClock)
    client = scene.client()
    job = client.attach(JobRef.parse(scene.submit().result))
    scene.world.reach(job.ref, JobState.RUNNING)
    start = clock.monotonic()
    clock.call_at(30.0, lambda: clock.jump(seconds))
    notes: list[str] = []
    with pytest.raises(TimeoutError):
        notes.extend(update.note for update in job.watch(timeout=100.0, stall_after=90.0))
    assert clock.monotonic() - start == pytest.approx(100.0, abs=1.0)
    assert not any(notes), "it moved on within the time"
