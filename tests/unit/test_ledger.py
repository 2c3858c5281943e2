"""The ledger in its SQLite file: what it refuses, what it leaves alone, and what survives."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from textwrap import dedent

import msgspec
import pytest

from cloudtune.errors import LedgerError
from cloudtune.ledger import sqlite
from cloudtune.ledger.ledger import Ledger
from cloudtune.plan import DataReport, Plan, Resolved
from cloudtune.processes.identity import Owner, start_mark
from cloudtune.state import JobRef
from cloudtune.testing import FakeClock

TOKEN = "t" * 32


def plan(token: str = TOKEN, key: str = "k") -> Plan:
    return Plan(
        name="n", backend="b", scope="s", key=key, attempt=1, token=token, spec={"model": "m"}, steps=(),
        data=DataReport(splits={}, fingerprint=""), resolved=Resolved(scope="s"),
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "er" / "ledger.db"


@pytest.fixture
def ledger(file: Path) -> Ledger:
    return Ledger.open(f"sqlite:///{file}", FakeClock())


def test_it_is_made_on_the_first_write_in_wal_mode(ledger: Ledger, file: Path) -> None:
    assert ledger.refs() == []
    assert ledger.latest("k") is None
    assert not file.parent.exists()
    ledger.begin(plan())
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2, "what is written is on disk when it is said to be"
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(ledger: Ledger, file: Path) -> None:
    ledger.begin(plan())
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 99")
    for act in (lambda: ledger.begin(plan()), ledger.refs):
        with pytest.raises(LedgerError, match="newer cloudtune"):
            act()
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == 99


def test_something_else_under_its_name_is_refused_and_left_alone(ledger: Ledger, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(b"dear diary " * 500)
    for act in (lambda: ledger.begin(plan()), ledger.refs):
        with pytest.raises(LedgerError, match="ledger") as refused:
            act()
        assert isinstance(refused.value.__cause__, sqlite3.Error)
    assert file.read_bytes() == b"dear diary " * 500
    file.unlink()
    file.mkdir()
    with pytest.raises(LedgerError):
        ledger.begin(plan())


def test_a_network_file_system_is_refused(ledger: Ledger, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_file_system", lambda folder: "nfs4")
    with pytest.raises(LedgerError, match="network file system") as refused:
        ledger.begin(plan())
    assert "postgresql://" in str(refused.value)
    assert not file.exists()


def test_what_cannot_be_kept_is_not_begun(ledger: Ledger) -> None:
    """A step that raises while it is being written leaves the record as it was."""
    owner = Owner.here()
    ledger.begin(plan())
    ledger.claim(TOKEN, "s", owner)
    with pytest.raises(TypeError):
        ledger.note(TOKEN, "s", owner, "x", object())
    ledger.release(TOKEN, "s", owner)
    again = ledger.claim(TOKEN, "s", Owner.here())
    assert again.intent is not None
    assert again.intent.notes == {}


def test_only_the_holder_writes_a_step(ledger: Ledger) -> None:
    holder, other = Owner.here(), Owner.here()
    ledger.begin(plan())
    assert ledger.claim(TOKEN, "s", holder).state == "ours"
    assert ledger.claim(TOKEN, "s", holder).state == "ours", "asking again is harmless"
    assert ledger.claim(TOKEN, "s", other).state == "held"
    for act in (lambda: ledger.sending(TOKEN, "s", other), lambda: ledger.note(TOKEN, "s", other, "a", 1)):
        with pytest.raises(LedgerError, match="taken over"):
            act()
    ledger.release(TOKEN, "s", other)
    assert ledger.claim(TOKEN, "s", other).state == "held", "a lease is given back by its holder alone"


@pytest.mark.parametrize(
    "dead",
    [{"pid": 2**22 + 1}, {"start": "1"}, {"boot": "an earlier boot"}],
    ids=["gone", "pid used again", "rebooted"],
)
def test_a_dead_holder_is_known_by_pid_start_and_boot(ledger: Ledger, dead: dict[str, object]) -> None:
    ledger.begin(plan())
    ledger.claim(TOKEN, "s", msgspec.structs.replace(Owner.here(), **dead))
    assert ledger.claim(TOKEN, "s", Owner.here()).state == "ours"


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_mark(child.pid) is None
    child.wait()
    assert start_mark(child.pid) is None
    assert start_mark(os.getpid()) is not None


def test_a_writer_that_dies_holding_the_lock_blocks_nobody(ledger: Ledger, file: Path) -> None:
    """SIGKILL between BEGIN and COMMIT: the next writer continues, and no change of the killed one is visible."""
    ledger.begin(plan())
    script = f"""
        import sqlite3, sys, time
        db = sqlite3.connect({str(file)!r}, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE attempts SET ref = 'b:s:ghost'")
        print("holding", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", dedent(script)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        assert ledger.refs() == [], "readers are not blocked, and see only what is committed"
        holder.send_signal(signal.SIGKILL)
    ledger.begin(plan("u" * 32, key="other"))
    assert ledger.refs() == []


def test_one_ref_belongs_to_one_attempt(ledger: Ledger) -> None:
    ref = JobRef("b", "s", "j")
    for token, key in ((TOKEN, "k"), ("u" * 32, "other")):
        ledger.begin(plan(token, key))
        ledger.claim(token, "s", Owner.here())
    ledger.done(TOKEN, "s", {"ref": str(ref)}, ref)
    with pytest.raises(LedgerError):
        ledger.done("u" * 32, "s", {"ref": str(ref)}, ref)
    assert ledger.refs() == [ref]
    assert ledger.claim("u" * 32, "s", Owner.here()).state != "done", "the outcome is not half written"
