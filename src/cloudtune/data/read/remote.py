"""Rows in remote stores, such as ``s3://bucket/rows.jsonl``. The plugin table `STORES` has a store for each scheme.

A store finds objects and opens them at a byte offset. This module retries, and continues after a broken connection, for
all of them.
"""

from __future__ import annotations

import io
import re
from functools import cache
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol, TypeVar, cast

from cloudtune.clock import SystemClock
from cloudtune.errors import CloudtuneError, DataError, Problem, TransientError
from cloudtune.plugins import STORES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import WriteableBuffer

    from cloudtune.clock import Clock

T = TypeVar("T")
_BUFFER = 1 << 20
_TRIES = 5
"""How often a stream is reopened without progress."""


class RemoteFile(NamedTuple):
    """One object."""

    uri: str
    size: int
    version: str
    """Changes whenever the content does."""

    def __str__(self) -> str:
        return self.uri

    @property
    def suffix(self) -> str:
        """As a path's."""
        return PurePosixPath(self.uri).suffix

    @property
    def suffixes(self) -> list[str]:
        """As a path's."""
        return PurePosixPath(self.uri).suffixes


class Store(Protocol):
    """The store for URIs of one scheme. Makes one attempt; raises cloudtune's errors. Thread-safe."""

    def get(self, uri: str) -> RemoteFile | None:
        """The object of that URI, or None."""

    def list(self, prefix: str) -> Sequence[RemoteFile]:
        """All objects with that URI prefix, sorted."""

    def open(self, file: RemoteFile, start: int) -> IO[bytes]:
        """The object's bytes from there on. Raises DataError if it is no longer the same version."""


def is_remote(name: str) -> bool:
    """Whether a source's path is a URI."""
    return "://" in name


def find(name: str, clock: Clock | None = None) -> list[RemoteFile]:
    """The objects that a URI or pattern names, sorted. Raises CloudtuneError."""
    store, clock = store_of(name), clock or SystemClock()
    if not (magic := re.search(r"[*?\[]", name)):
        one = _asked(clock, lambda: store.get(name))
        return [one] if one is not None else []
    fits = _pattern(name)
    start = name[: magic.start()]
    return [file for file in _asked(clock, lambda: store.list(start)) if fits.fullmatch(file.uri)]


def _asked(clock: Clock, call: Callable[[], T]) -> T:
    from cloudtune.retry import reading  # imported on use, because remote rows are rare

    return reading(clock, call)


def _pattern(name: str) -> re.Pattern[str]:
    """As for files: ``*`` stays within a folder, ``**/`` does not.

    What a ``*`` matches ends at the first place where the text behind it fits, as in `fnmatch`, and what a ``**/``
    matches at the first folder from which the parts behind it fit. No other place needs a try before the next one, so
    the time does not grow with the number of ways to match.
    """
    first, *others = map(_within_folders, re.split(r"(?<!\*)(?:\*\*/)+", name))
    nested = [f"(?:[^/]*/)*?{one}" for one in others]
    return re.compile(first + "".join(f"(?>{one})" for one in nested[:-1]) + "".join(nested[-1:]))


def _within_folders(text: str) -> str:
    """The expression of a pattern without ``**/``."""
    parts = [part for part in re.split(r"(\*+|\?|\[[^\]]+\])", text) if part]
    written = ""
    while parts:
        part = parts.pop(0)
        if not part.strip("*"):
            text = ""
            while parts and "*" not in parts[0]:
                text += _one(parts.pop(0))
            written += f"(?>[^/]*?{text})" if parts else f"[^/]*{text}"
        else:
            written += _one(part)
    return written


def _one(part: str) -> str:
    if part == "?":
        return "[^/]"
    if part[:1] == "[" and part[-1:] == "]":
        part = f"[^{part[2:]}" if part[1] == "!" else part
        try:
            re.compile(part)
        except re.error:
            return "(?!)"  # a range that ends before it begins matches nothing
        return part
    return re.escape(part)


def opened(file: RemoteFile, clock: Clock | None = None) -> IO[bytes]:
    """The object's bytes; after a broken connection, reading resumes at the same position."""
    return io.BufferedReader(_Resuming(store_of(file.uri), file, clock or SystemClock()), _BUFFER)


class _Resuming(io.RawIOBase):
    """A stream from a store that resumes after a broken connection."""

    def __init__(self, store: Store, file: RemoteFile, clock: Clock) -> None:
        self._store, self._file, self._clock = store, file, clock
        self._at = 0
        self._body: IO[bytes] | None = None

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def tell(self) -> int:
        """See `io.IOBase`."""
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """See `io.RawIOBase`."""
        view = memoryview(buffer)
        data = self._read(len(view)) if self._at < self._file.size else b""
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read(self, size: int) -> bytes:
        for tries in range(_TRIES):
            body = self._body = self._body or _asked(self._clock, lambda: self._store.open(self._file, self._at))
            try:
                data = body.read(size)
            except TransientError:
                if tries == _TRIES - 1:
                    raise
            else:
                if data:
                    return data  # an object that ends too early means a broken connection
            self._drop()
        raise DataError([Problem(code="cut_off", message=f"received only {self._at:,} of {self._file.size:,} bytes",
                                 file=self._file.uri, fix="try again")])  # fmt: skip

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
        self._body = None

    def close(self) -> None:
        """See `io.RawIOBase`."""
        self._drop()
        super().close()


def store_of(name: str) -> Store:
    """The store for URIs of that scheme. Raises DataError for an unsupported scheme, BackendNotInstalled."""
    return _store(name.partition("://")[0].lower())


@cache
def _store(scheme: str) -> Store:
    if scheme not in STORES.plugins:
        fix = f"copy the file here, or name one that begins with {', '.join(f'{one}://' for one in STORES.plugins)}"
        message = f"{scheme}:// addresses are not supported"
        raise DataError([Problem(code="unknown_scheme", message=message, field="path", fix=fix)])
    return cast("Store", STORES.make(scheme))


def problem_of(error: CloudtuneError, file: str) -> Problem:
    """The error of a remote file, as a problem with its location."""
    if isinstance(error, DataError):
        return error.problems[0] if error.problems[0].file else _placed(error.problems[0], file)
    names = {
        "BackendNotInstalled": "not_installed", "JobNotFound": "no_file", "PermissionDenied": "no_permission",
        "CredentialsError": "no_credentials", "Unavailable": "cannot_reach", "RateLimited": "cannot_reach",
    }  # fmt: skip
    code = names.get(type(error).__name__, "cannot_read")
    return Problem(code=code, message=error.message, file=file, fix=error.hint or "check the address and the account")


def _placed(problem: Problem, file: str) -> Problem:
    from msgspec.structs import replace

    return replace(problem, file=file)
