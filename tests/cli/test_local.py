"""The line that people remember, with the back end that really trains: a tiny model, from spec to answer."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from tests.cli.conftest import Desk

pytestmark = pytest.mark.timeout(300)
SPEC = """\
model: ./tiny
data: {train: rows.jsonl, validation: 0.2}
hyperparameters: {epochs: 2, batch_size: 4, learning_rate: 1e-2}
seed: 1
"""
WARM = {"PYTHON_WARM_ALL": "1"}
"""For commands that import torch themselves: see tests/warm."""


@pytest.fixture
def trained(desk: Desk) -> Desk:
    (desk.folder / "cloudtune.toml").unlink()
    texts = [line for line in Path("rows.jsonl").read_text().splitlines() if line]
    write_tiny_model(desk.folder / "tiny", vocab_texts=texts)
    Path("job.yaml").write_text(SPEC)
    return desk


def test_run_trains_answers_and_exports(trained: Desk) -> None:
    done = trained.spawn("run", "job.yaml", "--backend", "local", "--yes", "--json")
    assert done.code == 0, done.err
    job = done.json
    assert (job["state"], job["backend"]) == ("succeeded", "local")
    assert "step 8/8" in done.err
    assert trained.home in Path(job["result"]["uri"]).parents
    losses = [
        metric["values"]["loss"]
        for metric in trained.run("metrics", job["id"], "--split", "validation", "--json").json["metrics"]
    ]
    assert losses[-1] < losses[0]
    answer = trained.spawn("generate", job["id"], "What is 3?", "--base", "--max-tokens", "8", "--json", **WARM)
    assert answer.code == 0, answer.err
    assert answer.json["text"] == answer.json["answers"][0]["text"]
    exported = trained.spawn("export", job["id"], "out", **WARM)
    assert exported.code == 0, exported.err
    assert all(Path(name).is_file() for name in exported.out.split())
    assert any(name.endswith(".safetensors") for name in exported.out.split())
    assert trained.spawn("export", job["id"], "out").code == 2


def test_ctrl_c_and_cancel_of_a_job_that_really_runs(trained: Desk) -> None:
    words = ("run", "job.yaml", "--backend", "local", "--yes", "--set", "hyperparameters.epochs=5000")
    run = subprocess.Popen(
        trained.command(*words), cwd=trained.folder, env=trained.environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("step "):
            break
    run.send_signal(signal.SIGINT)
    out, err = run.communicate()
    ref = out.strip()
    assert run.returncode == 5
    assert f"cloudtune watch {ref}" in err
    shown = trained.run("show", ref, "--json")
    assert shown.code == 0, shown.out
    assert shown.json["state"] == "running"
    assert trained.run("cancel", ref).code == 0
    ended = trained.run("watch", ref, "--timeout", "60s")
    assert ended.code == 4, ended.err
    kept = trained.run("checkpoints", ref, "--json").json["checkpoints"]
    assert any(one["resumable"] for one in kept)
    (job,) = trained.run("jobs", "--json").json["jobs"]
    assert (job["ref"], job["state"]) == (ref, "cancelled")


def test_a_model_that_is_not_there_is_told_before_anything_is_made(trained: Desk) -> None:
    done = trained.spawn("plan", "job.yaml", "--backend", "local", "--set", "model=./nothing", "--json")
    assert done.code == 2
    assert "nothing" in json.dumps(done.json["error"])
    assert [path.name for path in trained.home.iterdir()] == ["verdicts"]  # the rows need not be looked at again
