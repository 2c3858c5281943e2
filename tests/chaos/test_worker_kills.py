"""Workers and trainers killed at random moments: nothing is lost, and no two jobs run at once. Scripted trainer."""

import random
import time

import pytest
from tests.chaos.scene import seeds
from tests.local.backend.submitting import kill, kill_all, run_of, scripted_backend, submit

from cloudtune_trainer.folder import read_json
from cloudtune_trainer.worker import processes
from cloudtune_trainer.worker.queue import Queue

DEAD = {"pid": 0, "start_time": "", "boot_id": ""}
MOST_KILLS = 12
"""On a slow machine, where a worker takes seconds to start, kills without end would leave no time to do so."""


@pytest.fixture
def backend(tmp_path):
    yield scripted_backend(tmp_path / "runs", tmp_path, grace=0.5)
    kill_all(tmp_path / "runs")


def kill_at_random(backend, seed):
    """Kill while jobs go on; whoever lost its worker in line is resumed."""
    chance = random.Random(seed)
    refs = [submit(backend, f"job-{i}", "ignore-term steps 6 0.02") for i in range(6)]
    kills = 0
    while not all(backend.get(ref).state.is_terminal for ref in refs):
        time.sleep(chance.uniform(0, 0.25))
        worker = read_json(run_of(chance.choice(refs)).worker) or {}
        victim = chance.choice([worker, worker.get("trainer")])
        if victim and processes.is_alive(victim) and chance.random() < 0.5 and kills < MOST_KILLS:
            kill(victim["pid"])
            kills += 1
        alive = [ref for ref in refs if processes.is_alive((read_json(run_of(ref).worker) or {}).get("trainer", DEAD))]
        assert len(alive) <= 1, f"seed {seed}"
        for ref in refs:
            if backend.get(ref).state.value == "queued" and "resume" in backend.get(ref).detail:
                backend.resume(ref)
    for ref in refs:
        snapshot = backend.get(ref)
        assert snapshot.state.value in ("succeeded", "failed"), f"seed {seed}"
        assert snapshot.state.value == "succeeded" or snapshot.problem.code == "killed", f"seed {seed}"
    assert Queue(backend.root).waiting("cpu") == []


@pytest.mark.parametrize("seed", seeds(3))
def test_random_kills_lose_nothing(backend, seed):
    kill_at_random(backend, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100))
def test_hundred_schedules_of_random_kills_lose_nothing(backend, seed):
    kill_at_random(backend, seed)
