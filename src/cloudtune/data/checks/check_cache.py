"""A cache of data checks by content: data are checked again only if the rows or the rules change.

An entry is a file named by the hash of everything that affects the result: the bytes of the files, the settings for
reading and splitting, the rules, and the checking code itself. Entries are written to a temporary file and renamed, so
that any number of processes can share a folder. An entry that is damaged, unreadable or of another version is ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.checks.preparing import prepare, sources
from cloudtune.data.checks.tokens import tokenizer_files
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.opening import STDIN, files_of
from cloudtune.data.read.remote import RemoteFile
from cloudtune.errors import DataError, Problem
from cloudtune.files.private_files import private_folder, write_private
from cloudtune.files.regular_file import open_regular
from cloudtune.methods import DEFAULT_METHOD, METHODS
from cloudtune.plan import DataReport
from cloudtune.plugins import FORMATS, ROW_KINDS, TOKENIZERS

if TYPE_CHECKING:
    from cloudtune.data.checks.targets import Target
    from cloudtune.data.read.opening import File
    from cloudtune.methods import LabelProblem
    from cloudtune.plan import RowLimit
    from cloudtune.spec import Data

KEPT = 200
_Print = tuple[int | str, int, int]


class _Entry(msgspec.Struct, frozen=True):
    """A cached result: a report, or the problems that prevented one."""

    report: DataReport | None
    problems: list[Problem]


_DECODER = msgspec.json.Decoder(_Entry)


class Verdicts:
    """A folder of cached results. Safe for several threads and processes. It need not exist, and can be deleted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(
        self, data: Data, *, method: str = DEFAULT_METHOD, problem: LabelProblem | None = None,
        limit: RowLimit | None = None, target: Target | None = None,
    ) -> DataReport:  # fmt: skip
        """As `cloudtune.data.prepare`, or its cached result for the same bytes and rules."""
        if METHODS[method].media is not None:  # the entry would have to cover the files that rows name
            return prepare(data, method=method, problem=problem, limit=limit, target=target)
        before = _prints(data)
        key = _key(data, method, problem, limit, target) if before is not None else None
        if key is not None and (known := self._read(key)) is not None:
            if known.report is None:
                raise DataError(known.problems)
            return known.report
        try:
            report = prepare(data, method=method, problem=problem, limit=limit, target=target)
        except DataError as error:
            self._keep(key, _Entry(None, list(error.problems)), unchanged=before == _prints(data))
            raise
        self._keep(key, _Entry(report, []), unchanged=before == _prints(data))
        return report

    def _read(self, key: str) -> _Entry | None:
        try:
            head, _, body = (self.folder / key).read_bytes().partition(b"\n")
            if head.decode() != hashlib.sha256(body).hexdigest():
                return None
            return _DECODER.decode(body)
        except (OSError, ValueError):  # msgspec's errors are ValueErrors
            return None

    def _keep(self, key: str | None, entry: _Entry, *, unchanged: bool) -> None:
        """Store the result, unless the files changed during the check. An unwritable folder is no error."""
        if key is None or not unchanged:
            return
        body = msgspec.json.encode(entry)
        aside = self.folder / f".{key}.{uuid.uuid4().hex[:8]}"
        with contextlib.suppress(OSError):
            private_folder(self.folder)
            try:
                write_private(aside, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
                aside.replace(self.folder / key)
            finally:
                aside.unlink(missing_ok=True)
            self._forget()

    def _forget(self) -> None:
        """Delete all but the newest entries."""
        entries = []
        with os.scandir(self.folder) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):  # another process deletes entries too
                    entries.append((entry.stat().st_mtime_ns, entry.name))
        for _, name in sorted(entries, reverse=True)[KEPT:]:
            (self.folder / name).unlink(missing_ok=True)


def _files(data: Data) -> dict[str, list[File]] | None:
    """Return every file of the data by origin, or None if the bytes cannot be read twice, or not at all."""
    found: dict[str, list[File]] = {}
    for origin, source in sources(data).items():
        faults = Faults()
        found[origin] = files_of(source, faults)
        if faults.counts or any(str(path) == STDIN for path in found[origin]):
            return None
    return found


def _prints(data: Data) -> list[tuple[str, _Print]] | None:
    """The file system's metadata of the files: if unchanged, no process has written to them meanwhile."""
    files = _files(data)
    if files is None:
        return None
    try:
        return [(str(path), _print(path)) for paths in files.values() for path in paths]
    except OSError:
        return None


def _print(path: File) -> _Print:
    if isinstance(path, RemoteFile):
        return path.version, path.size, 0
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _key(
    data: Data, method: str, problem: LabelProblem | None, limit: RowLimit | None, target: Target | None
) -> str | None:
    """The name of the entry; None if a file cannot be read."""
    files = _files(data)
    if files is None:
        return None
    try:
        content = {origin: [(str(path), _hash(path)) for path in paths] for origin, paths in files.items()}
        tokenizer = [_hash(path) for path in tokenizer_files(limit.tokenizer)] if limit is not None else []
    except OSError:
        return None
    document: dict[str, Any] = {
        "rules": rules_version(), "data": data.model_dump(mode="json"), "content": content, "method": method,
        "problem": problem, "limit": limit, "tokenizer": tokenizer,
        "target": target._asdict() if target is not None else None,
    }  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()


def _hash(path: File) -> str:
    if isinstance(path, RemoteFile):
        return f"{path.version} {path.size}"  # the store's own version of the content
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def rules_version() -> str:
    """A hash of the code that reads, checks and writes rows, that of plugins included."""
    found = hashlib.sha256()
    plugins = FORMATS.code() | ROW_KINDS.code() | TOKENIZERS.code()
    for file in sorted({*Path(__file__).parents[1].rglob("*.py"), *plugins}):
        found.update(file.read_bytes())
    return found.hexdigest()
