"""The state of the emulated vendors: documents in SQLite (a file, or memory) and contents in files.

A document is a dict with an ``id``. ``kind`` (file, upload, job, model, deployment ...) and ``api`` (the account) form
its namespace. The creation order is preserved.
"""

from __future__ import annotations

import fcntl
import secrets
import shutil
import sqlite3
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import msgspec

from cloudtune.errors import ConfigError
from cloudtune.files.private_files import narrow, open_private, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_UNSETTLED = "json_extract(body, '$.settled') = 0"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS documents (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, api TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
  UNIQUE (kind, api, id)
);
CREATE INDEX IF NOT EXISTS unsettled ON documents (seq) WHERE {_UNSETTLED};
"""


class Stored(NamedTuple):
    """A document and its namespace."""

    kind: str
    api: str
    document: dict[str, Any]


class Ended(NamedTuple):
    """Something that has ended."""

    at: float
    record: Callable[[], None]
    """Writes its results. May change its document, which the caller saves."""


class Store:
    """Thread-safe. With ``folder`` None, data are kept until `close`."""

    def __init__(self, folder: Path | None = None) -> None:
        self._lock = threading.RLock()
        self.is_kept = folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="cloudtune-emulator-"))
        self._held = _hold(self.folder) if self.is_kept else None
        self._contents = self.folder / "contents"
        private_folder(self._contents)
        where = str(self.folder / "emulator.sqlite") if self.is_kept else ":memory:"
        if self.is_kept:
            _keep_private(Path(where))
        self._db = sqlite3.connect(where, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._moment = float((self.get("clock", "", "clock") or {"now": 0.0})["now"])

    def close(self) -> None:
        """Close the store; deletes everything unless a folder was given."""
        with self._lock:
            self._db.close()
        if self._held is not None:
            self._held.close()
        if not self.is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Exclude other readers and writers, for reading before writing."""
        with self._lock:
            yield

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As `alone`, and a transaction: either all documents are written or none."""
        with self._lock:
            self._db.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # -- time ----------------------------------------------------------------------------------------------------

    @property
    def moment(self) -> float:
        """The latest saved time; 0 if there is none."""
        return self._moment

    def keep_time(self, now: float) -> None:
        """Save the time if it is ahead of the machine's: time must not run backwards over a restart."""
        if not self.is_kept or now <= max(self._moment, time.time()):
            return
        with self._lock:
            self._moment = now
            self._db.execute(
                "INSERT INTO documents (kind, api, id, body) VALUES ('clock', '', 'clock', ?)"
                " ON CONFLICT (kind, api, id) DO UPDATE SET body = excluded.body",
                (_text({"id": "clock", "now": now}),),
            )

    # -- documents -----------------------------------------------------------------------------------------------

    def add(self, kind: str, api: str, document: dict[str, Any]) -> dict[str, Any]:
        """Insert a new document. Raises sqlite3.IntegrityError if its id exists."""
        row = (kind, api, document["id"], _text(document))
        with self._lock:
            self._db.execute("INSERT INTO documents (kind, api, id, body) VALUES (?, ?, ?, ?)", row)
        return document

    def save(self, kind: str, api: str, document: dict[str, Any]) -> None:
        """Update an existing document."""
        with self._lock:
            self._db.execute(
                "UPDATE documents SET body = ? WHERE kind = ? AND api = ? AND id = ?",
                (_text(document), kind, api, document["id"]),
            )

    def get(self, kind: str, api: str, name: str) -> dict[str, Any] | None:
        """A document by its id."""
        with self._lock:
            row = self._db.execute(
                "SELECT body FROM documents WHERE kind = ? AND api = ? AND id = ?", (kind, api, name)
            ).fetchone()
        return _document(row[0]) if row else None

    def all(self, kind: str, api: str | None = None) -> list[dict[str, Any]]:
        """Every document of a kind, oldest first; of one API, or of all APIs."""
        with self._lock:
            rows = self._db.execute(
                "SELECT body FROM documents WHERE kind = ? AND (? IS NULL OR api = ?) ORDER BY seq", (kind, api, api)
            ).fetchall()
        return [_document(row[0]) for row in rows]

    def unsettled(self) -> list[Stored]:
        """Every document with ``"settled": false``, oldest first."""
        with self._lock:
            rows = self._db.execute(f"SELECT kind, api, body FROM documents WHERE {_UNSETTLED} ORDER BY seq")  # noqa: S608
            return [Stored(kind, api, _document(body)) for kind, api, body in rows]

    def remove(self, kind: str, api: str, name: str) -> bool:
        """Delete a document; returns whether it existed."""
        with self._lock:
            gone = self._db.execute(
                "DELETE FROM documents WHERE kind = ? AND api = ? AND id = ?", (kind, api, name)
            ).rowcount
        return bool(gone)

    def count(self, kind: str, api: str | None = None) -> int:
        """The number of documents."""
        with self._lock:
            row = self._db.execute(
                "SELECT count(*) FROM documents WHERE kind = ? AND (? IS NULL OR api = ?)", (kind, api, api)
            ).fetchone()
        return int(row[0])

    # -- contents ------------------------------------------------------------------------------------------------

    def content(self, name: str) -> Path:
        """The path of the content of that name."""
        return self._contents / name

    def write(self, name: str, stream: IO[bytes]) -> int:
        """Store a stream's bytes under a name, and return their number."""
        target = self.content(name)
        with open_private(target) as file:
            shutil.copyfileobj(stream, file, 1 << 20)
            return file.tell()

    def erase(self, name: str) -> None:
        """Delete a content."""
        self.content(name).unlink(missing_ok=True)


def _keep_private(database: Path) -> None:
    """Create the database with mode 0600, or narrow an older one. SQLite gives -wal and -shm the same mode."""
    open_private(database, "ab").close()
    for suffix in ("", "-wal", "-shm"):
        narrow(database.with_name(database.name + suffix))


def _hold(folder: Path) -> IO[bytes]:
    """Allow one server at a time on a folder."""
    private_folder(folder)
    lock = open_private(folder / "lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ConfigError(f"another emulator uses the store {folder}") from error
    return lock


def new_id(prefix: str) -> str:
    """An id in the vendors' format: a prefix and 24 letters and digits."""
    return f"{prefix}{secrets.token_hex(12)}"


def _document(text: str) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any])


def _text(document: dict[str, Any]) -> str:
    return msgspec.json.encode(document).decode()
