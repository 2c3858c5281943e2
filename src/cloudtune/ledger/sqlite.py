"""Stores the ledger in one SQLite file in WAL mode, shared by all processes of a machine.

Reading opens the file read-only: it never creates, migrates or writes it. WAL mode needs shared memory, which network
file systems do not provide, so creating a ledger there is an error.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cloudtune.errors import LedgerError
from cloudtune.files.private_files import narrow_database, private_folder, write_private
from cloudtune.ledger.rows import REMEDY
from cloudtune.ledger.schema import migrations, newer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUSY_TIMEOUT_S = 60.0
_MIGRATIONS = migrations(serial="INTEGER PRIMARY KEY AUTOINCREMENT")
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smbfs", "smb3", "afs", "afpfs", "fuse.sshfs", "fuse.glusterfs", "lustre", "beegfs"}
)
_DAMAGE = (sqlite3.Error, UnicodeDecodeError)
"""Exceptions for a damaged file. sqlite3 raises UnicodeDecodeError for names in the schema that are not UTF-8."""


class SqliteStore:
    """One file. Creating the object accesses nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.parent

    def __str__(self) -> str:
        return str(self.path)

    def _exists(self) -> bool:
        """Whether there is a ledger. Raises LedgerError for a FIFO, which SQLite would wait for, and the like."""
        if not self.path.exists():
            return False
        if not self.path.is_file():
            raise LedgerError(f"the ledger {self.path} is not a regular file", hint="name another file")
        return True

    @property
    def row_id(self) -> str:
        """See `Store`."""
        return "rowid"

    def file_problems(self) -> list[str]:
        """What SQLite's own check of the file finds."""
        if not self._exists():
            return []
        try:
            with closing(self._open_to_read()) as db:
                found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(20)").fetchall()]
        except _DAMAGE as error:
            return [str(error)]
        return [] if found == ["ok"] else found

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that has the write lock from its start, and is on disk when the block ends."""
        try:
            if not self._exists():
                self._create()
            narrow_database(self.path)
            with closing(_connect(f"file:{quote(str(self.path))}?mode=rwc")) as db:
                self._migrate(db)
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
        except (*_DAMAGE, OSError) as error:
            raise LedgerError(
                f"the ledger {self.path} cannot be written: {error}",
                hint="check the free disk space and the permissions of the file",
            ) from error

    def read(self, query: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        """The rows; none if there is no ledger yet."""
        if not self._exists():
            return []
        try:
            with closing(self._open_to_read()) as db:
                return [dict(row) for row in db.execute(query, values).fetchall()]
        except _DAMAGE as error:
            raise LedgerError(f"the ledger {self.path} cannot be read: {error}", hint=REMEDY) from error

    def _open_to_read(self) -> sqlite3.Connection:
        uri = f"file:{quote(str(self.path))}?mode=ro"
        db = _connect(uri)
        try:
            version = self._version(db)
        except sqlite3.OperationalError:
            # WAL's index needs a writable folder; in a read-only folder there is no other writer either.
            db.close()
            db = _connect(f"{uri}&immutable=1")
            version = self._version(db)
        if version < len(_MIGRATIONS):
            # Migrate an older ledger in memory, because reading must not write.
            with closing(db) as old:
                db = _settled(sqlite3.connect(":memory:", isolation_level=None))
                old.backup(db)
            self._migrate(db)
        return db

    def _create(self) -> None:
        """Create a temporary file and link it into place: the switch to WAL mode does not wait for other processes."""
        if not self.folder.is_dir():
            private_folder(self.folder)  # an existing folder may contain other files
        kind = _file_system(self.folder)
        if kind in _NETWORK_FILE_SYSTEMS:
            raise LedgerError(
                f"{self.folder} is on a network file system ({kind}), where SQLite's WAL mode is not safe",
                hint="put the ledger on a local disk (--ledger sqlite:///path, or CLOUDTUNE_LEDGER), or in "
                "PostgreSQL (--ledger postgresql://host/database)",
            )
        aside = self.folder / f".{self.path.name}.{uuid.uuid4().hex}"
        try:
            write_private(aside, b"")  # SQLite gives its -wal and -shm files the mode of the database
            with closing(_connect(f"file:{quote(str(aside))}?mode=rwc")) as db:
                db.execute("PRAGMA journal_mode = WAL")
                self._migrate(db)
            with suppress(FileExistsError):  # another process was first
                os.link(aside, self.path)
        finally:
            aside.unlink(missing_ok=True)

    def _version(self, db: sqlite3.Connection) -> int:
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        if version < 0:
            raise sqlite3.DatabaseError(f"unknown schema version {version}")
        if version > len(_MIGRATIONS):
            raise newer(self.path, version, len(_MIGRATIONS))
        return version

    def _migrate(self, db: sqlite3.Connection) -> None:
        if self._version(db) == len(_MIGRATIONS):
            return
        db.execute("BEGIN IMMEDIATE")
        for statements in _MIGRATIONS[self._version(db) :]:  # checked again: another process may have done it
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        db.execute("COMMIT")


def _connect(uri: str) -> sqlite3.Connection:
    # Autocommit: transactions are started explicitly, so the write lock is taken before the first read.
    return _settled(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None))


def _settled(db: sqlite3.Connection) -> sqlite3.Connection:
    db.row_factory = sqlite3.Row
    db.text_factory = _text
    return db


def _text(content: bytes) -> str:
    """Decode text so that a damaged value does not make other rows unreadable; `rows` reports it."""
    return content.decode("utf-8", "surrogateescape")


def _file_system(folder: Path) -> str:
    import psutil

    mounts = {mount.mountpoint: mount.fstype for mount in psutil.disk_partitions(all=True)}
    place = folder.resolve()
    return next((mounts[str(up)] for up in (place, *place.parents) if str(up) in mounts), "")
