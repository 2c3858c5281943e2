"""Slots: one for each GPU, one for the CPU; a job of several processes takes several, and no job waits forever."""

import time

import pytest
from tests.local.backend.submitting import run_of, scripted_backend, submit, wait_state, wait_until

from cloudtune_trainer.worker import devices

LONG = "show steps 100000 0.02"


@pytest.fixture
def two_gpus(monkeypatch):
    """The trainer is a script: what it is shown need not be there."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")


@pytest.fixture
def backend(two_gpus, root, tmp_path):
    return scripted_backend(root, tmp_path, grace=0.5)


def shown(ref):
    return run_of(ref).log.read_text().splitlines()


def running(backend, *refs):
    return [ref for ref in refs if backend.get(ref).state.value == "running"]


def test_each_gpu_takes_one_job_and_the_cpu_one_beside_them(backend):
    refs = [submit(backend, f"gpu-{i}", LONG, device="auto") for i in range(3)]
    on_cpu = submit(backend, "on-cpu", LONG, device="cpu")
    for ref in (refs[0], refs[1], on_cpu):
        wait_state(backend, ref, "running")
    assert backend.get(refs[2]).detail == "next in the queue"
    seen = {line.split()[0] for ref in refs[:2] for line in shown(ref)}
    assert seen == {"CUDA_VISIBLE_DEVICES=5", "CUDA_VISIBLE_DEVICES=7"}
    backend.cancel(refs[1])
    wait_state(backend, refs[2], "running")
    assert shown(refs[2]) == shown(refs[1])


def test_two_processes_take_both_gpus_and_are_told_apart(backend):
    first = submit(backend, "first", LONG, device="cuda")
    both = submit(backend, "both", "show steps 3 0.01", device="cuda", processes=2)
    third = submit(backend, "third", "steps 1 0", device="cuda")
    wait_state(backend, first, "running")
    time.sleep(0.6)
    assert backend.get(both).state.value == "queued"
    assert backend.get(third).state.value == "queued"  # a slot is free, but it is not its turn
    backend.cancel(first)
    wait_state(backend, both, "succeeded")
    wait_state(backend, third, "succeeded")
    lines = {tuple(line.split()) for line in shown(both)}
    assert lines == {("CUDA_VISIBLE_DEVICES=5,7", f"RANK={rank}", "WORLD_SIZE=2") for rank in (0, 1)}


def test_a_job_that_holds_half_of_what_it_needs_lets_go_for_one_that_comes_back(backend):
    """The earlier one was paused; both need two slots; each waiting for what the other holds would last for ever."""
    first = submit(backend, "first", LONG, device="cuda")
    early = submit(backend, "early", "steps 3 0.01", device="cuda", processes=2)
    late = submit(backend, "late", "steps 3 0.01", device="cuda", processes=2)
    wait_state(backend, first, "running")
    backend.pause(early)
    wait_state(backend, early, "paused")
    time.sleep(0.6)  # now `late` is at the head, and holds the free slot
    backend.resume(early)
    wait_state(backend, early, "queued")
    backend.cancel(first)
    wait_state(backend, early, "succeeded")
    wait_state(backend, late, "succeeded")
    assert backend.get(early).finished_at <= backend.get(late).started_at


def test_one_failed_process_ends_the_others(backend):
    ref = submit(backend, "both", "ignore-term deaf steps 2 0.01 signal 9", device="cuda", processes=2)
    assert wait_state(backend, ref, "failed").problem.code == "killed"


def test_what_another_process_noted_is_the_reason(backend):
    ref = submit(backend, "both", "note exit 1", device="cuda", processes=2)
    assert wait_state(backend, ref, "failed").problem.message == "rank 1 ran out of memory"


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [("", ()), ("-1", ()), ("0", ("0",)), (" 3 , GPU-8f2e ", ("3", "GPU-8f2e")), ("2,-1,4", ("2",))],
)
def test_gpus_named_by_the_environment(monkeypatch, chosen, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert devices.visible_gpus() == seen


def test_gpus_counted_by_the_driver_or_by_the_device_nodes(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver, nodes = tmp_path / "driver", tmp_path / "dev"
    nodes.mkdir()
    assert devices.visible_gpus(driver, nodes) == ()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (nodes / name).touch()
    assert devices.visible_gpus(driver, nodes) == ("0", "1")
    for name in ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        (driver / name).mkdir(parents=True)
    assert devices.visible_gpus(driver, nodes) == ("0", "1", "2")


@pytest.mark.parametrize(
    ("pool", "slots", "gpus", "count"),
    [("cpu", None, "0,1", 1), ("gpu", None, "0,1", 2), ("gpu", None, "", 1), ("cpu", 3, "", 3), ("gpu", 4, "0,1", 4)],
)
def test_slot_counts(monkeypatch, pool, slots, gpus, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    assert devices.slot_count(pool, slots) == count


def test_a_gpu_is_shared_where_more_slots_are_asked_for_than_there_are(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert devices.environment_of("gpu", [3]) == {"CUDA_VISIBLE_DEVICES": "7"}
    assert devices.environment_of("cpu", [0]) == {}


def test_the_pool_is_chosen_by_the_device(backend):
    pools = {device: devices.pool_of(device) for device in ("auto", "cuda", "cpu", "mps")}
    assert pools == {"auto": "gpu", "cuda": "gpu", "cpu": "cpu", "mps": "cpu"}
    assert wait_until(lambda: running(backend, submit(backend, "one", LONG, device="auto")))
