"""What jobs cost, in the ledger: recorded when a job has ended."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.cost import ActualCost
from cloudtune.ledger.rows import ATTEMPT_COLUMNS, Attempt, DamagedRow, Rows, read_attempt, sorted_out, whole
from cloudtune.state import JobRef, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.ledger.ledger import Ledger


class JobCost(Value, frozen=True, kw_only=True):
    """A job of the ledger, and what it cost."""

    attempt: Attempt
    actual: ActualCost | None
    """None until the job has ended and its cost was recorded."""


def record_cost(ledger: Ledger, ref: JobRef, cost: ActualCost) -> None:
    """Record what a job cost. A known cost replaces a recorded one, an unknown cost does not.

    Has no effect if the job is not in the ledger.
    """
    conflict = "DO NOTHING" if cost.usd is None else "DO UPDATE SET cost = excluded.cost"
    with ledger.store.write() as db:
        db.execute(
            f"INSERT INTO costs (token, cost) SELECT token, ? FROM attempts WHERE ref = ? ON CONFLICT (token) {conflict}",  # noqa: S608, E501
            (msgspec.json.encode(cost).decode(), str(ref)),
        )


def recorded_cost(ledger: Ledger, ref: JobRef) -> ActualCost | None:
    """Return the recorded cost of a job. Raises LedgerError if it is damaged."""
    query = "SELECT costs.token, cost FROM attempts JOIN costs ON costs.token = attempts.token WHERE ref = ?"
    rows = ledger.store.read(query, (str(ref),))
    return whole(read_cost(rows[0])) if rows else None


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
    actual = None if text is None else read_cost({"token": attempt.token, "cost": text})
    return actual if isinstance(actual, DamagedRow) else JobCost(attempt=attempt, actual=actual)


def read_cost(row: Mapping[str, Any]) -> ActualCost | DamagedRow:
    """Return the cost of a row with ``token`` and ``cost``."""
    try:
        cost = msgspec.json.decode(str(row["cost"]), type=ActualCost)
        if not cost.ended_at or datetime.fromisoformat(cost.ended_at).tzinfo is not None:
            return cost
        problem = "ended_at has no zone"
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        problem = str(error).encode("ascii", "backslashreplace").decode()
    return DamagedRow(table="costs", row=ascii(row["token"]), name="", problems=(f"cost: {problem}",))
