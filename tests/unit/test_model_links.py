"""A model folder cannot name the user's other files: links that leave it are refused before anything is uploaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtune.errors import SpecError
from cloudtune.files.model_files import links_outside
from cloudtune_providers.sagemaker import models
from cloudtune_trainer.tiny import write_tiny_model


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights").write_text("own")
    (folder / "same").symlink_to("weights")
    return folder


def outside(folder: Path) -> list[str]:
    return [Path(str(one.file)).name for one in links_outside(folder, sorted(folder.rglob("*")))]


def test_links_that_leave_the_folder_are_problems(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    assert outside(folder) == []
    (tmp_path / "secret").write_text("a key")
    for name, target in {"up": "../secret", "absolute": str(tmp_path / "secret"), "beside": "../model-2/x"}.items():
        (folder / name).symlink_to(target)
    assert outside(folder) == ["absolute", "beside", "up"]


def test_links_of_the_hubs_cache_are_part_of_the_model(tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    folder = model(cache / "snapshots" / "commit")
    for name, target in {"blobs/hash": "stored", "secret": "a key", "blobs/deep/er": "a key"}.items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text(target)
    (folder / "config.json").symlink_to("../../blobs/hash")
    assert outside(folder) == []
    (folder / "other").symlink_to("../../secret")
    (folder / "deep").symlink_to("../../blobs/deep/er")
    assert outside(folder) == ["deep", "other"]
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert outside(tmp_path / "link") == ["deep", "other"]


def test_sagemaker_uploads_no_link_that_leaves_the_model(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    found = models.find_model(str(folder), None, None)  # type: ignore[arg-type]
    assert "config.json" in found["files"]
    (tmp_path / "secret").write_text("a key")
    (folder / "notes.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(SpecError, match=r"notes.txt: .*a link to .*secret, outside the folder"):
        models.find_model(str(folder), None, None)  # type: ignore[arg-type]
