"""Curves of serverless jobs: written to MLflow by AWS's trainers, read by its REST API with a signature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_sagemaker import RUNS_S
from tests.contract.sagemaker_world import ServerlessWorld

from cloudtune.client import Client
from cloudtune.errors import JobNotFound, PermissionDenied, UnsupportedError
from cloudtune.state import JobState
from cloudtune_emulator.faults import Fault
from cloudtune_providers.sagemaker.mlflow import side_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.job import Job

APP = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-X"
SERVER = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/ours"


@pytest.fixture(params=[APP, SERVER], ids=["app", "server"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerlessWorld]:
    world = ServerlessWorld(tmp_path, mlflow=request.param)
    yield world
    world.close()


def client_of(world: ServerlessWorld) -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


def started(world: ServerlessWorld) -> Job:
    spec = world.spec(hyperparameters={"epochs": 3, "batch_size": 8}, data={
        "train": world.rows("train", _talk(24)), "validation": world.rows("held-out", _talk(4)),
    })  # fmt: skip
    return client_of(world).submit(spec)


def _talk(count: int) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
        for n in range(count)
    ]


def asked_of(world: ServerlessWorld) -> list[dict[str, Any]]:
    return [one for one in world.emulator.requests if one["call"].startswith("sagemaker.Mlflow")]


def test_curves_are_read_as_they_grow(world: ServerlessWorld) -> None:
    job = started(world)
    config = world.job(job.ref)["request"]["MlflowConfig"]
    assert (config["MlflowExperimentName"], config["MlflowRunName"]) == ("cloudtune", job.ref.id)
    assert list(job.metrics()) == []
    assert not asked_of(world), "there is no run before the job trains"
    world.training(job.ref)
    world.emulator.clock.advance(RUNS_S / 2)
    half = list(job.metrics())
    assert half
    world.reach(job.ref, JobState.SUCCEEDED)
    rest = list(job.metrics(after=half[-1].cursor))
    whole = list(job.metrics())
    assert rest
    assert [*half, *rest] == whole
    train = [one for one in whole if one.split == "train"]
    assert [one.step for one in train] == list(range(1, 10)), "24 rows in batches of 8, three times"
    assert set(train[0].values) == {"loss", "grad_norm", "learning_rate"}
    assert train[-1].values["loss"] < train[0].values["loss"]
    (held_out,) = [one for one in whole if one.split == "validation"]
    assert set(held_out.values) == {"loss"}
    assert job.snapshot().progress.tokens, "what will be billed is told"


def test_it_is_looked_at_before_a_job(world: ServerlessWorld) -> None:
    backend: Any = world.backend()
    found = {check.what: check for check in backend.preflight()}
    assert found["MLflow"].verdict == "good"


def test_long_curves_come_in_pages(world: ServerlessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    job = started(world)
    world.reach(job.ref, JobState.SUCCEEDED)
    whole = list(job.metrics())
    monkeypatch.setattr("cloudtune_providers.sagemaker.mlflow._PAGE", 2)
    before = len(asked_of(world))
    assert list(job.metrics()) == whole
    pages = [one for one in asked_of(world)[before:] if one["call"] == "sagemaker.MlflowGetMetricHistory"]
    assert len(pages) == 3 * 5 + 1  # nine values of three figures, one of the last


@pytest.mark.parametrize(
    ("fault", "error"),
    [("forbidden", PermissionDenied), ("throttle", None), ("server_error", None)],
)
def test_what_mlflow_refuses_is_told_or_tried_again(world: ServerlessWorld, fault: Any, error: type | None) -> None:
    job = started(world)
    world.reach(job.ref, JobState.SUCCEEDED)
    whole = list(job.metrics())
    world.emulator.faults.add(Fault(kind=fault, call="sagemaker.MlflowGetRun", times=1))
    if error is None:
        assert list(job.metrics()) == whole
        return
    with pytest.raises(error, match="MLflow"):
        list(job.metrics())


def test_another_resource_has_no_such_run(world: ServerlessWorld) -> None:
    job = started(world)
    world.reach(job.ref, JobState.SUCCEEDED)
    held = world.job(job.ref)
    other = held | {"arn": held["arn"] + "-other"}  # its run has another id
    from cloudtune_emulator.sagemaker import jobs

    backend: Any = world.backend()
    config = held["request"]["MlflowConfig"]
    reported = {"MlflowConfig": config, "MlflowDetails": {"MlflowRunId": jobs.run_id(other)}}
    with pytest.raises(JobNotFound, match="not found"):
        backend._curves.metrics(reported, None)


def test_without_mlflow_there_are_no_curves_and_it_is_said(tmp_path: Path) -> None:
    world = ServerlessWorld(tmp_path)
    try:
        client = client_of(world)
        plan = client.plan(world.spec())
        assert "MlflowConfig" not in plan.steps[-1].request["body"]
        assert any("metrics will not be recorded" in reported.message for reported in plan.warnings)
        job = client.submit(plan)
        with pytest.raises(UnsupportedError, match=r"backends\.sagemaker\.mlflow"):
            list(job.metrics())
    finally:
        world.close()


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("total_loss", ("train", "loss")), ("eval_loss", ("validation", "loss")),
        ("val/total_loss", ("validation", "loss")),
        ("train/grad_norm", ("train", "grad_norm")), ("reward.mean", ("train", "reward.mean")),
        ("test_accuracy", ("test", "accuracy")), ("value", ("train", "value")),
    ],
)  # fmt: skip
def test_the_side_is_in_the_name(name: str, side: tuple[str, str]) -> None:
    assert side_of(name) == side
