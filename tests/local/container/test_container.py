"""The bundle in a container's tree: alone in a clean environment, stopped and gone on with, on two instances."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.warm_python import write_warm_python

from cloudtune_trainer.folder import read_json
from cloudtune_trainer.submit.bundle import ENTRY, NAME, bundle, pack
from cloudtune_trainer.submit.container import ContainerJob, Containers
from cloudtune_trainer.tiny import write_tiny_model

pytestmark = [pytest.mark.timeout(300), pytest.mark.starts_trainer]  # programs start slowly on a busy machine
LIMIT_S = 200
FEW = 10
ENDLESS = 1_000_000
ENTRYPOINT = (
    "/bin/bash", "-c",
    (f"mkdir -p /opt/ml/code && tar -xzf /opt/ml/input/data/code/{NAME} -C /opt/ml/code && "
     f"exec python3 -I /opt/ml/code/{ENTRY}"),
)  # fmt: skip


def rows() -> list[dict[str, Any]]:
    talk = [(f"What is {n} plus 1?", f"{n} plus 1 is {n + 1}.") for n in range(24)]
    return [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in talk]


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has the third parties' packages and nothing of this repository."""
    place = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = str(place / "bin" / "python")
    for name in ("cloudtune", "cloudtune_local", "cloudtune_providers"):
        assert subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False).returncode == 1
    return python


@pytest.fixture(scope="module")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_warm_python(tmp_path_factory.mktemp("warm")))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / NAME).write_bytes(bundle().content)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    write_tiny_model(folder / "model", vocab_texts=[json.dumps(row) for row in rows()])
    return folder


def job(inputs: Path, python: str, steps: int = FEW, **changes: Any) -> ContainerJob:
    spec = {
        "version": 2, "model.source": "folder", "model.path": "model", "data.train": "train/train.jsonl", "seed": 5,
        "data.test": "train/train.jsonl", "device": "cpu", "threads": 1, "checkpoints.every": 20, "checkpoints.keep": 9,
        "hyperparameters.batch_size": 2, "hyperparameters.max_length": 64, "hyperparameters.packing": False,
        "hyperparameters.max_steps": steps, "hyperparameters.epochs": 9.0, "hyperparameters.learning_rate": 1e-3,
        "hyperparameters.precision": "fp32", "hyperparameters.scheduler": "constant", "adapter.rank": 4,
    }  # fmt: skip
    given: dict[str, Any] = {
        "name": "small",
        "hyperparameters": {name: json.dumps(value) for name, value in spec.items()},
        "channels": {"code": str(inputs / NAME), "train": str(inputs / "train.jsonl"), "model": str(inputs / "model")},
        "entrypoint": ENTRYPOINT,
        "environment": {"CLOUDTUNE_MODEL": "the-base"},
        "python": python,
    }
    return ContainerJob(**given | changes)


def run(containers: Containers) -> int:
    containers.start()
    return finish(containers)


def finish(containers: Containers) -> int:
    deadline = time.monotonic() + LIMIT_S
    try:
        while (code := containers.poll()) is None:
            assert time.monotonic() < deadline, containers.log().read_text()
            time.sleep(0.05)
    finally:
        containers.kill()
    return code


def figures(*logs: Path) -> list[tuple[int, float]]:
    """Step and loss of each step, as the log tells."""
    found: dict[int, float] = {}
    for log in logs:
        for line in log.read_text().splitlines():
            if line.startswith("[cloudtune] metrics "):
                document = json.loads(line.removeprefix("[cloudtune] metrics "))
                if "train:loss" in document:
                    found[document["step"]] = document["train:loss"]
    return sorted(found.items())


