"""The example of a layer schedule trains through the command line, in the stages that its job describes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "layers"


@pytest.mark.starts_trainer
@pytest.mark.timeout(400)
def test_the_job_trains_in_stages(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "cloudtune", *words]
        environment = {**os.environ, "CLOUDTUNE_HOME": str(tmp_path), "PYTHON_WARM_ALL": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    job = run("run", str(EXAMPLE / "job.yaml"), "--backend", "local", "--yes").strip().splitlines()[-1]
    events = json.loads(run("logs", job, "--json"))["events"]
    stages = [one["message"].partition(":")[0] for one in events if one["message"].startswith("stage ")]
    assert stages == ["stage 1 of 3", "stage 2 of 3", "stage 3 of 3"]
    measured = json.loads(run("metrics", job, "--json"))["metrics"]
    (test,) = [one["values"] for one in measured if one["split"] == "test"]
    assert test["macro_f1"] > 0.9
