"""Deploying and taking down through the client: what the contract suite does not see."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloudtune.backend import Probe
from cloudtune.client import Client
from cloudtune.errors import BackendError, Conflict, InputError, InvalidRequest, Unavailable, UnsupportedError
from cloudtune.execute import StepUpdate
from cloudtune.hosting import Deployments
from cloudtune.job import Job
from cloudtune.ledger.ledger import Ledger
from cloudtune.plan import Step
from cloudtune.state import Deployment, JobRef, JobState, TunedModel
from cloudtune.testing import faults
from cloudtune.testing.scripted import ScriptedBackend
from cloudtune.testing.scripted_world import ScriptedWorld


@pytest.fixture
def world(memory_path: Path) -> ScriptedWorld:
    return ScriptedWorld(memory_path)


@pytest.fixture
def client(world: ScriptedWorld) -> Client:
    return Client(world.backend(), ledger=f"{world.root}/ledger.db", clock=world.clock)


def done(world: ScriptedWorld, client: Client, variant: int = 0) -> Job:
    job = client.submit(world.spec(variant))
    world.reach(job.ref, JobState.SUCCEEDED)
    return job


def standing(world: ScriptedWorld) -> list[tuple[str, str]]:
    """What the vendor's own store holds."""
    return [(row["name"], row["model"]) for row in world.vendor.store.rows("SELECT * FROM deployments ORDER BY name")]


def ledger(world: ScriptedWorld) -> Ledger:
    return Ledger.open(f"{world.root}/ledger.db", world.clock)


def test_a_second_deploy_begins_a_new_attempt_and_sends_nothing(world: ScriptedWorld, client: Client) -> None:
    model = done(world, client).model()
    first = client.plan_deploy(model)
    assert (first.purpose, first.attempt) == ("deploy", 1)
    made = client.deploy(first)
    second = client.plan_deploy(model)
    assert (second.key, second.attempt) == (first.key, 2)
    assert second.token != first.token
    said: list[StepUpdate] = []
    assert client.deploy(model, on_step=said.append) == made
    assert [update.what for update in said] == ["begun", "found", "done"]
    assert world.vendor.calls("create_deployment") == 1
    assert standing(world) == [(made.id, model.id)]


def test_an_unfinished_attempt_is_continued(world: ScriptedWorld, client: Client) -> None:
    model = done(world, client).model()
    world.vendor.fail("create_deployment", faults.server_error(times=100))
    plan = client.plan_deploy(model)
    with pytest.raises(Unavailable):
        client.deploy(plan)
    assert client.plan_deploy(model) == plan
    world.heal()
    client.deploy(model)
    assert client.plan_deploy(model).attempt == 2


@pytest.mark.parametrize(
    "fault", [faults.lost_reply(), faults.twice(), faults.server_error(), faults.throttle(retry_after=3.0)]
)
@pytest.mark.parametrize("call", ["create_deployment", "delete_deployment"])
def test_one_deployment_and_none_after_whatever_is_lost(
    world: ScriptedWorld, client: Client, call: str, fault: Any
) -> None:
    job = done(world, client)
    world.vendor.fail(call, fault)
    made = job.deploy()
    assert standing(world) == [(made.id, made.model)]
    client.remove(made)
    assert standing(world) == []


def test_what_was_taken_down_by_somebody_else_is_made_again(world: ScriptedWorld, client: Client) -> None:
    """The step has an outcome in the ledger, and its product is gone: an old plan in somebody's hand still works."""
    plan = client.plan_deploy(done(world, client).model())
    made = client.deploy(plan)
    with world.vendor.store.transaction() as db:
        db.execute("DELETE FROM deployments")
    assert client.deploy(plan) == msgspec.structs.replace(made, created_at=client.deployments()[0].created_at)
    assert len(standing(world)) == 1


class TwoSteps(ScriptedBackend):
    """Waits for what it has made."""

    def plan_deploy(self, model: TunedModel, **options: Any) -> Any:
        plan = super().plan_deploy(model, **options)
        ready = Step(id="ready", kind="await", title="wait", request={"name": plan.name}, limit_s=5.0)
        return msgspec.structs.replace(plan, steps=(*plan.steps, ready))

    def probe(self, step: Step) -> Any:
        if step.id != "ready":
            return super().probe(step)
        there = [one for one in self.deployments() if one.id == step.request["name"]]
        state: Any = "ready" if there and not self.broken else "failed"
        return Probe(state=state, outputs={"name": step.request["name"]}, message="" if there else "not there")

    broken = False


