"""The scripted vendor's own store: jobs, files, deployments, planned faults, and every request it received.

In a file it is shared by several processes and survives the death of any client: a test can count the vendor's real
state. Every request is one transaction, so a request of a client that is killed meanwhile has no effect.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.testing.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, token TEXT, name TEXT, created_at REAL, body TEXT, script TEXT,
    acts TEXT NOT NULL DEFAULT '[]', deleted INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, name TEXT, bytes INTEGER, sha256 TEXT, created_at REAL, fault TEXT
);
CREATE TABLE uploads (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, finished INTEGER NOT NULL DEFAULT 0);
CREATE TABLE parts (upload INTEGER, number INTEGER, payload BLOB, PRIMARY KEY (upload, number));
CREATE TABLE deployments (name TEXT PRIMARY KEY, model TEXT, created_at REAL);
CREATE TABLE faults (seq INTEGER PRIMARY KEY AUTOINCREMENT, pattern TEXT, fault TEXT, remaining INTEGER);
CREATE TABLE calls (seq INTEGER PRIMARY KEY AUTOINCREMENT, call TEXT, body TEXT, at REAL, acted INTEGER);
CREATE TABLE late (seq INTEGER PRIMARY KEY AUTOINCREMENT, due REAL, call TEXT, body TEXT, payload BLOB);
"""

Database = sqlite3.Connection


class Store:
    """One SQLite database, in a file or in memory. Thread-safe, and usable after a fork."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._db = self._open()

    def _open(self) -> Database:
        db = sqlite3.connect(self._path or ":memory:", timeout=60, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA synchronous = OFF")  # it has to survive processes, not power failures
        db.execute("BEGIN IMMEDIATE")
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone():
            for statement in _TABLES.split(";"):
                db.execute(statement)
        db.execute("COMMIT")
        return db

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """An exclusive transaction. Nested use joins the outer one."""
        with self._lock:
            if self._pid != os.getpid() and self._path is not None:  # SQLite's connections do not survive a fork
                self._pid, self._db = os.getpid(), self._open()
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """The answer to a query."""
        with self.transaction() as db:
            return [dict(row) for row in db.execute(query, values)]

    def setting(self, name: str, default: Any) -> Any:
        """A value kept in the store; the first to ask writes the default."""
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, _dump(default)))
            row = db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
            return msgspec.json.decode(row["value"])

    def change(self, name: str, value: Any) -> None:
        """Change a setting for every process."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, _dump(value)))

    def add_fault(self, pattern: str, fault: Fault) -> None:
        """Plan a fault for calls whose name matches (as shell patterns do)."""
        with self.transaction() as db:
            row = (pattern, _dump(fault), fault.times)
            db.execute("INSERT INTO faults (pattern, fault, remaining) VALUES (?, ?, ?)", row)

    def take_fault(self, call: str) -> Fault | None:
        """The oldest planned fault for that call. Counts as a use."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT seq, fault FROM faults WHERE remaining > 0 AND ? GLOB pattern ORDER BY seq LIMIT 1", (call,)
            ).fetchone()
            if row is None:
                return None
            db.execute("UPDATE faults SET remaining = remaining - 1 WHERE seq = ?", (row["seq"],))
            return msgspec.json.decode(row["fault"], type=Fault)

    def write_call(self, call: str, body: Any, at: float, *, acted: bool) -> None:
        """Record a request as received."""
        with self.transaction() as db:
            row = (call, _dump(body), at, acted)
            db.execute("INSERT INTO calls (call, body, at, acted) VALUES (?, ?, ?, ?)", row)


def _dump(value: Any) -> str:
    return msgspec.json.encode(value).decode()
