"""Reads untrusted tar archives. All archives are extracted here.

Archives can contain regular files and folders; links, devices, FIFOs, sparse files and unusual names are rejected.
Sizes are counted during decompression, because headers can be wrong. A rejected archive leaves nothing on the disk.

``tarfile`` parses the headers, as a stream without seeking. Its extraction is never used, because its filters have
allowed files to escape (CVE-2025-4517).
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import secrets
import shutil
import tarfile
import unicodedata
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from cloudtune.errors import ArchiveError
from cloudtune.files.private_files import private_folder
from cloudtune.files.regular_file import NotRegularFile, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 512
_CHUNK = 1 << 16
_HEADERS = 1 << 20
"""Maximum header bytes of one entry."""
_PARSING = (tarfile.TarError, zlib.error, ValueError, EOFError, OverflowError, RecursionError, gzip.BadGzipFile)
"""Exceptions of ``tarfile`` and ``gzip`` for damaged content."""
_DRIVE = re.compile(r"[A-Za-z]:")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of invisible characters, and of characters that change how others are displayed."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of an archive. Sizes are in bytes."""

    entries: int = 20_000
    ratio: int = 50
    """Maximum ratio of content to archive size. Model weights compress to about half."""
    free: int = 64 << 20
    """Content up to this size is allowed at any ratio."""
    total: int = 1 << 40

    def allowed(self, compressed: int) -> int:
        """Return the maximum decompressed bytes for an archive of that size."""
        return min(self.total, max(self.free, self.ratio * compressed))


class Readable(Protocol):
    """The content of one file in an archive."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, or all remaining bytes if it is negative; empty at the end."""


def extract_tar(source: Path | BinaryIO, to: Path, *, limits: Limits | None = None) -> list[Path]:
    """Extract a .tar or .tar.gz into the new folder ``to`` and return its files.

    Files get mode 0600 and folders 0700. ``to`` appears when everything is extracted, or not at all. Raises
    `ArchiveError` for an archive that is damaged, too large, or holds something other than plain files and folders.
    """
    if to.exists():
        raise FileExistsError(f"{to} already exists")
    if not to.parent.exists():
        private_folder(to.parent)
    aside = to.with_name(f".{to.name}.{secrets.token_hex(8)}")
    aside.mkdir(mode=0o700)
    try:
        found = []
        for parts, content in _entries(source, limits or Limits()):
            _make_folders(aside, parts if content is None else parts[:-1])
            if content is not None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                with os.fdopen(os.open(aside.joinpath(*parts), flags, 0o600), "wb") as file:
                    shutil.copyfileobj(content, file, _CHUNK)
                found.append(to.joinpath(*parts))
        aside.rename(to)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return sorted(found)


