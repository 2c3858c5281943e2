"""The example of tags, answers and translations: its jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.local.backend.submitting import kill_all

import cloudtune
from cloudtune.client import Client
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "understanding"
NAMES = ("tags", "questions", "pairs")
CONTEXT = "Grace has a red box . Alan has a blue box ."


@pytest.mark.starts_trainer
@pytest.mark.timeout(600)
def test_the_jobs_learn_and_predict(tmp_path: Path) -> None:
    client = Client(LocalBackend(Options(root=tmp_path / "runs")), ledger=f"sqlite:///{tmp_path}/ledger.db")
    try:
        jobs = {name: client.submit(cloudtune.load_spec(EXAMPLE / f"{name}.yaml")) for name in NAMES}
        tested = {}
        for name, job in jobs.items():
            job.wait(timeout=500)
            (tested[name],) = [metric.values for metric in job.metrics() if metric.split == "test"]
        assert tested["tags"]["f1"] > 0.8
        assert tested["questions"]["exact_match"] > 0.8
        assert tested["pairs"]["token_accuracy"] > 0.8
        (tags,) = jobs["tags"].predict(["in Berlin lives Alan Turing"])
        assert tags.text == "O B-LOC O B-PER I-PER"
        (answer,) = jobs["questions"].predict([{"question": "who has the blue box", "context": CONTEXT}])
        assert (answer.text, answer.start, answer.end) == ("Alan", 22, 26)
        (written,) = jobs["pairs"].predict(["two cats"])
        assert written.text == "dos gatos"
        assert [one.text for one in jobs["pairs"].generate(["two cats"])] == ["dos gatos"]
    finally:
        kill_all(tmp_path / "runs")
