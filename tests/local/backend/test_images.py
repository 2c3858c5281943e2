"""Image classification through the local back end: a folder for each class, plan, training, predictions, evaluation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from tests.local.backend.submitting import kill_all

from cloudtune.client import Client
from cloudtune.errors import SpecError, UnsupportedError
from cloudtune.spec import JobSpec
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(400), pytest.mark.starts_trainer]
COLORS = ("red", "green", "blue")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    root = tmp_path / "runs"
    yield Client(LocalBackend(Options(root=root)), ledger=f"sqlite:///{tmp_path}/ledger.db")
    kill_all(root)


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., JobSpec]:
    chance = np.random.default_rng(0)
    for number in range(72):
        pixels = chance.integers(0, 90, (16, 16, 3), dtype=np.uint8)
        pixels[..., number % 3] += 90
        place = tmp_path / ("photos", "photos", "test")[number // 3 % 3] / COLORS[number % 3] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    sizes = {"model_type": "vit", "image_size": 16, "patch_size": 8, "hidden_size": 32, "intermediate_size": 64}
    (tmp_path / "model.json").write_text(json.dumps({"model": sizes, "processor": {}}))

    def make(**changes: Any) -> JobSpec:
        document = {
            "name": "colors", "model": str(tmp_path / "model.json"), "method": "image_classification",
            "data": {"train": str(tmp_path / "photos"), "test": str(tmp_path / "test"), "validation": 0.2},
            "adapter": "full", "hyperparameters": {"epochs": 3, "learning_rate": 3e-3},
            "overrides": {"local": {"device": "cpu", "threads": 1}},
            "evaluation": {"metrics": ["accuracy", "log_loss"]},
        }  # fmt: skip
        return JobSpec.model_validate(document | changes)

    return make


def test_a_folder_of_images_becomes_a_model_that_predicts(
    client: Client, spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    job = client.submit(spec())
    job.wait(timeout=300)
    splits = {metric.split: metric.values for metric in job.metrics()}
    assert splits["test"]["accuracy"] > 0.9
    image = next((tmp_path / "test" / "green").iterdir())
    found = list(job.predict([str(image), {"image": str(image)}]))
    assert [one.text for one in found] == ["green", "green"]
    run = tmp_path / "runs" / job.ref.id
    assert len(list((run / "data" / "media").iterdir())) == 72
    found = client.evaluate(job)
    tuned, always = found.models
    assert found.confusion is not None
    assert tuned.scores["accuracy"].value > 0.9 > always.scores["accuracy"].value


@pytest.mark.parametrize(("changes", "message"), [
    ({"adapter": "prefix"}, "which prefix does not change"),
    ({"hyperparameters": {"max_length": 9, "neftune_alpha": 5}}, "image_classification reads files"),
    ({"method": {"name": "image_classification", "problem": "multi_label"}}, "have one label each"),
])  # fmt: skip
def test_settings_of_text_models_are_refused(
    client: Client, spec: Callable[..., JobSpec], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        client.plan(spec(**changes))


def test_a_model_that_reads_something_else_is_refused(
    client: Client, spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    write_tiny_model(tmp_path / "text")
    with pytest.raises(SpecError, match="trains a model of image input, and this one reads text"):
        client.plan(spec(model=str(tmp_path / "text")))
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(SpecError, match="trains a model of text input, and this one reads image"):
        client.plan(spec(method="cpt", data={"train": str(tmp_path / "rows.jsonl")}, evaluation=None))
