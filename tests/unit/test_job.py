"""The handle on a job: equal by reference, and it holds nothing but that."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from cloudtune.backend import Capabilities
from cloudtune.client import Client
from cloudtune.errors import JobCancelled, JobFailed, JobNotFound, UnsupportedError, WaitTimeout
from cloudtune.job import Job
from cloudtune.state import JobRef, JobState
from cloudtune.testing import ScriptedBackend, faults
from cloudtune.testing.scripted_world import ScriptedWorld


@pytest.fixture
def world(memory_path: Path) -> ScriptedWorld:
    return ScriptedWorld(memory_path)


@pytest.fixture
def client(world: ScriptedWorld) -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


@pytest.fixture
def job(client: Client, world: ScriptedWorld) -> Job:
    job = client.submit(world.spec())
    world.reach(job.ref, JobState.RUNNING)
    return job


def test_handles_are_equal_by_reference(client: Client, job: Job) -> None:
    same = client.attach(job.ref)
    assert same == job
    assert len({same, job}) == 1
    assert repr(job) == f"Job('{job.ref}')"
    assert job != job.ref
    assert pickle.loads(pickle.dumps(job.ref)) == job.ref


def test_asking_for_the_result_raises_what_waiting_would(job: Job, world: ScriptedWorld) -> None:
    with pytest.raises(WaitTimeout, match="has not ended"):
        job.result()
    world.reach(job.ref, JobState.FAILED, message="no luck")
    with pytest.raises(JobFailed, match="no luck"):
        job.result()


def test_cancelling_an_ended_job_sends_nothing(job: Job, world: ScriptedWorld) -> None:
    world.reach(job.ref, JobState.SUCCEEDED)
    job.cancel()
    assert world.calls("cancel") == 0


def test_steering_is_retried_while_the_vendor_is_away(job: Job, world: ScriptedWorld) -> None:
    for call, act in (("pause_job", job.pause), ("resume_job", job.resume), ("cancel_job", job.cancel)):
        world.vendor.fail(call, faults.server_error(times=2))
        act()
        assert world.vendor.calls(call) == 3
    world.settle(job.ref)
    with pytest.raises(JobCancelled):
        job.wait()


def test_a_lost_reply_to_a_cancel_is_no_error(job: Job, world: ScriptedWorld) -> None:
    world.fail("cancel", faults.lost_reply())
    job.cancel()
    assert job.state is JobState.CANCELLING


def test_a_lost_reply_to_a_delete_is_no_error(job: Job, world: ScriptedWorld) -> None:
    world.reach(job.ref, JobState.SUCCEEDED)
    world.vendor.fail("delete_job", faults.lost_reply())
    job.delete()
    with pytest.raises(JobNotFound):
        job.snapshot()


class Poor(ScriptedBackend):
    """Can do nothing with a job but make it."""

    @property
    def capabilities(self) -> Capabilities:
        can = super().capabilities
        verbs = {verb for verb in can.supports if verb.startswith("verb:")}
        reasons = can.reasons | {verb: f"the vendor has no {verb[5:]}" for verb in verbs}
        return Capabilities(supports=can.supports - verbs, reasons=reasons)


def test_what_cannot_be_done_is_refused_with_the_reason(world: ScriptedWorld) -> None:
    poor = Poor(vendor=world.vendor)
    poor._key = world.vendor._api_key
    job = Client(poor, ledger=f"{world.root}/ledger.db", clock=world.clock).submit(world.spec())
    world.reach(job.ref, JobState.RUNNING)
    acts = {
        "cancel": job.cancel, "pause": job.pause, "resume": job.resume, "delete": job.delete, "metrics": job.metrics,
        "checkpoints": job.checkpoints, "generate": lambda: list(job.generate(["x"])),
        "export": lambda: job.export(world.root / "out"),
    }  # fmt: skip
    for verb, act in acts.items():
        with pytest.raises(
            UnsupportedError, match="export|weights" if verb == "export" else f"the vendor has no {verb}"
        ):
            act()
    assert [event.observed for event in job.events()] == [True, True], "created and started, as the snapshot shows"
    world.reach(job.ref, JobState.FAILED, message="m")
    with pytest.raises(UnsupportedError, match="the vendor has no continue"):
        job.resume()
    cursors = [event.cursor for event in job.events()]
    assert len(cursors) == 3
    assert [event.cursor for event in job.events(after=cursors[1])] == cursors[2:]


def test_a_job_that_nobody_knows(client: Client, job: Job) -> None:
    unknown = client.attach(JobRef(job.ref.backend, job.ref.scope, "ftjob-none"))
    for act in (unknown.snapshot, unknown.wait, unknown.cancel, unknown.events, unknown.model):
        with pytest.raises(JobNotFound):
            act()
    unknown.delete()


def test_deleting_a_job_removes_the_rows_that_were_encoded_for_it(job: Job, world: ScriptedWorld) -> None:
    world.reach(job.ref, JobState.RUNNING)
    world.reach(job.ref, JobState.SUCCEEDED)
    spool = world.root / "spool"
    assert list(spool.iterdir())
    job.delete()
    assert list(spool.iterdir()) == []
