"""Checkpoints as files: which are kept. Nothing is trained here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloudtune_local.training import checkpoints
from cloudtune_local.training.checkpoints import Progress, Saved

if TYPE_CHECKING:
    from pathlib import Path


def keep_state(folder: Path, step: int, *, best: bool = False) -> Saved:
    def write(path: Path) -> None:
        (path / checkpoints.MODEL).mkdir()
        (path / checkpoints.MODEL / "weights").write_text(f"step {step}")

    return checkpoints.save(folder, Progress(step=step), epoch=step / 4, best=best, metrics={}, write=write)


@pytest.mark.parametrize("keep", range(6))
def test_as_many_others_are_kept_as_asked_for(tmp_path: Path, keep: int) -> None:
    for step in range(1, 6):
        keep_state(tmp_path, step, best=step == 2)
    checkpoints.prune(tmp_path, keep=keep)
    others = [1, 3, 4][-keep:] if keep else []
    assert [saved.step for saved in checkpoints.saved_in(tmp_path)] == sorted([2, 5, *others])
