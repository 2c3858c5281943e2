"""The queue: jobs run in the order of their submission, whatever is killed meanwhile. Real processes."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from tests.local.backend.submitting import (
    Notes,
    create_step,
    kill,
    request,
    run_of,
    scripted_backend,
    submit,
    wait_state,
    wait_until,
)

from cloudtune.backend import Absent, Done, Intent
from cloudtune.errors import Conflict
from cloudtune.state import JobRef
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.submit.locks import take_lock
from cloudtune_trainer.worker import processes
from cloudtune_trainer.worker.queue import Place, Queue


def spans(backend, refs):
    """When each job began and ended, by the worker's and the trainer's own clock entries."""
    found = []
    for ref in refs:
        snapshot = backend.get(ref)
        found.append((snapshot.started_at, snapshot.finished_at))
    return found


def assert_one_after_another(backend, refs):
    times = spans(backend, refs)
    for (_, ended), (began, _) in pairwise(times):
        assert ended <= began


def test_jobs_run_one_after_another_in_order_though_the_submitter_is_gone(backend, root, tmp_path):
    program = (
        "import sys; from pathlib import Path;"
        "from tests.local.backend.submitting import scripted_backend, submit;"
        "backend = scripted_backend(Path(sys.argv[1]), Path(sys.argv[2]));"
        "[print(submit(backend, f'job-{i}', 'steps 2 0.01'), flush=True) for i in range(6)];"
        "import os; os.kill(os.getpid(), 9)"
    )
    paths = os.pathsep.join(path or "." for path in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program, str(root), str(tmp_path)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    refs = [JobRef.parse(line) for line in done.stdout.split()]
    assert len(refs) == 6
    wait_state(backend, refs[-1], "succeeded", seconds=60)
    assert {backend.get(ref).state.value for ref in refs} == {"succeeded"}
    assert_one_after_another(backend, refs)
    assert [snapshot.name for snapshot in backend.list()] == [f"job-{i}" for i in reversed(range(6))]


def test_jobs_tell_how_many_are_ahead(backend):
    refs = [submit(backend, f"job-{i}", "steps 100000 0.02") for i in range(4)]
    wait_state(backend, refs[0], "running")
    assert [backend.get(ref).detail for ref in refs[1:]] == [
        "next in the queue",
        "1 ahead in the queue",
        "2 ahead in the queue",
    ]
    # The running job moves on between two reads; those in line do not.
    assert backend.get_many(refs[1:]) == {found.ref: found for found in backend.list() if found.ref != refs[0]}


def test_as_many_jobs_at_once_as_there_are_slots(root, tmp_path):
    backend = scripted_backend(root, tmp_path, slots=2)
    refs = [submit(backend, f"job-{i}", "steps 100000 0.02") for i in range(4)]
    for ref in refs[:2]:
        wait_state(backend, ref, "running")
    assert [backend.get(ref).state.value for ref in refs[2:]] == ["queued", "queued"]
    backend.cancel(refs[0])
    wait_state(backend, refs[2], "running")
    assert [backend.get(ref).state.value for ref in refs] == ["cancelled", "running", "running", "queued"]


def test_cancelled_in_line_ends_at_once_and_the_others_move_up(backend):
    refs = [submit(backend, f"job-{i}", "steps 100000 0.02") for i in range(3)]
    wait_state(backend, refs[0], "running")
    backend.cancel(refs[1])
    wait_state(backend, refs[1], "cancelled")
    assert backend.get(refs[0]).state.value == "running"
    assert backend.get(refs[1]).started_at is None
    assert backend.get(refs[2]).detail == "next in the queue"
    backend.cancel(refs[0])
    wait_state(backend, refs[2], "running")


def test_paused_in_line_lets_others_pass_and_keeps_its_place(backend):
    first = submit(backend, "first", "steps 100000 0.02")
    second = submit(backend, "second", "steps 100000 0.02")
    third = submit(backend, "third", "steps 100000 0.02")
    fourth = submit(backend, "fourth", "steps 100000 0.02")
    wait_state(backend, first, "running")
    backend.pause(second)
    wait_state(backend, second, "paused")
    backend.cancel(first)
    wait_state(backend, third, "running")
    assert backend.get(second).state.value == "paused"
    backend.resume(second)
    wait_state(backend, second, "queued")
    backend.cancel(third)
    wait_state(backend, second, "running")
    assert backend.get(fourth).state.value == "queued"


def test_pause_and_cancel_in_line_without_a_worker(backend):
    first = submit(backend, "first", "steps 100000 0.02")
    second, third = submit(backend, "second"), submit(backend, "third")
    for ref in (second, third):
        worker = read_json(run_of(ref).worker)
        kill(worker["pid"])
        wait_until(lambda worker=worker: not processes.is_alive(worker))
    backend.pause(second)
    assert backend.get(second).state.value == "paused"
    backend.cancel(third)
    assert backend.get(third).state.value == "cancelled"
    backend.cancel(first)
    backend.resume(second)
    wait_state(backend, second, "succeeded")


def test_killed_waiters_hold_nobody_up(backend):
    refs = [submit(backend, f"job-{i}", "steps 5 0.05" if i else "steps 100000 0.02") for i in range(6)]
    wait_state(backend, refs[0], "running")
    for ref in (refs[1], refs[3]):
        kill(read_json(run_of(ref).worker)["pid"])
    backend.cancel(refs[0])
    for ref in (refs[2], refs[4], refs[5]):
        wait_state(backend, ref, "succeeded")
    assert_one_after_another(backend, [refs[0], refs[2], refs[4], refs[5]])
    assert [backend.get(ref).state.value for ref in (refs[1], refs[3])] == ["queued", "queued"]
    for ref in (refs[1], refs[3]):
        backend.resume(ref)
        wait_state(backend, ref, "succeeded")


def test_a_killed_holder_frees_its_slot(backend):
    first, second = submit(backend, "first", "ignore-term deaf steps 100000 0.02"), submit(backend, "second")
    wait_state(backend, first, "running")
    kill(read_json(run_of(first).worker)["pid"])
    wait_state(backend, second, "succeeded")
    assert backend.get(first).problem.code == "killed"


def test_a_waiter_that_comes_up_late_keeps_its_place(backend):
    """Its lock is taken before anybody can see it, so nobody takes it for dead while its interpreter starts."""
    first = submit(backend, "first", "steps 100000 0.02")
    late = create_step(backend, "late", "steps 2 0.01", backend.root.parent / "rows.jsonl")
    ref = JobRef.parse(backend.do(late, Notes())["ref"])
    os.kill(read_json(run_of(ref).worker)["pid"], 19)  # stopped: it does nothing at all
    third = submit(backend, "third", "steps 2 0.01")
    backend.cancel(first)
    wait_state(backend, first, "cancelled")
    time.sleep(1.0)
    assert backend.get(third).state.value == "queued"
    os.kill(read_json(run_of(ref).worker)["pid"], 18)
    wait_state(backend, third, "succeeded")
    assert_one_after_another(backend, [first, ref, third])


def test_numbers_are_never_given_twice(root, tmp_path):
    queue = Queue(root)
    counter = root / ".queue" / "counter"
    with queue.next_number() as number:
        assert number == 1
    queue.join("cpu", Place(7, "x"))
    counter.write_text("torn\x00")
    with queue.next_number() as number:
        assert number > 7
    with queue.next_number() as after:
        assert after == number + 1


def test_a_crash_before_the_worker_starts_is_found_and_mended(backend, monkeypatch):
    from cloudtune_trainer.worker import creation

    step = create_step(backend, "one", "steps 2 0.01", backend.root.parent / "rows.jsonl")

    def dies(run, lock, environment):
        os.close(lock)
        raise KeyboardInterrupt

    monkeypatch.setattr(creation, "spawn", dies)
    with pytest.raises(KeyboardInterrupt):
        backend.do(step, Notes())
    monkeypatch.undo()
    intent = Intent(begun_at=datetime.now(UTC))
    assert isinstance(backend.find(step, intent), Absent)
    ref = JobRef.parse(backend.do(step, Notes())["ref"])
    assert isinstance(backend.find(step, intent), Done)
    wait_state(backend, ref, "succeeded")
    assert len(list(backend.list())) == 1


def test_do_is_harmless_when_repeated_and_when_two_do_it_at_once(backend):
    step = create_step(backend, "one", "steps 10 0.02", backend.root.parent / "rows.jsonl")
    with ThreadPoolExecutor(8) as pool:
        refs = set(pool.map(lambda _: backend.do(step, Notes())["ref"], range(8)))
    assert len(refs) == 1
    ref = JobRef.parse(refs.pop())
    wait_state(backend, ref, "succeeded")
    assert backend.do(step, Notes())["ref"] == str(ref)
    assert [event.message for event in backend.events(ref)].count("starting") == 1
    assert [path.name for path in (backend.root / ".new").iterdir()] == []


def test_a_jump_of_the_clock_changes_no_order(backend, monkeypatch):
    """The wall clock is only ever written down: an hour back and a year ahead, the order stays that of submission."""
    from cloudtune_trainer.worker import creation

    first = submit(backend, "first", "steps 20 0.02")
    monkeypatch.setattr(creation, "now", lambda: "2001-01-01T00:00:00.000+00:00")
    second = submit(backend, "second", "steps 2 0.01")
    monkeypatch.setattr(creation, "now", lambda: "2031-01-01T00:00:00.000+00:00")
    third = submit(backend, "third", "steps 2 0.01")
    for ref in (first, second, third):
        wait_state(backend, ref, "succeeded")
    assert_one_after_another(backend, [first, second, third])
    assert [snapshot.name for snapshot in backend.list()] == ["third", "second", "first"]


def test_waiting_workers_are_small(backend):
    refs = [submit(backend, f"job-{i}", "steps 1000 0.05") for i in range(5)]
    wait_state(backend, refs[0], "running")
    time.sleep(0.5)
    own = []
    for ref in refs[1:]:
        pid = read_json(run_of(ref).worker)["pid"]
        with open(f"/proc/{pid}/smaps_rollup") as file:
            fields = dict(line.split()[:2] for line in file.read().splitlines()[1:])
        own.append(int(fields["Private_Dirty:"]) + int(fields["Private_Clean:"]))
    assert max(own) < 12_000, f"KiB of its own for each worker in line: {own}"


def test_a_lock_outlasts_those_who_look(tmp_path):
    path = tmp_path / "lock"
    held = take_lock(path)
    assert take_lock(path, patience=0.05) is None
    os.close(held)
    again = take_lock(path)
    assert again is not None
    os.close(again)


def test_request_names_the_run_after_the_job(backend):
    assert request(backend, "one").slug.startswith("one-")


def test_a_folder_whose_job_is_damaged_is_named(tmp_path):
    from cloudtune_local import launch

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "spec.json").write_bytes(b"{}")
    (tmp_path / "mine" / "job.json").write_bytes(b'{"key": "a')
    asked = {"root": str(tmp_path), "run": "mine", "spec": {}, "job": {"key": "a", "attempt": 1}}
    with pytest.raises(Conflict, match=r"its job\.json is missing or damaged"):
        launch.create(asked)
