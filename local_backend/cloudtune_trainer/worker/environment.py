"""A virtual environment with the trainer's packages, created once. Standard library only."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.locks import is_held, take_lock
from cloudtune_trainer.private_files import private_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = ".environments"
READY = "ready"
_TAIL = 2000


def environment_python(root: str, python: str, packages: Sequence[str]) -> str:
    """The interpreter of the environment for these packages. Accesses no file."""
    return str(_folder(root, python, packages) / "bin" / "python")


def _folder(root: str, python: str, packages: Sequence[str]) -> Path:
    name = hashlib.sha256("\n".join([python, *packages]).encode()).hexdigest()[:16]
    return Path(root) / FOLDER / name


def install(root: str, python: str, packages: Sequence[str]) -> dict[str, Any]:
    """Start the installation, detached, unless it has happened or is under way. A failed one starts again."""
    folder = _folder(root, python, packages)
    if (folder / READY).exists():
        return {}
    private_folder(folder.parent)
    lock = take_lock(folder.with_suffix(".lock"))
    if lock is None:
        return {}  # under way
    try:
        shutil.rmtree(folder, ignore_errors=True)
        script = (
            'set -e; "$1" -m venv "$2"; shift; folder=$1; shift; '
            '"$folder/bin/python" -m pip install --disable-pip-version-check --no-input "$@"; touch "$folder/ready"'
        )
        with open(folder.with_suffix(".log"), "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            subprocess.Popen(
                ["/bin/sh", "-c", script, "sh", python or sys.executable, str(folder), *packages],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(lock,), start_new_session=True,
            )  # fmt: skip
    finally:
        os.close(lock)  # the shell holds its copy until it ends
    return {}


def installed(root: str, python: str, packages: Sequence[str]) -> dict[str, Any]:
    """The state of the installation: ready, pending or failed, with the end of its log."""
    folder = _folder(root, python, packages)
    if (folder / READY).exists():
        return {"state": "ready", "message": ""}
    if is_held(folder.with_suffix(".lock")):
        return {"state": "pending", "message": "installing the trainer's packages"}
    try:
        said = folder.with_suffix(".log").read_bytes()[-_TAIL:].decode(errors="replace").strip()
    except FileNotFoundError:
        said = "it was not started"
    return {"state": "failed", "message": f"the installation of {', '.join(packages)} failed: {said}"}
