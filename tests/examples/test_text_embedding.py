"""The example of text embedding."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.local.backend.submitting import kill_all

import cloudtune
from cloudtune.client import Client
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "text_embedding"


@pytest.mark.starts_trainer
@pytest.mark.timeout(400)
def test_the_job_learns_and_gives_vectors(tmp_path: Path) -> None:
    client = Client(LocalBackend(Options(root=tmp_path / "runs")), ledger=f"sqlite:///{tmp_path}/ledger.db")
    try:
        job = client.submit(cloudtune.load_spec(EXAMPLE / "job.yaml"))
        job.wait(timeout=300)
        (tested,) = [metric.values for metric in job.metrics() if metric.split == "test"]
        assert tested["recall@1"] > 0.9
        question, answer = "where is parcel 12", "the courier delivers parcel 12 tomorrow"
        one, other, pair = job.predict([question, answer, {"sentence1": question, "sentence2": answer}])
        assert one.vector is not None
        assert other.vector is not None
        cosine = sum(a * b for a, b in zip(one.vector, other.vector, strict=True))
        assert pair.value == pytest.approx(cosine, abs=1e-5)
    finally:
        kill_all(tmp_path / "runs")
