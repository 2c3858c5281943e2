"""The executor, step by step, against a back end that records what it is asked and does what the test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloudtune import execute
from cloudtune.backend import Absent, Done, Found, Intent, Journal, Probe, Unsettled
from cloudtune.data.spool import Spool
from cloudtune.errors import (
    BackendError,
    DataError,
    InvalidRequest,
    JobNotFound,
    LedgerError,
    RateLimited,
    TransientError,
    Unavailable,
)  # fmt: skip
from cloudtune.execute import Executor, StepUpdate
from cloudtune.ledger.ledger import FOREIGN_HOST_GRACE_S, Ledger
from cloudtune.plan import DataReport, Plan, Resolved, Step, output_ref  # fmt: skip
from cloudtune.processes.identity import Owner
from cloudtune.retry import SEND_ATTEMPTS
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef
from cloudtune.testing import FakeClock

REF = "plain:here:job-1"
TOKEN = "t" * 32


class Plain:
    """Answers from lists; an exception in a list is raised."""

    name = "plain"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self.intents: list[Intent] = []
        self.finds: list[Any] = []
        self.does: list[Any] = []
        self.probes: list[Any] = []
        self.cancelled: list[str] = []
        self.on_do: Callable[[Journal], None] = lambda journal: None

    def find(self, step: Step, intent: Intent) -> Found:
        self.asked.append(f"find {step.id}")
        self.intents.append(intent)
        return _next(self.finds, Absent())

    def do(self, step: Step, journal: Journal) -> dict[str, Any]:
        self.asked.append(f"do {step.id}")
        self.sent.append(step.request)
        self.on_do(journal)
        return _next(self.does, {"ref": REF, "id": "job-1"})

    def probe(self, step: Step) -> Probe:
        self.asked.append(f"probe {step.id}")
        return _next(self.probes, Probe(state="ready"))

    def cancel(self, ref: JobRef) -> None:
        self.cancelled.append(str(ref))
        if ref.id == "gone":
            raise JobNotFound("gone")


def _next(answers: list[Any], default: Any) -> Any:
    answer = answers.pop(0) if answers else default
    if isinstance(answer, Exception):
        raise answer
    return answer


class Bench:
    """A clock, a ledger and an executor."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self.backend = Plain()
        self.updates: list[StepUpdate] = []
        self.trace: list[str] = []
        self.ledger = Ledger.open(f"{root}/ledger.db", self.clock, self.trace.append)

    def plan(self, *steps: Step, token: str = TOKEN) -> Plan:
        plan = Plan(
            name="n", backend="plain", scope="here", key="k", attempt=1, token=token, spec={}, steps=steps,
            data=DataReport(splits={}, fingerprint=""), resolved=Resolved(scope="here"),
        )  # fmt: skip
        self.ledger.begin(plan)
        return plan

    def run(self, *steps: Step, spec: JobSpec | None = None) -> JobRef:
        executor = Executor(
            self.backend, self.ledger, self.clock, spool=Spool(self.root / "spool"), trace=self.trace.append,
            on_step=self.updates.append,
        )  # type: ignore[arg-type]  # fmt: skip
        return executor.run(self.plan(*steps), spec or JobSpec(model="m", data={"train": "none.jsonl"}))

    def intent(self, step: str) -> Intent:
        """What the ledger has of a step that nobody holds."""
        claim = self.ledger.claim(TOKEN, step, Owner.here())
        assert claim.intent is not None, claim
        return claim.intent


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


CREATE = Step(id="create", kind="call", title="create", makes_job=True, once="reconciled", settle_s=60.0)


def test_finds_before_it_does_and_writes_before_it_sends(bench: Bench) -> None:
    seen: list[Any] = []

    def look(journal: Journal) -> None:
        with bench.ledger._store.write() as db:
            seen.append(dict(db.execute("SELECT sent_at, sends, outputs FROM steps").fetchone()))

    bench.backend.on_do = look
    assert str(bench.run(CREATE)) == REF
    assert bench.backend.asked == ["find create", "do create"]
    assert seen == [{"sent_at": bench.clock.now().isoformat(), "sends": 1, "outputs": None}]
    assert bench.ledger.refs() == [JobRef.parse(REF)]
    assert [update.what for update in bench.updates] == ["begun", "done"]


