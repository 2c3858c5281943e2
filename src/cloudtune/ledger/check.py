"""Finds damaged rows of a ledger, and moves them to a file.

The next submission of the spec recreates a moved attempt with the same token, and the back end then finds the existing
job. A damaged step is replaced by one that means "a request may just have been sent": the next run waits, and checks
with the vendor before it sends anything. A damaged cost is read from the vendor again, and a damaged trial is chosen
again by its search.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

from cloudtune.errors import LedgerError
from cloudtune.files.private_files import open_private, private_folder
from cloudtune.ledger.costs import read_cost
from cloudtune.ledger.rows import ATTEMPT_COLUMNS, DamagedRow, read_attempt, read_step
from cloudtune.ledger.trials import read_trial
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cloudtune.clock import Clock
    from cloudtune.ledger.ledger import Connection, Ledger, Store

FOLDER = "damaged"


class LedgerReport(Value, frozen=True, kw_only=True):
    """The result of a ledger check."""

    file: tuple[str, ...] = ()
    """Problems that the database reports for its file."""
    rows: tuple[DamagedRow, ...] = ()
    moved_to: str | None = None
    """The file with the damaged rows, if they were moved."""

    @property
    def ok(self) -> bool:
        """Whether no damage remains."""
        return not self.file and (not self.rows or self.moved_to is not None)


def check_ledger(ledger: Ledger) -> LedgerReport:
    """Read every row, and run the database's check of its file. Writes nothing."""
    file = ledger.store.file_problems()
    try:
        rows = [damaged for query in _queries(ledger.store) for _, damaged in _damaged(ledger.store.read(query, ()))]
    except LedgerError as error:
        return LedgerReport(file=(*file, error.message))
    return LedgerReport(file=tuple(file), rows=tuple(rows))


def repair_ledger(ledger: Ledger, clock: Clock) -> LedgerReport:
    """Move every damaged row to a file next to the ledger. The file is on disk before a row is removed.

    Moves nothing if the database file itself is damaged, because its rows cannot be trusted; the report shows this.
    """
    report = check_ledger(ledger)
    if report.file or not report.rows:
        return report
    stamp = clock.now().strftime("%Y%m%dT%H%M%S%fZ")
    target = ledger.folder / FOLDER / f"rows-{stamp}-{secrets.token_hex(4)}.jsonl"
    with ledger.store.write() as db:
        found = [pair for query in _queries(ledger.store) for pair in _damaged(db.execute(query).fetchall())]
        _save(target, found)
        for row, damaged in found:
            if damaged.table == "attempts":
                db.execute("DELETE FROM attempts WHERE seq = ?", (row["seq"],))
            elif damaged.table in ("costs", "trials"):
                db.execute(f"DELETE FROM {damaged.table} WHERE {ledger.store.row_id} = ?", (row["row_id"],))  # noqa: S608
            else:
                _replace_step(db, ledger.store, row, clock.now().isoformat())
    return LedgerReport(rows=tuple(damaged for _, damaged in found), moved_to=str(target))


def _queries(store: Store) -> tuple[str, ...]:
    steps = f"SELECT {store.row_id} AS row_id, steps.* FROM steps ORDER BY begun_at"  # noqa: S608
    costs = f"SELECT {store.row_id} AS row_id, token, cost FROM costs ORDER BY token"  # noqa: S608
    trials = f"SELECT {store.row_id} AS row_id, trials.* FROM trials ORDER BY study, name"  # noqa: S608
    return f"SELECT seq, {ATTEMPT_COLUMNS} FROM attempts ORDER BY seq", steps, costs, trials  # noqa: S608


def _damaged(rows: Iterable[Any]) -> list[tuple[dict[str, Any], DamagedRow]]:
    found = []
    for each in rows:
        row = dict(each)
        read: Any
        if "seq" in row:
            read = read_attempt(row)
        elif "cost" in row:
            read = read_cost(row)
        else:
            read = read_trial(row) if "trial" in row else read_step(row)
        if isinstance(read, DamagedRow):
            found.append((row, read))
    return found


def _replace_step(db: Connection, store: Store, row: dict[str, Any], now: str) -> None:
    db.execute(f"DELETE FROM steps WHERE {store.row_id} = ?", (row["row_id"],))  # noqa: S608
    if all(isinstance(row.get(name), str) and row[name].isprintable() for name in ("token", "step")):
        db.execute(
            "INSERT INTO steps (token, step, begun_at, sent_at, sends, touched_at) VALUES (?, ?, ?, ?, 2, ?)"
            " ON CONFLICT DO NOTHING",
            (row["token"], row["step"], now, now, now),
        )


def _save(target: Path, found: list[tuple[dict[str, Any], DamagedRow]]) -> None:
    private_folder(target.parent)
    with open_private(target, "xb") as file:
        for row, damaged in found:
            document = {"table": damaged.table, "problems": damaged.problems, "row": row}
            # ASCII: bytes that are not UTF-8 are lone surrogates, which JSON can represent.
            file.write(json.dumps(document, default=_plain).encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else str(value)
