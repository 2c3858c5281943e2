"""A damaged ledger never ends in an internal error: rows are skipped, named, and moved out without loss."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.client import Client
from cloudtune.document.specfile import load_spec
from cloudtune.errors import CloudtuneError, LedgerError
from cloudtune.ledger.check import check_ledger, repair_ledger
from cloudtune.ledger.deployments import newest_attempt
from cloudtune.processes.identity import Owner
from cloudtune.testing import FakeClock

if TYPE_CHECKING:
    from tests.cli.conftest import Desk

COLUMNS = {
    "attempts": ("key", "attempt", "purpose", "token", "name", "backend", "scope", "model", "ref", "gone_at",
                 "begun_at", "plan"),
    "steps": ("token", "step", "begun_at", "sent_at", "sends", "notes", "outputs", "done_at", "owner", "touched_at"),
}  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, 7, -1, 1.5, 1 << 62, b"\x00\xff", "", "x", "{", "[]", "null", "5", '{"a": 1}', "[" * 5000, "\u202e\x1b[31m",
    "2026-13-45", "a:b:c",
)  # fmt: skip
NOT_UTF8 = "CAST(x'ff62' AS TEXT)"


@pytest.fixture
def kept(desk: Desk) -> Path:
    """The ledger of two jobs and a deployment, whose columns take any value."""
    first = desk.submit()
    desk.finish(first)
    desk.submit("--set", "name=second")
    desk.run("deploy", first, "--yes")
    path = desk.home / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE type = 'table'")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(path, desk.folder / "whole.db")
    return path


def ledger_with(kept: Path, table: str, column: str, value: Any, *, sql: str = "?") -> None:
    for leftover in kept.parent.glob("ledger.db*"):
        leftover.unlink()
    shutil.copyfile(kept.parent.parent / "whole.db", kept)
    with contextlib.closing(sqlite3.connect(kept)) as db:
        with contextlib.suppress(sqlite3.IntegrityError):  # UNIQUE still holds: one row is enough
            row = f"WHERE rowid = (SELECT min(rowid) FROM {table})"
            db.execute(f"UPDATE {table} SET {column} = {sql} {row}", (value,) if sql == "?" else ())
        db.commit()


def read_everything(client: Client, refs: list[str]) -> None:
    """Every reader; an error of cloudtune's own is an answer, and any other ends the test."""
    ledger, owner = client.ledger, Owner.here()
    spec = load_spec("job.yaml")
    calls: list[Any] = [
        client.jobs, client.unfinished, client.deployments, ledger.refs, ledger.attempts, ledger.backends,
        lambda: client.plan(spec), lambda: client.submit(spec), lambda: ledger.named("second"),
        lambda: newest_attempt(ledger, "m"), lambda: check_ledger(ledger), lambda: client.attach("second"),
    ]  # fmt: skip
    for ref in refs:
        job = client.attach(ref)
        calls += [
            job.snapshot, job.resume, job._planned_stall, lambda job=job: ledger.of_ref(job.ref),
            lambda job=job: client.deploy(job.model()),
        ]  # fmt: skip
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        db.text_factory = bytes
        steps = db.execute("SELECT token, step FROM steps").fetchall()
    for token, step in steps:
        if isinstance(token, bytes) and isinstance(step, bytes):
            names = token.decode("utf-8", "replace"), step.decode("utf-8", "replace")
            calls += [lambda names=names: ledger.claim(*names, owner), lambda names=names: ledger.is_done(*names)]
    for call in calls:
        with contextlib.suppress(CloudtuneError):
            call()


@pytest.mark.parametrize("count", [1, pytest.param(len(VALUES), marks=pytest.mark.soak)])
@pytest.mark.parametrize("table", COLUMNS)
def test_no_value_of_a_column_is_an_internal_error(desk: Desk, kept: Path, table: str, count: int) -> None:
    refs = desk.run("jobs", "-q").out.split()
    assert len(refs) == 2
    for column in COLUMNS[table]:
        for value in (*random.Random(column).sample(VALUES, count), NOT_UTF8):
            sql = NOT_UTF8 if value is NOT_UTF8 else "?"
            ledger_with(kept, table, column, value, sql=sql)
            client = Client(clock=FakeClock())
            read_everything(client, refs)
            report = repair_ledger(client.ledger, client.clock)
            assert report.ok, (column, value, report)
            assert check_ledger(client.ledger).rows == (), (column, value)


def test_fields_of_kept_documents_may_be_missing_or_wrong(desk: Desk, kept: Path) -> None:
    refs = desk.run("jobs", "-q").out.split()
    drawn = random.Random(7)
    for column, table in (("plan", "attempts"), ("outputs", "steps"), ("owner", "steps"), ("notes", "steps")):
        with contextlib.closing(sqlite3.connect(desk.folder / "whole.db")) as db:
            (text,) = db.execute(f"SELECT {column} FROM {table} WHERE rowid = 1").fetchone()
        document = json.loads(text or Owner.here().dump())
        for path in drawn.sample(_paths(document), min(6, len(_paths(document)))):
            ledger_with(kept, table, column, json.dumps(_changed(document, path, drawn)))
            read_everything(Client(clock=FakeClock()), refs)


