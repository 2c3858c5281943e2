"""The durable record: every attempt at a job, every step's intent and outcome.

One SQLite file in WAL mode, shared by all processes of a machine. A step's row is its lease: whoever holds it works
on it, and another process takes it over only when the holder is dead. What is written is on disk before the act that
it announces. Reads never write, and never create the file.

Not here: what the vendor knows. The ledger says what we meant and did; the job's state is asked of the back end.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from cloudtune.backend import Intent, Plan, plan_from_json, plan_to_json
from cloudtune.errors import LedgerError
from cloudtune.ledger_schema import MIGRATIONS
from cloudtune.process import Owner
from cloudtune.state import JobRef, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudtune.clock import Clock

BUSY_TIMEOUT_S = 60.0
FOREIGN_HOST_GRACE_S = 900.0
"""A lease held on another host, whose processes cannot be seen, is believed dead after this long without a write."""
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smbfs", "smb3", "afs", "afpfs", "fuse.sshfs", "fuse.glusterfs", "lustre", "beegfs"}
)


class Attempt(Value, frozen=True, kw_only=True):
    """One attempt at a job, as the ledger has it."""

    key: str
    attempt: int
    token: str
    name: str
    backend: str
    scope: str
    model: str
    ref: JobRef | None
    """None until the step that makes the job has an outcome."""
    begun_at: str
    plan: Plan
    """As it was when the attempt was begun."""


class Claim(Value, frozen=True, kw_only=True):
    """What came of asking for a step."""

    state: Literal["ours", "done", "held"]
    intent: Intent | None = None
    outputs: dict[str, Any] = {}
    holder: str = ""


class Ledger:
    """The record at one place. Opening one touches nothing."""

    def __init__(self, path: Path, clock: Clock, trace: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._clock = clock
        self._trace = trace or (lambda name: None)

    @classmethod
    def open(cls, url: str, clock: Clock, trace: Callable[[str], None] | None = None) -> Ledger:
        """From ``sqlite:///absolute/path`` or a plain path. Raises LedgerError on another scheme."""
        parts = urlsplit(url)
        if len(parts.scheme) > 1 and parts.scheme != "sqlite":
            raise LedgerError(
                f"a ledger of the kind {parts.scheme!r} is not supported", hint="use sqlite:///path/to/ledger.db"
            )
        if parts.scheme == "sqlite" and parts.netloc:
            raise LedgerError(f"{url!r} names a host", hint="write three slashes: sqlite:///path/to/ledger.db")
        # Three slashes and four mean the same absolute path: both are in use for SQLite URLs.
        text = "/" + unquote(parts.path).lstrip("/") if parts.scheme == "sqlite" else url
        return cls(Path(text).expanduser().absolute(), clock, trace)

    # -- writing -------------------------------------------------------------------------------------------------

    def begin(self, plan: Plan) -> Attempt:
        """Journal an attempt, or find the one that stands under the same key and number."""
        row = (
            plan.key, plan.attempt, plan.token, plan.name, plan.backend, plan.scope, str(plan.spec.get("model", "")),
            self._stamp(), msgspec.json.encode(plan_to_json(plan)).decode(),
        )  # fmt: skip
        with self._write("begin") as db:
            db.execute(
                "INSERT INTO attempts (key, attempt, token, name, backend, scope, model, begun_at, plan)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                row,
            )
            found = db.execute(f"{_SELECT} WHERE key = ? AND attempt = ?", (plan.key, plan.attempt)).fetchone()
        return _attempt(found)

    def claim(self, token: str, step: str, owner: Owner) -> Claim:
        """Ask for a step: it is ours now, done already, or held by a living process."""
        with self._write(f"claim {step}") as db:
            row = db.execute(
                "SELECT outputs, owner, touched_at FROM steps WHERE token = ? AND step = ?", (token, step)
            ).fetchone()
            if row and row["outputs"] is not None:
                return Claim(state="done", outputs=msgspec.json.decode(row["outputs"]))
            if row and row["owner"] and self._still_holds(Owner.load(row["owner"]), owner, row["touched_at"]):
                return Claim(state="held", holder=row["owner"])
            db.execute(
                "INSERT INTO steps (token, step, begun_at, owner, touched_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (token, step) DO UPDATE SET owner = excluded.owner, touched_at = excluded.touched_at",
                (token, step, self._stamp(), owner.dump(), self._stamp()),
            )
            return Claim(state="ours", intent=_intent(db, token, step))

    def sending(self, token: str, step: str, owner: Owner) -> Intent:
        """Write down that the step is being sent now; durable before the send."""
        with self._write(f"sending {step}") as db:
            self._touch(db, token, step, owner, "sent_at = ?, sends = sends + 1", self._stamp())
            return _intent(db, token, step)

    def not_sent(self, token: str, step: str, owner: Owner, before: Intent) -> Intent:
        """Take ``sending`` back: the vendor surely did not act on it."""
        sent = before.sent_at.isoformat() if before.sent_at else None
        with self._write(f"not-sent {step}") as db:
            self._touch(db, token, step, owner, "sent_at = ?, sends = ?", sent, before.sends)
            return _intent(db, token, step)

    def note(self, token: str, step: str, owner: Owner, name: str, value: Any) -> None:
        """Keep a note of a step."""
        with self._write(f"note {step}") as db:
            notes = dict(_intent(db, token, step).notes) | {name: value}
            self._touch(db, token, step, owner, "notes = ?", msgspec.json.encode(notes).decode())

    def done(self, token: str, step: str, outputs: dict[str, Any], ref: JobRef | None = None) -> None:
        """Write a step's outcome, and the job's reference if the step made the job."""
        with self._write(f"done {step}") as db:
            db.execute(
                "UPDATE steps SET outputs = ?, owner = NULL, done_at = ? WHERE token = ? AND step = ?",
                (msgspec.json.encode(outputs).decode(), self._stamp(), token, step),
            )
            if ref is not None:
                db.execute("UPDATE attempts SET ref = ? WHERE token = ?", (str(ref), token))

    def undo(self, token: str, step: str) -> None:
        """Forget the outcome of a pure step whose product is gone, so that it is done again."""
        with self._write(f"undo {step}") as db:
            db.execute("UPDATE steps SET outputs = NULL, done_at = NULL WHERE token = ? AND step = ?", (token, step))

    def release(self, token: str, step: str, owner: Owner) -> None:
        """Give the lease up without an outcome."""
        with self._write(f"release {step}") as db:
            db.execute(
                "UPDATE steps SET owner = NULL WHERE token = ? AND step = ? AND owner = ?", (token, step, owner.dump())
            )

    # -- reading -------------------------------------------------------------------------------------------------

    def latest(self, key: str) -> Attempt | None:
        """The newest attempt at that job."""
        rows = self._read(f"{_SELECT} WHERE key = ? ORDER BY attempt DESC LIMIT 1", (key,))
        return _attempt(rows[0]) if rows else None

    def attempts(self, *, backend: str | None = None, limit: int | None = None) -> list[Attempt]:
        """Newest first."""
        rows = self._read(
            f"{_SELECT} WHERE backend = coalesce(?, backend) ORDER BY begun_at DESC, rowid DESC LIMIT ?",
            (backend, -1 if limit is None else limit),
        )
        return [_attempt(row) for row in rows]

    def refs(self, *, backend: str | None = None, limit: int | None = None) -> list[JobRef]:
        """References alone, newest first: cheap where there are thousands."""
        rows = self._read(
            "SELECT ref FROM attempts WHERE ref IS NOT NULL AND backend = coalesce(?, backend)"
            " ORDER BY begun_at DESC, rowid DESC LIMIT ?",
            (backend, -1 if limit is None else limit),
        )
        return [JobRef.parse(row["ref"]) for row in rows]

    def named(self, text: str) -> list[Attempt]:
        """Attempts whose job has that reference, id or name, or whose id begins so. Newest first."""
        rows = self._read(
            f"{_SELECT} WHERE ref = ?1 OR name = ?1 OR substr(ref, length(ref) - length(?1)) = ':' || ?1"
            " OR instr(ref, ':' || ?1) > 0 ORDER BY begun_at DESC, rowid DESC",
            (text,),
        )
        return [_attempt(row) for row in rows]

    def of_ref(self, ref: JobRef) -> Attempt | None:
        """The attempt that made that job, if it was ours."""
        rows = self._read(f"{_SELECT} WHERE ref = ?", (str(ref),))
        return _attempt(rows[0]) if rows else None

    # -- inside --------------------------------------------------------------------------------------------------

    def _stamp(self) -> str:
        return self._clock.now().isoformat()

    def _still_holds(self, holder: Owner, asker: Owner, touched_at: str) -> bool:
        if holder == asker:
            return False
        if holder.is_local:
            return holder.is_alive()
        from datetime import datetime

        return (self._clock.now() - datetime.fromisoformat(touched_at)).total_seconds() < FOREIGN_HOST_GRACE_S

    def _touch(self, db: sqlite3.Connection, token: str, step: str, owner: Owner, change: str, *values: Any) -> None:
        changed = db.execute(
            f"UPDATE steps SET {change}, touched_at = ? WHERE token = ? AND step = ? AND owner = ?",  # noqa: S608
            (*values, self._stamp(), token, step, owner.dump()),
        ).rowcount
        if not changed:
            raise LedgerError(
                f"step {step} was taken over by another process", hint="run the same command again to follow it"
            )

    @contextmanager
    def _write(self, what: str) -> Iterator[sqlite3.Connection]:
        self._trace(f"ledger before {what}")
        try:
            self._prepare_folder()
            with closing(self._connect(f"file:{_quoted(self.path)}?mode=rwc")) as db:
                _migrate(db, self.path)
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise self._failed("written", error) from error
        self._trace(f"ledger after {what}")

    def _read(self, query: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        if not self.path.exists():
            return []
        try:
            with closing(self._open_to_read()) as db:
                return db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed("read", error) from error

    def _open_to_read(self) -> sqlite3.Connection:
        uri = f"file:{_quoted(self.path)}?mode=ro"
        db = self._connect(uri)
        try:
            version = _version(db, self.path)
        except sqlite3.OperationalError:
            # A folder that we may not write in has no room for WAL's index; nobody else can be writing there either.
            db.close()
            db = self._connect(f"{uri}&immutable=1")
            version = _version(db, self.path)
        if version < len(MIGRATIONS):
            # An older ledger is brought up to date in memory: reading does not write.
            with closing(db) as old:
                db = _settled(sqlite3.connect(":memory:"))
                old.backup(db)
            _migrate(db, self.path)
        return db

    def _connect(self, uri: str) -> sqlite3.Connection:
        db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        return _settled(db)

    def _prepare_folder(self) -> None:
        if self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kind = _file_system(self.path.parent)
        if kind in _NETWORK_FILE_SYSTEMS:
            raise LedgerError(
                f"{self.path.parent} lies on a network file system ({kind}), where SQLite's WAL mode is not safe",
                hint="put the ledger on a local disk: --ledger sqlite:///path, or CLOUDTUNE_LEDGER",
            )

    def _failed(self, what: str, error: Exception) -> LedgerError:
        hint = "check that the disk has room and that the file may be written" if what == "written" else None
        return LedgerError(f"the ledger {self.path} cannot be {what}: {error}", hint=hint)


_SELECT = "SELECT key, attempt, token, name, backend, scope, model, ref, begun_at, plan FROM attempts"


def _settled(db: sqlite3.Connection) -> sqlite3.Connection:
    db.row_factory = sqlite3.Row
    return db


def _attempt(row: sqlite3.Row) -> Attempt:
    values = dict(row)
    ref = JobRef.parse(values.pop("ref")) if values["ref"] else values.pop("ref")
    return Attempt(**values | {"plan": plan_from_json(msgspec.json.decode(values["plan"]))}, ref=ref)


def _intent(db: sqlite3.Connection, token: str, step: str) -> Intent:
    row = db.execute(
        "SELECT begun_at, sent_at, sends, notes FROM steps WHERE token = ? AND step = ?", (token, step)
    ).fetchone()
    return msgspec.convert(dict(row) | {"notes": msgspec.json.decode(row["notes"])}, Intent)


def _version(db: sqlite3.Connection, path: Path) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"the ledger {path} was written by a newer cloudtune (schema {version}; this one knows {len(MIGRATIONS)})",
            hint='run: pip install -U "cloudtune"',
        )
    return version


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    if _version(db, path) == len(MIGRATIONS):
        return
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    for statements in MIGRATIONS[_version(db, path) :]:  # asked again: another process may just have done it
        for statement in statements:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    db.execute("COMMIT")


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path))


def _file_system(folder: Path) -> str:
    import psutil

    mounts = {mount.mountpoint: mount.fstype for mount in psutil.disk_partitions(all=True)}
    place = folder.resolve()
    return next((mounts[str(up)] for up in (place, *place.parents) if str(up) in mounts), "")