def test_places_are_filled_from_the_steps_before(bench: Bench) -> None:
    upload = Step(id="upload", kind="upload", title="u", request={"name": "x"})
    create = msgspec.structs.replace(CREATE, request={"files": [output_ref("upload", "id")], "n": 1})
    bench.backend.does = [{"id": "file-7"}]
    bench.run(upload, create)
    assert bench.backend.sent == [{"name": "x"}, {"files": ["file-7"], "n": 1}]


def test_what_was_done_is_not_done_again(bench: Bench) -> None:
    upload = Step(id="upload", kind="upload", title="u")
    bench.backend.does = [{"id": "f"}, InvalidRequest("no")]
    with pytest.raises(InvalidRequest):
        bench.run(upload, CREATE)
    bench.run(upload, CREATE)
    assert bench.backend.asked.count("do upload") == 1
    assert [update.what for update in bench.updates if update.step.id == "upload"] == [
        "begun",
        "done",
        "begun",
        "found",
    ]
    bench.backend.asked.clear()
    assert str(bench.run(upload, CREATE)) == REF
    assert bench.backend.asked == []


def test_what_is_found_is_not_sent(bench: Bench) -> None:
    bench.backend.finds = [Done(outputs={"ref": "plain:here:old"})]
    assert bench.run(CREATE).id == "old"
    assert bench.backend.sent == []


def test_a_vendor_that_asks_for_time_is_given_it(bench: Bench) -> None:
    start = bench.clock.monotonic()
    bench.backend.finds = [
        Unsettled(until=bench.clock.now() + timedelta(seconds=200)),
        Unsettled(until=bench.clock.now()),
    ]
    bench.run(CREATE)
    assert bench.clock.monotonic() - start == pytest.approx(60.0)  # it looks again at least once a minute
    assert bench.backend.asked == ["find create", "find create", "do create"]


def test_absence_is_not_believed_after_a_send_without_an_answer(bench: Bench) -> None:
    """Within one process: this is what keeps a lost reply from making a second job where nothing else does."""
    sent_at: list[float] = []
    bench.backend.on_do = lambda journal: sent_at.append(bench.clock.monotonic())
    bench.backend.does = [Unavailable("no answer")]
    bench.run(CREATE)
    assert sent_at[1] - sent_at[0] >= CREATE.settle_s
    assert bench.backend.asked[:2] == ["find create", "do create"]
    assert bench.backend.intents[0].sent_at is None
    assert all(intent.sent_at is not None and intent.sends >= 1 for intent in bench.backend.intents[1:])


def test_absence_is_not_believed_after_another_process_died_while_sending(bench: Bench) -> None:
    dead = msgspec.structs.replace(Owner.here(), pid=2**22 + 1)
    bench.plan(CREATE)
    bench.ledger.claim(TOKEN, "create", dead)
    bench.ledger.sending(TOKEN, "create", dead)
    bench.clock.sleep(20.0)
    start = bench.clock.monotonic()
    bench.run(CREATE)
    assert bench.clock.monotonic() - start == pytest.approx(40.0)
    assert bench.backend.asked.count("do create") == 1


def test_a_clock_that_was_set_back_is_not_waited_for(bench: Bench) -> None:
    dead = msgspec.structs.replace(Owner.here(), pid=2**22 + 1)
    bench.plan(CREATE)
    bench.ledger.claim(TOKEN, "create", dead)
    bench.ledger.sending(TOKEN, "create", dead)
    bench.clock.jump(-86400)
    start = bench.clock.monotonic()
    bench.run(CREATE)
    assert bench.clock.monotonic() - start <= CREATE.settle_s + 1


