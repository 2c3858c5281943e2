"""Folders and files that only the user can read: mode 0700 and 0600, with any umask. Standard library only.

The trainer ships without cloudtune, so this repeats what it needs of `cloudtune.files.private_files`. In a worker
and in what it starts, `keep_private` covers files that torch and other libraries write.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def keep_private() -> None:
    """Have this process and its children create files with mode 0600 and folders with 0700."""
    os.umask(0o077)


def private_folder(path: Path) -> Path:
    """Create a folder and its missing parents with mode 0700. Returns ``path``."""
    for folder in reversed([folder for folder in (path, *path.parents) if not folder.exists()]):
        try:
            folder.mkdir(0o700)
        except FileExistsError:
            if not folder.is_dir():
                raise
    return path


def opener(path: str, flags: int) -> int:
    """For ``open(..., opener=opener)``: a file that this call creates has mode 0600."""
    return os.open(path, flags, 0o600)


def copy_private(source: Path | str, target: Path | str) -> None:
    """Copy a file's content; the copy has mode 0600 whatever the mode of the source."""
    with open(source, "rb") as content, open(target, "wb", opener=opener) as file:
        shutil.copyfileobj(content, file, 1 << 20)