def _paths(document: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(document, dict | list) or len(above) > 3:
        return []
    keys = document.keys() if isinstance(document, dict) else range(len(document))
    return [path for key in keys for path in ((*above, key), *_paths(document[key], (*above, key)))]


def _changed(document: Any, path: tuple[Any, ...], drawn: random.Random) -> Any:
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if drawn.random() < 0.4:
        del place[path[-1]]
    else:
        place[path[-1]] = drawn.choice([None, 5, "x", [], {}, [1], {"a": None}, -1e300, True])
    return copy


@pytest.mark.parametrize("flips", [30, pytest.param(3000, marks=pytest.mark.soak)])
def test_flipped_bytes_are_never_an_internal_error(desk: Desk, kept: Path, flips: int) -> None:
    refs = desk.run("jobs", "-q").out.split()
    whole, drawn = (desk.folder / "whole.db").read_bytes(), random.Random(11)
    for _ in range(flips):
        damaged = bytearray(whole)
        for _ in range(drawn.choice([1, 4, 64])):
            damaged[drawn.randrange(len(damaged))] = drawn.randrange(256)
        for leftover in kept.parent.glob("ledger.db*"):
            leftover.unlink()
        kept.write_bytes(damaged)
        client = Client(clock=FakeClock())
        ref, ledger = client.attach(refs[0]).ref, client.ledger
        calls = [
            client.jobs, client.unfinished, partial(check_ledger, ledger), partial(client.attach, "second"),
            partial(ledger.of_ref, ref), partial(repair_ledger, ledger, client.clock),
        ]  # fmt: skip
        for call in calls:
            with contextlib.suppress(CloudtuneError):
                call()


def test_a_schema_that_is_not_utf8_is_an_error_of_the_ledger(desk: Desk, kept: Path) -> None:
    for leftover in kept.parent.glob("ledger.db*"):
        leftover.unlink()
    whole = (desk.folder / "whole.db").read_bytes()
    kept.write_bytes(whole.replace(b"attempts", b"attempt\xe8").replace(b"CREATE TABLE", b"CREATE TABLX"))
    client = Client(clock=FakeClock())
    with pytest.raises(LedgerError, match="cannot be read"):
        client.jobs()
    assert not check_ledger(client.ledger).ok
    assert repair_ledger(client.ledger, client.clock).file


def test_commands_skip_a_damaged_row_and_say_so(desk: Desk, kept: Path) -> None:
    ledger_with(kept, "attempts", "plan", "{")
    listed = desk.run("jobs")
    assert listed.code == 0
    assert "skipped 1 damaged ledger rows; run: cloudtune ledger check" in listed.err
    assert desk.run("jobs", "--json").json["damaged_rows"] == 1
    resubmitted = desk.run("submit", "job.yaml")
    assert resubmitted.code == 1
    assert "row 1 of the ledger's table attempts is damaged" in resubmitted.err
    assert "cloudtune ledger check" in resubmitted.err


def test_repair_moves_rows_into_a_file_and_the_job_is_found_again(desk: Desk, kept: Path) -> None:
    refs = desk.run("jobs", "-q").out.split()
    ledger_with(kept, "attempts", "plan", "{")
    found = desk.run("ledger", "check", "--json")
    assert found.code == 1
    assert [(row["table"], row["row"]) for row in found.json["rows"]] == [("attempts", "1")]
    repaired = desk.run("ledger", "check", "--repair", "--json")
    assert repaired.code == 0
    moved = [json.loads(line) for line in Path(repaired.json["moved_to"]).read_text().splitlines()]
    assert moved[0]["row"]["ref"] in refs
    assert moved[0]["row"]["plan"] == "{"
    assert desk.run("ledger", "check").code == 0
    ledger_with(kept, "attempts", "plan", "{")
    assert "budgets and `cloudtune cost` do not count 1 of them" in desk.run("ledger", "check", "--repair").err
    again = desk.submit()
    assert again in refs  # the vendor still knows the token, so no second job was made


def test_a_file_that_is_no_ledger_is_reported_and_not_repaired(desk: Desk, kept: Path) -> None:
    content = bytearray((desk.folder / "whole.db").read_bytes())
    content[4096:8192] = bytes(4096)
    kept.write_bytes(content)
    checked = desk.run("ledger", "check", "--repair")
    assert checked.code == 1
    assert "the file is damaged" in checked.out
    assert ".recover" in checked.err
    with pytest.raises(LedgerError):
        Client().ledger.attempts()
