"""Slurm jobs that go wrong, on the real controller: requeued, killed, refused, or on a node without the folder."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.clusters.worlds import SlurmWorld
from tests.local.backend.directed import trained_run
from tests.local.backend.submitting import wait_state, wait_until

from cloudtune.backend import Done, Intent
from cloudtune.client import Client
from cloudtune.errors import BackendNotInstalled, SpecError, Unavailable
from cloudtune.state import JobState
from cloudtune_trainer.worker import batch
from cloudtune_trainer.worker.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clusters.slurm import SlurmCluster

    from cloudtune.job import Job

pytestmark = [pytest.mark.starts_trainer, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def world(
    tmp_path: Path, trained: Path, slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlurmWorld]:
    monkeypatch.setenv("SLURM_CONF", str(slurm_cluster.conf))
    world = SlurmWorld(tmp_path, trained, slurm_cluster)
    yield world
    world.close()


@pytest.fixture
def client(world: SlurmWorld) -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db")


def batch_job(world: SlurmWorld, job: Job) -> str:
    return world.cluster.command("squeue", "--noheader", "--states=all", f"--name={job.ref.id}", "--format=%i").strip()


def start_now(world: SlurmWorld, number: str) -> None:
    """Slurm starts a requeued job after two minutes at the earliest, when its credential has expired.

    slurmd compares seconds: it takes a credential of the second in which the earlier one was revoked for revoked, too.
    """
    listed = ("squeue", "--noheader", f"--jobs={number}", "--format=%T")
    wait_until(lambda: world.cluster.command(*listed).strip() == "PENDING", 60, "the requeued job")
    time.sleep(2)
    world.cluster.command("scontrol", "update", f"JobId={number}", "StartTime=now")


def test_a_requeued_job_continues_and_never_looks_ended(world: SlurmWorld, client: Client) -> None:
    job = client.submit(world.spec())
    world.reach(job.ref, JobState.RUNNING)
    world.cluster.command("scontrol", "requeue", batch_job(world, job))
    start_now(world, batch_job(world, job))
    seen: list[str] = []

    def restarted() -> bool:
        state = job.state
        seen.append(state.value)
        assert not state.is_terminal, seen
        return any("restart 1" in event.message for event in job.events())

    wait_until(restarted, 120, "the restart")
    world.reach(job.ref, JobState.SUCCEEDED)
    assert job.state is JobState.SUCCEEDED


def test_a_killed_job_is_a_failure_that_can_be_resumed(world: SlurmWorld, client: Client) -> None:
    job = client.submit(world.spec())
    world.reach(job.ref, JobState.RUNNING)
    world.cluster.command("scancel", "--signal=KILL", "--full", batch_job(world, job))
    problem = wait_state(world.backend(), job.ref, "failed", seconds=60).problem
    assert problem is not None
    assert problem.interrupted


def test_a_node_without_the_folder_is_found_before_training(world: SlurmWorld, client: Client) -> None:
    job = client.submit(world.spec())
    number, moved = batch_job(world, job), world.runs.with_name("moved")
    wait_until(lambda: "trainer" in (Run(world.runs / job.ref.id).recorded_worker() or {}), 60)
    world.cluster.command("scontrol", "requeuehold", number)
    listed = ("squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T")
    wait_until(lambda: world.cluster.command(*listed).strip() == "PENDING", 60)
    world.runs.rename(moved)
    world.cluster.command("scontrol", "release", number)
    start_now(world, number)
    wait_until(lambda: world.cluster.command(*listed).strip() not in ("PENDING", "RUNNING", "COMPLETING"), 120)
    moved.rename(world.runs)
    assert job.state is JobState.FAILED


def test_a_run_that_the_node_does_not_see_is_not_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch.main([str(tmp_path / "elsewhere")], {"SLURMD_NODENAME": "n7"}) == batch.UNSEEN
    assert "the node n7 does not see" in capsys.readouterr().err


def test_of_two_batch_jobs_for_a_run_one_trains(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert [batch.claim(run, number) for number in ("7", "8", "7")] == [True, False, True]


def test_a_submitted_job_is_found_by_its_comment(world: SlurmWorld, client: Client) -> None:
    plan = client.plan(world.spec())
    job = client.submit(plan)
    step = plan.steps[-1]
    found = world.backend().find(step, Intent(begun_at=job.snapshot().created_at))  # type: ignore[arg-type]
    assert isinstance(found, Done)
    assert found.outputs["job"] == batch_job(world, job)


@pytest.mark.parametrize(
    ("partition", "words"), [("gpuu", "main, urgent"), ("closed", "is down"), ("short", "at most")]
)
def test_a_partition_that_cannot_run_the_job_is_refused(
    world: SlurmWorld, client: Client, partition: str, words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        client.plan(world.spec(overrides={"slurm": {"partition": partition, "time": "2h"}}))


def test_more_processes_than_gpus_are_refused(world: SlurmWorld, client: Client) -> None:
    with pytest.raises(SpecError, match="2 processes require as many GPUs, and the job asks for 1"):
        client.plan(world.spec(distributed={"processes": 2}, overrides={"slurm": {"gpus": 1}}))


def test_a_controller_that_is_down_can_be_asked_again(
    world: SlurmWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = world.cluster.conf.read_text().splitlines()
    dead = ["SlurmctldPort=1" if line.startswith("SlurmctldPort") else line for line in lines]
    (tmp_path / "dead.conf").write_text("\n".join([*dead, "MessageTimeout=2"]))
    backend = world.backend()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "dead.conf"))
    with pytest.raises(Unavailable, match="does not respond"):
        backend.resolve(world.spec())


def test_a_machine_without_slurm_says_so(
    world: SlurmWorld, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("sh", "bash"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path / "bin"))
    with pytest.raises(BackendNotInstalled, match="no sinfo on this machine"):
        client.plan(world.spec())
