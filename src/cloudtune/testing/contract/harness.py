"""Shared parts of the clauses: fixtures, requirements of a clause, and the pinned number of skips."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pytest

from cloudtune.capability_check import row_rules
from cloudtune.client import Client
from cloudtune.data import prepare
from cloudtune.plan import PlanRequest
from cloudtune.testing.fork_server import ForkServer, Order, Outcome, shared_fork_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cloudtune.backend import Backend
    from cloudtune.job import Job
    from cloudtune.spec import JobSpec
    from cloudtune.state import JobRef, JobState
    from cloudtune.testing.world import World

F = TypeVar("F", bound="Callable[..., None]")


def needs(*things: str) -> Callable[[F], F]:
    """Marks a clause with its requirements: capabilities (``verb:pause``) or abilities of the world (``throttle``)."""

    def mark(test: F) -> F:
        test.needs = things  # type: ignore[attr-defined]
        return test

    return mark


class Harness:
    """Base of the clauses' classes."""

    expected_skips: ClassVar[int] = 0
    """How many clauses this back end is excused from. Change it in the same commit that changes the reasons."""
    snapshots: ClassVar[Path | None] = None
    """A folder for this back end's plan; write it with ``CLOUDTUNE_UPDATE_SNAPSHOTS=1``, and read the difference."""

    warm_up: ClassVar[Sequence[str]] = ()
    """Functions (``module:function``) that load what is slow to load, called once for all fresh processes."""

    @pytest.fixture
    def world(self) -> World:
        """The vendor's side; every adopter gives its own."""
        raise NotImplementedError("give a fixture `world`: see cloudtune.testing.world.World")

    @pytest.fixture
    def backend(self, world: World) -> Backend:
        """The back end under test."""
        return world.backend()

    @pytest.fixture
    def client(self, world: World, backend: Backend) -> Client:
        """A client with its own ledger."""
        return Client(backend, ledger=ledger_url(world), clock=world.clock)

    @pytest.fixture
    def fork_server(self) -> ForkServer:
        """Fresh processes."""
        return shared_fork_server(tuple(self.warm_up))

    @pytest.fixture(autouse=True)
    def _excuse(self, request: pytest.FixtureRequest, world: World, backend: Backend) -> None:
        for thing in getattr(request.function, "needs", ()):
            if (reason := excuse(thing, world, backend)) is not None:
                pytest.skip(f"{thing}: {reason}")

    def test_00_skips_are_pinned(self, world: World, backend: Backend) -> None:
        """Check that the number of skipped clauses is the one in the back end's test file."""
        skips = {}
        for name in dir(type(self)):
            reasons = [excuse(thing, world, backend) for thing in getattr(getattr(type(self), name), "needs", ())]
            if given := [reason for reason in reasons if reason is not None]:
                skips[name] = given[0]
        print(f"\n{backend.name}: excused from {len(skips)} clauses")  # noqa: T201 - the number is to be seen in CI
        for name, reason in skips.items():
            print(f"  {name}: {reason}")  # noqa: T201
        assert all(skips.values()), "a clause is skipped only with a reason"
        assert len(skips) == self.expected_skips, skips


def excuse(thing: str, world: World, backend: Backend) -> str | None:
    """The reason why a clause with that requirement does not apply to this back end, or None."""
    if thing in world.lacks:
        return world.lacks[thing]
    if ":" in thing or "." in thing:
        return None if backend.capabilities.can(thing) else backend.capabilities.why_not(thing)
    return None


def ledger_url(world: World, name: str = "ledger") -> str:
    """A ledger of this test."""
    return f"sqlite:///{world.root / name}.db"


def request_for(world: World, backend: Backend, spec: JobSpec) -> PlanRequest:
    """A plan request as core makes it, whose key and token are always the same."""
    resolved = backend.resolve(spec)
    rules = row_rules(spec, backend)
    data = prepare(
        spec.data, method=spec.method.name, problem=spec.method.label_problem, limit=resolved.row_limit, target=rules
    )
    return PlanRequest(
        spec=spec, data=data, resolved=resolved, key="k" * 32, attempt=1, token="0123456789abcdef" * 2
    )  # fmt: skip


def submitted(client: Client, world: World, *states: JobState, variant: int = 0, **changes: Any) -> Job:
    """Submit a job and bring it to each of these states in turn."""
    job = client.submit(world.spec(variant, **changes))
    for state in states:
        world.reach(job.ref, state)
    return job


def ask(fork_server: ForkServer, world: World, do: str, **details: Any) -> Outcome:
    """Run an order in another process with a client over the same ledger."""
    spec = details.pop("spec", None)
    document = spec.model_dump(mode="json") if spec is not None else None
    details.setdefault("ledger", ledger_url(world))
    return fork_server.run(Order(do=do, recipe=world.recipe(), spec=document, **details))


def ref_text(ref: JobRef) -> str:
    """The order's arguments for another process."""
    return str(ref)


@contextmanager
def untouched(world: World) -> Iterator[None]:
    """Check that the block makes no request and changes nothing at the vendor."""
    calls, held = world.calls(), world.fingerprint()
    yield
    assert world.calls() == calls, "the vendor was asked"
    assert world.fingerprint() == held, "the vendor's store has changed"
