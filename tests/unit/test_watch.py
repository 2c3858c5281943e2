"""The one wait loop. Its ends are clause 9 of the contract; here is what happens on the way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cloudtune.client import Client
from cloudtune.errors import JobExpired, JobFailed, JobInterrupted, LostContact, PermissionDenied, WaitTimeout
from cloudtune.job import Job
from cloudtune.state import JobProblem, JobRef, JobSnapshot, JobState, Progress
from cloudtune.testing import FakeClock, Script, ScriptedBackend, ScriptedVendor, faults
from cloudtune.watch import LONGEST_POLL_S, QUIET_METRICS_S, Update, conclude, watch


class Stage:
    def __init__(self, root: Path) -> None:
        self.clock = FakeClock()
        self.vendor = ScriptedVendor(clock=self.clock)
        self.backend = ScriptedBackend(vendor=self.vendor)
        self.root = root
        rows = root / "rows.jsonl"
        rows.write_text('{"prompt":"a","completion":"b"}\n', encoding="utf-8")

    def job(self, **script: float | str) -> Job:
        from cloudtune.spec import JobSpec

        self.vendor.follow(msgspec.structs.replace(Script(), **script))
        client = Client(self.backend, ledger=str(self.root / "ledger.db"), clock=self.clock)
        return client.submit(JobSpec(model="m", data={"train": str(self.root / "rows.jsonl")}))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_whole_life(stage: Stage) -> None:
    job = stage.job(steps=30)
    updates = list(job.watch())
    assert updates[-1].snapshot.state is JobState.SUCCEEDED
    assert [event for update in updates for event in update.events] == list(job.events())
    assert [metric for update in updates for metric in update.metrics] == list(job.metrics())
    states = [update.snapshot.state for update in updates]
    assert [state for state, _ in itertools.groupby(states)] == [
        JobState.QUEUED, JobState.PREPARING, JobState.RUNNING, JobState.SUCCEEDED,
    ]  # fmt: skip


def test_an_interrupted_job_ends_in_its_own_way() -> None:
    ref = JobRef("local", "/runs", "one")
    problem = JobProblem(message="received SIGTERM", code="killed", hint="resume it", interrupted=True)
    with pytest.raises(JobInterrupted, match=r"interrupted: received SIGTERM\nresume it") as ended:
        conclude(JobSnapshot(ref=ref, state=JobState.FAILED, native_state="failed", problem=problem))
    assert ended.value.exit_code == 9


def test_an_unknown_state_is_named_once(stage: Stage) -> None:
    job = stage.job(steps=3, step_s=400.0)
    stage.vendor.show(job.ref.id, "archived")
    notes = []
    with pytest.raises(WaitTimeout):
        for update in job.watch(timeout=30):
            notes.append(update.note)  # noqa: PERF401 - the watch raises
    assert len(notes) > 1
    assert [note for note in notes if note] == notes[:1]
    assert "'archived'" in notes[0]


def test_nothing_is_asked_after_the_end(stage: Stage) -> None:
    job = stage.job()
    list(job.watch())
    calls = stage.vendor.calls()
    slept = len(stage.clock.sleeps)
    assert [update.snapshot.state for update in job.watch()] == [JobState.SUCCEEDED]
    assert stage.vendor.calls("get_job") > 0
    assert len(stage.clock.sleeps) == slept, "an ended job is told at once"
    assert stage.vendor.calls() - calls == 3  # the job, its events, its figures


def test_the_delay_grows_while_nothing_changes_and_shrinks_when_something_does(stage: Stage) -> None:
    job = stage.job(queue_s=600.0)
    stage.clock.sleeps.clear()
    list(job.watch())
    waits = stage.clock.sleeps
    assert waits[0] < 1
    assert max(waits) <= LONGEST_POLL_S * 1.15 + 0.01
    assert max(waits) > LONGEST_POLL_S * 0.8
    queued = list(itertools.takewhile(lambda total: total < 600, itertools.accumulate(waits)))
    assert len(queued) < 60, "a long queue is looked at seldom"
    assert min(waits[len(queued) :]) < 1, "when it moves again it is looked at often"
    assert len({round(wait, 6) for wait in waits}) > len(waits) / 2, "with jitter"


def test_a_stall_is_told_once_and_again_after_a_move(stage: Stage) -> None:
    job = stage.job(steps=3, step_s=400.0)
    notes = [update.note for update in job.watch(stall_after=100.0) if update.note]
    assert len(notes) == 4  # before the first step, and after each of the three
    assert all(note.startswith("stalled: Training") for note in notes)
    assert "before the first step" in notes[0]
    assert "after step 2" in notes[2]


def test_a_queue_is_no_stall(stage: Stage) -> None:
    job = stage.job(queue_s=5000.0)
    assert not [update.note for update in job.watch(stall_after=100.0) if update.note]


def test_contact_that_comes_back(stage: Stage) -> None:
    job = stage.job(steps=100)
    stage.vendor.fail("get_job", faults.server_error(times=6))
    updates = list(job.watch(lost_after=300.0))
    assert updates[-1].snapshot.state is JobState.SUCCEEDED
    stage.vendor.fail("list_events", faults.reset(times=3))
    assert list(job.watch())[-1].events == tuple(job.events())


def test_contact_that_is_lost_says_since_when(stage: Stage) -> None:
    job = stage.job(steps=100)
    follower = job.watch(lost_after=200.0)
    next(follower)
    start = stage.clock.monotonic()
    stage.vendor.fail("get_job", faults.reset(times=faults.FOREVER))
    with pytest.raises(LostContact) as lost:
        list(follower)
    assert 200 <= stage.clock.monotonic() - start < 230
    assert lost.value.snapshot is not None
    assert lost.value.snapshot.state is JobState.QUEUED
    assert str(job.ref) in (lost.value.hint or "")


def test_a_throttled_watch_waits_as_long_as_it_is_asked_to(stage: Stage) -> None:
    job = stage.job(steps=100)
    stage.vendor.fail("get_job", faults.throttle(times=1, retry_after=77))
    stage.clock.sleeps.clear()
    follower = job.watch()
    next(follower)
    assert stage.clock.sleeps[0] >= 77 * 0.85
    assert stage.vendor.calls("get_job") == 2


def test_a_refusal_is_raised_as_it_is(stage: Stage) -> None:
    job = stage.job()
    stage.vendor.fail("get_job", faults.forbidden())
    with pytest.raises(PermissionDenied):
        job.wait()


def test_the_timeout_is_kept_to_the_second_and_the_job_is_left_alone(stage: Stage) -> None:
    job = stage.job(steps=1000)
    start = stage.clock.monotonic()
    with pytest.raises(WaitTimeout) as late:
        job.wait(timeout=100.0)
    assert stage.clock.monotonic() - start == pytest.approx(100.0, abs=0.1)
    assert isinstance(late.value, TimeoutError)
    assert late.value.snapshot is not None
    assert late.value.snapshot.state is JobState.RUNNING
    assert stage.vendor.calls("cancel_job") == 0
    with pytest.raises(WaitTimeout):
        job.wait(timeout=0.0)


def test_leaving_the_loop_leaves_the_job_alone(stage: Stage) -> None:
    job = stage.job(steps=1000)
    follower: Iterator[Update] = job.watch()
    next(follower)
    follower.close()  # type: ignore[attr-defined]
    assert stage.vendor.calls("cancel_job") == 0
    assert not job.state.is_terminal


def test_a_cap_cancels_and_counts_as_expired(stage: Stage) -> None:
    job = stage.job(steps=1000)
    notes: list[str] = []

    def enough(job: JobSnapshot) -> str | None:
        return "20 steps are enough" if (job.progress.step or 0) >= 20 else None

    with pytest.raises(JobExpired, match="20 steps are enough"):
        notes.extend(update.note for update in watch(stage.backend, job.ref, clock=stage.clock, cap=enough))
    assert [note for note in notes if note] == ["stopping the job: 20 steps are enough"]
    assert stage.vendor.calls("cancel_job") == 1


def test_a_job_that_grows_too_old_is_cancelled(stage: Stage) -> None:
    job = stage.job(steps=1000)
    born = job.snapshot().created_at
    assert born is not None
    with pytest.raises(JobExpired, match="more than 40 s"):
        job.wait(cancel_after=40.0)
    assert stage.vendor.calls("cancel_job") == 1
    age = (stage.clock.now() - born).total_seconds()
    assert 40 <= age < 100


def test_a_cap_whose_cancel_is_not_heard_is_tried_again(stage: Stage) -> None:
    job = stage.job(steps=1000)
    stage.vendor.fail("cancel_job", faults.reset(times=2))
    with pytest.raises(JobExpired):
        list(watch(stage.backend, job.ref, clock=stage.clock, cap=lambda job: "enough"))
    assert stage.vendor.calls("cancel_job") == 3


def test_a_pause_that_ends_in_time_is_no_end(stage: Stage) -> None:
    job = stage.job(steps=50)
    stage.clock.call_at(30.0, lambda: stage.vendor.act(job.ref.id, "pause"))
    stage.clock.call_at(60.0, lambda: stage.vendor.act(job.ref.id, "resume"))
    assert list(job.watch())[-1].snapshot.state is JobState.SUCCEEDED


def test_a_failure_keeps_what_is_known(stage: Stage) -> None:
    job = stage.job(fails="loss is NaN at step 10")
    with pytest.raises(JobFailed, match="loss is NaN at step 10") as failed:
        job.wait()
    assert failed.value.snapshot == job.snapshot()
    assert failed.value.ref == job.ref


def test_events_that_the_vendor_has_dropped_do_not_hide_the_end(stage: Stage) -> None:
    job = stage.job()
    job.wait()
    stage.vendor.fail("list_events", faults.forbidden())
    assert list(job.watch())[-1].snapshot.state is JobState.SUCCEEDED


def test_figures_are_asked_for_when_a_job_has_moved_and_seldom_otherwise(stage: Stage) -> None:
    job = stage.job(queue_s=600.0, steps=30)
    queued = itertools.takewhile(lambda update: update.snapshot.state is JobState.QUEUED, job.watch())
    looks = len(list(queued))
    requested = stage.vendor.calls("list_metrics")
    assert looks > 40
    assert 600 / LONGEST_POLL_S / 3 < requested < 600 / QUIET_METRICS_S + 3


def test_figures_that_come_without_an_event_are_seen_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a back end whose events and snapshot do not change while it trains."""
    job = stage.job(steps=100, step_s=5.0)
    get = stage.backend.get
    monkeypatch.setattr(stage.backend, "events", lambda ref, after=None: [])
    monkeypatch.setattr(
        stage.backend, "get", lambda ref: msgspec.structs.replace(get(ref), progress=Progress(), detail="")
    )
    updates = list(job.watch())
    assert [metric for update in updates for metric in update.metrics] == list(job.metrics())
    brought = [len(update.metrics) for update in updates if update.metrics]
    assert len(brought) > 10


def test_a_service_is_not_asked_faster_than_its_pace(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    job = stage.job(steps=300)
    calm = msgspec.structs.replace(stage.backend.capabilities, poll_s=2.0)
    monkeypatch.setattr(type(stage.backend), "capabilities", property(lambda self: calm))
    stage.clock.sleeps.clear()
    updates = list(job.watch())
    after_news = [wait for update, wait in zip(updates, stage.clock.sleeps, strict=False) if update.is_news]
    assert after_news
    assert min(after_news) >= 2.0 * 0.85
