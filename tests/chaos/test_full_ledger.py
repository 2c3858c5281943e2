"""A ledger that can grow no more: a clear error, and no job lost or doubled once there is room again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.chaos.scene import MOST_FAILPOINTS, ONE_PERSONALITY, Scene

from cloudtune.testing.fork_server import ForkServer, Outcome


def _failed_clearly(outcome: Outcome) -> None:
    assert outcome.raised() == "LedgerError", outcome.error
    assert outcome.error is not None
    assert "ledger.db" in outcome.error["message"]
    assert "run the same command" in outcome.error["message"] or "free disk space" in outcome.error["message"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("personality", ONE_PERSONALITY)
def test_every_ledger_write_fails_for_want_of_space(tmp_path: Path, fork_server: ForkServer, personality: str) -> None:
    """RLIMIT_FSIZE, from the first, the second, ... ledger write on."""
    scene = Scene(tmp_path, fork_server, personality)
    scene.submit(999)
    failures = 0
    for number in range(1, MOST_FAILPOINTS):
        stuck = scene.submit(number, prepare="tests.chaos.limits:full_disk", prepare_with={"after": number})
        scene.nothing_is_lost()
        if stuck.error is None:
            break
        failures += 1
        _failed_clearly(stuck)
        scene.exactly_one(number, scene.submit(number))
    assert failures > 10
    scene.jobs_tells_the_truth()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("personality", ONE_PERSONALITY)
def test_a_ledger_with_few_pages_left(tmp_path: Path, fork_server: ForkServer, personality: str) -> None:
    """PRAGMA max_page_count: none left, one left, two left ..."""
    scene = Scene(tmp_path, fork_server, personality)
    scene.submit(999)
    file = tmp_path / "ledger.db"
    outcomes = []
    for more in range(60):
        with closing(sqlite3.connect(file)) as db:
            pages = db.execute("PRAGMA page_count").fetchone()[0]
        limit = {"ledger": str(file), "pages": pages + more}
        stuck = scene.submit(more, prepare="tests.chaos.limits:few_pages", prepare_with=limit)
        scene.nothing_is_lost()
        outcomes.append(stuck.raised())
        if stuck.error is None:
            break
        _failed_clearly(stuck)
        scene.exactly_one(more, scene.submit(more))
    assert "LedgerError" in outcomes, "the limit was never felt"
    assert outcomes[-1] == "", outcomes
    scene.jobs_tells_the_truth()


def test_a_job_that_could_not_be_written_down_is_named(tmp_path: Path, fork_server: ForkServer) -> None:
    """If only the last write fails, the error says which job exists."""
    scene = Scene(tmp_path, fork_server)
    whole = scene.submit(999).trace
    writes = sum(name.startswith("ledger before") for name in whole)
    stuck = scene.submit(prepare="tests.chaos.limits:full_disk", prepare_with={"after": writes})
    _failed_clearly(stuck)
    assert stuck.error is not None
    assert scene.vendor.jobs()[-1] in stuck.error["message"]
    again = scene.submit()
    scene.exactly_one(0, again)


def test_a_ledger_that_may_not_be_written_is_said_so(tmp_path: Path, fork_server: ForkServer) -> None:
    """Nothing is sent without a ledger to write it in."""
    scene = Scene(tmp_path, fork_server)
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    scene.ledger = f"sqlite:///{tmp_path}/file/ledger.db"
    assert scene.submit().raised() == "LedgerError"
    (tmp_path / "garbage.db").write_bytes(b"this is not a database, and long enough to be looked at" * 20)
    scene.ledger = f"sqlite:///{tmp_path}/garbage.db"
    refused = scene.submit()
    assert refused.raised() == "LedgerError"
    assert scene.vendor.jobs() == []
    assert (tmp_path / "garbage.db").read_bytes().startswith(b"this is not"), "what is not ours is left alone"
