"""Attempts to deploy models and to remove deployments, in the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cloudtune.ledger.rows import ATTEMPT_COLUMNS, read_attempt, read_step, whole
from cloudtune.plan import plan_to_json

if TYPE_CHECKING:
    from cloudtune.ledger.ledger import Ledger
    from cloudtune.ledger.rows import Attempt
    from cloudtune.plan import Plan


def newest_attempt(
    ledger: Ledger, name: str, *, backend: str | None = None, scope: str | None = None, deploy: bool = False
) -> Attempt | None:
    """Return the newest attempt to deploy or undeploy a model with that name; with ``deploy``, only to deploy."""
    asked = {"name": name, "backend": backend, "scope": scope}
    given = {column: value for column, value in asked.items() if value is not None}
    where = " AND ".join(f"{column} = ?" for column in given)
    query = (
        f"SELECT seq, {ATTEMPT_COLUMNS} FROM attempts WHERE {where} AND purpose"  # noqa: S608
        f" {'=' if deploy else '<>'} ? ORDER BY seq DESC LIMIT 1"
    )
    rows = ledger.store.read(query, (*given.values(), "deploy" if deploy else "job"))
    return whole(read_attempt(rows[0])) if rows else None


def ended_at(ledger: Ledger, attempt: Attempt) -> datetime | None:
    """Return when the last step of the attempt got its outcome. None if it has none."""
    query = f"SELECT {ledger.store.row_id} AS row_id, steps.* FROM steps WHERE token = ? AND step = ?"  # noqa: S608
    rows = ledger.store.read(query, (attempt.token, attempt.plan.steps[-1].id))
    at = whole(read_step(rows[0]))["done_at"] if rows else None
    return None if at is None else datetime.fromisoformat(at)


def replace_plan(ledger: Ledger, plan: Plan) -> None:
    """Replace the recorded plan of an attempt with one that has the same steps, such as another time to live."""
    with ledger.write("replace-plan") as db:
        text = msgspec.json.encode(plan_to_json(plan)).decode()
        db.execute("UPDATE attempts SET plan = ? WHERE token = ?", (text, plan.token))
