"""The example of a reward function: its reward, and its job through the command line."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "grpo"


def test_the_reward_is_highest_for_the_right_number() -> None:
    reward = runpy.run_path(str(EXAMPLE / "rewards.py"))["right_number"]
    texts = ["7", " 7 ", "77", "a7", "seven", ""]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    found = reward(prompts=[[]] * 6, completions=completions, reference_answer=["7"] * 6, other=[None] * 6)
    assert found == [1.0, 1.0, 0.5, 0.25, 0.0, 0.0]


@pytest.mark.starts_trainer
@pytest.mark.timeout(400)
def test_the_job_raises_the_validation_reward(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "cloudtune", *words]
        environment = {**os.environ, "CLOUDTUNE_HOME": str(tmp_path), "PYTHON_WARM_ALL": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    words = ("run", str(EXAMPLE / "job.yaml"), "--backend", "local", "--yes", "--trust-reward")
    job = run(*words).strip().splitlines()[-1]
    measured = json.loads(run("metrics", job, "--json"))["metrics"]
    first = next(one["values"]["reward"] for one in measured if one["split"] == "train")
    last = [one["values"]["reward"] for one in measured if one["split"] == "validation"][-1]
    assert first < 0.1
    assert last > 0.4
    assert set(run("generate", job, "Add them.", "--max-tokens", "6").strip()) <= set("0123456789")