@pytest.mark.parametrize("error", [RateLimited("slow down", retry_after=5.0), Unavailable("refused", acted=False)])
def test_what_was_surely_not_acted_on_was_not_sent(bench: Bench, error: Exception) -> None:
    bench.backend.does = [error]
    start = bench.clock.monotonic()
    bench.run(CREATE)
    assert bench.clock.monotonic() - start < 30, "there was nothing to wait for but the vendor's own word"
    assert [intent.sends for intent in bench.backend.intents] == [0, 0]


def test_a_throttle_does_not_forget_the_lost_send_before_it(bench: Bench) -> None:
    bench.backend.does = [Unavailable("no answer"), RateLimited("slow down", retry_after=1.0), Unavailable("no answer")]
    sent_at: list[float] = []
    bench.backend.on_do = lambda journal: sent_at.append(bench.clock.monotonic())
    bench.run(CREATE)
    assert len(sent_at) == 4
    assert sent_at[1] - sent_at[0] >= CREATE.settle_s
    assert sent_at[3] - sent_at[2] >= CREATE.settle_s
    assert [intent.sends for intent in bench.backend.intents if intent.sends] == sorted(
        intent.sends for intent in bench.backend.intents if intent.sends
    )


def test_retries_end(bench: Bench) -> None:
    bench.backend.does = [RateLimited(f"slow down {n}", retry_after=1.0) for n in range(50)]
    with pytest.raises(RateLimited):
        bench.run(CREATE)
    assert bench.backend.asked.count("do create") == SEND_ATTEMPTS
    assert bench.intent("create").sent_at is None, "the lease was given back, and nothing was sent"


def test_other_errors_are_final_and_give_the_lease_back(bench: Bench) -> None:
    bench.backend.does = [InvalidRequest("no such model")]
    with pytest.raises(InvalidRequest, match="no such model"):
        bench.run(CREATE)
    assert bench.backend.asked.count("do create") == 1
    assert bench.ledger.claim(TOKEN, "create", Owner.here()).state == "ours"


def test_a_bug_in_a_backend_gives_the_lease_back_too(bench: Bench) -> None:
    bench.backend.does = [ZeroDivisionError("oops")]
    with pytest.raises(ZeroDivisionError):
        bench.run(CREATE)
    assert bench.ledger.claim(TOKEN, "create", Owner.here()).state == "ours"


def test_duplicates_are_cancelled_and_written_down(bench: Bench) -> None:
    bench.backend.finds = [Done(outputs={"ref": REF}, duplicates=("plain:here:twin", "plain:here:gone"))]
    assert str(bench.run(CREATE)) == REF
    assert bench.backend.cancelled == ["plain:here:twin", "plain:here:gone"]
    with bench.ledger._store.write() as db:
        assert "plain:here:twin" in db.execute("SELECT notes FROM steps").fetchone()["notes"]


def test_after_a_late_send_it_looks_for_a_twin(bench: Bench) -> None:
    duplicate = Done(outputs={"ref": "plain:here:first"}, duplicates=(REF,))
    bench.backend.does = [Unavailable("no answer")]
    bench.backend.finds = [Absent(), Absent(), Absent(), duplicate]
    assert bench.run(CREATE).id == "first"
    assert bench.backend.cancelled == [REF]


def test_what_it_made_itself_is_the_twin_where_the_list_lags(bench: Bench) -> None:
    """The first request has landed late, the second was answered, and the list shows only the first one yet."""
    bench.backend.does = [Unavailable("no answer")]
    bench.backend.finds = [Absent(), Absent(), Absent(), Done(outputs={"ref": "plain:here:first"})]
    assert bench.run(CREATE).id == "first"
    assert bench.backend.cancelled == [REF]


def test_after_two_sends_it_waits_until_both_would_show(bench: Bench) -> None:
    """A process sent twice without an answer and died: finding one job does not mean that there is one."""
    dead = msgspec.structs.replace(Owner.here(), pid=2**22 + 1)
    bench.plan(CREATE)
    bench.ledger.claim(TOKEN, "create", dead)
    bench.ledger.sending(TOKEN, "create", dead)
    bench.clock.sleep(100.0)
    bench.ledger.sending(TOKEN, "create", dead)
    first = {"ref": "plain:here:first"}
    bench.backend.finds = [Done(outputs=first), Done(outputs=first, duplicates=("plain:here:second",))]
    start = bench.clock.monotonic()
    assert bench.run(CREATE).id == "first"
    assert bench.backend.cancelled == ["plain:here:second"]
    assert bench.clock.monotonic() - start == pytest.approx(CREATE.settle_s)