def _make_folders(root: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        root /= part
        root.mkdir(mode=0o700, exist_ok=True)


def read_tar(source: Path | BinaryIO, *, limits: Limits | None = None) -> Iterator[tuple[str, Readable]]:
    """Yield the files of a .tar or .tar.gz, each with its name and content, in the archive's order.

    The content is readable until the next file is requested. Raises `ArchiveError` as `extract_tar` does, at the
    latest after the last file.
    """
    for parts, content in _entries(source, limits or Limits()):
        if content is not None:
            yield "/".join(parts), content


def safe_parts(name: str) -> tuple[str, ...]:
    """Return the parts of a relative path from an untrusted source, such as an archive member or an object key.

    Raises `ArchiveError` for a name that points outside its folder, or that some file systems do not support.
    """
    text = name.removeprefix("./").removesuffix("/")
    parts = tuple(text.split("/"))
    reason = None
    if any(part in ("", ".", "..") for part in parts):
        reason = "it is absolute, empty, or points outside its folder"
    elif "\\" in text or _DRIVE.match(text):
        reason = "it contains a backslash or a drive letter"
    elif any(unicodedata.category(character) in _HIDDEN for character in text):
        reason = "it contains invisible characters"
    elif len(parts) > 32 or len(text.encode()) > 1024 or any(len(part.encode()) > 255 for part in parts):
        reason = "it is too long"
    if reason:
        raise ArchiveError(f"the name {text[:200]!a} is not allowed: {reason}")
    return parts


class _Names:
    """The names so far. File systems that ignore case or normalize Unicode treat some of them as equal."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}
        self._given: set[str] = set()

    def add(self, parts: tuple[str, ...], *, folder: bool) -> None:
        for end in range(1, len(parts)):
            self._note("/".join(parts[:end]), folder=True)
        path = "/".join(parts)
        self._note(path, folder=folder)
        if path in self._given:
            raise ArchiveError(f"duplicate name {path!a}")
        self._given.add(path)

    def _note(self, path: str, *, folder: bool) -> None:
        key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
        earlier = self._seen.setdefault(key, (path, folder))
        if earlier != (path, folder):
            raise ArchiveError(f"the names {earlier[0]!a} and {path!a} refer to the same file")


class _Stream:
    """The decompressed bytes of an archive, counted as they are read."""

    def __init__(self, file: Readable, allowed: int) -> None:
        self._file = file
        self._allowed = allowed
        self.size = 0
        self.zeros = 0
        """Zero bytes at the end of what was read."""
        self.header_end: int | None = None
        """Where the current headers must end, or None within a file's content."""

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        self.size += len(block)
        if self.size > self._allowed:
            raise ArchiveError(
                f"its content is larger than {self._allowed} bytes, the limit for an archive of its size"
            )
        if self.header_end is not None and self.size > self.header_end:
            raise ArchiveError("the headers of an entry are too long")
        kept = len(block.rstrip(b"\0"))
        self.zeros = len(block) - kept + (self.zeros if not kept else 0)
        return block


def _entries(source: Path | BinaryIO, limits: Limits) -> Iterator[tuple[tuple[str, ...], Readable | None]]:
    """Each entry's name with a file's content, or with None for a folder."""
    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(open_regular(source)) if isinstance(source, Path) else source
            compressed = raw.seek(0, os.SEEK_END)
            raw.seek(0)
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file: Readable = stack.enter_context(gzip.GzipFile(fileobj=raw)) if is_gzip else raw
            stream = _Stream(file, limits.allowed(compressed))
            yield from _parsed(stream, limits)
        except NotRegularFile as error:
            raise ArchiveError(str(error.strerror)) from error
        except _PARSING as error:
            raise _damaged(error) from error


def _damaged(error: BaseException) -> ArchiveError:
    return ArchiveError(f"it is damaged or not a tar archive: {str(error) or type(error).__name__}")


def _parsed(stream: _Stream, limits: Limits) -> Iterator[tuple[tuple[str, ...], Readable | None]]:
    names, count, end = _Names(), 0, 0
    stream.header_end = _HEADERS
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK, encoding="utf-8") as archive:  # type: ignore[call-overload]
        while True:
            stream.header_end = stream.size + _HEADERS
            entry = archive.next()
            stream.header_end = None
            if entry is None:
                break
            count += 1
            if count > limits.entries:
                raise ArchiveError(f"it has more than {limits.entries} entries")
            end = entry.offset_data + (-(-entry.size // _BLOCK) * _BLOCK if entry.isfile() else 0)
            if entry.isdir() and entry.name in ("", "."):
                continue
            parts = safe_parts(entry.name)
            _refuse_special(entry)
            names.add(parts, folder=entry.isdir())
            if entry.isdir():
                yield parts, None
                continue
            held = archive.extractfile(entry)
            assert held is not None, "it is a regular file"
            content = _Content(held, entry.size)
            yield parts, content
            content.finish()
    while stream.read(_CHUNK):  # also checks gzip's checksum
        pass
    # `tarfile` treats an unreadable header as the end.
    rest = stream.size - end
    if rest < 2 * _BLOCK or stream.zeros < rest:
        raise ArchiveError("it is truncated, or has data after its end")


def _refuse_special(entry: tarfile.TarInfo) -> None:
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or entry.issparse():
        raise ArchiveError(f"{entry.name!a} is a link, a device or another special file")
    if entry.size < 0 or (entry.isdir() and entry.size):
        raise ArchiveError(f"{entry.name!a} has an invalid size")


class _Content:
    """A file's content, whose length must match its header."""

    def __init__(self, file: Readable, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        try:
            block = self._file.read(self._left if size < 0 else min(size, self._left))
        except _PARSING as error:  # raised in the caller's frame, not in the generator's
            raise _damaged(error) from error
        if not block and self._left and size:
            raise ArchiveError("it is truncated within a file")
        self._left -= len(block)
        return block

    def finish(self) -> None:
        while self._left:
            self.read(_CHUNK)
