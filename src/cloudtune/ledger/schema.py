"""The ledger's schema, as a list of migrations. Never change a released migration; append a new one."""

from __future__ import annotations

from cloudtune.errors import LedgerError

Migration = tuple[str, ...]


def migrations(serial: str) -> tuple[Migration, ...]:
    """Return all migrations, oldest first, with the database's type for an auto-incremented number."""
    return (
        (
            f"""
            CREATE TABLE attempts (
                seq       {serial},                 -- in order of creation
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
                sent_at    TEXT,                        -- of the last send; NULL: never sent
                sends      INTEGER NOT NULL DEFAULT 0,
                notes      TEXT    NOT NULL DEFAULT '{}',
                outputs    TEXT,                        -- JSON; NULL until it is done
                done_at    TEXT,
                owner      TEXT,                        -- the process that works on it
                touched_at TEXT    NOT NULL,
                PRIMARY KEY (token, step)
            )
            """,
        ),
        (
            """
            CREATE TABLE costs (
                token  TEXT PRIMARY KEY,  -- of an attempt whose job has ended
                cost   TEXT NOT NULL      -- JSON
            )
            """,
        ),
        (
            """
            CREATE TABLE trials (
                study   TEXT NOT NULL,  -- (spec, data content, back end, scope, search space)
                name    TEXT NOT NULL,  -- of the trial's job
                trial   TEXT NOT NULL,  -- JSON: its parameters
                outcome TEXT,           -- JSON; NULL until it has ended
                PRIMARY KEY (study, name)
            )
            """,
        ),
    )


def newer(place: object, version: int, known: int) -> LedgerError:
    """Return the error for a ledger that a newer version wrote."""
    return LedgerError(
        f"the ledger {place} was written by a newer cloudtune (schema {version}; this version supports {known})",
        hint="run: pip install -U cloudtune",
    )
