"""Any sequence of commands and failures leaves a way forward: one run at a time, and nothing that cannot be deleted.

Submitters, workers and trainers are real processes that can be killed at any point: see `forked`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.local.backend import forked
from tests.local.backend.submitting import kill_all, wait_until

from cloudtune.client import Client
from cloudtune.errors import CloudtuneError, InvalidRequest, JobNotFound
from cloudtune.job import Job
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef, JobState
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.worker import creation, processes, trainer_process
from cloudtune_trainer.worker.queue import Queue
from cloudtune_trainer.worker.run import Run

PATIENCE = 60.0
MEMORY = Path("/dev/shm")
"""Where the folders are: nothing here depends on a disk, because a killed process loses no byte it has written."""
BEFORE_A_SEND = 12
"""About how many points a submission has at which it can be killed."""
picks = st.integers(0, 3)


class Starts:
    """In the place of the module `subprocess`, for the back end."""

    Popen = forked.ForkedProcess
    DEVNULL, STDOUT = subprocess.DEVNULL, subprocess.STDOUT


class LifeCycle(RuleBasedStateMachine):
    """One spec, submitted, resumed, cancelled, killed and deleted at random."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="life-", dir=MEMORY if MEMORY.is_dir() else None))
        (self.folder / "tiny.json").write_text('{"model": {"hidden_size": 8}}')
        rows = [{"prompt": f"What is {n}?", "completion": f"{n}"} for n in range(4)]
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.spec = JobSpec.model_validate({
            "name": "one", "model": str(self.folder / "tiny.json"), "data": {"train": str(self.folder / "rows.jsonl")},
            "overrides": {"local": {"device": "cpu"}},
        })  # fmt: skip
        self.client = self.new_client()

    def new_client(self, trace: Any = None) -> Client:
        backend = LocalBackend(Options(root=self.folder / "runs", slots=1, grace=0.2))
        return Client(backend, ledger=f"sqlite:///{self.folder}/ledger.db", trace=trace)

    def teardown(self) -> None:
        try:
            self.a_way_forward()
            self.everything_can_be_deleted()
        finally:
            kill_all(self.folder / "runs")
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- commands ----------------------------------------------------------------------------------------------------

    @rule(again=st.booleans())
    def submit(self, again: bool) -> None:
        if again:
            self.client.submit(self.spec, again=True)  # is never refused
            return
        with contextlib.suppress(InvalidRequest):  # it continued a resume that was killed, and has no checkpoint
            self.client.submit(self.spec)
            return
        self.client.submit(self.spec)

    @rule()
    def submit_resume(self) -> None:
        with contextlib.suppress(InvalidRequest):
            self.client.submit(self.spec, resume=True)

    @rule(how=st.sampled_from(["", "again", "resume"]), point=st.integers(1, BEFORE_A_SEND))
    def kill_a_submitter(self, how: str, point: int) -> None:
        reached = 0

        def trace(name: str) -> None:
            nonlocal reached
            reached += 1
            if reached == point:
                os.kill(os.getpid(), signal.SIGKILL)

        def submit() -> int:
            with contextlib.suppress(CloudtuneError):
                self.new_client(trace).submit(self.spec, again=how == "again", resume=how == "resume")
            return 0

        os.waitpid(forked.fork(submit), 0)

    @rule(pick=picks)
    def resume(self, pick: int) -> None:
        if job := self.job(pick):
            with self.refusals(job):
                job.resume()

    @rule(pick=picks, pauses=st.booleans())
    def cancel_or_pause(self, pick: int, pauses: bool) -> None:
        if job := self.job(pick):
            with self.refusals(job):
                job.pause() if pauses else job.cancel()
            self.settle(job)

    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        if job := self.job(pick):
            with contextlib.suppress(InvalidRequest):
                job.delete()
                with pytest.raises(JobNotFound):
                    job.snapshot()

    @rule(pick=picks)
    def kill_a_deleter(self, pick: int) -> None:
        if job := self.job(pick):

            def delete() -> int:
                shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
                with contextlib.suppress(CloudtuneError):
                    Job(self.new_client(), job.ref).delete()
                return 0

            os.waitpid(forked.fork(delete), 0)

    # -- what happens to a run ---------------------------------------------------------------------------------------

    @rule(order=st.sampled_from(["train", "checkpoint", "checkpoint", "fail", "succeed", "expire"]))
    def happen(self, order: str) -> None:
        if (job := self.active()) and job.state in (JobState.PREPARING, JobState.RUNNING):
            self.order(job, order)

    @rule(whom=st.sampled_from(["worker", "trainer"]), number=st.sampled_from([signal.SIGKILL, signal.SIGTERM]))
    def kill(self, whom: str, number: signal.Signals) -> None:
        job = self.active()
        worker = read_json(self.run_of(job).worker) if job else None
        who = worker if whom == "worker" else (worker or {}).get("trainer")
        if not job or not who or not processes.is_alive(who):
            return
        os.kill(who["pid"], number)
        wait_until(lambda: not processes.is_alive(who), PATIENCE)
        if whom == "trainer" or job.state is not JobState.QUEUED:
            wait_until(lambda: not self.exists(job) or job.snapshot().has_ended, PATIENCE)
            ended = job.snapshot()
            if ended.state is JobState.FAILED:
                assert ended.problem is not None
                assert ended.problem.interrupted, ended.problem

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def at_most_one_run(self) -> None:
        going = [job.ref for job in self.client.backend().list() if not job.has_ended]
        assert len(going) <= 1, going

    def a_way_forward(self) -> None:
        """Whatever has happened, a new attempt runs, fails, and is resumed to its end."""
        with contextlib.suppress(InvalidRequest):
            self.client.submit(self.spec)
        job = self.client.submit(self.spec, again=True)
        assert not job.snapshot().has_ended
        job.resume()  # it may be paused, or have lost its worker
        wait_until(lambda: job.state in (JobState.PREPARING, JobState.RUNNING), PATIENCE, "the start")
        wait_until(lambda: "trainer" in read_json(self.run_of(job).worker), PATIENCE, "the trainer")
        self.order(job, "checkpoint")
        self.order(job, "fail")
        child = job.resume()
        assert child.snapshot().parent == job.ref
        assert self.client.submit(self.spec, resume=True) == child
        wait_until(lambda: child.snapshot().native_state == "loading", PATIENCE, "the start of the child")
        self.order(child, "succeed")
        assert child.state is JobState.SUCCEEDED

    def everything_can_be_deleted(self) -> None:
        for snapshot in [*self.client.backend().list(), *self.client.jobs()]:
            job = self.client.attach(snapshot.ref)
            job.delete()
            with pytest.raises(JobNotFound):
                job.snapshot()
        assert self.client.jobs() == []
        assert list(self.client.backend().list()) == []

    # -- details -----------------------------------------------------------------------------------------------------

    def job(self, pick: int) -> Job | None:
        refs = self.client.ledger.refs()
        return self.client.attach(refs[pick % len(refs)]) if refs else None

    def active(self) -> Job | None:
        going = [job.ref for job in self.client.backend().list() if not job.has_ended]
        return self.client.attach(going[0]) if going else None

    def run_of(self, job: Job) -> Run:
        return Run(Path(job.ref.scope) / job.ref.id)

    @contextlib.contextmanager
    def refusals(self, job: Job) -> Iterator[None]:
        """Errors that a command may end with. A deletion that was killed may have removed the run."""
        try:
            yield
        except InvalidRequest:
            pass
        except JobNotFound:
            assert not self.exists(job)

    def exists(self, job: Job) -> bool:
        return self.run_of(job).exists()

    def order(self, job: Job, order: str) -> None:
        """Let the trainer do it, and wait until it has, or its job has ended."""
        run = self.run_of(job)
        updated, checkpoints = (read_json(run.status) or {}).get("updated_at"), checkpoints_of(job.ref)
        with (run.path / forked.ORDERS).open("a") as file:
            file.write(f"{order}\n")
        ends = order in ("fail", "succeed", "expire")

        def is_done() -> bool:
            if ends or job.snapshot().has_ended:
                return job.snapshot().has_ended
            if order == "checkpoint":
                return checkpoints_of(job.ref) != checkpoints
            return (read_json(run.status) or {}).get("updated_at") != updated

        wait_until(is_done, PATIENCE, order)

    def settle(self, job: Job) -> None:
        """Wait until a request to cancel has been followed."""
        wait_until(lambda: not self.exists(job) or job.state is not JobState.CANCELLING, PATIENCE, "the cancellation")


