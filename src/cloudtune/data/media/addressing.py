"""Rows that name a file get the name of its content, so that hashes of rows cover the bytes of their files."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.media import images, recordings
from cloudtune.data.records import Picture, Speech
from cloudtune.errors import Problem
from cloudtune.files.private_files import private_folder, write_private
from cloudtune.files.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudtune.data.media.images import Checked
    from cloudtune.data.places import Batch
    from cloudtune.data.records import Record

FIELDS: dict[type[Record], str] = {Picture: "image", Speech: "audio"}
"""The key of the file, by the type of the record."""
_CHECKS: dict[str, Callable[[bytes, str], Checked]] = {"image": images.check, "audio": recordings.check}
FOLDER = "media"
"""In an addressed record, the folder of its file."""
_LARGEST = 512 << 20
_URI = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_DATA_URI = re.compile(r"data:[^,;]*;base64,", re.IGNORECASE)
_SHOWN = 120


def media_folder(file: Path) -> Path:
    """The folder with the media of an encoded file."""
    return file.with_name(f"{file.name}.{FOLDER}")


def file_of(given: str, rows: str) -> Path:
    """The file that a row of the file ``rows`` names: relative paths start at the folder of the rows."""
    return Path(rows).parent / given


def is_inline(given: str) -> bool:
    """Whether it is a ``data:`` URI, which holds the file."""
    return _DATA_URI.match(given) is not None


def with_whole_paths(batch: Batch) -> Batch:
    """The batch with absolute paths, so that its rows name the same files in another file and beside other rows."""
    field = FIELDS.get(type(batch.records[0])) if batch.records else None
    if field is None or _URI.match(batch.file):
        return batch
    return batch._replace(records=[_with_whole_path(record, field, batch.file) for record in batch.records])


def _with_whole_path(record: Record, field: str, rows: str) -> Record:
    given = getattr(record, field)
    if not given or _URI.match(given):
        return record
    changes: dict[str, Any] = {field: str(file_of(given, rows).absolute())}
    return msgspec.structs.replace(record, **changes)


class MediaFiles:
    """Checks the files that records name. With a folder, it also copies them there."""

    def __init__(self, folder: str | None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._scripts = recordings.Scripts()

    def addressed(self, record: Record, rows: str) -> tuple[Record | None, Sequence[Problem]]:
        """The record with the name of its file's content, and the file's problems; no record if they have an error.

        ``rows`` is the file of the record.
        """
        field = FIELDS[type(record)]
        given = getattr(record, field)
        content = _content(given, rows)
        if isinstance(content, Problem):
            return None, [msgspec.structs.replace(content, field=field)]
        checked = _CHECKS[field](content, given)
        found = [msgspec.structs.replace(problem, field=field) for problem in checked.problems]
        if any(problem.severity == "error" for problem in found):
            return None, found
        if isinstance(record, Speech) and (problem := self._scripts.check(record.transcript)) is not None:
            found.append(msgspec.structs.replace(problem, field="transcript"))
        # Not in hexadecimal: long runs of digits would look like card numbers.
        digest = base64.b32encode(hashlib.sha256(content).digest()).decode().rstrip("=").lower()
        name = f"{digest}{checked.suffix}"
        if self._folder is not None:
            _store(self._folder / name, content)
        changes: dict[str, Any] = {field: f"{FOLDER}/{name}"}
        return msgspec.structs.replace(record, **changes), found


def shown(given: str) -> str:
    """A path or a URI for a message."""
    return given if len(given) <= _SHOWN else f"{given[:_SHOWN]}..."


def _content(given: str, rows: str) -> bytes | Problem:
    """The bytes of a path or of a ``data:`` URI, or why there are none."""
    if match := _DATA_URI.match(given):
        try:
            return base64.b64decode(given[match.end() :], validate=True)
        except binascii.Error as error:
            return _problem("bad_base64", f"the data URI is no base64: {error}", "encode the file again")
    if _URI.match(given):
        message = f"{shown(given)}: files are read from paths and data URIs"
        return _problem("remote_file", message, "download the file, and write its path")
    path = file_of(given, rows)
    try:
        with open_regular(path) as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return _problem("no_file", f"{shown(given)} does not exist", f"write a path that starts at {path.parent}")
    except IsADirectoryError:
        return _problem("is_directory", f"{shown(given)} is a folder", "write the path of a file")
    except OSError as error:
        return _problem("cannot_read", f"{shown(given)}: {error.strerror or error}", "check the file")
    if not content:
        return _problem("empty_file", f"{shown(given)} is empty", "write the file again, or remove the row")
    if len(content) > _LARGEST:
        return _problem("too_large", f"{shown(given)} has more than {_LARGEST >> 20} MiB", "split it, or reduce it")
    return content


def _problem(code: str, message: str, fix: str) -> Problem:
    return Problem(code=code, message=message, fix=fix)


def _store(path: Path, content: bytes) -> None:
    """Write the file, unless it is there."""
    if path.exists():
        return
    private_folder(path.parent)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_private(aside, content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
