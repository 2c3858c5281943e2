"""SIGKILL at every failpoint of a deploy and of a removal: one deployment, then none, counted in the vendor's store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.chaos.scene import MOST_FAILPOINTS, Scene

from cloudtune.state import Deployment, JobRef, JobState, to_json
from cloudtune.testing import faults
from cloudtune.testing.fork_server import ForkServer, Outcome

ACTS = {"deploy": "create_deployment", "remove": "delete_deployment"}
REST = ("nothing", "late")
"""What else may be wrong with the wire."""
WRITES = ("begin", "claim {}", "sending {}", "done {}")


class Stage:
    """A job that has succeeded, whose model is deployed and taken down by children."""

    def __init__(self, root: Path, fork_server: ForkServer) -> None:
        self.scene = Scene(root, fork_server)
        ref = JobRef.parse(self.scene.submit().result)
        self.scene.world.reach(ref, JobState.SUCCEEDED)
        self.ref = str(ref)
        self.model = self.scene.client().attach(ref).model().id
        name = f"serve-{self.model.rpartition(':')[2]}"
        self.deployment = to_json(
            Deployment(id=name, backend="scripted", scope=ref.scope, model=self.model, state="", native_state="")
        )

    def run(self, do: str, **details: Any) -> Outcome:
        options = self.deployment if do == "remove" else {}
        order = self.scene.order(do=do, ref=self.ref, options=options, **details)
        return self.scene.fork_server.run(order)

    def standing(self) -> list[str]:
        """Models that are deployed, in the vendor's own store."""
        return [row["model"] for row in self.scene.vendor.store.rows("SELECT model FROM deployments")]

    def finish(self, do: str) -> None:
        """The same command once more."""
        outcome = self.run(do)
        assert outcome.error is None, outcome.error
        self.holds(do)

    def holds(self, do: str) -> None:
        assert self.standing() == ([self.model] if do == "deploy" else [])
        client = self.scene.client()
        assert [one.model for one in client.deployments()] == self.standing()
        assert [str(job.ref) for job in client.jobs()] == [self.ref]
        assert client.unfinished() == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("wrong", ["lost_reply", *[pytest.param(kind, marks=pytest.mark.soak) for kind in REST]])
@pytest.mark.parametrize("do", ["deploy", "remove"])
def test_killed_at_every_failpoint(tmp_path: Path, fork_server: ForkServer, do: str, wrong: str) -> None:
    """Before and after every ledger write and every send, with the wire whole, a reply lost, or a request landing late.

    A request that lands late does so before the opposite is asked for: what a vendor does of itself to a name that was
    given up is not ours to forbid.
    """
    stage, other = Stage(tmp_path, fork_server), {"deploy": "remove", "remove": "deploy"}[do]
    tried: set[str] = set()
    first = Outcome(killed=True, trace=[])
    for number in range(1, MOST_FAILPOINTS):
        stage.finish(other)
        if wrong != "nothing":
            fault = faults.lost_reply() if wrong == "lost_reply" else faults.late(5.0)
            stage.scene.vendor.fail(ACTS[do], fault)
        first = stage.run(do, kill_at=number)
        assert len(stage.standing()) <= 1
        if not first.killed:
            break
        tried.add(first.trace[-1])
        stage.finish(do)
        stage.scene.vendor.heal()
        stage.scene.world.clock.sleep(60.0)
        stage.holds(do)
    assert (first.killed, first.error) == (False, None)
    stage.holds(do)
    assert tried == set(first.trace), "a failpoint of the whole way was never killed at"
    expected = {f"ledger {when} {write.format(do)}" for when in ("before", "after") for write in WRITES}
    assert expected | {f"step before {do}", f"step after {do}"} <= tried


@pytest.mark.timeout(600)
def test_killed_again_and_again(tmp_path: Path, fork_server: ForkServer) -> None:
    """Each process gets one failpoint further than the last one did, and dies there; then it is taken down likewise."""
    stage = Stage(tmp_path, fork_server)
    for do in ("deploy", "remove", "deploy", "remove"):
        deaths, last = 0, Outcome(killed=True, trace=[])
        for kill_at in range(1, MOST_FAILPOINTS):
            last = stage.run(do, kill_at=kill_at)
            assert len(stage.standing()) <= 1
            if not last.killed:
                break
            deaths += 1
        assert deaths > 5
        assert (last.killed, last.error) == (False, None)
        stage.holds(do)
    assert stage.scene.vendor.calls(ACTS["deploy"]) == 2


@pytest.mark.timeout(600)
def test_many_processes_deploy_one_model(tmp_path: Path, fork_server: ForkServer) -> None:
    """Six at once, twice: one request is sent, and all come back with the same deployment."""
    stage = Stage(tmp_path, fork_server)
    for turn in (1, 2):
        order = stage.scene.order(do="deploy", ref=stage.ref)
        outcomes = fork_server.race([order] * 6)
        assert [outcome.error for outcome in outcomes] == [None] * 6
        assert len({outcome.result["id"] for outcome in outcomes}) == 1
        stage.holds("deploy")
        assert stage.scene.vendor.calls(ACTS["deploy"]) == turn
        stage.finish("remove")
