"""Clauses about what is sent: 12 (retries) and 13 (one submit, one job)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloudtune.errors import PermissionDenied
from cloudtune.state import JobRef, JobState
from cloudtune.testing import faults
from cloudtune.testing.contract.harness import Harness, ask, needs, submitted

if TYPE_CHECKING:
    from cloudtune.client import Client
    from cloudtune.testing.fork_server import ForkServer
    from cloudtune.testing.world import World


class OnceClauses(Harness):
    """See the module."""

    @needs("throttle")
    def test_12_throttling_is_waited_out(self, world: World, client: Client) -> None:
        """12: as long as the vendor asks for (Retry-After), for reads and sends alike."""
        job = submitted(client, world, JobState.RUNNING)
        world.fail("get", faults.throttle(times=2, retry_after=7))
        calls, start = world.calls("get"), world.clock.monotonic()
        assert job.state is JobState.RUNNING
        assert world.calls("get") - calls == 3
        assert world.clock.monotonic() - start >= 13.9
        world.fail("create", faults.throttle(times=2, retry_after=11))
        calls, start = world.calls("create"), world.clock.monotonic()
        submitted(client, world, variant=1)
        assert world.calls("create") - calls == 3
        assert world.clock.monotonic() - start >= 21.9
        assert len(world.jobs()) == 2

    @needs("server_error")
    def test_12_outages_are_retried(self, world: World, client: Client) -> None:
        """12: 5xx answers, for reads and sends alike; still one job."""
        world.fail("create", faults.server_error(times=2))
        job = submitted(client, world, JobState.RUNNING)
        assert len(world.jobs()) == 1
        world.fail("get", faults.server_error(times=2))
        calls = world.calls("get")
        assert job.state is JobState.RUNNING
        assert world.calls("get") - calls == 3
        world.fail("get", faults.server_error())
        start = world.clock.monotonic()
        assert job.state is JobState.RUNNING
        assert world.clock.monotonic() > start, "it was asked again without a wait: does the SDK retry by itself?"

    @needs("forbidden")
    def test_12_a_refusal_is_final(self, world: World, client: Client) -> None:
        """12: other 4xx answers are raised at once, with the vendor's exception as the cause."""
        world.fail("create", faults.forbidden())
        with pytest.raises(PermissionDenied) as refused:
            client.submit(world.spec())
        assert refused.value.__cause__ is not None
        assert world.calls("create") == 1
        job = submitted(client, world, JobState.RUNNING)  # a refused request can be repeated
        calls = world.calls("get")
        world.fail("get", faults.forbidden())
        with pytest.raises(PermissionDenied):
            job.snapshot()
        assert world.calls("get") - calls == 1
        assert len(world.jobs()) == 1

    def test_13_the_same_submit_answers_with_the_same_job(
        self, world: World, client: Client, fork_server: ForkServer
    ) -> None:
        """13: in this process, in another, and after the job's end; other rows or another seed are another job."""
        job = client.submit(world.spec())
        assert client.submit(world.spec()) == job
        assert ask(fork_server, world, "submit", spec=world.spec()).result == str(job.ref)
        world.reach(job.ref, JobState.RUNNING)
        world.reach(job.ref, JobState.SUCCEEDED)
        assert client.submit(world.spec()) == job
        assert [JobRef.parse(str(job.ref)).id] == list(world.jobs())
        assert client.submit(world.spec(variant=1)) != job
        assert len(world.jobs()) == 2

    def test_13_again_makes_one_more(self, world: World, client: Client) -> None:
        """13: ``again`` after an end makes a new attempt; a second ``again`` while that one lives continues it."""
        job = submitted(client, world, JobState.RUNNING)
        assert client.submit(world.spec(), again=True) == job
        world.reach(job.ref, JobState.FAILED, message="reported by the vendor")
        second = client.submit(world.spec(), again=True)
        assert second != job
        assert client.submit(world.spec(), again=True) == second
        assert client.submit(world.spec()) == second
        assert len(world.jobs()) == 2

    @needs("lost_reply")
    @pytest.mark.parametrize("call", ["upload", "create"])
    def test_13_a_lost_reply_makes_no_second(self, world: World, client: Client, call: str) -> None:
        """13: the request was acted on and its answer never came; the same submit finds what it made."""
        uploads = _usual_uploads(world, client)
        world.fail(call, faults.lost_reply(times=1))  # type: ignore[arg-type]
        job = client.submit(world.spec())
        assert world.jobs()[-1] == job.ref.id
        assert (len(world.jobs()), len(world.uploads())) == (2, 2 * uploads)

    @pytest.mark.timeout(600)
    @pytest.mark.parametrize("failpoints", ["steps", pytest.param("all", marks=pytest.mark.soak)])
    def test_13_a_kill_anywhere_makes_no_second(
        self, world: World, client: Client, fork_server: ForkServer, failpoints: str
    ) -> None:
        """13: SIGKILL at a failpoint, then the same command again: one job, one upload, and we know it.

        ``steps``: before and after the first and the last step that sends something. ``all``: at every failpoint.
        """
        uploads = _usual_uploads(world, client)
        trace = ask(fork_server, world, "submit", spec=world.spec()).trace
        assert len(trace) > 8, f"only {trace} were reached"
        sends = [number for number, point in enumerate(trace, 1) if point.startswith("step ")]
        for number in sorted({*sends[:2], *sends[-2:]}) if failpoints == "steps" else range(1, len(trace) + 1):
            jobs, files = len(world.jobs()), len(world.uploads())
            first = ask(fork_server, world, "submit", spec=world.spec(number), kill_at=number)
            assert (first.killed, first.trace) == (True, trace[:number])
            second = ask(fork_server, world, "submit", spec=world.spec(number))
            where = f"killed at {number}, {trace[number - 1]}"
            assert second.error is None, f"{where}: {second.error}"
            assert len(world.jobs()) - jobs == 1, where
            assert len(world.uploads()) - files == uploads, where
            assert JobRef.parse(second.result).id == world.jobs()[-1], where
            assert [str(job.ref) for job in client.jobs(limit=3)].count(second.result) == 1, where


def _usual_uploads(world: World, client: Client) -> int:
    """How many uploads an undisturbed submit of this world's spec makes."""
    client.submit(world.spec(1000))
    return len(world.uploads())
