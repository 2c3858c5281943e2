"""Random schedules of faults and kills: whatever happens, in whatever order, one submit is one job."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.chaos.scene import Scene, seeds

from cloudtune.testing import faults
from cloudtune.testing.faults import Fault
from cloudtune.testing.fork_server import ForkServer
from cloudtune.testing.vendor import PERSONALITIES

PASSING = {"Unavailable", "RateLimited"}
"""What a submission may end with: run it again."""


def _fault(random_: random.Random, personality: str) -> tuple[str, Fault]:
    # Where nothing but patience helps, a request that lands later than the vendor says it can is past all help.
    longest = 25.0 if personality == "neither" else 600.0
    fault = random_.choice(
        [
            faults.lost_reply(random_.randint(1, 3)),
            faults.reset(random_.randint(1, 3)),
            faults.refused(),
            faults.delay(random_.uniform(0, 100)),
            faults.late(random_.uniform(0, longest)),
            faults.twice(),
            faults.throttle(random_.randint(1, 12), retry_after=random_.choice([0.0, 1.0, 30.0])),
            faults.server_error(random_.randint(1, 12)),
            faults.partial(random_.randint(1, 2)),
        ]
    )
    if fault.kind == "partial":
        return "list_files", fault
    return random_.choice(["create_job", "create_job", "p[uo]*", "*_file*", "*_job*", "*"]), fault


def _run(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    random_ = random.Random(seed)
    personality = random_.choice(PERSONALITIES)
    scene = Scene(tmp_path, fork_server, personality, ignores_filter=random_.random() < 0.5)
    planned = [_fault(random_, personality) for _ in range(random_.randint(1, 6))]
    for call, fault in planned:
        scene.vendor.fail(call, fault)
    # Where nothing is enforced, a request that arrives twice makes two, and a list that hides a file has it sent again.
    duplicates = personality == "neither" and any(fault.kind in ("twice", "partial") for _, fault in planned)
    history = []
    for _ in range(40):
        kill_at = random_.randint(1, 60) if random_.random() < 0.4 else None
        last = scene.submit(kill_at=kill_at)
        history.append(last.trace[-1:] if last.killed else last.raised())
        scene.nothing_is_lost()
        if not last.killed:
            assert last.raised() in {"", *PASSING}, last.error
            if last.error is None:
                break
    else:
        pytest.fail(f"no end: {history}")
    scene.exactly_one(0, last, duplicates_cancelled=duplicates)
    scene.vendor.heal()
    assert scene.submit().result == last.result
    scene.world.clock.sleep(2000.0)  # whatever is still on its way lands now
    scene.exactly_one(0, last, duplicates_cancelled=duplicates)
    scene.jobs_tells_the_truth()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", seeds(4))
def test_a_random_schedule(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    _run(tmp_path, fork_server, seed)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(300))
def test_many_random_schedules(tmp_path: Path, fork_server: ForkServer, seed: int) -> None:
    _run(tmp_path, fork_server, seed)
