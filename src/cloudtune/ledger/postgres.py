"""Stores the ledger in a PostgreSQL database shared by several machines (extra ``postgres``).

Two machines without a shared ledger can create the same job twice if the vendor has no token. Each write takes one
advisory lock for its transaction, like SQLite's single writer: submissions are rare and must be correct.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.errors import LedgerError
from cloudtune.install_command import install_command
from cloudtune.ledger.schema import migrations, newer
from cloudtune.ledger.url import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIGRATIONS = migrations(serial="BIGSERIAL PRIMARY KEY")
_LOCK = 0x636C6F7564  # an arbitrary number that all processes use
_CONNECT_TIMEOUT_S = 15


class _Connection:
    """A psycopg connection that accepts the ledger's placeholders."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def execute(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        return self._db.execute(query.replace("?", "%s"), values)


class PostgresStore:
    """One database. Creating the object accesses nothing."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def row_id(self) -> str:
        """See `Store`."""
        return "ctid::text"

    def file_problems(self) -> list[str]:
        """None: the server manages its files."""
        return []

    @property
    def folder(self) -> Path:
        """The local folder for files that are not shared."""
        from platformdirs import user_cache_dir

        return Path(user_cache_dir("cloudtune"))

    @contextmanager
    def write(self) -> Iterator[_Connection]:
        """A transaction that has the ledger's lock from its start, and is durable when the block ends."""
        with self._connected("written") as db:
            db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            self._migrate(db)
            yield _Connection(db)

    def read(self, query: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        """Return the rows; none if there is no ledger yet."""
        with self._connected("read") as db:
            version = self._version(db)
            if version == 0:
                return []
            if version < len(_MIGRATIONS):
                # The new schema is rolled back: reading changes nothing, and older versions can still use the ledger.
                with db.transaction(force_rollback=True):
                    db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                    self._migrate(db)
                    return self._rows(db, query, values)
            db.execute("SET TRANSACTION READ ONLY")
            return self._rows(db, query, values)

    def _rows(self, db: Any, query: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = _Connection(db).execute(query, values).fetchall()
        return rows

    @contextmanager
    def _connected(self, what: str) -> Iterator[Any]:
        try:
            import psycopg
            from psycopg.rows import dict_row
        except ImportError as error:
            raise LedgerError(
                "a PostgreSQL ledger requires psycopg, which is not installed",
                hint=f"run: {install_command('postgres')}",
            ) from error
        try:
            with psycopg.connect(self.url, row_factory=dict_row, connect_timeout=_CONNECT_TIMEOUT_S) as db:
                yield db
        except psycopg.Error as error:
            raise LedgerError(
                f"the ledger {self} cannot be {what}: {str(error).strip().replace(self.url, str(self))}",
                hint="check that the server is running and that this user can access the database",
            ) from error

    def _version(self, db: Any) -> int:
        if db.execute("SELECT to_regclass('cloudtune_schema') AS it").fetchone()["it"] is None:
            return 0
        version: int = db.execute("SELECT max(version) AS it FROM cloudtune_schema").fetchone()["it"]
        if version > len(_MIGRATIONS):
            raise newer(self, version, len(_MIGRATIONS))
        return version

    def _migrate(self, db: Any) -> None:
        version = self._version(db)
        if version == 0:
            db.execute("CREATE TABLE cloudtune_schema (version INTEGER PRIMARY KEY)")
        for number, statements in enumerate(_MIGRATIONS[version:], version + 1):
            for statement in statements:
                db.execute(statement)
            db.execute("INSERT INTO cloudtune_schema VALUES (%s)", (number,))
