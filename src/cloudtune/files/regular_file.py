"""Opens files from untrusted paths: regular files only, so no read can block forever.

A FIFO waits for a writer, ``/dev/zero`` never ends, and a socket or a folder cannot be read. The type is read from the
open descriptor, so the file cannot be replaced between the check and the read.
"""

from __future__ import annotations

import errno
import io
import os
import stat

_TYPES = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class NotRegularFile(OSError):
    """The path is not a regular file, or not a valid path."""


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader | io.BytesIO:
    """Open a regular file, or a symbolic link to one, for reading.

    A file whose size is 0 reads as empty. Files under ``/proc`` always report that size.

    Raises:
        NotRegularFile: The path is a FIFO, a socket or a device, or it is not a valid path.
        OSError: The operating system refuses to open it. A folder raises IsADirectoryError.

    """
    name = os.fspath(path)
    if problem := invalid_path(name):
        raise NotRegularFile(errno.EINVAL, problem, name)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(name, flags | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device without a driver
            raise NotRegularFile(errno.EINVAL, "it is a socket or a device, not a regular file", name) from error
        raise
    try:
        found = os.fstat(descriptor)
        _refuse_others(found.st_mode, name)
        if not found.st_size:
            os.close(descriptor)
            return io.BytesIO()
        if hasattr(os, "set_blocking"):
            os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _refuse_others(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(mode):
        kind = _TYPES.get(stat.S_IFMT(mode), "a special file")
        raise NotRegularFile(errno.EINVAL, f"it is {kind}, not a regular file", name)


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        NotRegularFile: As `open_regular`.
        OSError: As `open_regular`; with ``errno.EFBIG`` if the file has more than ``limit`` bytes.

    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", os.fspath(path))
    return content


def invalid_path(name: str) -> str | None:
    """Return why no file can have this name, or None."""
    if not name:
        return "the path is empty"
    if "\0" in name:
        return "the path contains a NUL character"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return "the path contains half of a surrogate pair"
    return None
