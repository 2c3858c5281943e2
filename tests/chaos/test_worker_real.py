"""The real trainer under the real worker: killed at random steps, continued from its newest good checkpoint."""

import json
import os
import random
import sys
from pathlib import Path

import pytest
from tests.local.backend.submitting import kill, kill_all, run_of, wait_until

from cloudtune.client import Client
from cloudtune.spec import JobSpec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.folder import read_json, read_lines
from cloudtune_trainer.tiny import write_tiny_model
from cloudtune_trainer.worker import processes

pytestmark = pytest.mark.starts_trainer

STEPS = 60
EVERY = 7
HELD_AT = STEPS - 5
HELD_TRAINER = Path(__file__).with_name("held_trainer.py")


class HeldBackend(LocalBackend):
    """The local back end, whose trainer waits at a step until it is killed."""

    def resolve(self, spec):
        resolved = super().resolve(spec)
        program = self.root.parent / "python"
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        variables = f'PYTHONPATH="{paths}" PYTHON_WARM_ALL=1 HELD_AT={HELD_AT}'
        program.write_text(f'#!/bin/sh\n{variables} exec "{sys.executable}" "{HELD_TRAINER}" "$@"\n')
        program.chmod(0o755)
        resolved.facts["python"] = str(program)
        return resolved


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    write_tiny_model(folder / "model")
    rows = [{"prompt": f"What is {n} plus {n}?", "completion": f"{2 * n}"} for n in range(4 * STEPS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def client(tmp_path):
    backend = HeldBackend(Options(root=tmp_path / "runs", grace=10))
    yield Client(backend, ledger=f"sqlite:///{tmp_path}/ledger.db")
    kill_all(tmp_path / "runs")


def spec(base, **changes):
    document = {
        "name": "tiny", "model": str(base / "model"), "data": {"train": str(base / "rows.jsonl")}, "seed": 3,
        "adapter": {"type": "lora", "dropout": 0.1}, "hyperparameters": {"batch_size": 4, "learning_rate": 1e-3},
        "checkpoints": {"every": EVERY}, "overrides": {"local": {"device": "cpu", "threads": 1}},
    }  # fmt: skip
    return JobSpec.model_validate({**document, **changes})


def steps_made(ref):
    lines = [line for _, line in read_lines(run_of(ref).metrics) if line["split"] == "train"]
    return lines[-1]["step"] if lines else 0


def weights(model):
    return (Path(model.uri) / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def unbroken(base, tmp_path_factory):
    """The weights of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    backend = LocalBackend(Options(root=folder / "runs"))
    return weights(Client(backend, ledger=f"sqlite:///{folder}/ledger.db").submit(spec(base)).wait(timeout=280))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["worker", pytest.param("trainer", marks=pytest.mark.soak)])
def test_killed_at_a_random_step_and_continued_gives_the_same_weights(client, base, unbroken, victim):
    job = client.submit(spec(base))
    at = random.randrange(EVERY + 1, HELD_AT + 1)
    wait_until(lambda: steps_made(job.ref) >= at, 280, f"step {at}")
    worker = read_json(run_of(job.ref).worker)
    kill(worker["pid"] if victim == "worker" else worker["trainer"]["pid"])
    wait_until(lambda: not processes.is_alive(worker["trainer"]))
    snapshot = wait_until(lambda: job.snapshot() if job.state.is_terminal else None)
    assert snapshot.state.value == "failed", f"killed at {at}: {snapshot}"
    assert snapshot.problem.code == "killed"
    assert [checkpoint.step for checkpoint in job.checkpoints()] != []
    reached = steps_made(job.ref)  # it may have gone further before it was killed

    child = job.resume()
    model = child.wait(timeout=280)
    assert child.snapshot().parent == job.ref
    first = next(metric.step for metric in child.metrics() if metric.split == "train")
    assert EVERY < first <= reached + 1, f"killed at {reached}, went on at {first}"
    assert weights(model) == unbroken, f"killed at {reached}, went on at {first}"
    assert job.snapshot() == snapshot


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_checkpoint_torn_by_the_kill_is_passed_over(client, base, unbroken):
    job = client.submit(spec(base))
    wait_until(lambda: len(job.checkpoints()) >= 1 and steps_made(job.ref) > 2 * EVERY, 280)
    kill(read_json(run_of(job.ref).worker)["trainer"]["pid"])
    wait_until(lambda: job.state.is_terminal)
    good = job.checkpoints()[-1]
    later = run_of(job.ref).checkpoints / "step-00000055"
    later.mkdir()
    (later / "trainer.safetensors").write_bytes(b"half")
    child = job.resume()
    assert weights(child.wait(timeout=280)) == unbroken
    assert read_json(run_of(child.ref).spec)["resume_from"] == good.uri
