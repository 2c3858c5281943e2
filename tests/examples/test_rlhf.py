"""The example of sft, a reward model and PPO."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "rlhf" / "rlhf.py"


def test_half_of_the_shuffled_pairs_are_swapped() -> None:
    names = runpy.run_path(str(EXAMPLE))
    pairs, shuffled = names["pairs"](), names["pairs"](shuffled=True)
    swapped = [one for one, other in zip(pairs, shuffled, strict=True) if one["chosen"] == other["rejected"]]
    assert len(swapped) == len(pairs) // 2
    assert not set(names["questions"](names["TOPICS"])) & set(names["questions"](names["NEW_TOPICS"]))


@pytest.mark.soak
@pytest.mark.starts_trainer
@pytest.mark.timeout(900)
def test_ppo_learns_what_the_pairs_prefer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path))
    found = runpy.run_path(str(EXAMPLE))["main"]([])
    assert 0.2 < found["before"] < 0.7
    assert found["after"] > found["before"] + 0.2
