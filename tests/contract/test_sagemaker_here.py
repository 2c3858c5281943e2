"""``compute: local``: the bundle in a container's process on this machine, by the whole client, as the local run is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch
from tests.warm_python import write_warm_python

from cloudtune.client import Client
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound, UnsupportedError
from cloudtune.optional import GenerateOptions
from cloudtune.spec import JobSpec
from cloudtune.state import JobState
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_providers.sagemaker.backend import SageMakerBackend
from cloudtune_providers.sagemaker.options import SageMakerOptions
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from cloudtune.job import Job

pytestmark = [pytest.mark.timeout(300), pytest.mark.starts_trainer]  # programs start slowly on a busy machine


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("here")
    rows = [{"prompt": f"What is {n} plus 1?", "completion": f"{n} plus 1 is {n + 1}."} for n in range(20)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_tiny_model(folder / "base", vocab_texts=[json.dumps(row) for row in rows])
    return folder


def spec(place: Path, **changes: Any) -> JobSpec:
    overrides = {"device": "cpu", "threads": 1}
    document = {
        "name": "small", "model": str(place / "base"), "seed": 3,
        "adapter": {"type": "lora", "rank": 4, "dropout": 0.1},
        "data": {"train": str(place / "rows.jsonl"), "validation": 0.2},
        "hyperparameters": {"epochs": 2, "batch_size": 4, "max_length": 64, "precision": "fp32"},
        "overrides": {"sagemaker": overrides, "local": overrides},
    }  # fmt: skip
    return JobSpec.model_validate(document | changes)


def here(root: Path) -> Client:
    python = write_warm_python(root)
    backend = SageMakerBackend(SageMakerOptions(compute="local", root=root / "home", python=python))
    return Client(backend, ledger=f"sqlite:///{root}/ledger.db")


@pytest.fixture(scope="module")
def job(place: Path) -> Job:
    """One that ran to its end."""
    job = here(place).submit(spec(place))
    job.wait(timeout=250)
    return job


def test_it_is_the_local_run(place: Path, job: Job, tmp_path: Path) -> None:
    """The same spec by the local back end: the same figures, the same weights to the bit, the same answers."""
    from safetensors.torch import load_file

    local = Client(LocalBackend(Options(root=tmp_path / "runs")), ledger=f"sqlite:///{tmp_path}/ledger.db")
    other = local.submit(spec(place))
    other.wait(timeout=250)

    def figures(of: Job) -> list[Any]:
        return [(m.step, m.split, m.values["loss"]) for m in of.metrics()]

    assert figures(job) == figures(other)
    files = [made.export(tmp_path / name) for name, made in (("here", job), ("there", other))]
    names = [sorted(path.name for path in paths) for paths in files]
    assert names[0] == names[1]
    mine, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("here", "there"))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in mine.items())
    prompts, few = ["What is 3 plus 1?"], GenerateOptions(max_tokens=6)
    assert [a.text for a in job.generate(prompts, few)] == [a.text for a in other.generate(prompts, few)]


def test_what_it_tells(place: Path, job: Job) -> None:
    snapshot = job.snapshot()
    assert (snapshot.state, snapshot.native_state, snapshot.name) == (JobState.SUCCEEDED, "Completed", "small")
    assert snapshot.progress.step == snapshot.progress.total_steps == 10
    events = list(job.events())
    assert [event.message for event in events if event.data.get("status")] == [
        "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]  # fmt: skip
    assert "checkpoint at step 10" in [event.message for event in events]
    middle = events[len(events) // 2].cursor
    backend = here(place).backend("sagemaker")
    assert list(backend.events(job.ref, middle)) == events[len(events) // 2 + 1 :]
    kept = job.checkpoints()
    assert kept
    assert all(Path(checkpoint.uri.removeprefix("file://")).is_dir() for checkpoint in kept if checkpoint.uri)
    assert here(place).submit(spec(place)).ref == job.ref
    assert [one.ref for one in here(place).jobs(backend="sagemaker", remote=True)] == [job.ref]
    with pytest.raises(UnsupportedError, match="local test runs have no endpoints"):
        here(place).plan_deploy(job.result())


def test_a_stop_and_what_goes_on_from_it(place: Path, tmp_path: Path) -> None:
    long = {"epochs": 400, "batch_size": 4, "max_length": 64, "precision": "fp32"}
    client = here(tmp_path)
    job = client.submit(spec(place, hyperparameters=long, checkpoints={"every": 5}))
    with pytest.raises(InvalidRequest, match="has no model"):
        job.model()
    deadline = time.monotonic() + 200
    while not job.checkpoints():
        assert time.monotonic() < deadline, job.snapshot()
        time.sleep(0.05)
    with pytest.raises(InvalidRequest, match="cancel it first"):
        job.delete()
    job.cancel()
    while not job.state.is_terminal:
        assert time.monotonic() < deadline, job.snapshot()
        time.sleep(0.05)
    assert job.state is JobState.CANCELLED
    child = job.resume()
    assert child.snapshot().parent == job.ref
    while not (reported := [event.message for event in child.events() if "resuming from step" in event.message]):
        assert not child.state.is_terminal, child.snapshot()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = job.checkpoints()
    assert reported == [f"resuming from step {kept[-1].step}"]
    child.cancel()
    while not child.state.is_terminal:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for one in (child, job):
        one.delete()
        with pytest.raises(JobNotFound):
            one.snapshot()
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and "/models/" not in str(path)]


def test_one_whose_keeper_is_killed_has_failed(place: Path, tmp_path: Path) -> None:
    client = here(tmp_path)
    job = client.submit(spec(place, hyperparameters={"epochs": 400, "max_length": 64}))
    everybody: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline"]):
        if job.ref.id in " ".join(process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.NoSuchProcess):  # one that only started another
                everybody += [*process.children(recursive=True), process]
    assert everybody
    for process in everybody:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    psutil.wait_procs(everybody, timeout=60)
    snapshot = job.snapshot()
    assert (snapshot.state, snapshot.native_state) == (JobState.FAILED, "Failed")
    assert snapshot.problem is not None
    assert "no longer runs" in snapshot.problem.message


def test_a_failure_comes_with_the_trainer_s_own_reason(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "base", tmp_path / "base")
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"unheard-of"'))
    job = here(tmp_path).submit(spec(place, model=str(tmp_path / "base")))
    deadline = time.monotonic() + 200
    while not job.state.is_terminal:
        assert time.monotonic() < deadline, job.snapshot()
        time.sleep(0.05)
    problem = job.snapshot().problem
    assert problem is not None
    assert (problem.code, problem.hint) == ("model_not_found", "Download the model again.")
    assert "unheard-of" in problem.message


def test_another_submission_s_folder_is_not_taken(place: Path, tmp_path: Path) -> None:
    client = here(tmp_path)
    plan = client.plan(spec(place))
    folder = tmp_path / "home" / "jobs" / plan.steps[-1].request["body"]["TrainingJobName"]
    folder.mkdir(parents=True)
    (folder / "request.json").write_text("{}")
    with pytest.raises(Conflict, match="another job"):
        client.submit(plan)
