"""The example of sft, a reward model and PPO."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from tests.local.backend.submitting import kill_all

from cloudtune.client import Client
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "rlhf" / "rlhf.py"


def test_half_of_the_shuffled_pairs_are_swapped() -> None:
    names = runpy.run_path(str(EXAMPLE))
    pairs, shuffled = names["pairs"](), names["pairs"](shuffled=True)
    swapped = [one for one, other in zip(pairs, shuffled, strict=True) if one["chosen"] == other["rejected"]]
    assert len(swapped) == len(pairs) // 2
    assert not set(names["questions"](names["TOPICS"])) & set(names["questions"](names["NEW_TOPICS"]))


@pytest.mark.starts_trainer
@pytest.mark.timeout(400)
def test_a_reward_model_learns_the_pairs(tmp_path: Path) -> None:
    names = runpy.run_path(str(EXAMPLE))
    client = Client(LocalBackend(Options(root=tmp_path / "runs")), ledger=f"sqlite:///{tmp_path}/ledger.db")
    hyper = {"batch_size": 16, "max_length": 64, "max_steps": 6, "learning_rate": 5e-3}
    try:
        job, folder = names["train"](
            client, tmp_path, "reward", str(EXAMPLE.with_name("model.json")), {"train": names["pairs"]()},
            method="reward", adapter="full", hyperparameters=hyper,
        )  # fmt: skip
        rows = [
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": names[answer]}]}
            for asked in names["questions"](names["NEW_TOPICS"])
            for answer in ("POLITE", "RUDE")
        ]
        scores = [found.value for found in job.predict(rows)]
        assert all(polite > rude for polite, rude in zip(scores[::2], scores[1::2], strict=True))
        assert (Path(folder) / "model.safetensors").is_file()
    finally:
        kill_all(tmp_path / "runs")


@pytest.mark.soak
@pytest.mark.starts_trainer
@pytest.mark.timeout(900)
def test_ppo_learns_what_the_pairs_prefer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path))
    found = runpy.run_path(str(EXAMPLE))["main"]([])
    assert 0.2 < found["before"] < 0.7
    assert found["after"] > found["before"] + 0.2