def checkpoints_of(ref: JobRef) -> list[str]:
    return sorted(path.name for path in (Path(ref.scope) / ref.id / "checkpoints").glob("step-*/checkpoint.json"))


@pytest.fixture(autouse=True)
def _fork_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (creation, trainer_process):
        monkeypatch.setattr(module, "subprocess", Starts)


@pytest.fixture
def life() -> Iterator[LifeCycle]:
    made = LifeCycle()
    yield made
    made.teardown()


MANY = pytest.param(10_000, id="many", marks=[pytest.mark.soak, pytest.mark.timeout(0)])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sequences", [pytest.param(15, id="few"), MANY])
def test_any_sequence_leaves_a_way_forward(sequences: int) -> None:
    run_state_machine_as_test(
        LifeCycle,
        settings=settings(
            max_examples=sequences, stateful_step_count=12, deadline=None, database=None, derandomize=sequences < 100,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_a_refused_resume_changes_nothing(life: LifeCycle) -> None:
    first = life.client.submit(life.spec)
    wait_until(lambda: first.snapshot().native_state == "loading", PATIENCE)
    life.order(first, "fail")
    for resume in (first.resume, lambda: life.client.submit(life.spec, resume=True)):
        with pytest.raises(InvalidRequest, match="no valid checkpoint") as refused:
            resume()
        assert "--again" in str(refused.value)
        assert life.client.unfinished() == []
        assert life.client.submit(life.spec) == first
    second = life.client.submit(life.spec, again=True)
    assert second != first
    assert second.snapshot().parent is None


@pytest.mark.parametrize("then", ["", "again", "resume", "delete"])
def test_a_resume_killed_before_it_was_refused_is_no_dead_end(life: LifeCycle, then: str) -> None:
    first = life.client.submit(life.spec)
    wait_until(lambda: first.snapshot().native_state == "loading", PATIENCE)
    life.order(first, "fail")
    life.kill_a_submitter("resume", 4)
    assert [attempt.plan.parent for attempt in life.client.unfinished()] == [str(first.ref)]
    if then == "again":
        assert life.client.submit(life.spec, again=True) != first
    elif then == "delete":
        first.delete()
        assert life.client.submit(life.spec).snapshot().parent is None
    else:
        with pytest.raises(InvalidRequest, match="no valid checkpoint"):
            life.client.submit(life.spec, resume=then == "resume")
        assert life.client.submit(life.spec) == first


def test_a_second_attempt_cannot_run_beside_the_first(life: LifeCycle) -> None:
    first = life.client.submit(life.spec)
    wait_until(lambda: first.snapshot().native_state == "loading", PATIENCE)
    life.order(first, "checkpoint")
    life.order(first, "fail")
    second = life.client.submit(life.spec, again=True)
    with pytest.raises(InvalidRequest, match="has not ended"):
        first.resume()
    second.cancel()
    life.settle(second)
    assert first.resume().snapshot().parent == first.ref


@pytest.mark.parametrize("content", [b"", b"\xff{"])
def test_a_damaged_status_is_no_dead_end(life: LifeCycle, content: bytes) -> None:
    """As a power cut leaves it."""
    job = life.client.submit(life.spec)
    wait_until(lambda: "trainer" in (read_json(life.run_of(job).worker) or {}), PATIENCE)
    kill_all(life.folder / "runs")
    wait_until(lambda: job.snapshot().has_ended, PATIENCE)
    life.run_of(job).status.write_bytes(content)
    assert job.state is JobState.UNKNOWN
    job.cancel()
    assert job.state is JobState.CANCELLED
    life.run_of(job).status.write_bytes(content)
    job.delete()
    with pytest.raises(JobNotFound):
        job.snapshot()


DAMAGE = [b"", b"\0" * 80, b'{"state": "tra', b"\xff{", b"[]", b"{}", b"7"]


@pytest.mark.parametrize("file", ["status.json", "worker.json", "job.json", "spec.json", "events.jsonl"])
def test_damaged_files_leave_a_way_forward(life: LifeCycle, file: str) -> None:
    """Any file of a run can be empty or damaged after a power cut."""
    job = life.client.submit(life.spec)
    wait_until(lambda: job.snapshot().native_state == "loading", PATIENCE)
    life.order(job, "checkpoint")
    kill_all(life.folder / "runs")
    wait_until(lambda: job.snapshot().has_ended, PATIENCE)
    damaged = life.run_of(job).path / file
    before = {path: path.read_bytes() for path in life.run_of(job).path.glob("*.json*")}
    for content in DAMAGE:
        damaged.write_bytes(content)
        assert [snapshot.ref for snapshot in life.client.backend().list()] == [job.ref]
        assert [snapshot.ref for snapshot in life.client.jobs()] == [job.ref]
        job.events()
        with contextlib.suppress(InvalidRequest):
            job.pause()
        job.cancel()
        assert job.snapshot().has_ended
        for path, original in before.items():
            path.write_bytes(original)
    damaged.write_bytes(DAMAGE[0])
    if job.state is JobState.UNKNOWN:
        job.resume()
        wait_until(lambda: job.snapshot().has_ended, PATIENCE)
    child = job.resume()
    assert child.snapshot().parent == job.ref


def test_a_cancelled_job_stays_cancelled_when_its_worker_is_killed(life: LifeCycle) -> None:
    running = life.client.submit(life.spec)
    wait_until(lambda: running.snapshot().native_state == "loading", PATIENCE)
    queued = life.client.submit(life.spec.model_copy(update={"name": "two"}))
    for job in (queued, running):
        worker = life.run_of(job).recorded_worker()
        assert worker is not None
        os.kill(worker["pid"], signal.SIGSTOP)
        job.cancel()
        os.kill(worker["pid"], signal.SIGKILL)
        wait_until(lambda job=job: job.snapshot().has_ended, PATIENCE)
        assert job.state is JobState.CANCELLED
        job.delete()
    assert Queue(life.folder / "runs").waiting("cpu") == []


def test_two_processes_can_delete_at_once(life: LifeCycle, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a deletion that was killed halfway is completed later."""
    job = life.client.submit(life.spec)
    wait_until(lambda: job.snapshot().native_state == "loading", PATIENCE)
    life.order(job, "fail")
    run, backend = life.run_of(job), LocalBackend(Options(root=life.folder / "runs"))
    left = run.path.parent / creation.ASIDE / "gone.deleted.0"
    left.mkdir()
    (left / "weights").touch()
    others = backend._others

    def delete_first(ref: JobRef) -> Any:
        LocalBackend(backend.options).delete(ref)
        return others(ref)

    monkeypatch.setattr(backend, "_others", delete_first)
    backend.delete(job.ref)
    for change in (backend.cancel, backend.pause, backend.resume):
        with pytest.raises(JobNotFound):
            change(job.ref)
    life.client.submit(life.spec, again=True)
    assert not list(left.parent.iterdir())
