"""The ledger's schema, as the migrations that led to it. Never change one that was released: append."""

from __future__ import annotations

from cloudtune.errors import LedgerError

Migration = tuple[str, ...]


def migrations(serial: str) -> tuple[Migration, ...]:
    """All of them, oldest first, with the words that a database uses for a number that counts up."""
    return (
        (
            f"""
            CREATE TABLE attempts (
                seq       {serial},                 -- in the order in which they were begun
                key       TEXT    NOT NULL,         -- (spec, data content, back end, scope)
                attempt   INTEGER NOT NULL,
                purpose   TEXT    NOT NULL,         -- job, deploy or remove
                token     TEXT    NOT NULL UNIQUE,  -- hash of (key, attempt)
                name      TEXT    NOT NULL,
                backend   TEXT    NOT NULL,
                scope     TEXT    NOT NULL,
                model     TEXT    NOT NULL,
                ref       TEXT    UNIQUE,           -- the job's reference, once there is a job
                gone_at   TEXT,                     -- when the job was deleted
                begun_at  TEXT    NOT NULL,         -- times are ISO 8601, UTC
                plan      TEXT    NOT NULL,         -- JSON
                UNIQUE (key, attempt)
            )
            """,
            """
            CREATE TABLE steps (
                token      TEXT    NOT NULL,
                step       TEXT    NOT NULL,
                begun_at   TEXT    NOT NULL,
                sent_at    TEXT,                        -- of the last send; NULL: surely never sent
                sends      INTEGER NOT NULL DEFAULT 0,
                notes      TEXT    NOT NULL DEFAULT '{}',
                outputs    TEXT,                        -- JSON; NULL until it is done
                done_at    TEXT,
                owner      TEXT,                        -- who works on it now
                touched_at TEXT    NOT NULL,
                PRIMARY KEY (token, step)
            )
            """,
        ),
    )


def newer(place: object, version: int, known: int) -> LedgerError:
    """The error for a ledger that a later version has written."""
    return LedgerError(
        f"the ledger {place} was written by a newer cloudtune (schema {version}; this version supports {known})",
        hint="run: pip install -U cloudtune",
    )
