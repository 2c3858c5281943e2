"""Checkpoints: the complete state for resuming a run exactly. No pickles: safetensors and JSON only.

A checkpoint is complete once it has ``checkpoint.json``, which is written last and names every file with its hash.
A folder without it, or whose files do not match it, is incomplete and is skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.folder import now, read_json, sync_directory, write_json
from cloudtune_trainer.private_files import copy_private, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MARKER = "checkpoint.json"
ADAPTER = "adapter"
MODEL = "model"
SHARDS = "shards"
"""Weights and optimizer of a sharded run, in parts: see `cloudtune_trainer.sharding`."""
KIND = "kind.json"
"""The type of a sharded run's adapter."""
STATE = "trainer.safetensors"


@dataclass(frozen=True)
class Progress:
    """The state of a run, besides the tensors of the checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Training time so far, without pauses."""
    best_value: float | None = None
    """The best value of the task's metric on the validation rows."""
    best_step: int | None = None
    worse: int = 0
    """Evaluations since the last improvement."""
    stopped_early: bool = False
    last_values: dict[str, float] = field(default_factory=dict)
    """Loss and best metric of the latest evaluation, if they are finite."""
    labels: list[str] = field(default_factory=list)
    """The names of a classifier's outputs, in order."""
    stage: int = 0
    """Stage of the layer schedule in the latest step, counted from 0."""
    evaluated: int | None = None
    """Step of the latest evaluation."""
    sequences_at_once: int | None = None
    """The largest number of sequences of a part of a step, if an out-of-memory error has reduced it."""


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint on disk."""

    path: Path
    step: int
    epoch: float
    best: bool
    metrics: dict[str, float]
    progress: Progress
    files: dict[str, str]
    created_at: str | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether the weights are in parts."""
        return (self.path / SHARDS).is_dir()

    @property
    def weights(self) -> Path:
        """The folder of the weights: of the adapter, of the whole model, or of their parts."""
        adapter = self.path / ADAPTER
        return self.path / SHARDS if self.is_sharded else adapter if adapter.is_dir() else self.path / MODEL


def name_of(step: int) -> str:
    """The folder's name for that step."""
    return f"step-{step:08d}"


def save(
    folder: Path,
    progress: Progress,
    *,
    epoch: float,
    best: bool,
    metrics: dict[str, float],
    write: Callable[[Path], None],
) -> Saved:
    """Write a checkpoint; ``write`` puts the files into a given folder. After an error, no files remain."""
    path = folder / name_of(progress.step)
    shutil.rmtree(path, ignore_errors=True)
    try:
        private_folder(path)
        write(path)
        files = {str(file.relative_to(path)): _flushed_digest(file) for file in _files(path)}
        saved = Saved(path, progress.step, epoch, best, metrics, progress, files)
        _mark(saved)
    except BaseException:
        # frees space for the status if the disk is full
        shutil.rmtree(path, ignore_errors=True)
        raise
    sync_directory(folder)
    return saved


def saved_in(folder: Path) -> list[Saved]:
    """The complete checkpoints of that folder, oldest first, by their markers; files are not verified."""
    found = [read(path) for path in sorted(folder.glob("step-*"))] if folder.is_dir() else []
    return [saved for saved in found if saved is not None]


def described(folder: Path) -> list[dict[str, Any]]:
    """The complete checkpoints of that folder as JSON documents, oldest first."""
    return [
        {
            "name": saved.path.name, "path": str(saved.path), "step": saved.step, "epoch": saved.epoch,
            "best": saved.best, "metrics": saved.metrics, "created_at": saved.created_at,
        }
        for saved in saved_in(folder)
    ]  # fmt: skip


def newest_good(folder: Path) -> Saved | None:
    """The newest checkpoint whose files all match their hashes."""
    return next((saved for saved in reversed(saved_in(folder)) if whole(saved)), None)


def damaged_after(folder: Path, good: Saved | None) -> list[str]:
    """The names of checkpoints that are newer than that one, the newest that is complete and matches its hashes."""
    last = "" if good is None else good.path.name
    return sorted(path.name for path in folder.glob("step-*") if path.name > last)


