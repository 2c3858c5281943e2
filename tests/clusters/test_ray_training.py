"""The Ray back end on a real cluster with two nodes: the same training, restarts, and settings that do not work."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from cloudtune import Client
from cloudtune.errors import BackendError, ConfigError, JobFailed, Unavailable, UnsupportedError
from cloudtune.spec import JobSpec
from cloudtune.state import JobState
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options as LocalOptions
from cloudtune_providers.ray.backend import RayBackend
from cloudtune_providers.ray.options import Options
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from tests.clusters.ray import RayCluster

    from cloudtune.job import Job

pytestmark = [pytest.mark.timeout(900), pytest.mark.starts_trainer]
PATIENCE = 400


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_tiny_model(folder / "model")
    rows = [{"prompt": f"What is {n} plus {n}?", "completion": f"{2 * n}"} for n in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def spec(base: Path, **changes: Any) -> JobSpec:
    own = {"device": "cpu", "threads": 1}
    hyper = {"max_steps": 6, "batch_size": 4, "precision": "fp32", "adam_epsilon": 1e-4}
    document = {
        "name": "tiny", "model": str(base / "model"), "data": {"train": str(base / "rows.jsonl")},
        "hyperparameters": hyper | changes.pop("hyperparameters", {}), "checkpoints": {"every": 2},
        "overrides": {"local": own, "ray": own | changes.pop("ray", {})},
    }  # fmt: skip
    return JobSpec.model_validate(document | changes)


def on_ray(cluster: RayCluster, tmp_path: Path) -> Client:
    options = Options(address=cluster.address, shared_folder=str(tmp_path / "shared"))
    return Client(RayBackend(options), ledger=f"sqlite:///{tmp_path}/ray.db")


def losses(job: Job) -> dict[int, float]:
    return {metric.step: metric.values["loss"] for metric in job.metrics()}


def weights(job: Job) -> dict[str, torch.Tensor]:
    uri = job.result().uri
    assert uri is not None
    return load_file(Path(uri) / "adapter_model.safetensors")


def assert_same(one: Job, other: Job) -> None:
    assert losses(one) == pytest.approx(losses(other), rel=0, abs=1e-6)
    for name, weight in weights(one).items():
        torch.testing.assert_close(weights(other)[name], weight, rtol=1e-4, atol=1e-7)


def test_a_group_over_two_nodes_equals_the_local_run(ray_cluster: RayCluster, base: Path, tmp_path: Path) -> None:
    local = Client(LocalBackend(LocalOptions(root=tmp_path / "runs")), ledger=f"sqlite:///{tmp_path}/local.db")
    here = local.submit(spec(base))
    client = on_ray(ray_cluster, tmp_path)
    there = client.submit(spec(base, distributed={"processes": 2, "nodes": 2}))
    assert client.submit(spec(base, distributed={"processes": 2, "nodes": 2})).ref == there.ref
    there.wait(timeout=PATIENCE)
    here.wait(timeout=PATIENCE)
    assert_same(here, there)
    assert len(list(Path(there.ref.scope, there.ref.id).glob("log*.txt"))) == 2
    (answer,) = there.generate(["What is 1 plus 1?"])
    assert answer.finish_reason
    again = on_ray(ray_cluster, tmp_path / "elsewhere").attach(str(there.ref))
    assert again.snapshot().state == "succeeded"


@pytest.mark.soak
def test_a_killed_process_is_started_again(ray_cluster: RayCluster, base: Path, tmp_path: Path) -> None:
    client = on_ray(ray_cluster, tmp_path)
    hyper = {"max_steps": 300}
    long = spec(base, distributed={"processes": 2}, hyperparameters=hyper, checkpoints={"every": 20})
    job = client.submit(long)
    folder = Path(job.ref.scope, job.ref.id)
    _wait_for((folder / "checkpoints" / "step-00000040").exists)
    mine = [one for one in psutil.process_iter() if str(folder) in _words(one) and one.environ().get("RANK") == "1"]
    mine[0].kill()
    job.wait(timeout=PATIENCE)
    said = [event.message for event in job.events()]
    assert any("restart 1 of 3" in message for message in said)
    unbroken = on_ray(ray_cluster, tmp_path / "other").submit(long.model_copy(update={"name": "unbroken"}))
    unbroken.wait(timeout=PATIENCE)
    assert_same(unbroken, job)


def test_settings_that_do_not_work_are_told_with_what_to_do(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = RayBackend(Options(address="http://127.0.0.1:9", shared_folder=str(tmp_path / "shared")))
    (check,) = nowhere.preflight()
    assert check.verdict == "denied"
    assert "no Ray cluster answers at http://127.0.0.1:9" in check.detail
    with pytest.raises(Unavailable, match="no Ray cluster answers"):
        Client(nowhere, ledger=f"sqlite:///{tmp_path}/l.db").submit(spec(base))
    with pytest.raises(UnsupportedError) as refused:
        Client(RayBackend(Options()), ledger=f"sqlite:///{tmp_path}/l.db").plan(spec(base))
    fields = {problem.field for problem in refused.value.problems}
    assert fields == {"backends.ray.address", "backends.ray.shared_folder"}
    with pytest.raises(ValueError, match=r"shared_folder"):
        Options(shared_folder="s3://bucket/runs")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:10")
    with pytest.raises((ConfigError, BackendError), match="RAY_ADDRESS would replace"):
        nowhere._cluster.version()


def test_a_job_stopped_in_ray_is_cancelled_and_not_failed(ray_cluster: RayCluster, base: Path, tmp_path: Path) -> None:
    from ray.job_submission import JobSubmissionClient

    job = on_ray(ray_cluster, tmp_path).submit(spec(base, ray={"cpus": 99.0}))
    _wait_for(lambda: "waiting for the cluster" in job.snapshot().detail)
    time.sleep(1)  # the driver has written that before its first look at the reservation
    JobSubmissionClient(ray_cluster.address).stop_job(job.ref.id)
    _wait_for(lambda: job.state.is_terminal)
    assert job.state is JobState.CANCELLED
    assert job.snapshot().detail == "stopped in Ray"


@pytest.mark.soak
def test_a_node_that_does_not_see_the_folder_is_told_before_training(
    ray_cluster: RayCluster, base: Path, tmp_path: Path
) -> None:
    client = on_ray(ray_cluster, tmp_path)
    job = client.submit(spec(base, distributed={"processes": 2}, ray={"cpus": 2.0}))
    folder = Path(job.ref.scope, job.ref.id)
    (folder / "spec.json").rename(folder / "hidden.json")
    with pytest.raises(JobFailed, match="does not see"):
        job.wait(timeout=PATIENCE)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
