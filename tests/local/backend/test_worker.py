"""The worker: one job from the line to its end, steered from outside. Real processes, scripted trainer."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from tests.local.backend.submitting import Notes, create_step, kill, request, run_of, submit, wait_state, wait_until

from cloudtune.errors import Conflict, InvalidRequest, JobNotFound
from cloudtune.plan import filled
from cloudtune.state import JobRef
from cloudtune_trainer import checkpoints
from cloudtune_trainer.folder import read_json, write_json
from cloudtune_trainer.submit.locks import take_lock
from cloudtune_trainer.worker import creation, processes
from cloudtune_trainer.worker.__main__ import TAKEN


def trainer_of(ref):
    return wait_until(lambda: (read_json(run_of(ref).worker) or {}).get("trainer"), what="the trainer's start")


def messages(backend, ref):
    return [event.message for event in backend.events(ref)]


def test_a_limited_run_is_asked_to_save_and_then_stopped(backend):
    wanted = msgspec.structs.replace(request(backend, "capped", "ignore-term deaf steps 100000 0.02"), run_seconds=1.0)
    step = backend.plan(wanted).steps[-1]
    rows = backend.root.parent / "rows.jsonl"
    rows.write_text('{"text":"hello"}\n')
    step = msgspec.structs.replace(step, request=filled(step.request, {"encode_train": {"path": str(rows)}}))
    ref = JobRef.parse(backend.do(step, Notes())["ref"])
    wait_until(lambda: run_of(ref).requested("expire"), what="the request to stop")
    assert "the external time limit was reached" in wait_state(backend, ref, "expired").detail
    assert not processes.is_alive(trainer_of(ref))


def test_a_job_runs_to_its_end(backend):
    ref = submit(backend, "one")
    snapshot = wait_state(backend, ref, "succeeded")
    assert snapshot.native_state == "succeeded"
    assert (snapshot.name, snapshot.model) == ("one", "scripted")
    assert snapshot.created_at <= snapshot.started_at <= snapshot.finished_at
    assert (snapshot.progress.step, snapshot.progress.total_steps) == (3, 3)
    assert messages(backend, ref)[:2] == ["queued at position 1", "starting"]
    assert [metric.step for metric in backend.metrics(ref)] == [1, 2, 3]
    worker = read_json(run_of(ref).worker)
    wait_until(lambda: not processes.is_alive(worker), what="the worker's end")
    assert not run_of(ref).reserve.exists()


def test_worker_is_nobodys_child_and_has_no_terminal(backend):
    ref = submit(backend, "one", "steps 100 0.05")
    worker = read_json(run_of(ref).worker)
    fields = Path(f"/proc/{worker['pid']}/stat").read_text().rpartition(")")[2].split()
    parent, session, terminal = int(fields[1]), int(fields[3]), int(fields[4])
    assert parent != os.getpid()
    assert session != os.getsid(0)
    assert terminal == 0
    os.kill(worker["pid"], signal.SIGHUP)
    trainer = trainer_of(ref)
    os.kill(trainer["pid"], signal.SIGHUP)
    time.sleep(0.1)
    assert backend.get(ref).state.value in ("preparing", "running")


def test_cancel_a_running_job_politely(backend):
    ref = submit(backend, "one", "steps 100000 0.02")
    wait_state(backend, ref, "running")
    backend.cancel(ref)
    backend.cancel(ref)
    assert wait_state(backend, ref, "cancelled").finished_at is not None
    assert not any("SIG" in message for message in messages(backend, ref))
    before = messages(backend, ref)
    backend.cancel(ref)
    assert (backend.get(ref).state.value, messages(backend, ref)) == ("cancelled", before)


def test_cancel_a_deaf_trainer_with_sigterm(backend):
    ref = submit(backend, "one", "say hello deaf steps 100000 0.02")
    # A deaf script looks at nothing; SIGTERM's default action ends it.
    wait_state(backend, ref, "running")
    started = time.monotonic()
    backend.cancel(ref)
    wait_state(backend, ref, "cancelled")
    assert time.monotonic() - started >= backend.options.grace
    assert any("SIGTERM" in message for message in messages(backend, ref))


def test_cancel_a_trainer_that_ignores_sigterm_with_sigkill(backend):
    ref = submit(backend, "one", "ignore-term deaf steps 100000 0.02")
    wait_state(backend, ref, "running")
    backend.cancel(ref)
    wait_state(backend, ref, "cancelled")
    said = messages(backend, ref)
    assert any("SIGTERM" in message for message in said)
    assert any("SIGKILL" in message for message in said)
    assert not processes.is_alive(trainer_of(ref))


def test_pause_and_resume_a_running_job(backend):
    ref = submit(backend, "one", "steps 100000 0.02")
    wait_state(backend, ref, "running")
    backend.pause(ref)
    wait_state(backend, ref, "paused")
    step = backend.get(ref).progress.step
    time.sleep(0.2)
    assert backend.get(ref).progress.step == step
    backend.resume(ref)
    wait_until(lambda: backend.get(ref).progress.step > step)


def test_cancel_a_paused_job(backend):
    ref = submit(backend, "one", "steps 100000 0.02")
    wait_state(backend, ref, "running")
    backend.pause(ref)
    wait_state(backend, ref, "paused")
    backend.cancel(ref)
    wait_state(backend, ref, "cancelled")


def test_an_ended_job_can_be_neither_paused_nor_resumed(backend):
    ref = submit(backend, "one")
    wait_state(backend, ref, "succeeded")
    for verb in (backend.pause, backend.resume):
        with pytest.raises(InvalidRequest, match=r"has (already )?ended \(succeeded\)"):
            verb(ref)


def test_second_worker_on_the_same_folder_leaves(backend):
    ref = submit(backend, "one", "steps 100000 0.02")
    wait_state(backend, ref, "running")
    worker = read_json(run_of(ref).worker)
    second = subprocess.run(
        [sys.executable, "-m", "cloudtune_trainer.worker", ref.scope + "/" + ref.id],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == TAKEN
    assert "already has a worker" in second.stderr
    assert read_json(run_of(ref).worker)["pid"] == worker["pid"]
    assert backend.get(ref).state.value == "running"
    backend.cancel(ref)
    wait_state(backend, ref, "cancelled")
    assert messages(backend, ref).count("starting") == 1


def test_worker_started_by_hand_on_an_ended_run_changes_nothing(backend):
    ref = submit(backend, "one")
    wait_state(backend, ref, "succeeded")
    before = (run_of(ref).status.read_text(), run_of(ref).events.read_text())
    wait_until(lambda: not processes.is_alive(read_json(run_of(ref).worker)))
    done = subprocess.run([sys.executable, "-m", "cloudtune_trainer.worker", ref.scope + "/" + ref.id], check=False)
    assert done.returncode == 0
    assert (run_of(ref).status.read_text(), run_of(ref).events.read_text()) == before


def test_the_trainer_dies_with_its_worker(backend):
    ref = submit(backend, "one", "ignore-term deaf steps 100000 0.02")
    wait_state(backend, ref, "running")
    trainer = trainer_of(ref)
    kill(read_json(run_of(ref).worker)["pid"])
    wait_until(lambda: not processes.is_alive(trainer), 5, "the trainer's death")
    snapshot = wait_state(backend, ref, "failed")
    assert snapshot.problem.code == "killed"
    assert "resume" in snapshot.problem.hint


def test_reading_a_run_whose_worker_was_killed_writes_nothing_and_stays_the_same(backend):
    ref = submit(backend, "one", "steps 100000 0.02")
    wait_state(backend, ref, "running")
    worker = read_json(run_of(ref).worker)
    kill(worker["pid"])
    wait_until(lambda: not processes.is_alive(trainer_of(ref)))

    def content():
        folder = run_of(ref).path
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}

    before = content()
    first = (backend.get(ref), backend.events(ref), next(iter(backend.list())))
    assert content() == before
    assert first[0].state.value == "failed"
    assert first[0] == first[2]
    last = first[1][-1]
    assert last.observed
    assert last.level == "error"
    assert backend.events(ref, last.cursor) == []
    backend.cancel(ref)  # after the end: nothing
    assert content() == before
    assert (backend.get(ref), backend.events(ref), next(iter(backend.list()))) == first


def test_the_verdict_written_later_is_the_one_that_was_shown(backend):
    ref = submit(backend, "one", "steps 100000 0.02")
    wait_state(backend, ref, "running")
    kill(read_json(run_of(ref).worker)["pid"])
    wait_until(lambda: not processes.is_alive(trainer_of(ref)))
    shown, event = backend.get(ref), backend.events(ref)[-1]
    done = subprocess.run([sys.executable, "-m", "cloudtune_trainer.worker", ref.scope + "/" + ref.id], check=False)
    assert done.returncode == 0
    written = backend.get(ref)
    assert (written.state, written.problem, written.detail) == (shown.state, shown.problem, shown.detail)
    last = backend.events(ref)[-1]
    assert (last.cursor, last.message, last.observed) == (event.cursor, event.message, False)


def test_killed_while_cancelling_is_cancelled(backend):
    ref = submit(backend, "one", "ignore-term deaf steps 100000 0.02")
    wait_state(backend, ref, "running")
    run = run_of(ref)
    worker = read_json(run.worker)
    os.kill(trainer_of(ref)["pid"], signal.SIGSTOP)  # so that it cannot write over what comes next
    write_json(run.status, {**read_json(run.status), "state": "cancelling"})
    kill(worker["pid"])
    assert wait_state(backend, ref, "cancelled", "failed").state.value == "cancelled"


def test_after_a_reboot_a_running_job_has_failed_and_a_queued_one_waits_for_resume(backend):
    running = submit(backend, "one", "steps 100000 0.02")
    queued = submit(backend, "two")
    wait_state(backend, running, "running")
    for ref in (queued, running):
        run = run_of(ref)
        worker = read_json(run.worker)
        kill(worker["pid"])
        wait_until(lambda worker=worker: not processes.is_alive(worker))
        # The pid may well be in use again after the boot, by a process that started at the same tick.
        write_json(run.worker, {**(processes.identity(os.getpid())), "boot_id": "another boot"})
    wait_state(backend, running, "failed")
    snapshot = backend.get(queued)
    assert snapshot.state.value == "queued"
    assert "cloudtune resume" in snapshot.detail
    backend.resume(queued)
    wait_state(backend, queued, "succeeded")
    assert backend.get(running).state.value == "failed"


def test_a_pid_that_is_in_use_again_is_not_the_worker(backend):
    ref = submit(backend, "one", "steps 100000 0.02")
    wait_state(backend, ref, "running")
    run = run_of(ref)
    worker = read_json(run.worker)
    kill(worker["pid"])
    wait_until(lambda: not processes.is_alive(worker))
    write_json(run.worker, {**worker, "pid": os.getpid()})  # alive, but started at another time
    assert wait_state(backend, ref, "failed").problem.code == "killed"


def test_a_worker_that_is_told_to_stop_in_line_leaves_the_job_in_line(backend):
    first = submit(backend, "one", "steps 100000 0.02")
    ref = submit(backend, "two")
    worker = read_json(run_of(ref).worker)
    os.kill(worker["pid"], signal.SIGTERM)  # what a machine does to all when it shuts down
    wait_until(lambda: not processes.is_alive(worker))
    assert backend.get(ref).state.value == "queued"
    backend.resume(ref)
    backend.cancel(first)
    wait_state(backend, ref, "succeeded")


def test_a_worker_that_is_told_to_stop_stops_its_trainer(backend):
    ref = submit(backend, "one", "steps 100000 0.02")
    wait_state(backend, ref, "running")
    os.kill(read_json(run_of(ref).worker)["pid"], signal.SIGTERM)
    assert wait_state(backend, ref, "failed").problem.interrupted  # nobody has cancelled it


def test_what_the_trainer_leaves_behind_is_ended(backend):
    ref = submit(backend, "one", "fork steps 2 0.01")
    wait_state(backend, ref, "succeeded")
    child = int((run_of(ref).path / "child.pid").read_text())
    wait_until(lambda: processes.start_mark(child) is None, 5, "the end of the trainer's child")


def test_delete_only_after_the_end(backend):
    ref = submit(backend, "one", "steps 100000 0.02")
    with pytest.raises(InvalidRequest, match="has not ended"):
        backend.delete(ref)
    backend.cancel(ref)
    wait_state(backend, ref, "cancelled")
    backend.delete(ref)
    backend.delete(ref)
    with pytest.raises(JobNotFound):
        backend.get(ref)
    assert list(backend.list()) == []


def test_a_file_that_an_ending_worker_removes_does_not_stop_a_deletion(backend, monkeypatch):
    ref = submit(backend, "one")
    wait_state(backend, ref, "succeeded")
    remove, calls = shutil.rmtree, []

    def remove_with_another(folder):
        calls.append(folder)
        if len(calls) == 1:
            raise FileNotFoundError(errno.ENOENT, "removed by another process", ".reserve")
        remove(folder)

    monkeypatch.setattr(shutil, "rmtree", remove_with_another)
    backend.delete(ref)
    assert len(calls) == 2
    assert list((backend.root / creation.ASIDE).iterdir()) == []


@pytest.mark.parametrize("name", ["nothing", "../runs", ".queue", "..", "a/b"])
def test_unknown_runs_are_not_found(backend, name):
    submit(backend, "one")
    with pytest.raises(JobNotFound):
        backend.get(JobRef("local", str(backend.root), name))


def test_a_strangers_folder_is_not_taken_for_ours(backend):
    step = create_step(backend, "one", "steps 1 0", backend.root.parent / "spool" / "rows.jsonl")
    folder = backend.root / step.request["run"]
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text("{}")
    with pytest.raises(Conflict, match=r"already exists, and its job\.json is missing"):
        backend.do(step, Notes())
    assert sorted(path.name for path in folder.iterdir()) == ["spec.json"]


def test_a_parent_is_kept_while_a_child_needs_its_checkpoint(backend):
    parent = submit(backend, "parent")
    wait_state(backend, parent, "succeeded")
    child = submit(backend, "child", "steps 100000 0.02")
    job = run_of(child).job
    write_json(job, {**read_json(job), "parent": str(parent)})
    with pytest.raises(InvalidRequest, match="started from a checkpoint"):
        backend.delete(parent)
    backend.cancel(child)
    wait_state(backend, child, "cancelled")
    backend.delete(parent)
    assert [snapshot.ref for snapshot in backend.list()] == [child]


def test_a_worker_whose_submitter_died_before_it_stood_goes_on(backend, monkeypatch):
    """The submitter is killed in the very moment in which the worker wants to tell it that it stands."""
    monkeypatch.setattr(creation, "spawn", lambda run, lock, environment: os.close(lock))
    ref = submit(backend, "one", "steps 2 0.01")
    reader, writer = os.pipe()
    os.close(reader)
    lock = take_lock(run_of(ref).lock)
    subprocess.run(
        [sys.executable, "-m", "cloudtune_trainer.worker", str(run_of(ref).path), str(lock), str(writer)],
        pass_fds=(lock, writer), check=True,
    )  # fmt: skip
    os.close(lock)
    os.close(writer)
    wait_state(backend, ref, "succeeded")


def test_what_killed_submitters_left_half_made_is_cleared_away(backend):
    left = backend.root / creation.ASIDE / "left.1234"
    (left / "control").mkdir(parents=True)
    (left / "lock").touch()
    in_work = backend.root / creation.ASIDE / "in-work.1234"
    in_work.mkdir()
    held = take_lock(in_work / "lock")
    ref = submit(backend, "one")
    assert not left.exists()
    assert in_work.exists()
    os.close(held)
    wait_state(backend, ref, "succeeded")


def test_continuing_needs_a_good_checkpoint(backend, tmp_path):
    parent = submit(backend, "parent")
    wait_state(backend, parent, "succeeded")
    step = backend.plan(request(backend, "child", parent=parent)).steps[0]
    with pytest.raises(InvalidRequest, match="no valid checkpoint") as refused:
        backend.do(step, Notes())
    assert "--again" in refused.value.hint
    checkpoint = checkpoints.save(
        run_of(parent).checkpoints, checkpoints.Progress(step=4), epoch=1.0, best=False, metrics={},
        write=lambda folder: (folder / "weights").write_text("w"),
    )  # fmt: skip
    assert backend.do(step, Notes()) == {"path": str(checkpoint.path), "step": 4}
    (checkpoint.path / "weights").write_text("v")  # damaged
    with pytest.raises(InvalidRequest, match="no valid checkpoint"):
        backend.do(step, Notes())


def test_a_child_that_died_before_its_first_checkpoint_goes_on_from_its_parents(backend, tmp_path):
    child = submit(backend, "child")
    wait_state(backend, child, "succeeded")
    before = checkpoints.save(
        tmp_path / "older", checkpoints.Progress(step=9), epoch=1.0, best=False, metrics={},
        write=lambda folder: (folder / "weights").write_text("w"),
    )  # fmt: skip
    write_json(run_of(child).spec, {**read_json(run_of(child).spec), "resume_from": str(before.path)})
    step = backend.plan(request(backend, "grandchild", parent=child)).steps[0]
    assert backend.do(step, Notes()) == {"path": str(before.path), "step": 9}
