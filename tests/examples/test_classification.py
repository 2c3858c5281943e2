"""The classification example: its job through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "classification"


@pytest.mark.starts_trainer
@pytest.mark.timeout(400)
def test_the_job_learns_the_teams_and_answers(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "cloudtune", *words]
        environment = {**os.environ, "CLOUDTUNE_HOME": str(tmp_path), "PYTHON_WARM_ALL": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    job = run("run", str(EXAMPLE / "job.yaml"), "--backend", "local", "--yes").strip().splitlines()[-1]
    measured = json.loads(run("metrics", job, "--json"))["metrics"]
    (test,) = [one["values"] for one in measured if one["split"] == "test"]
    assert test["macro_f1"] > 0.9
    assert "delivery  (delivery " in run("generate", job, "order 77 is not here yet")
