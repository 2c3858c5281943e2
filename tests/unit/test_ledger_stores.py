"""The ledger behaves the same in SQLite and in PostgreSQL (a real server on a Unix socket)."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from cloudtune.clock import SystemClock
from cloudtune.errors import LedgerError
from cloudtune.ledger.costs import job_costs
from cloudtune.ledger.ledger import Ledger
from cloudtune.ledger.trials import trials_of
from cloudtune.plan import DataReport, Plan, Resolved, Step, output_ref
from cloudtune.processes.identity import Owner
from cloudtune.state import JobRef

CLOCK = SystemClock()
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The socket folder of a PostgreSQL server of our own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(programs[-1]) if programs else shutil.which("initdb")
    if found is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="ct-pg-"))  # pytest's own folders are too deep for a socket's path
    as_user = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    data, control = folder / "data", Path(found).with_name("pg_ctl")

    def run(*words: object) -> None:
        command = [*as_user, *(str(word) for word in words)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)

    run(found, "-D", data, "-A", "trust", "-U", "cloudtune")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    run(control, "-D", data, "-w", "-o", options, "-l", folder / "log", "start")
    yield str(folder)
    run(control, "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger that does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/ledger.db"
    pytest.importorskip("psycopg")
    folder = request.getfixturevalue("server")
    name = f"t{abs(hash(request.node.name)) % 10**9}"
    import psycopg

    with psycopg.connect(f"postgresql://cloudtune@/postgres?host={folder}", autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    return f"postgresql://cloudtune@/{name}?host={folder}"


def plan(key: str = "k", attempt: int = 1, name: str = "headlines") -> Plan:
    """A plan with nothing to do."""
    return Plan(
        name=name, backend="toy", scope="acct", key=key, attempt=attempt, token=f"{key}-{attempt}",
        spec={"model": "m"}, steps=(), data=DataReport(splits={}, fingerprint="f"), resolved=Resolved(scope="acct"),
    )  # fmt: skip


def test_reading_a_ledger_that_is_not_there_makes_nothing(url: str, tmp_path: Path) -> None:
    ledger = Ledger.open(url, CLOCK)
    assert ledger.latest("k") is None
    assert ledger.refs() == []
    assert ledger.named("headlines") == []
    assert not (tmp_path / "new").exists()


def test_an_attempt_is_begun_once_and_kept_as_it_was(url: str) -> None:
    ledger = Ledger.open(url, CLOCK)
    first = ledger.begin(plan())
    again = ledger.begin(msgspec.structs.replace(plan(), spec={"model": "other"}))
    assert again == first
    assert again.plan.spec == {"model": "m"}
    second = ledger.begin(plan(attempt=2))
    assert ledger.latest("k") == second
    assert [attempt.attempt for attempt in ledger.attempts()] == [2, 1]


def revisable(*requests: str) -> Plan:
    """A plan whose last step makes the job and uses what the first one gives."""
    steps = [
        Step(id=f"upload_{text}", kind="upload", title="", request={"text": text}, once="atomic") for text in requests
    ]
    used = {"file": output_ref(steps[0].id, "file")}
    create = Step(id="create", kind="call", title="", request=used, once="atomic", makes_job=True)
    return msgspec.structs.replace(plan(), steps=(*steps, create))


def test_a_plan_whose_job_was_not_requested_is_replaced(url: str) -> None:
    ledger, owner = Ledger.open(url, CLOCK), Owner.here()
    ledger.begin(revisable("a", "b"))
    for step in ("upload_a", "upload_b"):
        ledger.claim("k-1", step, owner)
        ledger.done("k-1", step, {"file": step})
    ledger.claim("k-1", "create", owner)
    assert ledger.revise(revisable("c", "b")).plan == revisable("a", "b"), "somebody is at work"
    ledger.release("k-1", "create", owner)
    assert ledger.revise(revisable("c", "b")).plan == revisable("c", "b")
    assert [ledger.is_done("k-1", step) for step in ("upload_a", "upload_b")] == [False, True]
    assert ledger.latest("k").plan == revisable("c", "b")


@pytest.mark.parametrize("step", ["upload_a", "create"])
def test_a_plan_that_may_have_taken_effect_is_kept(url: str, step: str) -> None:
    ledger, owner = Ledger.open(url, CLOCK), Owner.here()
    ledger.begin(revisable("a"))
    before = ledger.claim("k-1", step, owner).intent
    ledger.sending("k-1", step, owner)
    ledger.release("k-1", step, owner)
    assert ledger.revise(revisable("b")).plan == revisable("a")
    ledger.withdraw(revisable("a"))
    assert ledger.latest("k") is not None
    ledger.claim("k-1", step, owner)
    ledger.not_sent("k-1", step, owner, before)  # refused
    ledger.release("k-1", step, owner)
    assert ledger.revise(revisable("b")).plan == revisable("b")
    ledger.withdraw(revisable("b"))
    assert ledger.latest("k") is None


def test_a_step_is_leased_done_and_answered(url: str) -> None:
    ledger = Ledger.open(url, CLOCK)
    ledger.begin(plan())
    mine, other = Owner.here(), Owner.here()
    claim = ledger.claim("k-1", "create", mine)
    assert claim.state == "ours"
    assert claim.intent is not None
    assert claim.intent.sent_at is None
    assert ledger.claim("k-1", "create", other).state == "held"
    intent = ledger.sending("k-1", "create", mine)
    assert intent.sends == 1
    assert intent.sent_at is not None
    ledger.note("k-1", "create", mine, "upload", {"id": "u1"})
    assert ledger.not_sent("k-1", "create", mine, claim.intent).sent_at is None
    ref = JobRef("toy", "acct", "job_1%x")
    ledger.done("k-1", "create", {"ref": str(ref)}, ref)
    later = ledger.claim("k-1", "create", other)
    assert (later.state, later.outputs) == ("done", {"ref": str(ref)})
    assert ledger.refs(backend="toy") == [ref]
    assert ledger.refs(backend="elsewhere") == []


def test_a_released_or_orphaned_step_is_taken_over_with_its_notes(url: str) -> None:
    ledger = Ledger.open(url, CLOCK)
    ledger.begin(plan())
    mine = Owner.here()
    dead = msgspec.structs.replace(mine, pid=2**22 - 3, start="gone", run="dead")
    assert ledger.claim("k-1", "create", dead).state == "ours"
    ledger.note("k-1", "create", dead, "upload", "u1")
    claim = ledger.claim("k-1", "create", mine)
    assert claim.state == "ours"
    assert claim.intent is not None
    assert claim.intent.notes == {"upload": "u1"}
    with pytest.raises(LedgerError, match="taken over"):
        ledger.sending("k-1", "create", dead)
    ledger.release("k-1", "create", mine)
    assert ledger.claim("k-1", "create", Owner.here()).state == "ours"


def test_a_lease_of_another_host_ends_only_after_its_grace(url: str) -> None:
    ledger = Ledger.open(url, CLOCK)
    ledger.begin(plan())
    foreign = msgspec.structs.replace(Owner.here(), host="elsewhere", run="far")
    ledger.claim("k-1", "create", foreign)
    assert ledger.claim("k-1", "create", Owner.here()).state == "held"


def test_jobs_are_found_by_ref_name_and_beginning_of_id_taken_literally(url: str) -> None:
    ledger = Ledger.open(url, CLOCK)
    for key, job_id in (("a", "head_1-aaaa"), ("b", "headx1-bbbb")):
        ledger.begin(plan(key=key, name=key))
        ledger.claim(f"{key}-1", "create", Owner.here())
        ledger.done(f"{key}-1", "create", {}, JobRef("toy", "acct", job_id))
    assert [attempt.key for attempt in ledger.named("head_1")] == ["a"]
    assert [attempt.key for attempt in ledger.named("b")] == ["b"]
    assert [attempt.key for attempt in ledger.named("toy:acct:headx1-bbbb")] == ["b"]
    assert ledger.named("head%") == []


_RACER = """
import sys, time
from cloudtune.clock import SystemClock
from cloudtune.ledger.costs import job_costs
from cloudtune.ledger.ledger import Ledger
from cloudtune.processes.identity import Owner
ledger, owner = Ledger.open(sys.argv[1], SystemClock()), Owner.here()
while time.time() < float(sys.argv[2]):
    pass
