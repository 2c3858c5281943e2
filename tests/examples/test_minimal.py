"""The program in README, run as a reader would run it, on a tiny model and without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = REPOSITORY / "examples" / "minimal.py"


def _spec(folder: Path) -> Path:
    model = {"model": {"hidden_size": 64}, "tokenizer": {"vocab_size": 400}}
    (folder / "tiny.json").write_text(json.dumps(model), encoding="utf-8")
    rows = [{"prompt": f"How much is {n} and {n}?", "completion": f"It is {2 * n}."} for n in range(2, 6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = {
        "name": "sums",
        "model": "./tiny.json",
        "data": {"train": "rows.jsonl"},
        "adapter": "full",
        "hyperparameters": {"max_steps": 60, "learning_rate": 1e-2, "batch_size": 4},
        "seed": 1,
    }
    (folder / "job.json").write_text(json.dumps(spec), encoding="utf-8")
    return folder / "job.json"


@pytest.mark.starts_trainer
def test_it_trains_and_answers(tmp_path: Path) -> None:
    environment = {**os.environ, "CLOUDTUNE_HOME": str(tmp_path / "home"), "PYTHON_WARM_ALL": "1"}
    done = subprocess.run(
        [sys.executable, PROGRAM, _spec(tmp_path), "How much is 3 and 3?", "How much is 4 and 4?"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    first, *lines = done.stdout.splitlines()
    assert first.startswith(f"local:{tmp_path}")
    losses = [float(found) for found in re.findall(r"^train +step \d+ +loss ([\d.]+)$", done.stdout, re.MULTILINE)]
    assert len(losses) == 6
    assert losses[-1] < losses[0] / 2
    assert lines[-2:] == ["It is 6.", "It is 8."]


def test_readme_shows_this_very_program() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    _, _, program = PROGRAM.read_text(encoding="utf-8").partition('"""\n\n')
    assert f"```python\n{program}```" in readme
