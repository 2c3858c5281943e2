"""Searches whose process is killed at random times: every trial runs once, and the result is that of a search in peace.

Real processes, the real SDKs over HTTP to the emulator, and real training.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cloudtune.client import Client
from cloudtune.config.config import load_config
from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.job_timeline import Script
from cloudtune_trainer.tiny import write_tiny_model

pytest.importorskip("optuna")
TRIALS, KILLS = 20, 20
BUDGET_USD = 50.0
EPOCHS: dict[str, Any] = {"hyperparameters.epochs": {"low": 1, "high": 5}}
SPECS: dict[str, dict[str, Any]] = {
    "local": {
        "model": "./model", "seed": 1, "hyperparameters": {"max_steps": 4, "batch_size": 4},
        "adapter": {"type": "lora", "rank": 4}, "validation": {"every": 2},
        "parameters": {"hyperparameters.learning_rate": {"low": 1e-4, "high": 3e-2, "log": True},
                       "adapter.rank": [2, 4, 8]},
    },
    "openai": {
        "model": "gpt-4.1-mini-2025-04-14", "seed": 1, "hyperparameters": {"epochs": 1}, "parameters": {
            **EPOCHS, "overrides.openai.learning_rate_multiplier": {"low": 0.1, "high": 4.0, "log": True}},
    },
    "bedrock": {
        "model": "amazon.nova-micro-v1:0:128k", "hyperparameters": {"epochs": 1}, "parameters": {
            **EPOCHS, "hyperparameters.learning_rate": {"low": 1e-6, "high": 1e-4, "log": True}},
    },
}  # fmt: skip


class Desk:
    """A folder with one spec for each back end, an emulator and a ledger."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        self.folder = folder
        folder.mkdir()
        home = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "CLOUDTUNE_HOME")}
        self.environment = {**os.environ, **emulator.environment(), **home}
        for split, count in {"train": 40, "validation": 12}.items():
            rows = [
                {"prompt": f"{split} {n}: what is {n % 7} times two?", "completion": f"{n % 7 * 2}"}
                for n in range(count)
            ]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        write_tiny_model(folder / "model", vocab_texts=[(folder / "train.jsonl").read_text(encoding="utf-8")])
        for backend, more in SPECS.items():
            document = {"name": "kept", "data": {"train": "train.jsonl", "validation": "validation.jsonl"}, **more}
            tune = {"parameters": document.pop("parameters"), "trials": TRIALS, "seeds": 0}
            if backend != "local":
                tune["max_cost_usd"] = BUDGET_USD
            (folder / f"{backend}.json").write_text(json.dumps(document | {"tune": tune}), encoding="utf-8")

    def start(self, backend: str) -> subprocess.Popen[str]:
        words = ["tune", f"{backend}.json", "--backend", backend, "--yes", "--json"]
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("cloudtune")), *words], cwd=self.folder, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def finish(self, backend: str) -> dict[str, Any]:
        process = self.start(backend)
        out, err = process.communicate()
        assert process.returncode == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def kill(self, backend: str, rng: random.Random) -> bool:
        """Kill a search some time after it has done something. Returns False if it ended before."""
        process = self.start(backend)
        assert process.stderr is not None
        for _ in range(rng.randint(4, 8)):  # the first three lines announce the search
            process.stderr.readline()
        time.sleep(rng.random() * 0.7)
        process.kill()
        process.communicate()
        return process.returncode < 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.starts_trainer
def test_killed_searches_on_three_back_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    rng = random.Random(7)
    for name in ("calm", "killed"):
        with Emulator(Settings(), scale=1000) as emulator:
            emulator.script = Script(running_s=100.0)
            desk = Desk(tmp_path / name, emulator)
            kills = 0
            if name == "killed":
                for number in range(3 * KILLS):
                    kills += desk.kill(list(SPECS)[number % 3], rng)
                    if kills == KILLS:
                        break
                assert kills == KILLS
            found = {backend: desk.finish(backend) for backend in SPECS}
            for key, value in desk.environment.items():
                monkeypatch.setenv(key, value)
            monkeypatch.chdir(desk.folder)
            with Client(config=load_config()) as client:
                jobs = client.jobs()
                costs = [one.actual.usd or 0.0 for one in client.costs() if one.actual is not None]
                remote = [job for backend in SPECS for job in client.backend(backend).list(None)]
        assert len(jobs) == len(remote) == 3 * TRIALS
        assert len({job.name for job in remote}) == 3 * TRIALS
        assert all(job.has_ended for job in remote)
        assert 0 < sum(costs) <= 2 * BUDGET_USD
        results.append(found)
    assert [len(results[1][backend]["trials"]) for backend in SPECS] == [TRIALS] * 3
    for backend in ("local", "openai"):  # the emulated losses on Bedrock depend on the names of its jobs
        calm, killed = (
            [(one["parameters"], one["outcome"]["state"], one["outcome"]["value"]) for one in found[backend]["trials"]]
            for found in results
        )
        assert calm == killed
        assert results[0][backend]["best"]["parameters"] == results[1][backend]["best"]["parameters"]
