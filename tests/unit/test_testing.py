"""The tools for tests are tested too: the clock, the scripted vendor's wire and lives, the fork server."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from cloudtune.state import to_json
from cloudtune.testing import FakeClock, ScriptedVendor, VendorError, faults
from cloudtune.testing.fork_server import ForkServer, Order
from cloudtune.testing.job_timeline import Act, Script, status_at
from cloudtune.testing.scripted_world import ScriptedWorld

KEY = "scripted-key"


# -- the clock -------------------------------------------------------------------------------------------------------


def test_sleeping_moves_both_hands_and_a_jump_only_one() -> None:
    clock = FakeClock()
    now, monotonic = clock.now(), clock.monotonic()
    clock.sleep(10)
    assert (clock.now() - now).total_seconds() == 10
    clock.jump(-3600)
    assert (clock.now() - now).total_seconds() == -3590
    assert clock.monotonic() - monotonic == 10
    assert clock.sleeps == [10]
    with pytest.raises(ValueError, match="non-negative"):
        clock.sleep(-1)


def test_planned_actions_run_at_their_moment_and_may_plan_more() -> None:
    clock, seen = FakeClock(), []

    def first() -> None:
        seen.append(("first", clock.monotonic()))
        clock.call_at(5, lambda: seen.append(("second", clock.monotonic())))

    clock.call_at(20, lambda: seen.append(("last", clock.monotonic())))
    clock.call_at(3, first)
    clock.sleep(10)
    assert seen == [("first", 3), ("second", 8)]
    assert clock.monotonic() == 10
    clock.sleep(100)
    assert seen[2:] == [("last", 20)]


def test_one_clock_in_two_places(tmp_path: Path) -> None:
    own, theirs = FakeClock(path=tmp_path / "clock"), FakeClock(path=tmp_path / "clock")
    own.sleep(5)
    theirs.jump(60)
    assert theirs.monotonic() == 5
    assert own.now() == theirs.now()
    assert theirs.sleeps == []


def test_threads_sleep_one_after_another() -> None:
    clock, before = FakeClock(), sys.getswitchinterval()
    threads = [threading.Thread(target=lambda: [clock.sleep(1) for _ in range(200)]) for _ in range(8)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert clock.monotonic() == 1600


def test_a_loop_without_an_end_is_ended() -> None:
    clock = FakeClock(patience=100)
    with pytest.raises(RuntimeError, match="does its loop ever end"):
        any(clock.sleep(0.1) for _ in iter(int, 1))


# -- the vendor ------------------------------------------------------------------------------------------------------


def made(vendor: ScriptedVendor, name: str = "n", token: str = "t") -> str:
    body = {"name": name, "model": "m", "files": {}, "token": token, "metadata": {"cloudtune": token}}
    return str(vendor.request("create_job", body, api_key=KEY)["id"])


def test_a_life_is_the_same_whenever_one_looks() -> None:
    script = Script(queue_s=5, prepare_s=10, step_s=1, steps=4, checkpoint_every=2)
    acts = [Act(16.5, "pause"), Act(100.0, "resume")]
    whole = status_at(0.0, acts, script, 1000.0)
    assert (whole.word, whole.step, whole.started_at) == ("Completed", 4, 15.0)
    assert whole.ended_at == pytest.approx(20.0 + 83.5)
    for moment in range(120):
        seen = status_at(0.0, acts, script, float(moment))
        assert seen.events == whole.events[: len(seen.events)]
        assert seen.metrics == whole.metrics[: len(seen.metrics)]
        assert all(event["at"] <= moment for event in seen.events)
    assert status_at(0.0, acts, script, 50.0).word == "Paused"


def test_a_life_can_be_cut_short() -> None:
    script = Script(queue_s=5, prepare_s=10, step_s=1, steps=100, stop_s=3, max_time_s=50)
    assert status_at(0.0, [Act(20.0, "cancel")], script, 22.0).word == "Stopping"
    stopped = status_at(0.0, [Act(20.0, "cancel"), Act(21.0, "resume")], script, 500.0)
    assert (stopped.word, stopped.ended_at) == ("Stopped", 23.0)
    assert status_at(0.0, [], script, 500.0).word == "TimedOut"
    failed = status_at(0.0, [Act(20.0, "fail", "why"), Act(30.0, "expire")], script, 500.0)
    assert (failed.word, failed.message, failed.ended_at) == ("Failed", "why", 20.0)
    assert status_at(0.0, [Act(1.0, "show", "Odd")], script, 2.0).word == "Odd"


@pytest.mark.parametrize(("personality", "jobs"), [("token", 1), ("neither", 2)])
def test_what_a_second_create_makes(personality: str, jobs: int) -> None:
    vendor = ScriptedVendor(personality=personality, clock=FakeClock())  # type: ignore[arg-type]
    made(vendor)
    made(vendor)
    assert len(vendor.jobs()) == jobs


def test_names_and_tokens_are_enforced() -> None:
    named = ScriptedVendor(personality="unique_names", clock=FakeClock())
    made(named)
    with pytest.raises(VendorError, match="exists already"):
        made(named, token="another")
    tokened = ScriptedVendor(clock=FakeClock())
    made(tokened)
    with pytest.raises(VendorError, match="used for another request"):
        made(tokened, name="another")


def test_each_fault_does_what_it_says() -> None:
    clock = FakeClock()
    vendor = ScriptedVendor(personality="neither", clock=clock, list_lag_s=0)
    expected = {
        "lost_reply": (0, 1), "reset": (0, 0), "refused": (0, 0), "throttle": (429, 0), "server_error": (503, 0),
        "forbidden": (403, 0), "late": (0, 0),
    }  # fmt: skip
    for kind, (status, jobs) in expected.items():
        before = len(vendor.jobs())
        vendor.fail("create_job", faults.Fault(kind=kind, seconds=10.0))  # type: ignore[arg-type]
        with pytest.raises(VendorError) as error:
            made(vendor)
        assert (error.value.status, len(vendor.jobs()) - before) == (status, jobs), kind
        assert error.value.sent is (kind != "refused")
    before, start = len(vendor.jobs()), clock.monotonic()
    clock.sleep(9.0)
    assert len(vendor.jobs()) == before
    clock.sleep(1.1)
    assert len(vendor.jobs()) == before + 1, "the late one has landed"
    vendor.fail("create_*", faults.twice())
    made(vendor)
    assert len(vendor.jobs()) == before + 3
    vendor.fail("create_job", faults.delay(7.0))
    start = clock.monotonic()
    made(vendor)
    assert clock.monotonic() - start == 7.0
    vendor.fail("list_jobs", faults.partial())
    shown = [len(vendor.request("list_jobs", {}, api_key=KEY)["data"]) for _ in range(2)]
    assert shown == [before + 3, before + 4]


def test_faults_come_in_order_and_are_taken_back() -> None:
    vendor = ScriptedVendor(clock=FakeClock())
    vendor.fail("whoami", faults.throttle(2, retry_after=3.0))
    vendor.fail("*", faults.reset(faults.FOREVER))
    seen = []
    for _ in range(4):
        with pytest.raises(VendorError) as error:
            vendor.request("whoami", {}, api_key=KEY)
        seen.append((error.value.status, error.value.retry_after))
    assert seen == [(429, 3.0), (429, 3.0), (0, None), (0, None)]
    vendor.heal()
    assert vendor.request("whoami", {}, api_key=KEY)
    with pytest.raises(VendorError, match="incorrect API key"):
        vendor.request("whoami", {}, api_key="wrong")
    assert (vendor.calls("whoami"), len(vendor.received("whoami"))) == (5, 1)


def test_lists_lag_and_gets_do_not() -> None:
    clock = FakeClock()
    vendor = ScriptedVendor(personality="neither", clock=clock)
    job = made(vendor)
    assert vendor.request("list_jobs", {}, api_key=KEY)["data"] == []
    assert vendor.request("get_job", {"id": job}, api_key=KEY)["id"] == job
    clock.sleep(30)
    assert [shown["id"] for shown in vendor.request("list_jobs", {}, api_key=KEY)["data"]] == [job]


def test_lists_come_in_pages() -> None:
    vendor = ScriptedVendor(personality="neither", clock=FakeClock(), list_lag_s=0)
    ids = [made(vendor, name=f"n{n}") for n in range(45)]
    seen, after, more = [], None, True
    while more:
        page = vendor.request("list_jobs", {"after": after}, api_key=KEY)
        seen += [job["id"] for job in page["data"]]
        after, more = seen[-1], page["has_more"]
    assert seen == ids[::-1]


def test_a_vendor_in_a_file_is_one_vendor(tmp_path: Path) -> None:
    clock = FakeClock(path=tmp_path / "clock")
    own = ScriptedVendor(tmp_path / "v.db", personality="neither", clock=clock, list_lag_s=7)
    theirs = ScriptedVendor(tmp_path / "v.db", clock=clock)
    assert (theirs.personality, theirs.list_lag_s) == ("neither", 7)
    theirs.fail("whoami", faults.reset())
    with pytest.raises(VendorError):
        own.request("whoami", {}, api_key=KEY)
    assert made(own) in theirs.jobs()
    held = own.fingerprint()
    own.request("list_jobs", {}, api_key=KEY)
    clock.sleep(1000)
    assert theirs.fingerprint() == held
    made(own, name="other")
    assert theirs.fingerprint() != held


# -- the fork server -------------------------------------------------------------------------------------------------


def test_children_are_killed_where_they_are_told_and_their_diary_survives(memory_path: Path) -> None:
    world = ScriptedWorld(memory_path)
    spec = world.spec().model_dump(mode="json")
    with ForkServer() as fork_server:
        order = Order(do="submit", recipe=world.recipe(), ledger=f"{memory_path}/ledger.db", spec=spec, kill_at=3)
        dead = fork_server.run(order)
        assert (dead.killed, len(dead.trace), dead.result, dead.error) == (True, 3, None, None)
        lost = fork_server.run(
            Order(do="get", recipe=world.recipe(), ledger=order.ledger, ref="scripted:acct-1@test:x")
        )
        assert lost.raised() == "JobNotFound"
        assert lost.error is not None
        assert lost.error["exit_code"] == 2
        broken = fork_server.run(Order(do="nonsense", recipe=world.recipe(), ledger=order.ledger))
        assert broken.raised() == "KeyError"
        planned = fork_server.run(Order(do="plan", recipe=world.recipe(), ledger=order.ledger, spec=spec))
        assert planned.result["name"] == to_json(world.spec().name)


def test_a_fork_server_that_died_says_so() -> None:
    fork_server = ForkServer()
    fork_server._process.kill()
    fork_server._process.wait()
    with pytest.raises((RuntimeError, BrokenPipeError)):
        fork_server.race([])
    for pipe in (fork_server._process.stdin, fork_server._process.stdout):
        assert pipe is not None
        try:
            pipe.close()
        except BrokenPipeError:
            continue


def test_a_worker_of_the_mutation_run_that_fails_is_an_error() -> None:
    from tests.mutation import share

    share([1, 2, 3], str, 2)
    with pytest.raises(RuntimeError, match="1 of 2 workers failed"):
        share(["1", "2", "x"], int, 2)
