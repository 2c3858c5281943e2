"""Clauses about reading: 16 (events), 17 (list) and 20 (no side effects)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.client import Client
from cloudtune.optional import BatchStatus, Host, capabilities_of
from cloudtune.state import JobRef, JobState
from cloudtune.testing import faults
from cloudtune.testing.contract.harness import Harness, ledger_url, needs, submitted

if TYPE_CHECKING:
    from cloudtune.backend import Backend, Found, Intent
    from cloudtune.plan import Step
    from cloudtune.state import JobSnapshot
    from cloudtune.testing.world import World

S = JobState


class ReadClauses(Harness):
    """See the module."""

    def test_16_events_go_on_from_a_cursor(self, world: World, client: Client) -> None:
        """16: followed through a job's life, or read again from any cursor: no gap, no repeat, in order."""
        job = submitted(client, world)
        followed: list[Any] = []
        for state in (S.PREPARING, S.RUNNING, S.SUCCEEDED):
            world.reach(job.ref, state)
            followed += job.events(after=followed[-1].cursor if followed else None)
        whole = list(job.events())
        assert followed == whole
        assert len(whole) >= 2
        assert len({event.cursor for event in whole}) == len(whole)
        assert [event.time for event in whole] == sorted(event.time for event in whole)
        for number in _spread(len(whole)):
            assert list(job.events(after=whole[number].cursor)) == whole[number + 1 :]

    def test_16_events_that_were_observed_say_so(self, world: World, backend: Backend, client: Client) -> None:
        """16: where the vendor keeps no events they are made from observed changes, and are marked."""
        job = submitted(client, world, S.RUNNING, S.SUCCEEDED)
        made = {event.observed for event in job.events()}
        assert made == {not capabilities_of(backend, job.ref).can("verb:events")}

    @needs("verb:events", "wire")
    def test_16_an_event_told_twice_is_passed_on_once(self, world: World, client: Client) -> None:
        """16: vendors repeat events at the edges of pages."""
        job = submitted(client, world, S.RUNNING)
        before = list(job.events())
        world.fail("events", faults.repeat())
        assert list(job.events()) == before

    @needs("verb:metrics")
    def test_16_metrics_go_on_from_a_cursor(self, world: World, client: Client) -> None:
        """16: as events do; steps of a split only grow."""
        job = submitted(client, world, S.RUNNING)
        followed = list(job.metrics())
        world.reach(job.ref, S.SUCCEEDED)
        followed += job.metrics(after=followed[-1].cursor if followed else None)
        whole = list(job.metrics())
        assert followed == whole
        assert whole
        for number in _spread(len(whole)):
            assert list(job.metrics(after=whole[number].cursor)) == whole[number + 1 :]
        steps = [metric.step for metric in whole if metric.split == "train"]
        assert steps == sorted(steps)

    @needs("verb:list")
    def test_17_list_shows_the_job_and_agrees_with_get(self, world: World, backend: Backend, client: Client) -> None:
        """17: newest first, at most ``limit``; by list, by get, in batches, and through the client."""
        refs = [submitted(client, world, state, variant=n).ref for n, state in enumerate((S.QUEUED, S.RUNNING))]
        refs.append(submitted(client, world, S.RUNNING, S.SUCCEEDED, variant=2).ref)
        world.clock.sleep(world.list_lag_s)
        listed = list(backend.list())
        assert [job.ref for job in listed] == refs[::-1]
        assert [job.ref for job in backend.list(limit=2)] == refs[:0:-1]
        for job in listed:
            assert _gist(job) == _gist(backend.get(job.ref))
        if isinstance(backend, BatchStatus):
            nobody = JobRef(refs[0].backend, refs[0].scope, f"{refs[0].id[:-4]}zzzz")
            many = backend.get_many([*refs, nobody])
            assert {ref: _gist(job) for ref, job in many.items()} == {job.ref: _gist(job) for job in listed}
        assert [_gist(job) for job in client.jobs()] == [_gist(job) for job in listed]
        stranger = Client(world.backend(), ledger=ledger_url(world, "empty"), clock=world.clock)
        assert [job.ref for job in stranger.jobs(remote=True)] == refs[::-1]

    def test_20_reading_changes_nothing(self, world: World, backend: Backend, client: Client) -> None:
        """20: neither at the vendor nor here, in any state of the job."""
        looks: list[tuple[Step, Intent]] = []
        find = backend.find

        def look(step: Step, intent: Intent) -> Found:
            looks.append((step, intent))
            return find(step, intent)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(backend, "find", look)
            job = client.submit(world.spec())
        assert looks
        for state in (S.QUEUED, S.RUNNING, S.SUCCEEDED):
            world.reach(job.ref, state)
            held, files = world.fingerprint(), _files(world)
            for _ in range(2):
                _read_everything(backend, job.ref, has_ended=state is S.SUCCEEDED)
                client.jobs()
                client.plan(world.spec())
                client.attach(str(job.ref)).snapshot()
            for step, intent in looks:
                find(step, intent)
            assert world.fingerprint() == held, f"reading changed something while the job was {state}"
            assert _files(world) == files

    def test_20_reading_makes_no_ledger(self, world: World, backend: Backend) -> None:
        """20: plan, jobs and a failed attach leave no ledger behind."""
        url = ledger_url(world, "untouched")
        fresh = Client(backend, ledger=url, clock=world.clock)
        fresh.plan(world.spec())
        assert fresh.jobs() == []
        assert fresh.unfinished() == []
        assert not list(world.root.glob("untouched*"))


def _spread(count: int) -> set[int]:
    """About ten places in a list of that length, the first and the last among them.

    A vendor may have to be asked for all pages after each cursor, so that all cursors would take quadratic time.
    """
    return {*range(0, count, max(1, count // 9)), count - 1}


def _read_everything(backend: Backend, ref: JobRef, *, has_ended: bool) -> None:
    can = backend.capabilities.can
    backend.get(ref)
    for verb in ("events", "metrics", "checkpoints"):
        if can(f"verb:{verb}"):
            getattr(backend, verb)(ref)
    if can("verb:list"):
        list(backend.list())
    if isinstance(backend, BatchStatus):
        backend.get_many([ref])
    if has_ended:
        backend.model(ref)
    if isinstance(backend, Host) and can("verb:deploy"):
        list(backend.deployments())


def _gist(job: JobSnapshot) -> tuple[Any, ...]:
    return job.ref, job.state, job.native_state, job.name, job.model, job.created_at, job.finished_at


def _files(world: World) -> dict[str, tuple[int, int]]:
    """The ledger and what the back end keeps here, with sizes and times of change."""
    places = [world.root / "ledger.db", *(file for folder in world.folders for file in Path(folder).rglob("*"))]
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in places if file.is_file()}
