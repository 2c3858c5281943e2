"""Checkpoints as files: which are kept. Nothing is trained here."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from cloudtune_trainer import checkpoints
from cloudtune_trainer.checkpoints import Progress, Saved

if TYPE_CHECKING:
    from pathlib import Path


def keep_state(folder: Path, step: int, *, best: bool = False, best_step: int | None = None) -> Saved:
    def write(path: Path) -> None:
        (path / checkpoints.MODEL).mkdir()
        (path / checkpoints.MODEL / "weights").write_text(f"step {step}")

    progress = Progress(step=step, seconds=9.0, best_step=step if best else best_step)
    return checkpoints.save(folder, progress, epoch=step / 4, best=best, metrics={}, write=write)


@pytest.mark.parametrize("keep", range(6))
def test_as_many_others_are_kept_as_asked_for(tmp_path: Path, keep: int) -> None:
    for step in range(1, 6):
        keep_state(tmp_path, step, best=step == 2)
    checkpoints.prune(tmp_path, keep=keep)
    others = [1, 3, 4][-keep:] if keep else []
    assert [saved.step for saved in checkpoints.saved_in(tmp_path)] == sorted([2, 5, *others])


@pytest.mark.parametrize("links", [True, False])
def test_another_runs_checkpoints_become_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "no links here")

    parent, child = tmp_path / "parent", tmp_path / "child"
    keep_state(parent, 2, best=True)
    start = keep_state(parent, 5, best_step=2)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    assert checkpoints.bring(child, start)
    brought = checkpoints.saved_in(child)
    assert [(saved.step, saved.best, saved.progress.seconds) for saved in brought] == [(2, True, 0), (5, False, 0)]
    assert all(checkpoints.whole(saved) for saved in brought)
    shutil.rmtree(parent)
    assert all(checkpoints.whole(saved) for saved in brought)


def test_a_lost_best_checkpoint_is_reported(tmp_path: Path) -> None:
    start = keep_state(tmp_path / "parent", 5, best_step=2)
    assert not checkpoints.bring(tmp_path / "child", start)
    assert [saved.best for saved in checkpoints.saved_in(tmp_path / "child")] == [False]
    start = keep_state(tmp_path / "parent", 6, best_step=6)
    assert checkpoints.bring(tmp_path / "other", start)
    assert [saved.best for saved in checkpoints.saved_in(tmp_path / "other")] == [True]


def test_a_damaged_checkpoint_is_neither_kept_nor_chosen(tmp_path: Path) -> None:
    keep_state(tmp_path, 2, best=True)
    keep_state(tmp_path, 4, best=True)
    checkpoints.only_best(tmp_path, 4)
    (tmp_path / "step-00000004" / checkpoints.MODEL / "weights").write_text("torn")
    good = checkpoints.newest_good(tmp_path)
    checkpoints.continue_from(tmp_path, good)
    assert [(saved.step, saved.best) for saved in checkpoints.saved_in(tmp_path)] == [(2, True)]
    keep_state(tmp_path, 3, best_step=2)
    checkpoints.prune(tmp_path, keep=0)
    assert [saved.step for saved in checkpoints.saved_in(tmp_path)] == [2, 3]
