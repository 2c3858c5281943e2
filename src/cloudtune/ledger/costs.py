"""What jobs cost, in the ledger: recorded once, when a job has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cloudtune.cost import ActualCost
from cloudtune.errors import LedgerError
from cloudtune.ledger.rows import ATTEMPT_COLUMNS, Attempt, DamagedRow, Rows, read_attempt, sorted_out
from cloudtune.state import JobRef, Value

if TYPE_CHECKING:
    from datetime import datetime

    from cloudtune.ledger.ledger import Ledger


class JobCost(Value, frozen=True, kw_only=True):
    """A job of the ledger, and what it cost."""

    attempt: Attempt
    actual: ActualCost | None
    """None until the job has ended and its cost was recorded."""


def record_cost(ledger: Ledger, ref: JobRef, cost: ActualCost) -> None:
    """Record what a job cost. Has no effect if that is recorded, or the job is not in the ledger."""
    with ledger.store.write() as db:
        db.execute(
            "INSERT INTO costs (token, cost) SELECT token, ? FROM attempts WHERE ref = ?"
            " ON CONFLICT (token) DO NOTHING",
            (msgspec.json.encode(cost).decode(), str(ref)),
        )


def has_cost(ledger: Ledger, ref: JobRef) -> bool:
    """Return whether the job's cost is recorded, or the job is not in the ledger."""
    query = "SELECT 1 FROM attempts LEFT JOIN costs ON costs.token = attempts.token WHERE ref = ? AND cost IS NULL"
    return not ledger.store.read(query, (str(ref),))


def recorded_cost(ledger: Ledger, ref: JobRef) -> ActualCost | None:
    """Return the recorded cost of a job. Raises LedgerError if it is damaged."""
    query = "SELECT cost FROM attempts JOIN costs ON costs.token = attempts.token WHERE ref = ?"
    for row in ledger.store.read(query, (str(ref),)):
        try:
            return msgspec.json.decode(str(row["cost"]), type=ActualCost)
        except (ValueError, msgspec.MsgspecError) as error:
            raise LedgerError(f"the cost of {ref} is damaged in the ledger: {error}") from error
    return None


def job_costs(
    ledger: Ledger, *, backend: str | None = None, recorded: bool = False,
    submitting_since: datetime | None = None, limit: int | None = None,
) -> Rows[JobCost]:  # fmt: skip
    """Return jobs with their costs, deleted jobs too, newest first. Damaged rows are skipped.

    Args:
        ledger: The ledger.
        backend: Only jobs of this back end.
        recorded: Only jobs whose cost is recorded.
        submitting_since: Also attempts that have no job yet: those begun since then, those that a process works on, and
            those whose request may have created a job.
        limit: Maximum number of jobs.
    """
    columns = ", ".join(f"attempts.{name}" for name in ATTEMPT_COLUMNS.split(", "))
    query = (
        f"SELECT seq, {columns}, cost FROM attempts LEFT JOIN costs ON costs.token = attempts.token"  # noqa: S608
        " WHERE purpose = 'job'"
    )
    values: tuple[str | int, ...] = ()
    if submitting_since is None:
        query += " AND ref IS NOT NULL"
    else:
        query += (
            " AND (ref IS NOT NULL OR attempts.begun_at >= ? OR EXISTS (SELECT 1 FROM steps WHERE steps.token ="
            " attempts.token AND outputs IS NULL AND (owner IS NOT NULL OR sent_at IS NOT NULL)))"
        )
        values = (submitting_since.isoformat(),)
    if recorded:
        query += " AND cost IS NOT NULL"
    if backend is not None:
        query, values = f"{query} AND backend = ?", (*values, backend)
    query += " ORDER BY seq DESC"
    if limit is not None:
        query, values = f"{query} LIMIT ?", (*values, limit)
    return sorted_out([_read(dict(row)) for row in ledger.store.read(query, values)])


def _read(row: dict[str, object]) -> JobCost | DamagedRow:
    text = row.pop("cost")
    attempt = read_attempt(row)
    if isinstance(attempt, DamagedRow):
        return attempt
    try:
        actual = None if text is None else msgspec.json.decode(str(text), type=ActualCost)
    except (ValueError, msgspec.MsgspecError) as error:
        return DamagedRow(table="attempts", row=str(row["seq"]), name=attempt.name, problems=(f"cost: {error}",))
    return JobCost(attempt=attempt, actual=actual)
