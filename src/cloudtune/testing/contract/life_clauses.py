"""Clauses about a job's life: 3 to 11."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloudtune.errors import (
    CloudtuneError,
    InvalidRequest,
    JobCancelled,
    JobEnded,
    JobExpired,
    JobFailed,
    JobInterrupted,
    JobNotFound,
    LostContact,
    OutcomeUnknown,
    UnsupportedError,
    WaitTimeout,
)
from cloudtune.optional import Generator, Pausable
from cloudtune.state import JobRef, JobState
from cloudtune.testing import faults
from cloudtune.testing.contract.harness import Harness, ask, needs, submitted
from cloudtune.watch import watch

if TYPE_CHECKING:
    from cloudtune.backend import Backend
    from cloudtune.client import Client
    from cloudtune.testing.fork_server import ForkServer
    from cloudtune.testing.world import World

S = JobState
INVENTED = "Levitating"


class LifeClauses(Harness):
    """See the module."""

    def test_03_a_ref_survives_being_text(self, world: World, backend: Backend, client: Client) -> None:
        """3: ref -> str -> ref, and it is the ref by which the back end itself knows the job."""
        plan = client.plan(world.spec())
        ref = client.submit(plan).ref
        assert JobRef.parse(str(ref)) == ref
        assert (ref.backend, ref.scope) == (backend.name, plan.scope)
        if isinstance(backend, Generator):
            assert backend.scope() == ref.scope
        assert backend.get(JobRef.parse(str(ref))).ref == ref
        assert client.attach(str(ref)) == client.attach(ref)

    def test_03_a_ref_never_means_another_account(self, world: World, backend: Backend, client: Client) -> None:
        """3: the same id in another scope is another job, and is not touched."""
        ref = submitted(client, world, S.RUNNING).ref
        stranger = JobRef(ref.backend, f"{ref.scope}-other", ref.id)
        with pytest.raises(JobNotFound):
            backend.get(stranger)
        with pytest.raises(JobNotFound):
            backend.cancel(stranger)
        assert backend.get(ref).state is S.RUNNING

    def test_04_a_job_is_found_again_from_a_fresh_process(
        self, world: World, client: Client, fork_server: ForkServer
    ) -> None:
        """4: attached by its reference alone while it runs, it is not done; after its end it is."""
        job = submitted(client, world, S.RUNNING)
        elsewhere = {"ref": str(job.ref), "ledger": f"sqlite:///{world.root}/another.db"}
        seen = ask(fork_server, world, "get", **elsewhere)
        assert seen.error is None, seen.error
        assert (seen.result["state"], seen.result["ref"]) == ("running", str(job.ref))
        with pytest.raises(WaitTimeout):
            job.result()
        world.reach(job.ref, S.SUCCEEDED)
        assert ask(fork_server, world, "get", **elsewhere).result["state"] == "succeeded"
        assert job.result().ref == job.ref

    @needs("words")
    def test_05_every_word_of_the_sdk_is_known(self, world: World, backend: Backend, client: Client) -> None:
        """5: each state that the SDK, or the service's model, defines has a meaning here, and is kept as it came."""
        ref = submitted(client, world, S.RUNNING).ref
        meanings = {}
        for word in world.words:
            world.show(ref, word)
            seen = backend.get(ref)
            assert seen.native_state == word
            meanings[word] = seen.state
        assert [word for word, state in meanings.items() if state is S.UNKNOWN] == []
        assert {S.RUNNING, S.SUCCEEDED, S.FAILED} <= set(meanings.values())

    @needs("words")
    def test_06_an_unseen_word_is_unknown_and_not_the_end(self, world: World, client: Client) -> None:
        """6: it becomes unknown, is kept, and a wait continues through it."""
        job = submitted(client, world, S.RUNNING)
        world.show(job.ref, INVENTED)
        seen = job.snapshot()
        assert (seen.state, seen.native_state) == (S.UNKNOWN, INVENTED)
        assert not seen.state.is_terminal
        with pytest.raises(WaitTimeout):
            job.wait(timeout=0.5)
        assert client.jobs()[0].native_state == INVENTED

    @needs("words")
    def test_06_an_unseen_word_with_an_end_time_ends_the_wait(
        self, world: World, backend: Backend, client: Client
    ) -> None:
        """6: OutcomeUnknown, exit code 10, with the word; cancel does nothing, and a new attempt can be made."""
        job = submitted(client, world, S.RUNNING, S.SUCCEEDED)
        world.show(job.ref, INVENTED)
        error = _ends(world, backend, job.ref, OutcomeUnknown, 10, S.UNKNOWN)
        assert repr(INVENTED) in str(error)
        job.cancel()
        assert job.snapshot().has_ended
        assert client.plan(world.spec(), again=True).attempt == 2

    @pytest.mark.parametrize("end", [S.SUCCEEDED, S.FAILED, S.CANCELLED])
    def test_07_the_end_is_final(self, world: World, backend: Backend, client: Client, end: JobState) -> None:
        """7: neither resume nor time changes an ended job."""
        job = submitted(client, world, S.RUNNING)
        world.reach(job.ref, end, message="reported by the vendor")
        seen = backend.get(job.ref)
        assert seen.state is end
        if isinstance(backend, Pausable):
            with pytest.raises((InvalidRequest, UnsupportedError)):
                backend.resume(job.ref)
        world.clock.sleep(0.1)
        again = backend.get(job.ref)
        assert (again.state, again.finished_at, again.native_state) == (end, seen.finished_at, seen.native_state)

    @needs("verb:continue")
    def test_07_an_ended_job_is_continued_by_a_new_one(self, world: World, client: Client) -> None:
        """7: resuming it makes a new reference with a parent, once, and leaves the ended one as it is."""
        job = submitted(client, world, S.RUNNING)
        world.reach(job.ref, S.FAILED, message="reported by the vendor")
        child = job.resume()
        assert child.ref != job.ref
        assert child.snapshot().parent == job.ref
        assert not child.state.is_terminal
        assert job.state is S.FAILED
        assert job.resume() == child
        assert len(world.jobs()) == 2

    @needs("verb:cancel")
    def test_08_cancelling_twice_is_harmless(self, world: World, backend: Backend, client: Client) -> None:
        """8: also while the first request is still being carried out, and by a client that does not look first."""
        job = submitted(client, world, S.RUNNING)
        backend.cancel(job.ref)
        assert backend.get(job.ref).state in (S.CANCELLING, S.CANCELLED)
        backend.cancel(job.ref)
        job.cancel()
        world.settle(job.ref)
        backend.cancel(job.ref)
        job.cancel()
        assert job.state is S.CANCELLED

    @needs("verb:cancel")
    @pytest.mark.parametrize("end", [S.SUCCEEDED, S.FAILED])
    def test_08_cancelling_after_the_end_does_nothing(
        self, world: World, backend: Backend, client: Client, end: JobState
    ) -> None:
        """8: the state, the end's time and the result stay."""
        job = submitted(client, world, S.RUNNING)
        world.reach(job.ref, end, message="reported by the vendor")
        before = backend.get(job.ref)
        backend.cancel(job.ref)
        world.clock.sleep(0.1)
        after = backend.get(job.ref)
        assert (after.state, after.finished_at) == (end, before.finished_at)

    def test_09_waiting_ends_in_success(self, world: World, client: Client) -> None:
        """9: by returning the model."""
        job = submitted(client, world, S.RUNNING, S.SUCCEEDED)
        assert job.wait(timeout=60) == job.result()

    @needs("verb:cancel")
    def test_09_waiting_ends_in_cancelled(self, world: World, backend: Backend, client: Client) -> None:
        """9: JobCancelled, exit code 4."""
        job = submitted(client, world, S.RUNNING)
        job.cancel()
        world.settle(job.ref)
        _ends(world, backend, job.ref, JobCancelled, 4, S.CANCELLED)

    @needs("expired")
    def test_09_waiting_ends_in_expired(self, world: World, backend: Backend, client: Client) -> None:
        """9: JobExpired, exit code 8."""
        job = submitted(client, world, S.RUNNING)
        world.reach(job.ref, S.EXPIRED)
        _ends(world, backend, job.ref, JobExpired, 8, S.EXPIRED)

    def test_09_waiting_ends_while_the_job_goes_on(self, world: World, backend: Backend, client: Client) -> None:
        """9: WaitTimeout, exit code 5, with the last snapshot; the job is left alone."""
        job = submitted(client, world, S.RUNNING)
        _ends(world, backend, job.ref, WaitTimeout, 5, S.RUNNING, timeout=1.0)
        assert job.state is S.RUNNING

    @needs("paused", "verb:pause")
    def test_09_waiting_ends_where_a_pause_does_not(self, world: World, backend: Backend, client: Client) -> None:
        """9: WaitTimeout too: a paused job does not continue by itself."""
        job = submitted(client, world, S.RUNNING, S.PAUSED)
        _ends(world, backend, job.ref, WaitTimeout, 5, S.PAUSED, paused_after=1.0)
        assert job.state is S.PAUSED

    @needs("lost_contact")
    def test_09_waiting_ends_in_lost_contact(self, world: World, backend: Backend, client: Client) -> None:
        """9: LostContact, exit code 6, when there is no response for longer than ``lost_after``."""
        job = submitted(client, world, S.RUNNING)
        assert job.state is S.RUNNING
        world.fail("get", faults.server_error(times=faults.FOREVER))
        error = _ends(world, backend, job.ref, LostContact, 6, None, lost_after=5.0)
        assert error.__cause__ is not None
        world.heal()

    def test_09_the_ways_are_told_apart(self) -> None:
        """9: eight ways, eight exit codes."""
        ways = (JobFailed, JobInterrupted, JobCancelled, JobExpired, OutcomeUnknown, WaitTimeout, LostContact)
        assert len({0, *(error.exit_code for error in ways)}) == 8

    def test_10_a_failure_has_the_vendors_words(self, world: World, backend: Backend, client: Client) -> None:
        """10: in the snapshot, and in JobFailed, exit code 3."""
        message = "row 7 made the loss NaN (reported by the vendor)"
        job = submitted(client, world, S.RUNNING)
        world.reach(job.ref, S.FAILED, message=message)
        problem = job.snapshot().problem
        assert problem is not None
        assert message in problem.message
        error = _ends(world, backend, job.ref, JobFailed, 3, S.FAILED)
        assert message in str(error)
        with pytest.raises(JobFailed, match="NaN"):
            job.wait()

    def test_11_an_unknown_id_is_not_found(self, world: World, backend: Backend, client: Client) -> None:
        """11: JobNotFound from every question and from cancel; deleting a missing job succeeds."""
        ref = submitted(client, world).ref
        unknown = JobRef(ref.backend, ref.scope, f"{ref.id[:-4]}zzzz")
        can = backend.capabilities.can
        asks = {"get": True, "model": True, "cancel": can("verb:cancel"), "events": can("verb:events")}
        asks |= {"metrics": can("verb:metrics"), "checkpoints": can("verb:checkpoints")}
        for name in (name for name, call in asks.items() if call):
            with pytest.raises(JobNotFound) as error:
                getattr(backend, name)(unknown)
            assert unknown.id in str(error.value), name
        if can("verb:delete"):
            backend.delete(unknown)
        with pytest.raises(JobNotFound):
            client.attach(unknown).wait()
        with pytest.raises(JobNotFound):
            client.attach("surely-no-such-job")


def _ends(
    world: World,
    backend: Backend,
    ref: JobRef,
    how: type[JobEnded],
    code: int,
    state: JobState | None,
    **patience: float,
) -> CloudtuneError:
    """Wait for the job, and check how that ends."""
    patience.setdefault("timeout", 120.0)  # a wait that does not end in its own way must end all the same
    with pytest.raises(JobEnded) as ended:
        for _ in watch(backend, ref, clock=world.clock, longest_poll=0.3, **patience):
            pass
    error = ended.value
    assert (type(error), error.exit_code, error.ref) == (how, code, ref)
    assert (error.snapshot.state if error.snapshot else None) is state
    return error