def test_a_deployment_that_broke_halfway_and_went_away_is_made_again(world: ScriptedWorld) -> None:
    """The first step is done and the last is not, so that the attempt goes on: not from what is there no more."""
    backend = TwoSteps(vendor=world.vendor)
    backend._key = world.secrets[0]
    client = Client(backend, ledger=f"{world.root}/ledger.db", clock=world.clock)
    job = done(world, client)
    backend.broken = True
    with pytest.raises(BackendError, match="failure"):
        job.deploy()
    (left,) = client.deployments()
    client.remove(left)
    backend.broken = False
    assert client.plan_deploy(job.model()).attempt == 1
    assert job.deploy().id == left.id
    assert standing(world) == [(left.id, left.model)]


def test_hosting_is_no_job(world: ScriptedWorld, client: Client) -> None:
    job = done(world, client)
    made = job.deploy()
    client.remove(made)
    record = ledger(world)
    assert record.refs() == [job.ref]
    assert [attempt.purpose for attempt in record.attempts()] == ["job"]
    assert record.named(made.id) == []
    assert client.unfinished() == []
    kept = record.latest(client.plan_deploy(job.model()).key)
    assert kept is not None
    assert (kept.purpose, kept.model, kept.ref) == ("deploy", made.model, None)
    assert record.backends() == ["scripted"]


def test_a_plan_that_makes_a_job_is_not_deployed_and_the_other_way_round(world: ScriptedWorld, client: Client) -> None:
    made = done(world, client)
    with pytest.raises(InputError, match="does not deploy a model"):
        client.deploy(client.plan(world.spec(1)))
    with pytest.raises(InputError, match="not to create a job"):
        client.submit(client.plan_deploy(made.model()))
    with pytest.raises(InputError, match="already includes its options"):
        client.deploy(client.plan_deploy(made.model()), name="x")
    assert standing(world) == []


def test_unknown_options_and_taken_names_are_refused(world: ScriptedWorld, client: Client) -> None:
    first, second = done(world, client), done(world, client, 1)
    with pytest.raises(InputError, match="capacity"):
        first.deploy(capacity=3)
    made = first.deploy(name="mine")
    assert made.id == "mine"
    with pytest.raises(Conflict):
        second.deploy(name="mine")
    assert standing(world) == [("mine", made.model)]
    other = msgspec.structs.replace(made, scope="somebody-else")
    with pytest.raises(InvalidRequest, match="another account"):
        client.remove(other)
    assert standing(world) == [("mine", made.model)]


class Answering(ScriptedBackend):
    """Deploys nothing."""

    @property
    def capabilities(self) -> Any:
        found = super().capabilities
        reasons = found.reasons | {"verb:deploy": "its models answer anyway"}
        return msgspec.structs.replace(found, supports=found.supports - {"verb:deploy"}, reasons=reasons)


def test_where_nothing_is_deployed_the_reason_is_told(world: ScriptedWorld, client: Client) -> None:
    model = done(world, client).model()
    backend = Answering(vendor=world.vendor)
    backend._key = world.secrets[0]
    other = Client(backend, ledger=f"{world.root}/ledger.db", clock=world.clock)
    for act in (lambda: other.plan_deploy(model), lambda: other.deploy(model),
                lambda: other.deployments(backend="scripted")):  # fmt: skip
        with pytest.raises(UnsupportedError, match="its models answer anyway"):
            act()
    assert other.deployments() == []
    assert other.deployments().unanswered == {}


def test_a_back_end_that_does_not_answer_is_named(world: ScriptedWorld, client: Client) -> None:
    made = done(world, client).deploy()
    gone = msgspec.structs.replace(client.plan(world.spec(5)), backend="gone", key="g", token="g")
    ledger(world).begin(gone)
    found = client.deployments()
    assert found == [made]
    assert list(found.unanswered) == ["gone"]
    world.vendor.fail("list_deployments", faults.server_error(times=100))
    silent = client.deployments()
    assert silent == []
    assert list(silent.unanswered) == ["scripted", "gone"]
    with pytest.raises(Unavailable):
        client.deployments(backend="scripted")


def test_sweep_leaves_what_has_no_expired_time_to_live(world: ScriptedWorld, client: Client) -> None:
    models = [done(world, client, variant).model() for variant in range(3)]
    kept, brief, longer = (client.deploy(model, ttl=ttl) for model, ttl in zip(models, (None, 60, 600), strict=True))
    world.clock.sleep(61)
    assert [one.id for one in client.sweep()] == [brief.id]
    assert len(standing(world)) == 3
    assert [one.id for one in client.sweep(apply=True)] == [brief.id]
    assert {name for name, _ in standing(world)} == {kept.id, longer.id}
    client.deploy(models[2])  # without a time to live, it has none from now on
    world.clock.sleep(600)
    assert client.sweep(apply=True) == []
    assert len(standing(world)) == 2


