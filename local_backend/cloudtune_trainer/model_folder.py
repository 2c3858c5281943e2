"""Check the folder of a model before a library reads it. Standard library only.

Libraries open every file that they know by name. Reading a FIFO blocks, a device has no end, and an index of weights
can name files outside the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_LARGEST = 64 << 20


def check_model_folder(folder: Path) -> None:
    """Check that the folder contains only regular files, folders and links to them, and that its weights are in it.

    A path that does not exist is accepted: loading the model reports it.

    Raises:
        TrainingProblem: ``model_not_found``, with the file that is refused.

    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise _refused(path, "it is not a regular file")
    for name in _INDEXES:
        if (folder / name).is_file():
            _check_index(folder / name)


@contextlib.contextmanager
def folder_of_one(path: Path) -> Iterator[Path]:
    """A temporary folder that contains only a link to that file.

    A library that loads a GGUF file also reads the other files in its folder: an ``adapter_config.json`` there names
    the model that is loaded instead, and a ``tokenizer_config.json`` code to run.
    """
    with tempfile.TemporaryDirectory(prefix="cloudtune-model-") as name:
        (Path(name) / path.name).symlink_to(path.resolve())
        yield Path(name)


def publish(written: Path, folder: Path) -> None:
    """Rename a model's folder. If another process has already published an equivalent one, keep that one."""
    try:
        written.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():
            raise


def _check_index(path: Path) -> None:
    with path.open("rb") as file:
        content = file.read(min(os.fstat(file.fileno()).st_size, _LARGEST) + 1)
    try:
        document = json.loads(content) if len(content) <= _LARGEST else None
    except (ValueError, RecursionError) as error:
        raise _refused(path, str(error)) from error
    names = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(names, dict):
        raise _refused(path, "it is no index of weights")
    for name in names.values():
        if not isinstance(name, str) or not name or "\0" in name or "\\" in name or _leaves(name):
            raise _refused(path, f"it names a file outside the folder: {str(name)[:100]!a}")


def _leaves(name: str) -> bool:
    return PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts


def _refused(path: Path, reason: str) -> TrainingProblem:
    return TrainingProblem("model_not_found", f"cannot use {path}: {reason}", "Download the model again.")
