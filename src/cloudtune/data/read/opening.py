"""Opens a source's paths as byte streams: patterns, compression, and errors of files."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import os
import re
import sys
import tempfile
import zlib
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from cloudtune.data.media.folders import class_files
from cloudtune.data.read import remote
from cloudtune.data.read.arrow import dataset_files
from cloudtune.data.read.path_patterns import matching_files
from cloudtune.data.read.remote import RemoteFile, is_remote
from cloudtune.data.read.size_limits import FREE_BYTES, MAX_RATIO
from cloudtune.errors import CloudtuneError, DataError, Problem
from cloudtune.files.regular_file import NotRegularFile, invalid_path, open_regular
from cloudtune.install_command import install_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.problem_list import Faults
    from cloudtune.spec import Source

_BY_SUFFIX = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".xlsx": "xlsx", ".xlsm": "xlsx",
    ".txt": "text", ".text": "text", ".md": "text",
}  # fmt: skip
_SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bzip2", ".xz": "xz"}
_MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
STDIN = "-"
_NAMES_COMPARED = 10_000


File = Path | RemoteFile


def files_of(source: Source, faults: Faults) -> list[File]:
    """The files of the source, with patterns expanded; unreadable files are reported."""
    found: list[File] = []
    for name in source.paths:
        if problem := invalid_path(name):
            faults.error("bad_path", problem, file=name, fix="fix the path")
        elif is_remote(name):
            found += _remote(name, faults)
        elif name == STDIN:
            found.append(Path(name))
        elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110 - Path's raises where it may not look
            matches = _matching(name, faults)
            if not matches:
                faults.error("no_file", "no file matches this pattern", file=name, fix="check the path")
            found += matches
        else:
            found += _readable(Path(name), faults)
    return found


def _matching(pattern: str, faults: Faults) -> list[Path]:
    """The files that the pattern matches, sorted."""
    try:
        matches = matching_files(pattern)
    except (re.error, RecursionError, OSError) as error:
        faults.error("bad_path", f"not a valid pattern: {error}", file=pattern, fix="fix the pattern")
        return []
    for link in matches.unfollowed:
        message = "the files in this folder are not read: `**` does not follow links"
        faults.warn("link_not_followed", message, file=str(link), fix="name the folder itself in another path")
    return matches.files


def _remote(name: str, faults: Faults) -> list[RemoteFile]:
    try:
        found = remote.find(name)
    except CloudtuneError as error:
        faults.add(remote.problem_of(error, name))
        return []
    if not found:
        fix = f"specify the files, e.g. {name}*.jsonl" if name.endswith("/") else "check bucket, key and account"
        faults.error("no_file", "no such object", file=name, fix=fix)
    for one in found:
        if not one.size:
            faults.error("empty_file", "the file is empty", file=one.uri, fix="add at least one row")
    return [one for one in found if one.size]


def _readable(path: Path, faults: Faults) -> list[Path]:
    """The file itself, or those that make up the dataset in the folder; none if they cannot be read."""
    name = str(path)
    try:
        if path.is_dir():
            files = dataset_files(path, faults)
            if files is None:
                files = class_files(path, faults)
            if files is None:
                fix = f"specify the files, e.g. {name}/*.jsonl, or a folder with one folder of images for each label"
                faults.error("is_directory", "this is a folder", file=name, fix=fix)
            return files or []
        # Asking for permission beforehand would answer for the real user, not the effective one.
        with open_regular(path) as file:
            is_empty = not file.read(1)
        if is_empty:
            faults.error("empty_file", "the file is empty", file=name, fix="add at least one row")
            return []
    except FileNotFoundError:
        faults.error("no_file", "no such file", file=name, fix=_nearest(path))
    except OSError as error:
        code, message, fix = unreadable(error) or ("cannot_read", str(error), "check the path")
        faults.error(code, message, file=name, fix=fix)
    else:
        return [path]
    return []


def _nearest(path: Path) -> str:
    import difflib

    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    names = [entry.name for entry in islice(path.parent.iterdir(), _NAMES_COMPARED)]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.parent / near[0]}?" if near else f"check {path.parent.resolve()}"


def format_of(path: File) -> str | None:
    """The file's format by its name; None if the name does not determine it."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _SUFFIXES:
        suffixes.pop()
    return _BY_SUFFIX.get(suffixes[-1]) if suffixes else None