def test_a_later_deployment_with_the_same_name_is_kept(world: ScriptedWorld, client: Client) -> None:
    model = done(world, client).model()
    made = client.deploy(model, ttl=60)
    world.clock.sleep(61)
    Client(world.backend(), ledger=f"{world.root}/other.db", clock=world.clock).remove(made)
    again = Client(world.backend(), ledger=f"{world.root}/other.db", clock=world.clock).deploy(model)
    assert again.id == made.id
    assert client.sweep(apply=True) == []
    assert standing(world) == [(made.id, model.id)]


def test_a_time_to_live_is_positive(world: ScriptedWorld, client: Client) -> None:
    model = done(world, client).model()
    for ttl in (0, -1, 0.5, 1e12, float("nan")):
        with pytest.raises(InputError, match="time to live"):
            client.plan_deploy(model, ttl=ttl)
    with pytest.raises(InputError, match="already includes"):
        client.deploy(client.plan_deploy(model), ttl=60)


@pytest.mark.parametrize("first", [None, 60])
def test_a_call_that_continues_sets_its_time_to_live(world: ScriptedWorld, client: Client, first: float | None) -> None:
    model = done(world, client).model()
    world.vendor.fail("create_deployment", faults.server_error(times=100))
    with pytest.raises(Unavailable):
        client.deploy(model, ttl=first)
    world.heal()
    world.clock.sleep(120)
    made = client.deploy(model, ttl=600)
    assert client.sweep(apply=True) == []
    world.clock.sleep(600)
    assert [one.id for one in client.sweep(apply=True)] == [made.id]
    assert standing(world) == []


def test_a_deployment_younger_than_its_time_to_live_expires(world: ScriptedWorld, client: Client) -> None:
    plan = client.plan_deploy(done(world, client).model(), ttl=60)
    world.clock.sleep(61)
    made = client.deploy(plan)
    assert [one.id for one in client.sweep(apply=True)] == [made.id]


def test_a_deployment_with_its_name_in_another_account_is_another(world: ScriptedWorld, client: Client) -> None:
    model = done(world, client).model()
    made = client.deploy(model, ttl=60)
    other = msgspec.structs.replace(client.plan_deploy(model), scope="another account", key="k", token="t" * 32)
    ledger(world).begin(other)
    world.clock.sleep(61)
    assert [one.id for one in client.sweep()] == [made.id]


class DeployedMeanwhile(Client):
    """Another process deploys the model again after the list was read."""

    def deployments(self, *, backend: str | None = None) -> Deployments:
        found = super().deployments(backend=backend)
        self.deploy(self.attach(self.jobs()[0].ref).model(), ttl=600)
        return found


def test_sweep_keeps_what_was_deployed_again_meanwhile(world: ScriptedWorld, client: Client) -> None:
    made = client.deploy(done(world, client).model(), ttl=60)
    world.clock.sleep(61)
    late = DeployedMeanwhile(world.backend(), ledger=f"{world.root}/ledger.db", clock=world.clock)
    assert late.sweep(apply=True) == []
    assert [name for name, _ in standing(world)] == [made.id]


class NeedsDeployment(ScriptedBackend):
    """Its models answer only when they are deployed."""

    def model(self, ref: JobRef) -> TunedModel:
        return msgspec.structs.replace(super().model(ref), needs_deploy=True)


def test_models_of_back_ends_that_were_not_asked_are_not_undeployed(world: ScriptedWorld) -> None:
    backend = NeedsDeployment(vendor=world.vendor)
    backend._key = world.secrets[0]
    client = Client(backend, ledger=f"{world.root}/ledger.db", clock=world.clock)
    model = done(world, client).model()
    assert client.undeployed(client.deployments()) == [model]
    assert client.undeployed(client.deployments(), backend="another") == []
    client.deploy(model)
    world.vendor.fail("list_deployments", faults.server_error(times=100))
    silent = client.deployments()
    assert list(silent.unanswered) == ["scripted"]
    assert client.undeployed(silent) == []


@pytest.mark.parametrize(
    ("state", "price", "created", "cost"),
    [("ready", 2.0, True, 3.0), ("asleep", 0.0, True, None), ("ready", None, True, None), ("ready", 2.0, False, None)],
)
def test_an_unknown_cost_so_far_is_not_zero(
    world: ScriptedWorld, state: str, price: float | None, created: bool, cost: float | None
) -> None:
    now = world.clock.now()
    made = Deployment(
        id="d", backend="b", scope="s", model="m", state=state, native_state="", hourly_cost_usd=price,
        created_at=now - timedelta(hours=1.5) if created else None,
    )  # fmt: skip
    assert made.cost_so_far(now) == cost
