"""The run folder: the names of its files, and atomic writes, so that readers never see an incomplete file.

The trainer and the local back end communicate through these files only, so that any process can read a run, also after
a reboot. Standard library only: the back end imports this module too.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloudtune_trainer.private_files import opener, private_folder

TUNED = "tuned.json"
"""Describes the model, in the model's folder."""
SPEC_VERSION = 2
STATES = (
    "queued", "starting", "loading", "training", "evaluating", "saving", "paused", "cancelling",
    "succeeded", "failed", "cancelled", "expired",
)  # fmt: skip
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "expired"})
DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class RunFolder:
    """A run on disk. Creating the object does not access the disk."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self.spec = self.path / "spec.json"
        self.data = self.path / "data"
        self.status = self.path / "status.json"
        self.events = self.path / "events.jsonl"
        self.metrics = self.path / "metrics.jsonl"
        self.control = self.path / "control"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.worker = self.path / "worker.json"
        self.lock = self.path / "lock"
        self.ticket = self.path / "ticket"
        self.log = self.path / "log.txt"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def requested(self, request: str) -> bool:
        """Whether ``cancel``, ``pause`` or ``expire`` (stop as at the time limit) is requested."""
        return (self.control / request).exists()

    def ask(self, request: str) -> None:
        """Request ``cancel``, ``pause`` or ``expire`` from the trainer."""
        private_folder(self.control)
        (self.control / request).touch(mode=0o600)

    def withdraw(self, request: str) -> None:
        """Withdraw a request; removing ``pause`` resumes the trainer."""
        (self.control / request).unlink(missing_ok=True)


def now() -> str:
    """The time as every file of the run folder writes it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_json(path: Path, document: Any, *, durable: bool = True) -> None:
    """Write a temporary file, then rename: readers see the old document or the new one, also after a power failure.

    ``durable=False`` skips the flush to disk, for files that are rewritten within seconds.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(aside, "w", encoding="utf-8", opener=opener) as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames in that directory durable, if the system supports it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # some file systems cannot flush a directory; the rename itself has happened
    finally:
        os.close(handle)


def read_json(path: Path) -> Any:
    """The document, or None if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def append_line(path: Path, document: Any) -> None:
    """Append one line in one write. First terminates an incomplete line of an earlier writer."""
    line = json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with open(path, "ab+", buffering=0, opener=opener) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                line = b"\n" + line
        written = file.write(line)
        if written != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def read_lines(path: Path, after: int = 0) -> list[tuple[int, Any]]:
    """Lines after number ``after`` with their numbers, counted from 1. Incomplete or damaged lines are skipped."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    lines = content.split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # the text after the last line end is incomplete, or empty
        if number <= after or not line.strip():
            continue
        try:
            found.append((number, json.loads(line)))
        except (ValueError, RecursionError):
            continue
    return found
