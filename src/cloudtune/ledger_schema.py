"""The ledger's schema, as the migrations that led to it. Never change one that was released: append."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE attempts (
            key       TEXT    NOT NULL,         -- (spec, data content, back end, scope)
            attempt   INTEGER NOT NULL,
            token     TEXT    NOT NULL UNIQUE,  -- hash of (key, attempt)
            name      TEXT    NOT NULL,
            backend   TEXT    NOT NULL,
            scope     TEXT    NOT NULL,
            model     TEXT    NOT NULL,
            ref       TEXT,                     -- the job's reference, once there is a job
            begun_at  TEXT    NOT NULL,         -- times are ISO 8601, UTC
            plan      TEXT    NOT NULL,         -- JSON
            PRIMARY KEY (key, attempt)
        )
        """,
        "CREATE UNIQUE INDEX attempts_by_ref ON attempts (ref) WHERE ref IS NOT NULL",
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
