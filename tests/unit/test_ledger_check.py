"""Damaged rows are found and moved out in SQLite and in PostgreSQL alike."""

# ruff: noqa: F811 - a fixture's name is its parameter's

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_ledger_stores import plan, server, url  # noqa: F401 - fixtures

from cloudtune.clock import SystemClock
from cloudtune.cost import ActualCost, Usage
from cloudtune.errors import LedgerError
from cloudtune.ledger.check import check_ledger, repair_ledger
from cloudtune.ledger.costs import record_cost, recorded_cost
from cloudtune.ledger.ledger import Ledger
from cloudtune.ledger.trials import Trial, begin_trial, trials_of
from cloudtune.processes.identity import Owner
from cloudtune.state import JobRef

COST = ActualCost(usd=1.0, usage=Usage(tokens=5), basis="", state="succeeded", ended_at="")
DAMAGE = [
    ("attempts", "plan", "{"), ("attempts", "plan", '{"name": 1}'), ("attempts", "ref", "nonsense"),
    ("attempts", "begun_at", "yesterday"), ("attempts", "purpose", "other"), ("steps", "outputs", "[]"),
    ("steps", "notes", "null"), ("steps", "touched_at", ""), ("steps", "owner", "{}"), ("steps", "sends", -1),
    ("costs", "cost", "{"), ("costs", "cost", '{"usd": 1}'),
    ("trials", "trial", "{"), ("trials", "trial", '{"study": "s"}'), ("trials", "outcome", '{"state": "lost"}'),
]  # fmt: skip


def change(url: str, query: str, *values: Any) -> None:
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite://")) as db:
            db.execute(query, values)
        db.close()
        return
    import psycopg

    with psycopg.connect(url) as database:
        database.execute(query.replace("?", "%s"), values)  # type: ignore[call-overload]


@pytest.mark.parametrize(("table", "column", "value"), DAMAGE)
def test_a_damaged_row_is_found_and_moved(
    url: str,
    table: str,
    column: str,
    value: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clock = SystemClock()
    ledger, owner = Ledger.open(url, clock), Owner.here()
    for key in ("a", "b"):
        ledger.begin(plan(key=key, name=key))
        ledger.claim(f"{key}-1", "create", owner)
    ledger.done("b-1", "create", {}, JobRef("toy", "acct", "job_b"))
    record_cost(ledger, JobRef("toy", "acct", "job_b"), COST)
    begin_trial(ledger, Trial(study="s", number=0, name="s-0", parameters={}))
    key, row = {"attempts": ("key", "a"), "steps": ("token", "a-1"), "costs": ("token", "b-1"),
                "trials": ("name", "s-0")}[table]  # fmt: skip
    change(url, f"UPDATE {table} SET {column} = ? WHERE {key} = ?", value, row)

    report = check_ledger(ledger)
    assert [(one.table, one.problems[0].partition(":")[0]) for one in report.rows] == [(table, column)]
    assert not report.ok
    assert [attempt.key for attempt in ledger.attempts()] == (["b"] if table == "attempts" else ["b", "a"])
    assert len(ledger.attempts().damaged) == (table == "attempts")
    reads = {
        "attempts": lambda: ledger.latest("a"), "steps": lambda: ledger.claim("a-1", "create", owner),
        "costs": lambda: recorded_cost(ledger, JobRef("toy", "acct", "job_b")),
        "trials": lambda: trials_of(ledger, "s"),
    }  # fmt: skip
    with pytest.raises(LedgerError, match="ledger check"):
        reads[table]()

    repaired = repair_ledger(ledger, clock)
    assert repaired.ok
    assert repaired.moved_to is not None
    moved = [json.loads(line) for line in Path(repaired.moved_to).read_text().splitlines()]
    assert [entry["row"][column] for entry in moved] == [value]
    assert check_ledger(ledger).rows == ()
    claim = ledger.claim("a-1", "create", Owner.here())
    if table == "steps":  # it says that a request may be on its way
        assert claim.intent is not None
        assert claim.intent.sends == 2
        assert claim.intent.sent_at is not None