@contextmanager
def opened(path: File) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed; ``-`` is standard input."""
    with _raw(path) as raw:
        start = _peek(raw)
        packed = next((name for magic, name in _MAGICS.items() if start.startswith(magic)), None)
        if packed is None and (name := _SUFFIXES.get(path.suffix.lower())) and start[:1] not in (b"{", b"["):
            packed = name  # not compressed, which the reader reports
        if packed is None:
            yield raw
            return
        with _unpacked(raw, packed, path) as stream:
            yield cast("IO[bytes]", _Limited(stream, raw, packed))


def _raw(path: File) -> AbstractContextManager[IO[bytes]]:
    """The file's bytes unchanged, in a stream that supports peeking."""
    if str(path) == STDIN:
        source: Any = sys.stdin.buffer
        return nullcontext(source if hasattr(source, "peek") else io.BufferedReader(source))
    if isinstance(path, RemoteFile):
        return remote.opened(path)
    return cast("IO[bytes]", open_regular(path))


def _peek(raw: IO[bytes] | io.BufferedReader | io.BytesIO) -> bytes:
    """The first bytes, which stay in the stream."""
    return raw.peek(8)[:8] if isinstance(raw, io.BufferedReader) else b""  # an empty file has a simpler stream


def _unpacked(raw: IO[bytes], packed: str, path: File) -> IO[bytes]:
    if packed == "gzip":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if packed == "zstd":
        return _unzstd(raw, path)
    return cast("IO[bytes]", bz2.BZ2File(raw) if packed == "bzip2" else lzma.LZMAFile(raw))


class DecompressedTooLarge(OSError):
    """A compressed file expands far more than its size allows."""


class BrokenCompression(OSError):
    """A compressed file is damaged, cut off, or not compressed at all. The argument is the kind of compression."""


class _Limited:
    """A decompressed stream that ends with DecompressedTooLarge where far more comes out than went in."""

    def __init__(self, stream: IO[bytes], packed: IO[bytes], kind: str) -> None:
        self._stream, self._packed, self._kind = stream, packed, kind
        self._size = 0

    def read(self, size: int) -> bytes:
        """Read at most so many bytes."""
        try:
            data = self._stream.read(size)
        except (EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            raise BrokenCompression(self._kind) from error
        except OSError as error:
            if error.errno is None:  # of the decompressor, not of the system
                raise BrokenCompression(self._kind) from error
            raise
        self._size += len(data)
        if self._size > FREE_BYTES and self._size > MAX_RATIO * self._packed.tell():
            raise DecompressedTooLarge
        return data


@contextmanager
def at_hand(path: File, head: bytes, stream: IO[bytes]) -> Iterator[Path]:
    """The file on a local disk, for readers that need random access.

    The stream is what `opened` gave; ``head`` is what was already read of it.
    """
    if isinstance(path, Path) and str(path) != STDIN and not isinstance(stream, _Limited):
        yield path
        return
    with tempfile.NamedTemporaryFile() as copy:
        while head:
            copy.write(head)
            head = stream.read(1 << 20)
        copy.flush()
        yield Path(copy.name)


def _unzstd(raw: IO[bytes], path: File) -> IO[bytes]:
    try:
        from pyarrow import input_stream
    except ImportError as error:
        fix = install_command("data")
        problem = Problem(code="not_installed", message="reading .zst requires pyarrow", file=str(path), fix=fix)
        raise DataError([problem]) from error
    return cast("IO[bytes]", input_stream(raw, compression="zstd"))


def unreadable(error: Exception) -> tuple[str, str, str] | None:
    """Code, message and fix for an exception from reading a file; None if it is not about the file."""
    if isinstance(error, DecompressedTooLarge):
        message = f"its content is larger than {FREE_BYTES >> 20} MiB and {MAX_RATIO} times its compressed size"
        return "decompressed_too_large", message, "if that is correct, decompress it first (gunzip, unzstd)"
    if isinstance(error, NotRegularFile):
        return "not_a_regular_file", str(error.strerror), "use a regular file, or - for standard input"
    if isinstance(error, IsADirectoryError):
        return "is_directory", "this is a folder", "specify the files in it"
    if isinstance(error, BrokenCompression):
        kind = error.args[0]
        message = f"this is not a complete {kind} file: it is damaged, cut off, or not compressed"
        return f"broken_{kind}", message, "create or download it again; if it is not compressed, rename it"
    if isinstance(error, PermissionError):
        return "no_permission", "no permission to read this file", "change its permissions"
    if isinstance(error, OSError):
        return "cannot_read", f"the file cannot be read: {error.strerror or error}", "check the disk and the path"
    return None
