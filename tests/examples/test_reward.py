"""The example of reward models and rated answers: its jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudtune.client import Client
from cloudtune.document.specfile import load_spec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "reward"


@pytest.mark.starts_trainer
@pytest.mark.timeout(400)
def test_the_reward_model_orders_answers_about_new_topics(tmp_path: Path) -> None:
    client = Client(LocalBackend(Options(root=tmp_path / "runs")), ledger=f"sqlite:///{tmp_path}/ledger.db")
    plan = client.plan(load_spec(EXAMPLE / "kto.yaml"))
    assert {one.field: one.value for one in plan.settings}["method.beta"] == 0.1
    job = client.submit(load_spec(EXAMPLE / "reward.yaml"))
    job.wait(timeout=300)
    (tested,) = [metric.values for metric in job.metrics() if metric.split == "test"]
    assert tested["accuracy"] > 0.95
    rows = [json.loads(line) for line in (EXAMPLE / "score.jsonl").read_text(encoding="utf-8").splitlines()]
    polite, rude = job.predict(rows)
    assert polite.value is not None
    assert rude.value is not None
    assert polite.value > rude.value + 1