def test_notes_outlive_the_process(bench: Bench) -> None:
    bench.backend.on_do = lambda journal: journal.note("upload", {"id": 7})
    bench.backend.does = [InvalidRequest("later")]
    with pytest.raises(InvalidRequest):
        bench.run(CREATE)
    seen: list[Any] = []
    bench.backend.on_do = lambda journal: seen.append(dict(journal.notes))
    bench.run(CREATE)
    assert seen == [{"upload": {"id": 7}}]
    assert bench.backend.intents[-1].notes == {"upload": {"id": 7}}


def test_whoever_looks_sees_what_the_send_before_noted(bench: Bench) -> None:
    """In the same process too: after a send without an answer, and beside the send that was answered."""
    tries: list[int] = []

    def numbered(journal: Journal) -> None:
        tries.append(len(tries) + 1)
        journal.note("tries", list(tries))

    bench.backend.on_do = numbered
    bench.backend.does = [Unavailable("no answer")]
    bench.run(CREATE)
    seen = [intent.notes.get("tries", []) for intent in bench.backend.intents]
    assert seen[0] == []
    assert seen[-1] == [1, 2]
    assert {tuple(one) for one in seen[1:-1]} == {(1,)}


AWAIT = Step(id="wait", kind="await", title="wait for the file", limit_s=100.0)


def test_awaiting(bench: Bench) -> None:
    pending = Probe(state="pending", message="processing")
    ready = Probe(state="ready", outputs={"id": "f"})
    bench.backend.probes = [pending, Unavailable("hiccup"), pending, ready]
    bench.run(AWAIT, CREATE)
    assert bench.backend.asked[:4] == ["probe wait"] * 4
    assert "find wait" not in bench.backend.asked
    assert "do wait" not in bench.backend.asked
    assert [update.message for update in bench.updates if update.what == "waiting"] == ["processing"] * 2


def test_awaiting_in_vain(bench: Bench) -> None:
    bench.backend.probes = [Probe(state="pending")] * 1000
    with pytest.raises(TransientError, match="wait for the file: still not ready after 100 s"):
        bench.run(AWAIT, CREATE)
    assert 100 <= bench.clock.monotonic() < 120
    bench.backend.probes = [Probe(state="failed", message="row 3 is not JSON")]
    with pytest.raises(BackendError, match="row 3 is not JSON"):
        bench.run(AWAIT, CREATE)
    assert bench.backend.sent == []


def _rows(bench: Bench, text: str = '{"text":"a"}\n{"text":"b"}\n') -> tuple[JobSpec, Step]:
    from cloudtune.data import prepare

    file = bench.root / "rows.jsonl"
    if not file.exists():
        file.write_text(text, encoding="utf-8")
    spec = JobSpec(model="m", method="cpt", data={"train": str(file)})
    sha = prepare(spec.data, method="cpt").splits["train"].sha256
    request = {"split": "train", "format": "cloudtune", "sha256": sha}
    return spec, Step(id="encode", kind="encode", title="e", request=request)


def test_encoding_is_done_again_if_its_file_is_gone(bench: Bench) -> None:
    spec, encode = _rows(bench)
    upload = Step(id="upload", kind="upload", title="u", request={"path": output_ref("encode", "path")})
    bench.backend.does = [InvalidRequest("later")]
    with pytest.raises(InvalidRequest):
        bench.run(encode, upload, CREATE, spec=spec)
    spooled = Path(bench.backend.sent[0]["path"])
    assert spooled.read_text(encoding="utf-8") == '{"text":"a"}\n{"text":"b"}\n'
    spooled.unlink()
    bench.run(encode, upload, CREATE, spec=spec)
    assert spooled.exists()