for number in range(10):
    if ledger.claim(f"t{number}", "s", owner).state == "ours":
        print(number)
        ledger.done(f"t{number}", "s", {})
"""


def test_several_processes_create_the_ledger_and_share_the_steps(url: str) -> None:
    import time

    start = str(time.time() + 1.5)
    racers = [
        subprocess.Popen([sys.executable, "-c", _RACER, url, start], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    outcomes = [racer.communicate(timeout=120) for racer in racers]
    assert [err.decode() for _, err in outcomes] == [""] * 4
    taken = sorted(int(word) for out, _ in outcomes for word in out.split())
    assert taken == list(range(10))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("mysql://host/db", "unsupported"),
        ("postgresql://me:secret@host/db", "PGPASSWORD"),
        ("sqlite://host/file.db", "three slashes"),
    ],
)
def test_a_url_that_cannot_be_a_ledger_is_refused(bad: str, says: str) -> None:
    with pytest.raises(LedgerError) as reported:
        Ledger.open(bad, CLOCK)
    assert says in str(reported.value)
    assert "secret" not in str(reported.value)


PASSWORDS = [
    "postgresql://me:hunter2@h/d", "postgres://me:hunter2@h/d", "postgresql://me:hunt/hunter2@h/d",
    "postgresql://me:a@hunter2@h/d", "postgresql://me:hunter2@[h/d", "postgresql:/me:hunter2@h/d",
    "postgresql://h/d?user=me&password=hunter2", "postgresql://h/d?pass%77ord=hunter2", "me:hunter2@h/d",
    "POSTGRESQL://me:hunter2@h/d", "mysql://me:hunter2@h/d", "sqlite://me:hunter2@h/d", "://me:hunter2@h/d",
    "host=h password=hunter2 dbname=d", "host=h password = 'hunter2' dbname=d",
]  # fmt: skip


@pytest.mark.parametrize("url", PASSWORDS)
def test_no_password_of_a_ledger_is_repeated(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from cloudtune.cli.main import cli

    monkeypatch.chdir(tmp_path)
    with pytest.raises(LedgerError) as reported:
        Ledger.open(url, CLOCK)
    assert "hunter2" not in str(reported.value)
    for words in (["jobs", "-vv", f"--ledger={url}"], ["config", "show", "--json"], ["config", "show"]):
        done = CliRunner().invoke(cli, words, env={"CLOUDTUNE_LEDGER": url})
        assert "hunter2" not in done.output
        assert "internal error" not in done.output


def test_doctor_repeats_no_password_of_a_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from cloudtune.cli.main import cli

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["doctor", "--offline", "-vv", f"--ledger={PASSWORDS[0]}"])
    assert "PGPASSWORD" in done.output
    assert "hunter2" not in done.output


@pytest.mark.parametrize(
    "url", ["postgresql://me@h/d", "postgresql://h:5432/d?application_name=a@b", "sqlite:////a/b:c@d.db", "/a/b:c@d.db"]
)
def test_a_url_without_a_password_is_accepted(url: str) -> None:
    assert Ledger.open(url, CLOCK)


def test_a_server_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(LedgerError, match="cannot be read"):
        Ledger.open(f"postgresql://nobody@/none?host={tmp_path}", CLOCK).refs()


def test_a_deleted_job_is_listed_no_more_but_known_to_have_been(url: str) -> None:
    ledger = Ledger.open(url, CLOCK)
    ledger.begin(plan())
    ref = JobRef("toy", "acct", "job1")
    ledger.claim("k-1", "create", Owner.here())
    ledger.done("k-1", "create", {"ref": str(ref)}, ref)
    ledger.gone(ref)
    assert ledger.refs() == []
    found = ledger.latest("k")
    assert found is not None
    assert found.gone_at is not None


def test_an_older_ledger_can_be_read_and_is_upgraded_by_writing(url: str) -> None:
    ledger = Ledger.open(url, CLOCK)
    ledger.begin(plan())
    downgrade(url)
    for _ in range(2):
        assert [one.name for one in ledger.named("headlines")] == ["headlines"]
        assert list(job_costs(ledger, submitting_since=LONG_AGO)), "the query needs a newer table"
        assert trials_of(ledger, "study") == [], "the query needs the newest table"
    assert ledger.begin(plan("other")).name == "headlines"
    assert len(job_costs(ledger, submitting_since=LONG_AGO)) == 2


def downgrade(url: str) -> None:
    """Undo the two newest migrations."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite://"))) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.executescript(f"DROP TABLE costs; DROP TABLE trials; PRAGMA user_version = {version - 2}")
        return
    import psycopg

    with psycopg.connect(url) as db:
        db.execute("DROP TABLE costs")
        db.execute("DROP TABLE trials")
        db.execute("DELETE FROM cloudtune_schema WHERE version >= (SELECT max(version) - 1 FROM cloudtune_schema)")
