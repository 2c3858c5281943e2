"""The pairs of the preference example, and its job: here and, one word changed, by SageMaker's serverless trainer."""

from __future__ import annotations

import json
import math
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from tests.examples.conftest import QUICKSTART, Quickstart
from tests.examples.test_one_word import Place, answering, placed

from cloudtune import Client, GenerateOptions, Job
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "preference"
SIDES = ("train", "validation", "test")
ASKED = "Airport of Quito?"


def rows(side: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (EXAMPLE / f"{side}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_pairs_are_those_that_the_seed_makes() -> None:
    script = runpy.run_path(str(EXAMPLE / "make_pairs.py"))
    assert {side: rows(side) for side in SIDES} == script["pairs"]()
    cities = {city for city, _ in script["airports"]()}
    requested = {side: {city for city in cities for row in rows(side) if city in row["prompt"]} for side in SIDES}
    assert set.union(*requested.values()) == cities
    assert sum(map(len, requested.values())) == len(cities), "a city is on one side only"
    assert all(row["chosen"] in row["rejected"] for side in SIDES for row in rows(side))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The example beside a tiny model in the quickstart's cache, and an emulator that trains."""
    root = tmp_path_factory.mktemp("preference")
    shutil.copytree(EXAMPLE, root / "preference", ignore=shutil.ignore_patterns("__pycache__"))
    texts = [text for row in rows("train") for text in row.values()]
    write_tiny_model(root / "quickstart" / ".cache" / "smollm2-135m-instruct", vocab_texts=texts)
    with placed(Quickstart(root / "preference", root / "home")) as place:
        yield place


def weights(job: Job, to: Path) -> bytes:
    """The adapter's file, brought here."""
    job.export(to)
    return (to / "adapter_model.safetensors").read_bytes()


@pytest.mark.starts_trainer
@pytest.mark.timeout(600)  # several processes that import torch: on a busy machine that is minutes
def test_one_file_of_pairs_and_one_word(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, followed, the artefact back, an answer read: to the bit what is trained here."""
    client = Client()
    here = client.attach(place.run("local"))
    (tested,) = (line.values for line in here.metrics() if line.split == "test")
    assert tested["loss"] < math.log(2)  # that of no preference
    assert tested["margin"] > 0
    assert tested["accuracy"] > 0.8
    assert {"preferred", "base_preferred", "rewards/chosen", "rewards/rejected"} <= set(tested)

    place.environment["CLOUDTUNE_BACKENDS__SAGEMAKER__COMPUTE"] = "serverless"
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__SAGEMAKER__COMPUTE", "serverless")
    client = Client()
    job = client.attach(place.run("sagemaker"))
    reported = place.reported(job)
    assert reported["method"] == {"name": "dpo", "beta": 0.1}
    snapshot = job.snapshot()
    assert snapshot.raw["ServerlessJobConfig"]["CustomizationTechnique"] == "DPO"
    bucket, _, folder = str(job.model().uri).removeprefix("s3://").partition("/")
    listed = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]
    assert "adapter_model.safetensors" in {entry["Key"].removeprefix(folder) for entry in listed}
    assert weights(job, tmp_path / "there") == weights(here, tmp_path / "here")
    (expected,) = here.generate([ASKED], GenerateOptions(max_tokens=8))
    with answering(client, job, "sagemaker"):
        (said,) = job.generate([ASKED], GenerateOptions(max_tokens=8))
    assert said.text == expected.text


@pytest.mark.real_weights
@pytest.mark.timeout(3600)
def test_real_weights_like_the_brief_answer_of_cities_not_seen(tmp_path: Path) -> None:
    quickstart = tmp_path / "quickstart"
    shutil.copytree(QUICKSTART, quickstart, ignore=shutil.ignore_patterns(".cache", "__pycache__"))
    shutil.copytree(EXAMPLE, tmp_path / "preference", ignore=shutil.ignore_patterns("__pycache__"))
    if (QUICKSTART / ".cache").is_dir():
        (quickstart / ".cache").symlink_to(QUICKSTART / ".cache")
    else:
        subprocess.run([sys.executable, quickstart / "fetch.py"], check=True)
    with placed(Quickstart(tmp_path / "preference", tmp_path / "home")) as place:
        metrics = Client().attach(place.run("local")).metrics()
    first = next(line.values for line in metrics if line.split == "train")
    (tested,) = (line.values for line in metrics if line.split == "test")
    print(json.dumps(tested))
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert tested["loss"] < 0.1
    assert tested["margin"] > 2
    assert tested["accuracy"] > 0.95
    assert tested["preferred"] >= tested["base_preferred"]
