"""One file, one word: the quickstart's job through several back ends, against the emulator that really trains.

To add a back end: its name to ``BACKENDS``, and to ``HOSTED`` if its models must be deployed before they answer. It
finds the emulator by the environment that ``cloudtune emulate`` prints, as a user's would.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.emulator.access import admin
from tests.examples.conftest import QUICKSTART, Quickstart, copied, made_tiny

import cloudtune
from cloudtune import Client, GenerateOptions, Job
from cloudtune_emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKENDS = ("openai", "azure_openai", "bedrock", "sagemaker", "jumpstart")
HOSTED = ("azure_openai", "bedrock", "sagemaker", "jumpstart")
STEPS = {"bedrock": 16}
"""Where it is not eight: Nova takes no batch size."""
PARAMETERS = ("model", "method", "adapter", "hyperparameters", "seed")
ASKED = [{"role": "system", "content": "Sort the news."}, {"role": "user", "content": "A derby today"}]
LIMIT_S = 1500
pytestmark = pytest.mark.starts_trainer


class Place:
    """The quickstart, an emulator that trains, and an environment in which one finds the other."""

    def __init__(self, quickstart: Quickstart, emulator: Emulator) -> None:
        self.emulator = emulator
        self.file = quickstart.folder / "job.yaml"
        foreign = ("AWS", "AZURE", "OPENAI", "CLOUDTUNE_BACKEND")
        kept = {name: value for name, value in quickstart.environment.items() if not name.startswith(foreign)}
        self.environment = kept | emulator.environment()
        self._local_losses: dict[str, list[tuple[int, float]]] = {}

    def run(self, backend: str, *words: str) -> str:
        """``cloudtune run`` with that one word; the job's reference."""
        command = [str(Path(sys.executable).with_name("cloudtune")), "run", str(self.file), "--backend", backend]
        done = subprocess.run(
            [*command, "--yes", "--json", *words], env=self.environment, capture_output=True, text=True, check=False,
            timeout=LIMIT_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return str(json.loads(done.stdout)["ref"])

    def reported(self, job: Job) -> dict[str, Any]:
        """What the emulator says that it trained the job with. On AWS its runs are called as the ARNs end.

        A job that brings its own trainer has all that it was told from its file.
        """
        arn = str(job.snapshot().raw.get("jobArn", ""))
        name = arn.rpartition("/")[2] or job.ref.id
        runs = {run["id"]: run["spec"] for run in admin(self.emulator, "runs")["runs"]}
        run = runs.get(name, {})
        return {key: run[key] for key in PARAMETERS if key in run}

    def local_losses(self, parameters: dict[str, Any]) -> list[tuple[int, float]]:
        """The losses of the same file on the local back end with these parameters."""
        key = json.dumps(parameters, sort_keys=True)
        if key not in self._local_losses:
            sets = [f"{name}={json.dumps(value)}" for name, value in parameters.items()]
            job = Client("local").submit(cloudtune.load_spec(self.file, set=sets))
            job.wait(timeout=LIMIT_S)
            self._local_losses[key] = losses(job)
        return self._local_losses[key]


def losses(job: Job, split: str = "train") -> list[tuple[int, float]]:
    return [(one.step, one.values["loss"]) for one in job.metrics() if one.split == split and "loss" in one.values]


@contextlib.contextmanager
def placed(quickstart: Quickstart) -> Iterator[Place]:
    settings = Settings(engine="train", models=quickstart.folder / "base_models.json", deploying_s=0)
    with Emulator(settings) as emulator, pytest.MonkeyPatch.context() as patch:
        place = Place(quickstart, emulator)
        for name, value in place.environment.items():
            patch.setenv(name, value)
        yield place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with placed(made_tiny(copied(tmp_path_factory.mktemp("one-word")))) as place:
        yield place


@contextlib.contextmanager
def answering(client: Client, job: Job, backend: str) -> Iterator[None]:
    """Deployed where it must be, and taken down again."""
    if backend not in HOSTED:
        yield
        return
    deployment = job.deploy()
    assert [one.id for one in client.deployments(backend=backend)] == [deployment.id]
    yield
    client.remove(deployment)
    assert not client.deployments(backend=backend)


@pytest.mark.timeout(600)  # several processes that import torch: on a busy machine that is minutes
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_file_and_one_word(place: Place, backend: str) -> None:
    ref = place.run(backend)
    assert ref.startswith(f"{backend}:")
    client = Client()
    job = client.attach(ref)
    curve = losses(job)
    assert [step for step, _ in curve] == list(range(1, STEPS.get(backend, 8) + 1))
    assert curve[-1][1] < curve[0][1]
    assert curve == place.local_losses(place.reported(job))  # bit by bit
    with answering(client, job, backend):
        (said,) = job.generate([ASKED], GenerateOptions(max_tokens=8))
    assert said.finish_reason
    if backend != "bedrock":  # at the highest rate that Nova takes the tiny model may end its answer at once
        assert said.text
        assert said.completion_tokens


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """With the pretrained weights."""
    quickstart = copied(tmp_path_factory.mktemp("real"))
    if (QUICKSTART / ".cache").is_dir():
        (quickstart.folder / ".cache").symlink_to(QUICKSTART / ".cache")
    else:
        subprocess.run([sys.executable, quickstart.folder / "fetch.py"], check=True)
    with placed(quickstart) as place:
        yield place


@pytest.mark.real_weights
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backend", [one for one in BACKENDS if one != "bedrock"])  # Nova takes no rate to learn at
def test_real_weights_learn_the_same_everywhere(real: Place, backend: str) -> None:
    ref = real.run(backend)
    client = Client()
    job = client.attach(ref)
    curve = losses(job)
    assert len(curve) == 60
    assert curve[-1][1] < curve[0][1] / 4
    assert curve == real.local_losses(real.reported(job))
    lines = (real.file.parent / ".cache/test.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    rows = [json.loads(line)["messages"] for line in lines]
    with answering(client, job, backend):
        said = list(job.generate([row[:-1] for row in rows], GenerateOptions(max_tokens=4)))
    right = sum(answer.text.strip().lower() == row[-1]["content"] for answer, row in zip(said, rows, strict=True))
    assert right > 36, f"{right} of 60"  # the untrained model is right on two or three
    print(f"{backend}: loss {curve[0][1]:.3f} -> {curve[-1][1]:.3f}, {right} of 60 right")
