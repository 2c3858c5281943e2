"""A vendor, a ledger, and processes that submit, are killed, and submit again; and what must hold then."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cloudtune.client import Client
from cloudtune.ledger.ledger import Ledger
from cloudtune.state import JobRef
from cloudtune.testing.fork_server import ForkServer, Order, Outcome
from cloudtune.testing.scripted_world import ScriptedWorld
from cloudtune.testing.vendor import PERSONALITIES

MOST_FAILPOINTS = 300
# All kinds of vendor, one of them in each run and the others in the long tests.
ONE_PERSONALITY = [pytest.param(name, marks=[pytest.mark.soak] if name != "token" else []) for name in PERSONALITIES]


def seeds(count: int) -> list[int]:
    """``count`` seeds that change every day, or those that CLOUDTUNE_SEEDS names: ``17`` or ``0-199``."""
    if named := os.environ.get("CLOUDTUNE_SEEDS"):
        first, _, last = named.partition("-")
        return list(range(int(first), int(last or first) + 1))
    start = datetime.now(UTC).toordinal() * 1000
    return list(range(start, start + count))


class Scene:
    """One vendor and one ledger."""

    def __init__(self, root: Path, fork_server: ForkServer, personality: str = "token", **world: Any) -> None:
        self.world = ScriptedWorld(root, personality, **world)  # type: ignore[arg-type]
        self.vendor = self.world.vendor
        self.fork_server = fork_server
        self.ledger = f"sqlite:///{root}/ledger.db"

    def order(self, variant: int = 0, **details: Any) -> Order:
        """To submit the spec of that number. Its rows lie in two files, so that there are two uploads."""
        spec = self.world.spec(variant, with_validation=True).model_dump(mode="json")
        details.setdefault("do", "submit")
        return Order(recipe=self.world.recipe(), ledger=self.ledger, spec=spec, **details)

    def submit(self, variant: int = 0, **details: Any) -> Outcome:
        """Submit in a child."""
        return self.fork_server.run(self.order(variant, **details))

    def client(self) -> Client:
        """A client of the test process itself."""
        return Client(self.world.backend(), ledger=self.ledger, clock=self.world.clock)

    # -- what must hold ------------------------------------------------------------------------------------------------

    def nothing_is_lost(self) -> None:
        """At any moment: every job that the vendor has is known to the ledger, by reference or as still under way."""
        known = {attempt.token for attempt in Ledger.open(self.ledger, self.world.clock).attempts()}
        for job in self.vendor.jobs():
            token = self.vendor.body(job)["metadata"]["cloudtune"]
            assert token in known, f"{job} exists, and the ledger knows nothing of it"

    def exactly_one(self, variant: int, outcome: Outcome, *, duplicates_cancelled: bool = False) -> None:
        """After a submit that came to its end: one job, in the vendor's own store, and it is the one we were given."""
        assert outcome.error is None, outcome.error
        made = [job for job in self.vendor.jobs() if self.vendor.body(job)["name"].startswith(f"small-{variant}-")]
        living = set(self.vendor.jobs(alive=True))
        alive = [job for job in made if job in living]
        assert len(alive) == 1, made
        assert JobRef.parse(outcome.result).id == alive[0]
        if not duplicates_cancelled:
            assert made == alive
            files = Counter(self.vendor.file_names())
            assert set(files.values()) == {1}, files

    def jobs_tells_the_truth(self) -> None:
        """`Client.jobs` has every living job once, in the state that the vendor's own store shows."""
        client = self.client()
        response = {job.ref.id: job for job in client.jobs()}
        assert set(self.vendor.jobs(alive=True)) <= set(response)
        for job, snapshot in response.items():
            assert snapshot.native_state == self.vendor.status(job).word
        assert client.unfinished() == []
