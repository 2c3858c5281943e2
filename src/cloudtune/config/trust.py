"""Finds the project file, and records whether the user trusts it.

A project file can come from a cloned repository. It is used only inside the repository (or, without one, in the
working directory), and only if no other user can change it. Trust is recorded for one path with one content: one
empty file per pair, in the user's state folder. Any change to the project file revokes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

from cloudtune.document.document import LARGEST_BYTES
from cloudtune.errors import ConfigError, Problem

PROJECT_FILE = "cloudtune.toml"
_NO_FILE = "it is not a regular file"


def project_file(start: Path) -> Path | None:
    """Return the nearest ``cloudtune.toml`` from a folder up to the root of its repository.

    The root is the first folder with ``.git``. Without one, only the folder itself is searched.
    """
    start = start.absolute()
    folders = (start, *start.parents)
    root = next((number for number, folder in enumerate(folders) if os.path.lexists(folder / ".git")), 0)
    return next((folder / PROJECT_FILE for folder in folders[: root + 1] if os.path.lexists(folder / PROJECT_FILE)),
                None)  # fmt: skip


def read_project_file(path: Path) -> bytes:
    """Return the file's content, if only the user and root can change it.

    Owner and mode are those of the opened file, so they cannot change between the check and the read.

    Raises:
        ConfigError: The file is missing, not a regular file, belongs to another user, or is writable by others.

    """
    try:
        file = open(path, "rb", opener=_open_directly)  # noqa: SIM115 - closed below
    except IsADirectoryError as error:
        raise _refused(path, _NO_FILE, "delete it, or run in another folder") from error
    except (OSError, ValueError) as error:
        if path.is_symlink():
            raise _refused(path, "it is a symbolic link", "replace it with the file itself") from error
        reason = getattr(error, "strerror", None) or error
        raise _refused(path, f"it cannot be read: {reason}", "check its path, owner and mode") from error
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, _NO_FILE, "delete it, or run in another folder")
        if found.st_uid not in (os.geteuid(), 0):
            fix = f"if you trust its content, take ownership: chown {os.geteuid()} {path}"
            raise _refused(path, f"it belongs to another user ({_user(found.st_uid)})", fix)
        if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid)):
            raise _refused(path, "other users can change it", f"chmod go-w {path}")
        return file.read(LARGEST_BYTES + 1)


def _open_directly(path: str, flags: int) -> int:
    """Open without following links and without waiting for a pipe's writer."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def is_trusted(path: Path, content: bytes) -> bool:
    """Return whether the user trusts this file with this content."""
    try:
        found = os.lstat(_record(path, content))
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def trust(path: Path, content: bytes) -> None:
    """Record that the user trusts this file with this content.

    Raises:
        ConfigError: The record cannot be written.

    """
    record = _record(path, content)
    try:
        record.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        record.parent.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(record, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(f"cannot record the trust in {path}: {error}") from error


def untrust(path: Path) -> bool:
    """Revoke the trust in a file, for any content. Returns whether there was any."""
    folder = _folder(path)
    if not folder.is_dir():
        return False
    shutil.rmtree(folder)
    return True


def _folder(path: Path) -> Path:
    # Not CLOUDTUNE_HOME: a ledger may be in a shared folder, but trust is one user's decision.
    from platformdirs import user_state_dir

    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
    return Path(user_state_dir("cloudtune", appauthor=False)) / "trusted" / name


def _record(path: Path, content: bytes) -> Path:
    return _folder(path) / hashlib.sha256(content).hexdigest()


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user id {number}"


def _is_own_group(number: int) -> bool:
    """Return whether it is the user's private group without other members, as distributions create it."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    private = group.gr_name == user.pw_name and user.pw_gid == number
    return private and set(group.gr_mem) <= {user.pw_name}


def _refused(path: Path, why: str, fix: str) -> ConfigError:
    problem = Problem(code="unsafe_file", message=f"cannot use the project's configuration: {why}", file=str(path),
                      fix=fix)  # fmt: skip
    return ConfigError([problem])
