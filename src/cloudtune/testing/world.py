"""The interface to the vendor's side of a back end for the contract suite.

A `World` gives a test control over the vendor: it can read the vendor's own store, advance the time, and make the next
call fail. If it cannot do one of these, ``lacks`` has the reason, and the clauses that need it are skipped, counted and
printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence  # noqa: TC003 - a Protocol's annotations
from importlib import import_module
from pathlib import Path  # noqa: TC003
from typing import Any, Literal, Protocol

from cloudtune.backend import Backend  # noqa: TC001
from cloudtune.clock import Clock  # noqa: TC001
from cloudtune.spec import JobSpec  # noqa: TC001
from cloudtune.state import JobRef, JobState, Value
from cloudtune.testing.faults import Fault  # noqa: TC001

CallName = Literal["upload", "create", "get", "list", "events", "cancel"]
"""The calls that can fail, by the suite's names; a world maps them to its vendor's names."""

LACKS = (
    "words", "wire", "sdk", "row_limit", "lost_reply", "throttle", "server_error", "forbidden", "lost_contact",
    "paused", "expired",
)  # fmt: skip
"""Abilities that a world may lack.

``words``: the vendor's word for a state cannot be set. ``wire``: there are no requests whose bodies could be compared
with the plan. ``sdk``: the back end needs no package that could be missing. ``row_limit``: no row is too long.
``lost_reply`` to ``forbidden``: no call can go wrong so. ``lost_contact``: nothing can be out of reach. ``paused`` and
``expired``: no job can get there.
"""


def named(target: str) -> Any:
    """The object that ``module:name`` names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


class Recipe(Value, frozen=True, kw_only=True):
    """How another process creates the same back end: ``target`` is called with ``arguments``, which are JSON.

    It returns the back end and its clock.
    """

    target: str
    """``module:function``."""
    arguments: dict[str, Any] = {}

    def make(self) -> tuple[Backend, Clock]:
        """Call the target."""
        maker: Callable[..., tuple[Backend, Clock]] = named(self.target)
        return maker(**self.arguments)


class World(Protocol):
    """The vendor's side, for tests."""

    root: Path
    """A folder of this test; the suite writes its ledgers and rows below it. It is cut out of plan snapshots."""
    clock: Clock
    """The time that the client and the vendor share."""
    secrets: Sequence[str]
    """Credentials in use: the suite searches for them in all places where they must not be."""
    words: Iterable[str]
    """Every state that the vendor's SDK, or its service model, or the trainer's own code defines. Not the table that
    the back end translates with: that is what is being checked."""
    sdk_modules: Sequence[str]
    """Top-level modules that the back end needs and that may not be installed."""
    folders: Sequence[Path]
    """Where the back end writes on this machine, if anywhere (run folders); searched for secrets."""
    list_lag_s: float
    """How long after its creation a job can be missing from the vendor's list."""
    lacks: Mapping[str, str]
    """One of `LACKS` -> the reason."""

    def backend(self) -> Backend:
        """Create a new back end, as another process would."""

    def recipe(self) -> Recipe:
        """The recipe for another process."""

    def spec(self, variant: int = 0, **changes: Any) -> JobSpec:
        """A small job that this back end accepts.

        Each variant has its own name and its own rows. ``changes`` are keyword arguments of JobSpec and override it.
        """

    def too_long(self) -> tuple[JobSpec, int]:
        """A job one of whose rows is over the model's limit, and that row's line."""

    def reach(self, ref: JobRef, state: JobState, *, message: str = "") -> None:
        """Bring the job to that state in the usual way; ``message`` is the vendor's reason for a failure.

        Without this a job stays in the queue, however much time passes.
        """

    def settle(self, ref: JobRef) -> None:
        """Advance the time until the vendor has executed the requests: a cancel, a pause, a resume.

        Makes no such request itself, and ends no other job.
        """

    def show(self, ref: JobRef, word: str) -> None:
        """Make the vendor report that status for the job."""

    def fail(self, call: CallName, fault: Fault) -> None:
        """Make the next such calls fail."""

    def heal(self) -> None:
        """Remove every pending fault."""

    def jobs(self) -> Sequence[str]:
        """Ids of all jobs in the vendor's own store, oldest first, whatever their state."""

    def uploads(self) -> Sequence[str]:
        """Ids or keys of all files in the vendor's own store."""

    def calls(self, call: CallName | None = None) -> int:
        """How many requests the vendor has received, failed ones included."""

    def received(self) -> Sequence[Any]:
        """The bodies of the write requests, in order, as the vendor read them."""

    def fingerprint(self) -> str:
        """A hash over the vendor's state without its log of requests: reading and time do not change it."""


def reached(world: World, ref: JobRef, *states: JobState) -> None:
    """Bring the job to these states, one after another."""
    for state in states:
        world.reach(ref, state)
