"""Folders and files that only the user can read: mode 0700 and 0600, regardless of the umask.

All files that cloudtune stores (rows, specs, output, weights, state, logs, caches) are written through this module.
Files at a path that the user chooses, such as ``export`` and ``init``, are not.
`cloudtune_trainer.private_files` does the same for the trainer, which ships without this package.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600
_OTHERS = 0o077


def private_folder(path: Path) -> Path:
    """Create a folder with mode 0700, and each missing parent; correct the mode of an existing one. Returns ``path``.

    Raises PermissionError if the folder, or the symbolic link in its place, belongs to another user: on a shared disk
    that user could have created it.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        try:
            folder.mkdir(FOLDER_MODE)
        except FileExistsError:  # another process was first, or there is a dangling link
            if not folder.is_dir():
                raise
    _check_owner(path)
    narrow(path)
    return path


def _check_owner(path: Path) -> None:
    me = os.geteuid()
    if me == 0:  # root can work in any user's folder, for example in a container
        return
    for status in (path.lstat(), path.stat()):
        if status.st_uid not in (me, 0):
            raise PermissionError(errno.EPERM, "it belongs to another user", str(path))


def narrow(path: Path) -> None:
    """Remove the permissions of group and others from a file or folder of this user.

    A folder with the sticky bit, such as /tmp, is shared on purpose and is not changed.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & _OTHERS and not mode & stat.S_ISVTX and status.st_uid == os.geteuid():
        path.chmod(mode & ~_OTHERS)


def narrow_database(path: Path) -> None:
    """`narrow` a SQLite file and the files that SQLite creates next to it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        narrow(path.with_name(path.name + suffix))


def opener(path: str, flags: int) -> int:
    """For ``open(..., opener=opener)``: a file that this call creates has mode 0600."""
    return os.open(path, flags, FILE_MODE)


def open_private(path: Path, mode: str = "wb") -> BinaryIO:
    """Open a file in a binary mode; if the call creates it, its mode is 0600."""
    return open(path, mode, opener=opener)  # type: ignore[return-value]


def write_private(path: Path, content: bytes | str) -> None:
    """Write a whole file with mode 0600. Text is written as UTF-8."""
    with open_private(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def copy_private(source: Path | str, target: Path) -> None:
    """Copy a file's content. The copy has mode 0600 regardless of the source's mode."""
    with open(source, "rb") as content, open_private(target) as file:
        shutil.copyfileobj(content, file, 1 << 20)
