"""The ledger: every attempt to create a job or host a model, with the intent and outcome of every step.

SQLite by default, PostgreSQL by URL. A step's row is its lease: the holder works on it, and another process takes it
over only when the holder is dead. Records are on disk before the action that they describe. Reads never write or
create anything.

The ledger records intents and actions, not the job's state, which comes from the back end.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from cloudtune.backend import Intent
from cloudtune.errors import LedgerError
from cloudtune.files.regular_file import invalid_path
from cloudtune.ledger.rows import (
    ATTEMPT_COLUMNS,
    REMEDY,
    Attempt,
    Rows,
    read_attempt,
    read_ref,
    read_step,
    sorted_out,
    to_intent,
    whole,
)
from cloudtune.ledger.url import holds_password, shown
from cloudtune.plan import Plan, plan_to_json, stale_steps
from cloudtune.processes.identity import Owner
from cloudtune.state import JobRef, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudtune.clock import Clock

FOREIGN_HOST_GRACE_S = 900.0
"""A lease on another host, whose processes are not visible, expires after this many seconds without a write."""
_URL_HINT = "use sqlite:///path/to/ledger.db or postgresql://host/database"
RENEW_EVERY_S = 60.0
"""Interval in seconds at which the holder renews its lease during a step."""


class Connection(Protocol):
    """The transaction of a store. Placeholders are question marks."""

    def execute(self, query: str, values: tuple[Any, ...] = (), /) -> Any:
        """Run a statement. Rows are accessed by column name."""


class Store(Protocol):
    """The storage of a ledger."""

    @property
    def folder(self) -> Path:
        """The local folder for files that belong to the ledger."""

    @property
    def row_id(self) -> str:
        """The expression for a row's number within its table, as SQL."""

    def file_problems(self) -> list[str]:
        """Return problems that the database reports for its file."""

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that excludes all other writers from its start, and is durable at its end."""

    def read(self, query: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        """Return rows without writing anything; none if there is no ledger yet."""


class Claim(Value, frozen=True, kw_only=True):
    """The result of a claim for a step."""

    state: Literal["ours", "done", "held"]
    intent: Intent | None = None
    outputs: dict[str, Any] = {}
    holder: str = ""


class Ledger:
    """A ledger at one location. Creating the object accesses nothing."""

    def __init__(self, store: Store, clock: Clock, trace: Callable[[str], None] | None = None) -> None:
        self._store = store
        self._clock = clock
        self._trace = trace or (lambda name: None)

    @classmethod
    def open(cls, url: str, clock: Clock, trace: Callable[[str], None] | None = None) -> Ledger:
        """Open ``sqlite:///absolute/path``, a plain path, or ``postgresql://user@host/database``.

        Raises LedgerError for another scheme, and for a URL with a password.
        """
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise LedgerError(f"{shown(url)!r} is not a URL", hint=_URL_HINT) from error
        if parts.scheme != "sqlite" and holds_password(url):
            raise LedgerError(
                "a password in the ledger's URL would be visible in process lists and logs",
                hint="put it in PGPASSWORD or ~/.pgpass, and remove it from the URL",
            )
        if url.startswith(("postgresql://", "postgres://")):
            from cloudtune.ledger.postgres import PostgresStore

            return cls(PostgresStore(url), clock, trace)
        if len(parts.scheme) > 1 and parts.scheme != "sqlite":
            raise LedgerError(f"unsupported ledger URL scheme {parts.scheme!r}", hint=_URL_HINT)
        if parts.scheme == "sqlite" and parts.netloc:
            raise LedgerError(
                f"{shown(url)!r} contains a host", hint="write three slashes: sqlite:///path/to/ledger.db"
            )
        from cloudtune.ledger.sqlite import SqliteStore

        # Three and four slashes mean the same absolute path; both are common in SQLite URLs.
        text = "/" + unquote(parts.path).lstrip("/") if parts.scheme == "sqlite" else url
        try:
            path = Path(text).expanduser().absolute()
        except RuntimeError as error:
            raise LedgerError(f"{text!r} names the home folder of an unknown user", hint=_URL_HINT) from error
        if problem := invalid_path(str(path)):
            raise LedgerError(f"{text!r} is not the path of a ledger: {problem}", hint=_URL_HINT)
        return cls(SqliteStore(path), clock, trace)

    def __str__(self) -> str:
        return str(self._store)

    @property
    def folder(self) -> Path:
        """The local folder for files that belong to the ledger, such as encoded data."""
        return self._store.folder

    @property
    def store(self) -> Store:
        """The storage, for `cloudtune.ledger.check`."""
        return self._store

    # -- writing -------------------------------------------------------------------------------------------------

    def begin(self, plan: Plan, check: Callable[[], None] | None = None) -> Attempt:
        """Record an attempt, or return the existing one with the same key and number.

        ``check`` runs before a new attempt is recorded, under the ledger's lock. If it raises, nothing changes.
        """
        row = (
            plan.key, plan.attempt, plan.purpose, plan.token, plan.name, plan.backend, plan.scope,
            str(plan.spec.get("model", "")), self._stamp(), _plan_text(plan),
        )  # fmt: skip
        with self.write("begin") as db:
            added = db.execute(
                "INSERT INTO attempts (key, attempt, purpose, token, name, backend, scope, model, begun_at, plan)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                row,
            )
            if check is not None and added.rowcount:
                check()
            return self._attempt(db, plan)

    def revise(self, plan: Plan) -> Attempt:
        """Replace the recorded plan of an attempt, unless a step that differs may have taken effect.

        Steps that both plans have keep their outcomes. Returns the attempt with the plan that is valid.
        """
        with self.write("revise") as db:
            recorded = self._attempt(db, plan)
            stale = stale_steps(recorded.plan, plan)
            differs = bool(stale) or len(plan.steps) != len(recorded.plan.steps)
            if differs and self._is_replaceable(db, recorded, stale):
                for step in sorted(stale):
                    db.execute("DELETE FROM steps WHERE token = ? AND step = ?", (plan.token, step))
                db.execute(
                    "UPDATE attempts SET plan = ?, name = ?, model = ? WHERE token = ?",
                    (_plan_text(plan), plan.name, str(plan.spec.get("model", "")), plan.token),
                )
            return self._attempt(db, plan)

    def withdraw(self, plan: Plan) -> None:
        """Forget an attempt that was refused before its job was requested, so that the next one is planned again."""
        with self.write("withdraw") as db:
            recorded = self._attempt(db, plan)
            if self._is_replaceable(db, recorded, {step.id for step in recorded.plan.steps}):
                db.execute("DELETE FROM steps WHERE token = ?", (plan.token,))
                db.execute("DELETE FROM attempts WHERE token = ?", (plan.token,))

    def claim(self, token: str, step: str, owner: Owner) -> Claim:
        """Claim a step: it is now held by this process, already done, or held by a running process."""
        with self.write(f"claim {step}") as db:
            row = self._step(db, token, step)
            if row and row["outputs"] is not None:
                return Claim(state="done", outputs=row["outputs"])
            if row and row["owner"] and self._still_holds(row["owner"], owner, row["touched_at"]):
                return Claim(state="held", holder=row["owner"].dump())
            db.execute(
                "INSERT INTO steps (token, step, begun_at, owner, touched_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (token, step) DO UPDATE SET owner = excluded.owner, touched_at = excluded.touched_at",
                (token, step, self._stamp(), owner.dump(), self._stamp()),
            )
            return Claim(state="ours", intent=self._intent(db, token, step))

    def sending(self, token: str, step: str, owner: Owner) -> Intent:
        """Record that the step is being sent. Durable before the send."""
        with self.write(f"sending {step}") as db:
            self._touch(db, token, step, owner, "sent_at = ?, sends = sends + 1", self._stamp())
            return self._intent(db, token, step)

    def not_sent(self, token: str, step: str, owner: Owner, before: Intent) -> Intent:
        """Undo ``sending``: the request certainly had no effect."""
        sent = before.sent_at.isoformat() if before.sent_at else None
        with self.write(f"not-sent {step}") as db:
            self._touch(db, token, step, owner, "sent_at = ?, sends = ?", sent, before.sends)
            return self._intent(db, token, step)

    def note(self, token: str, step: str, owner: Owner, name: str, value: Any) -> None:
        """Store a note of a step."""
        with self.write(f"note {step}") as db:
            notes = dict(self._intent(db, token, step).notes) | {name: value}
            self._touch(db, token, step, owner, "notes = ?", msgspec.json.encode(notes).decode())

    def renew(self, token: str, step: str, owner: Owner) -> None:
        """Renew the lease. Raises LedgerError if another process has taken it over."""
        with self._store.write() as db:
            self._touch(db, token, step, owner, "owner = owner")

    def done(self, token: str, step: str, outputs: dict[str, Any], ref: JobRef | None = None) -> dict[str, Any]:
        """Record a step's outcome, and the job's reference if the step created the job. Returns the valid outcome.

        That is another process's outcome if it took over the lease and was faster.
        """
        with self.write(f"done {step}") as db:
            written = db.execute(
                "UPDATE steps SET outputs = ?, owner = NULL, done_at = ?"
                " WHERE token = ? AND step = ? AND outputs IS NULL",
                (msgspec.json.encode(outputs).decode(), self._stamp(), token, step),
            ).rowcount
            if not written:
                stands = self._step(db, token, step)
                if stands is None:
                    raise LedgerError(f"step {step} is no longer in the ledger", hint=REMEDY)
                return dict(stands["outputs"])
            if ref is not None:
                known = db.execute("UPDATE attempts SET ref = ? WHERE token = ?", (str(ref), token)).rowcount
                if not known:
                    raise LedgerError("the attempt is no longer in the ledger", hint=REMEDY)
            return outputs

    def undo(self, token: str, step: str) -> None:
        """Delete the outcome of a step whose result no longer exists, so it runs again."""
        with self.write(f"undo {step}") as db:
            db.execute("UPDATE steps SET outputs = NULL, done_at = NULL WHERE token = ? AND step = ?", (token, step))

    def release(self, token: str, step: str, owner: Owner) -> None:
        """Release the lease without an outcome."""
        with self.write(f"release {step}") as db:
            db.execute(
                "UPDATE steps SET owner = NULL WHERE token = ? AND step = ? AND owner = ?", (token, step, owner.dump())
            )

    def gone(self, ref: JobRef) -> None:
        """Record that the job was deleted: it is no longer listed, and the same spec creates a new attempt."""
        with self.write("gone") as db:
            db.execute("UPDATE attempts SET gone_at = ? WHERE ref = ?", (self._stamp(), str(ref)))

    # -- reading -------------------------------------------------------------------------------------------------

    def latest(self, key: str, *, made: bool = False) -> Attempt | None:
        """Return the newest attempt with that key; with ``made``, the newest one that has created a job."""
        only = " AND ref IS NOT NULL" if made else ""
        rows = self._store.read(f"{_SELECT} WHERE key = ?{only} ORDER BY attempt DESC LIMIT 1", (key,))
        return whole(read_attempt(rows[0])) if rows else None

    def attempts(self, *, backend: str | None = None, limit: int | None = None) -> Rows[Attempt]:
        """Return the attempts to create jobs, newest first. Damaged rows are skipped and listed in ``damaged``."""
        return sorted_out([read_attempt(row) for row in self._newest(f"{_SELECT} WHERE {_JOBS}", backend, limit)])

    def is_done(self, token: str, step: str) -> bool:
        """Return whether that step of that attempt has an outcome."""
        query = "SELECT 1 FROM steps WHERE token = ? AND step = ? AND outputs IS NOT NULL"
        return bool(self._store.read(query, (token, step)))

    def backends(self) -> list[str]:
        """Return the names of all back ends with an attempt."""
        rows = self._store.read("SELECT DISTINCT backend FROM attempts ORDER BY backend", ())
        return [row["backend"] for row in rows if isinstance(row["backend"], str) and row["backend"].isprintable()]

    def refs(self, *, backend: str | None = None, limit: int | None = None) -> Rows[JobRef]:
        """Return only references, newest first, which is fast for thousands of jobs. Damaged rows are skipped."""
        query = "SELECT seq, ref FROM attempts WHERE purpose = 'job' AND ref IS NOT NULL AND gone_at IS NULL"
        return sorted_out([read_ref(row) for row in self._newest(query, backend, limit)])

    def named(self, text: str) -> Rows[Attempt]:
        """Return attempts whose job has that reference, id, id prefix or name, newest first."""
        escaped = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        rows = self._store.read(
            rf"{_SELECT} WHERE purpose = 'job' AND (ref = ? OR name = ? OR ref LIKE ? ESCAPE '\') ORDER BY seq DESC",
            (text, text, f"%:{escaped}%"),
        )
        return sorted_out([read_attempt(row) for row in rows])

    def of_ref(self, ref: JobRef) -> Attempt | None:
        """Return the attempt that created that job, if it is in this ledger."""
        rows = self._store.read(f"{_SELECT} WHERE ref = ?", (str(ref),))
        return whole(read_attempt(rows[0])) if rows else None

    # -- internal ------------------------------------------------------------------------------------------------

    def _newest(self, query: str, backend: str | None, limit: int | None) -> list[dict[str, Any]]:
        values: tuple[Any, ...] = ()
        if backend is not None:
            query, values = f"{query} AND backend = ?", (backend,)
        query += " ORDER BY seq DESC"
        if limit is not None:
            query, values = f"{query} LIMIT ?", (*values, limit)
        return self._store.read(query, values)

    def _attempt(self, db: Connection, plan: Plan) -> Attempt:
        found = db.execute(f"{_SELECT} WHERE key = ? AND attempt = ?", (plan.key, plan.attempt)).fetchone()
        if found is None:
            raise LedgerError(f"the ledger has another key for the token of {plan.name}: it is damaged", hint=REMEDY)
        return whole(read_attempt(found))

    def _is_replaceable(self, db: Connection, recorded: Attempt, stale: set[str]) -> bool:
        """Return whether no job was requested, no process is working, and no stale step's outcome is uncertain."""
        if recorded.ref is not None:
            return False
        me = Owner.here()
        for step in recorded.plan.steps:
            row = self._step(db, recorded.token, step.id)
            if row is None:
                continue
            if row["owner"] and self._still_holds(row["owner"], me, row["touched_at"]):
                return False
            if step.makes_job and row["sends"]:
                return False
            if step.id in stale and step.once != "pure" and row["sends"] and row["outputs"] is None:
                return False
        return True

    def _step(self, db: Connection, token: str, step: str) -> dict[str, Any] | None:
        query = f"SELECT {self._store.row_id} AS row_id, steps.* FROM steps WHERE token = ? AND step = ?"  # noqa: S608
        row = db.execute(query, (token, step)).fetchone()
        return whole(read_step(row)) if row else None

    def _intent(self, db: Connection, token: str, step: str) -> Intent:
        row = self._step(db, token, step)
        if row is None:
            raise LedgerError(f"step {step} is no longer in the ledger", hint=REMEDY)
        return to_intent(row)

    def _stamp(self) -> str:
        return self._clock.now().isoformat()

    def _still_holds(self, holder: Owner, asker: Owner, touched_at: str) -> bool:
        if holder == asker:
            return False
        if holder.is_local:
            return holder.is_alive()
        return (self._clock.now() - datetime.fromisoformat(touched_at)).total_seconds() < FOREIGN_HOST_GRACE_S

    def _touch(self, db: Connection, token: str, step: str, owner: Owner, change: str, *values: Any) -> None:
        changed = db.execute(
            f"UPDATE steps SET {change}, touched_at = ? WHERE token = ? AND step = ? AND owner = ?",  # noqa: S608
            (*values, self._stamp(), token, step, owner.dump()),
        ).rowcount
        if not changed:
            raise LedgerError(
                f"step {step} was taken over by another process", hint="run the same command again to watch it"
            )

    @contextmanager
    def write(self, what: str) -> Iterator[Connection]:
        """A transaction of the store, with the points at which tests kill the process."""
        self._trace(f"ledger before {what}")
        with self._store.write() as db:
            yield db
        self._trace(f"ledger after {what}")


def _plan_text(plan: Plan) -> str:
    return msgspec.json.encode(plan_to_json(plan)).decode()


_SELECT = f"SELECT seq, {ATTEMPT_COLUMNS} FROM attempts"  # noqa: S608
_JOBS = "purpose NOT IN ('deploy', 'remove')"  # reports rows whose purpose is damaged