def continue_from(folder: Path, good: Saved | None) -> None:
    """Mark newer checkpoints as incomplete, so that none of them becomes the model; they are damaged."""
    for name in damaged_after(folder, good):
        (folder / name / MARKER).unlink(missing_ok=True)
    if good is not None and good.progress.best_step is not None:
        only_best(folder, good.progress.best_step)


def read(path: Path) -> Saved | None:
    """The checkpoint in that folder, or None if its marker is missing or damaged."""
    try:
        document = read_json(path / MARKER)
        if not all(_is_inside(name) for name in document["files"]):
            return None
        return Saved(
            path=path,
            step=int(document["step"]),
            epoch=float(document["epoch"]),
            best=bool(document["best"]),
            metrics={str(k): float(v) for k, v in document["metrics"].items()},
            progress=Progress(**document["progress"]),
            files={str(k): str(v) for k, v in document["files"].items()},
            created_at=document.get("created_at"),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError):
        return None


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and not {"", ".", ".."} & set(name.split("/")) and "\0" not in name


def whole(saved: Saved) -> bool:
    """Whether every file has the hash in the marker."""
    try:
        return all(_digest(saved.path / name) == digest for name, digest in saved.files.items())
    except OSError:
        return False


def prune(folder: Path, *, keep: int) -> None:
    """Remove incomplete checkpoints, and all but the best, the last and ``keep`` others."""
    complete = saved_in(folder)
    last = complete[-1].step if complete else -1
    others = [saved for saved in complete[:-1] if not saved.best]
    kept = {saved.path for saved in complete if saved.best or saved.step == last}
    kept |= {saved.path for saved in others[-keep:]} if keep else set()
    for path in folder.glob("step-*"):
        if path not in kept:
            with contextlib.suppress(OSError):
                (path / MARKER).unlink(missing_ok=True)  # first, to mark it incomplete
            shutil.rmtree(path, ignore_errors=True)


def bring(folder: Path, start: Saved) -> bool:
    """Copy another run's checkpoint, and the best one it names, into this run. Returns whether that best one existed.

    The best is copied first: a run interrupted in between resumes from there, and ends at the same model.
    """
    step = start.progress.best_step
    elsewhere = step is not None and step != start.step
    best = read(start.path.parent / name_of(step or 0)) if elsewhere else None
    if best is not None and whole(best):
        _adopt(folder, best, best=True)
        elsewhere = False
    _adopt(folder, start, best=step == start.step)
    return not elsewhere


def _adopt(folder: Path, saved: Saved, *, best: bool) -> None:
    """Copy the checkpoint into another run's folder, with an elapsed time of 0."""
    path = folder / name_of(saved.step)
    shutil.rmtree(path, ignore_errors=True)
    try:
        private_folder(path)
        for name in saved.files:
            private_folder((path / name).parent)
            _link(saved.path / name, path / name)
        _mark(replace(saved, path=path, best=best, progress=replace(saved.progress, seconds=0.0)))
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    sync_directory(folder)


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy without support for links: files of checkpoints never change."""
    try:
        os.link(source, target)
    except OSError:
        copy_private(source, target)
        with target.open("rb") as content:
            os.fsync(content.fileno())


def only_best(folder: Path, step: int) -> None:
    """Remove the ``best`` mark from every other checkpoint."""
    for saved in saved_in(folder):
        if saved.best != (saved.step == step):
            _mark(replace(saved, best=saved.step == step))


def _mark(saved: Saved) -> None:
    document: dict[str, Any] = {
        "version": 1, "step": saved.step, "epoch": saved.epoch, "best": saved.best, "metrics": saved.metrics,
        "created_at": now(), "progress": asdict(saved.progress), "files": saved.files,
    }  # fmt: skip
    earlier = read_json(saved.path / MARKER)
    if isinstance(earlier, dict):
        document["created_at"] = earlier.get("created_at", document["created_at"])
    write_json(saved.path / MARKER, document)


def _files(path: Path) -> Iterator[Path]:
    return (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != MARKER)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _flushed_digest(file: Path) -> str:
    with file.open("rb") as content:
        os.fsync(content.fileno())
    return _digest(file)