def test_rows_that_changed_since_the_plan_are_refused(bench: Bench) -> None:
    spec, encode = _rows(bench)
    (bench.root / "rows.jsonl").write_text('{"text":"a"}\n{"text":"c"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="have changed since the check"):
        bench.run(encode, CREATE, spec=spec)
    assert bench.backend.asked == []
    assert [file.name for file in (bench.root / "spool").iterdir()] == []


def test_a_step_that_a_living_process_holds_is_waited_for(bench: Bench) -> None:
    holder = Owner.here()
    bench.plan(CREATE)
    bench.ledger.claim(TOKEN, "create", holder)
    bench.clock.call_at(3.0, lambda: bench.ledger.done(TOKEN, "create", {"ref": REF}, JobRef.parse(REF)))
    assert str(bench.run(CREATE)) == REF
    assert bench.backend.asked == []
    waits = [update.message for update in bench.updates if update.what == "waiting"]
    assert waits
    assert f"process {holder.pid}" in waits[0]


def test_a_lease_that_was_lost_stops_the_loser(bench: Bench) -> None:
    """Another process took the step over: what comes now must not be written over its record."""
    thief = msgspec.structs.replace(Owner.here(), run="thief")

    def steal(journal: Journal) -> None:
        with bench.ledger._store.write() as db:
            db.execute("UPDATE steps SET owner = ?", (thief.dump(),))
        journal.note("x", 1)

    bench.backend.on_do = steal
    with pytest.raises(LedgerError, match="taken over"):
        bench.run(CREATE)


def test_the_outcome_of_who_was_quicker_stands_and_the_other_s_job_is_cancelled(bench: Bench) -> None:
    def overtake(journal: Journal) -> None:
        bench.ledger.done(TOKEN, "create", {"ref": REF}, JobRef.parse(REF))

    bench.backend.on_do = overtake
    bench.backend.does = [{"ref": "plain:here:job-2"}]
    assert str(bench.run(CREATE)) == REF
    assert bench.backend.cancelled == ["plain:here:job-2"]
    assert str(bench.ledger.refs()[0]) == REF


def test_a_long_step_keeps_its_lease(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from another host, where only what is written in the ledger tells that its holder lives."""
    monkeypatch.setattr(execute, "RENEW_EVERY_S", 0.01)
    monkeypatch.setattr(Owner, "is_local", False)
    other = Owner.here()
    states: list[str] = []

    def take_long(journal: Journal) -> None:
        for _ in range(3):
            bench.clock.advance(FOREIGN_HOST_GRACE_S - 1)
            _until_touched_at(bench, bench.clock.now())
            states.append(bench.ledger.claim(TOKEN, "create", other).state)

    bench.backend.on_do = take_long
    assert str(bench.run(CREATE)) == REF
    assert states == ["held"] * 3


def _until_touched_at(bench: Bench, moment: datetime) -> None:
    for _ in range(3000):
        (row,) = bench.ledger._store.read("SELECT touched_at FROM steps", ())
        if datetime.fromisoformat(row["touched_at"]) >= moment:
            return
        time.sleep(0.01)
    raise AssertionError("the lease was not renewed")


def test_a_plan_without_a_job_is_refused(bench: Bench) -> None:
    with pytest.raises(BackendError, match="must end with the only step that creates the job"):
        bench.run(Step(id="upload", kind="upload", title="u"))


def test_failpoints_surround_every_write_and_every_step(bench: Bench) -> None:
    bench.run(AWAIT, CREATE)
    for name in bench.trace:
        kind, when, what = name.split(" ", 2)
        assert kind in ("ledger", "step")
        assert bench.trace.count(f"{kind} before {what}") == bench.trace.count(f"{kind} after {what}"), (name, when)
    assert "step before create" in bench.trace


def test_threads_share_a_step(bench: Bench) -> None:
    done: list[str] = []
    threads = [threading.Thread(target=lambda: done.append(str(bench.run(CREATE)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert done == [REF] * 4
    assert len(bench.backend.sent) == 1