def weights(containers: Containers) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(containers.tree().model / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def stopped(inputs: Path, warm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Containers:
    """SIGTERM after a few steps of a run that would go on for days."""
    containers = Containers(job(inputs, warm_python, ENDLESS), tmp_path_factory.mktemp("stopped"))
    containers.prepare()
    containers.start()
    deadline = time.monotonic() + LIMIT_S
    while len(figures(containers.log())) < FEW and containers.poll() is None:
        assert time.monotonic() < deadline, containers.log().read_text()
        time.sleep(0.01)
    containers.stop()
    assert finish(containers) == 143, containers.log().read_text()
    return containers


@pytest.fixture(scope="module")
def steps(stopped: Containers) -> int:
    """Some more than the stopped run has made."""
    return figures(stopped.log())[-1][0] + FEW


@pytest.fixture(scope="module")
def unbroken(inputs: Path, clean_python: str, steps: int, tmp_path_factory: pytest.TempPathFactory) -> Containers:
    containers = Containers(job(inputs, clean_python, steps), tmp_path_factory.mktemp("unbroken"))
    containers.prepare()
    assert run(containers) == 0, containers.log().read_text()
    return containers


def test_the_bundle_trains_alone(unbroken: Containers, steps: int, tmp_path: Path) -> None:
    """Taken as an archive, with nothing of this repository on the path, from another folder, isolated."""
    assert [step for step, _ in figures(unbroken.log())] == list(range(1, steps + 1))
    end = {"state": "succeeded", "step": steps, "stopped_by_limit": 0}
    assert f"[cloudtune] end {json.dumps(end)}" in unbroken.log().read_text()
    assert not unbroken.failure()
    made = unbroken.pack(tmp_path)
    with tarfile.open(made["model"]) as archive:
        assert {"adapter_config.json", "adapter_model.safetensors", "tuned.json"} <= set(archive.getnames())
    with tarfile.open(made["output"]) as archive:
        assert {"status.json", "events.jsonl", "metrics.jsonl", "spec.json"} <= set(archive.getnames())
    assert read_json(unbroken.tree().model / "tuned.json")["base"]["path"] == "the-base"


def test_what_is_stopped_goes_on_from_its_checkpoint(
    inputs: Path, warm_python: str, stopped: Containers, steps: int, unbroken: Containers, tmp_path: Path
) -> None:
    """The next container finds the checkpoints: the same figures, the same weights to the bit."""
    assert not stopped.failure()
    assert not list(stopped.tree().model.iterdir())

    again = Containers(job(inputs, warm_python, steps), tmp_path / "again")
    again.prepare()
    again.tree().checkpoints.rmdir()
    stopped.tree().checkpoints.rename(again.tree().checkpoints)
    assert run(again) == 0, again.log().read_text()
    begun = figures(again.log())[0][0]
    assert FEW < begun < steps
    assert figures(stopped.log(), again.log()) == figures(unbroken.log())
    assert weights(again).keys() == weights(unbroken).keys()
    assert all(torch.equal(weight, weights(unbroken)[name]) for name, weight in weights(again).items())


def test_two_instances_are_as_one_with_the_whole_batch(
    inputs: Path, warm_python: str, unbroken: Containers, tmp_path: Path
) -> None:
    """Two processes with a sequence each take the same steps as one with both; only the first keeps anything."""
    few = 6
    two = Containers(job(inputs, warm_python, few, instances=2), tmp_path)
    two.prepare()
    assert run(two) == 0, two.log().read_text()
    assert not list(two.tree("algo-2").checkpoints.iterdir())
    found, expected = figures(two.log()), figures(unbroken.log())[:few]
    assert [step for step, _ in found] == [step for step, _ in expected]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], rel=1e-4)
    lines = [json.loads(line) for line in (two.tree().output / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "test"] == [few]
    assert (two.tree().model / "adapter_model.safetensors").is_file()
    assert not list(two.tree("algo-2").model.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"version": "1", "seed": "{"}, "bad_spec: the hyperparameter seed is not valid JSON"),
        ({"version": "9"}, "bad_spec: spec.json has version 9"),
    ],
)
def test_bad_hyperparameters_are_told(
    inputs: Path, clean_python: str, tmp_path: Path, given: dict[str, str], said: str
) -> None:
    containers = Containers(job(inputs, clean_python, hyperparameters=given), tmp_path / "run")
    containers.prepare()
    assert run(containers) == 1
    assert containers.failure().startswith(said)


def test_requirements_that_cannot_be_had_are_told(inputs: Path, tmp_path: Path) -> None:
    from cloudtune_trainer.submit.bundle import files

    (tmp_path / NAME).write_bytes(pack(files() | {"requirements.txt": b"surely-not-there==1.0\n"}))
    channels = {"code": str(tmp_path / NAME), "train": str(inputs / "train.jsonl"), "model": str(inputs / "model")}
    offline = {"PIP_NO_INDEX": "1"}
    containers = Containers(job(inputs, sys.executable, channels=channels, environment=offline), tmp_path / "run")
    containers.prepare()
    assert run(containers) == 1
    assert "not_installed: pip could not install surely-not-there==1.0" in containers.failure()
    assert "requirements: image" in containers.failure()


def test_script_mode(tmp_path: Path) -> None:
    """A program of somebody else's, as AWS's own images start it."""
    program = (
        "import json, os, sys\n"
        "told = {n: os.environ[n] for n in ('SM_CHANNEL_TRAIN', 'SM_MODEL_DIR', 'SM_HPS', 'SM_HOSTS', 'SM_HP_RATE')}\n"
        "open(os.path.join(os.environ['SM_MODEL_DIR'], 'told.json'), 'w').write(json.dumps([sys.argv[1:], told]))\n"
    )
    (tmp_path / NAME).write_bytes(pack({"mine.py": program.encode()}))
    (tmp_path / "rows.txt").write_text("a row")
    given = {"sagemaker_program": '"mine.py"', "sagemaker_submit_directory": '"s3://b/k"', "rate": "0.5"}
    containers = Containers(
        ContainerJob(name="j", hyperparameters=given, channels={"train": str(tmp_path / "rows.txt")},
                     source=str(tmp_path / NAME)), tmp_path / "run",
    )  # fmt: skip
    containers.prepare()
    assert run(containers) == 0, containers.log().read_text()
    words, reported = read_json(containers.tree().model / "told.json")
    assert words == ["--rate", "0.5"]
    assert Path(reported["SM_CHANNEL_TRAIN"], "rows.txt").read_text() == "a row"
    assert (json.loads(reported["SM_HPS"]), reported["SM_HP_RATE"]) == ({"rate": 0.5}, "0.5")


def test_what_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudtune_trainer.submit.container.GRACE_S", 0.2)
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    containers = Containers(ContainerJob(name="j", entrypoint=("python3", "-c", stubborn)), tmp_path)
    containers.prepare()
    containers.start()
    while "up" not in containers.log().read_text():
        time.sleep(0.01)
    containers.stop()
    assert finish(containers) == -9
