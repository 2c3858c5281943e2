"""Rows of images in an evaluation: the held-out rows of a share are those that training held out."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from cloudtune.data import encode
from cloudtune.errors import DataError
from cloudtune.evaluation.contamination import overlap
from cloudtune.evaluation.rows import expected_answers, read_rows
from cloudtune.spec import Data, Source

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        place = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    return tmp_path / "photos"


def test_the_rows_of_a_share_are_those_that_training_held_out(photos: Path, tmp_path: Path) -> None:
    data = Data.model_validate({"train": str(photos), "test": 0.3})
    encode(data, split="test", format="cloudtune", to=tmp_path / "test.jsonl", method="image_classification")
    held_out = [json.loads(line)["image"] for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    kind, rows = read_rows(data)
    assert kind == "image_label"
    assert [row.prompt["content"] for row in rows] == held_out
    assert all(row.prompt["image"].startswith(str(photos)) for row in rows)
    assert sorted(set(expected_answers(data))) == ["cat", "dog"]
    assert not overlap(rows, data).equal


def test_an_image_in_a_data_uri_is_refused(photos: Path, tmp_path: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode((photos / "cat" / "0.png").read_bytes()).decode()
    assert len(uri) > 255  # longer than the name of a file can be
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": uri, "label": "cat"}) + "\n")
    with pytest.raises(DataError, match="files in data URIs are not evaluated yet"):
        read_rows(Source(path=str(tmp_path / "rows.jsonl")))


def test_a_test_image_that_was_in_training_is_found(photos: Path, tmp_path: Path) -> None:
    copied = tmp_path / "test" / "cat" / "other_name.png"
    copied.parent.mkdir(parents=True)
    copied.write_bytes((photos / "cat" / "0.png").read_bytes())
    _, rows = read_rows(Data.model_validate({"train": str(photos), "test": str(tmp_path / "test")}))
    assert len(overlap(rows, Data.model_validate({"train": str(photos)})).equal) == 1
    copied.write_bytes(b"no image")
    with pytest.raises(DataError, match="is no image"):
        read_rows(Data.model_validate({"train": str(photos), "test": str(tmp_path / "test")}))
