"""A real training on a real Slurm cluster that is interrupted: it continues, and ends at the same weights."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.examples.conftest import copied, made_tiny

import cloudtune
from cloudtune import Client
from cloudtune.state import JobState
from cloudtune_providers.slurm.backend import SlurmBackend
from cloudtune_providers.slurm.options import Options

if TYPE_CHECKING:
    from tests.clusters.slurm import SlurmCluster

    from cloudtune import Job

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
SETS = ["hyperparameters.epochs=40", "checkpoints.every=5", "overrides.slurm.threads=1", "validation.every=never"]
LIMIT_S = 800


def submitted(folder: Path, spec: Path, *sets: str) -> Job:
    client = Client(
        SlurmBackend(Options(folder=str(folder / "shared"), python=sys.executable)), ledger=f"sqlite:///{folder}/l.db"
    )
    return client.submit(cloudtune.load_spec(spec, set=[*SETS, *sets]))


def weights(job: Job) -> bytes:
    (path,) = Path(str(job.wait(timeout=LIMIT_S).uri)).glob("adapter_model.safetensors")
    return path.read_bytes()


def number_of(cluster: SlurmCluster, job: Job) -> str:
    return cluster.command("squeue", "--noheader", "--states=all", f"--name={job.ref.id}", "--format=%i").strip()


def test_a_requeued_training_ends_at_the_same_weights(
    slurm_cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm_cluster.conf))
    spec = made_tiny(copied(tmp_path)).folder / "job.yaml"
    whole = weights(submitted(tmp_path, spec, "name=unbroken"))
    job = submitted(tmp_path, spec, "name=interrupted")
    while not job.checkpoints():
        assert not job.state.is_terminal
        time.sleep(0.1)
    number = number_of(slurm_cluster, job)
    slurm_cluster.command("scontrol", "requeue", number)
    while "PENDING" not in slurm_cluster.command("squeue", "--noheader", f"--jobs={number}", "--format=%T"):
        assert not job.state.is_terminal, job.snapshot()
        time.sleep(0.1)
    slurm_cluster.command("scontrol", "update", f"JobId={number}", "StartTime=now")
    assert weights(job) == whole
    steps = [metric.step for metric in job.metrics() if metric.split == "train"]
    assert len(steps) - len(set(steps)) <= 5, "more than one checkpoint interval was lost"
    assert any("restart 1" in event.message for event in job.events())


def test_the_time_limit_ends_a_training_with_its_model(
    slurm_cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm_cluster.conf))
    spec = made_tiny(copied(tmp_path)).folder / "job.yaml"
    job = submitted(tmp_path, spec, "name=limited", "hyperparameters.epochs=10000", "overrides.slurm.time=2m")
    deadline = time.monotonic() + LIMIT_S
    while not job.state.is_terminal:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert job.state is JobState.EXPIRED
    assert job.model().files
