"""Estimates, cost limits, budgets and recorded costs, with the scripted back end."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cloudtune.client import Client
from cloudtune.config.config import load_config
from cloudtune.config.trust import trust
from cloudtune.cost import CostEstimate, Usage
from cloudtune.errors import ConfigError, LedgerError, PolicyRefused
from cloudtune.execute import StepUpdate
from cloudtune.ledger.check import repair_ledger
from cloudtune.ledger.costs import job_costs
from cloudtune.processes.identity import Owner
from cloudtune.spec import JobSpec
from cloudtune.spending import committed, settle
from cloudtune.testing import FakeClock, ScriptedBackend, ScriptedVendor
from cloudtune.testing.job_timeline import Script
from cloudtune.testing.scripted_options import ScriptedOptions
from cloudtune.testing.scripted_world import ScriptedWorld

CAP = "limits.max_cost_usd"


class Desk:
    """A client of a back end that costs 3.60 USD per hour: 0.001 USD per second of training."""

    def __init__(self, root: Path, usd_per_hour: float | None = 3.6, config: str = "") -> None:
        self.clock = FakeClock()
        self.vendor = ScriptedVendor(clock=self.clock)
        backend = ScriptedBackend(ScriptedOptions(usd_per_hour=usd_per_hour), vendor=self.vendor)
        if config:
            (root / "cloudtune.toml").write_text(config)
            trust(root / "cloudtune.toml", config.encode())
        settings = load_config(root, environ={"CLOUDTUNE_HOME": str(root)})
        self.client = Client(backend, config=settings, ledger=f"sqlite:///{root}/ledger.db", clock=self.clock)
        self.world = ScriptedWorld(root)

    def spec(self, variant: int = 0, *, cap: float | None = None, **changes: Any) -> JobSpec:
        return self.world.spec(variant, **({"limits": {"max_cost_usd": cap}} if cap else {}), **changes)

    def run(self, steps: int, variant: int = 0, **changes: Any) -> Any:
        """Run a job of so many steps of one second to its end."""
        self.vendor.follow(Script(steps=steps))
        job = self.client.submit(self.spec(variant, **changes))
        self.clock.advance(10_000)
        self.client.costs()
        return job


@pytest.fixture
def desk(memory_path: Path) -> Desk:
    return Desk(memory_path)


# -- estimates -------------------------------------------------------------------------------------------------------


def test_a_first_job_has_a_price_but_no_estimate(desk: Desk) -> None:
    cost = desk.client.plan(desk.spec()).cost
    assert cost is not None
    assert (cost.usd, cost.at_most_usd, cost.usd_per_hour) == (None, None, 3.6)
    assert cost.unknown == ("the run time",)


def test_an_estimate_uses_the_speed_of_earlier_jobs(desk: Desk) -> None:
    desk.run(99)  # 100 s: 99 steps, and the end of the job one second later
    same = desk.client.plan(desk.spec(1)).cost
    other = desk.client.plan(desk.spec(1, hyperparameters={"batch_size": 2})).cost
    assert same is not None
    assert other is not None
    assert same.usd == pytest.approx(0.1, rel=0.2), "its rows are a little longer"
    assert "as measured in 1 earlier job;" in same.basis
    assert other.usd is None, "another batch size has another speed"
    desk.run(99, 1)
    twice = desk.client.plan(desk.spec(2, hyperparameters={"epochs": 6})).cost
    assert twice is not None
    assert twice.usd == pytest.approx(0.2, rel=0.2), "twice the epochs"


def test_a_resumed_job_is_neither_estimated_nor_measured(desk: Desk) -> None:
    """It trains the rest of the epochs, and reports all of them."""
    job = desk.run(99, cap=0.05)
    assert job.state == "expired"
    desk.run(99, 2)
    desk.vendor.follow(Script(steps=20))
    child = desk.client.submit(desk.spec(cap=0.08), resume=True)  # an estimate for all epochs would be above the limit
    plan = desk.client.ledger.of_ref(child.ref).plan
    assert plan.parent == str(job.ref)
    assert f"how much {job.ref} left to train" in plan.cost.basis
    desk.clock.advance(10_000)
    assert all(one.actual is not None for one in desk.client.costs())
    cost = desk.client.plan(desk.spec(1)).cost
    assert cost is not None
    assert "as measured in 1 earlier job;" in cost.basis


# -- actual costs ----------------------------------------------------------------------------------------------------


def test_a_job_that_ended_has_its_cost_recorded(desk: Desk) -> None:
    desk.vendor.follow(Script(steps=59))
    desk.client.submit(desk.spec()).wait()
    (one,) = job_costs(desk.client.ledger)
    assert one.actual is not None
    assert (one.actual.usd, one.actual.usage.seconds, one.actual.state) == (0.06, 60.0, "succeeded")
    assert one.actual.basis == "60 s at 3.6 USD per hour"


def test_costs_are_recorded_without_a_watch_too(desk: Desk) -> None:
    desk.vendor.follow(Script(steps=59))
    job = desk.client.submit(desk.spec())
    assert desk.client.costs()[0].actual is None
    desk.clock.advance(1000)
    assert desk.client.costs()[0].actual is not None
    job.delete()
    other = desk.client.submit(desk.spec(1))
    desk.clock.advance(1000)
    other.delete()
    newest = desk.client.costs().pop(0)
    assert newest.actual is not None, "recorded before the deletion"
    kept = desk.client.costs()[-1]
    assert kept.actual is not None, "a deleted job was paid for"
    assert kept.actual.usd == 0.06


def test_an_unknown_price_is_not_zero(memory_path: Path) -> None:
    desk = Desk(memory_path, usd_per_hour=None)
    desk.run(59)
    (one,) = desk.client.costs()
    assert one.actual is not None
    assert (one.actual.usd, one.actual.usage.seconds) == (None, 60.0)
    assert "the price is unknown" in one.actual.basis


def test_a_cost_that_was_not_reported_is_read_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = desk.client.backend("scripted")
    reported = backend.usage
    monkeypatch.setattr(backend, "usage", lambda _: Usage(note="not yet"))
    desk.run(59)
    late = desk.run(59, 1)
    monkeypatch.setattr(backend, "usage", reported)
    assert [one.actual.usd for one in desk.client.costs()] == [0.06, 0.06]
    record = desk.client.ledger.store
    with record.write() as db:
        db.execute("DELETE FROM costs WHERE token = ?", (desk.client.ledger.of_ref(late.ref).token,))
    monkeypatch.setattr(backend, "usage", lambda _: Usage(note="not yet"))
    desk.client.costs()
    monkeypatch.setattr(backend, "usage", reported)
    desk.clock.advance(timedelta(days=8).total_seconds())
    assert [one.actual.usd for one in desk.client.costs()] == [None, 0.06], "after a week it stays unknown"


def test_a_cost_without_an_end_time_is_read_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = desk.client.backend("scripted")
    desk.vendor.follow(Script(steps=59))
    job = desk.client.submit(desk.spec())
    desk.clock.advance(10_000)
    ended = replace(job.snapshot(), finished_at=None)
    reported = backend.usage
    monkeypatch.setattr(backend, "usage", lambda _: Usage(note="not yet"))
    settle(desk.client.ledger, backend, ended, desk.clock.now())
    monkeypatch.setattr(backend, "usage", reported)
    assert [one.actual.usd for one in desk.client.costs() if one.actual is not None] == [0.06]


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_job_billed_by_time_stops_at_its_limit(desk: Desk) -> None:
    plan = desk.client.plan(desk.spec(cap=0.02))
    (warning,) = [one for one in plan.warnings if one.field == CAP]
    assert "is stopped before, with the best checkpoint" in warning.message
    assert plan.cost is not None
    assert plan.cost.at_most_usd == 0.02
    job = desk.run(59, cap=0.02)
    assert job.state == "expired"
    (one,) = desk.client.costs()
    assert one.actual is not None
    assert one.actual.usd == 0.02
    assert [one.step for one in job.checkpoints()] == [5, 10, 15, 20]


def test_a_job_above_its_limit_is_refused(desk: Desk) -> None:
    desk.run(99)
    with pytest.raises(PolicyRefused, match=r"would cost about 0.1\d* USD, more than limits.max_cost_usd of 0.03 USD"):
        desk.client.plan(desk.spec(1, cap=0.03))
    assert desk.client.plan(desk.spec(1, cap=0.3))


def test_an_unknown_cost_with_a_limit_is_refused(memory_path: Path) -> None:
    desk = Desk(memory_path, usd_per_hour=None)
    with pytest.raises(PolicyRefused, match=r"cannot be kept, because part of the cost is unknown") as caught:
        desk.client.submit(desk.spec(cap=5.0))
    assert caught.value.exit_code == 7
    assert "--accept-unknown-cost" in str(caught.value.hint)
    plan = desk.client.plan(desk.spec(cap=5.0), accept_unknown_cost=True)
    assert [one.code for one in plan.warnings if one.field == CAP] == ["unknown_cost"]
    assert desk.client.ledger.attempts() == []


def test_a_limit_that_is_not_kept_is_a_warning(memory_path: Path) -> None:
    desk = Desk(memory_path)

    class WithoutPrices(ScriptedBackend):
        estimate = None  # type: ignore[assignment]

    desk.client = Client(WithoutPrices(vendor=desk.vendor), ledger=f"sqlite:///{memory_path}/ledger.db")
    with pytest.raises(PolicyRefused, match="cannot be kept, because scripted reports no prices"):
        desk.client.plan(desk.spec(cap=5.0))
    plan = desk.client.plan(desk.spec(cap=5.0), accept_unknown_cost=True)
    assert [one.code for one in plan.warnings if one.field == CAP] == ["unknown_cost"]


def test_a_limit_counts_what_the_continued_jobs_cost(desk: Desk) -> None:
    desk.vendor.follow(Script(steps=99))
    first = desk.client.submit(desk.spec(cap=0.05))
    desk.clock.advance(10_000)  # nobody has recorded its cost
    with pytest.raises(PolicyRefused, match=r"cost 0.05 USD, and limits.max_cost_usd is 0.05 USD"):
        first.resume()
    second = desk.client.submit(desk.spec(cap=0.08), resume=True)
    desk.clock.advance(10_000)
    third = desk.client.submit(desk.spec(cap=0.1), resume=True)
    desk.clock.advance(10_000)
    costs = {one.attempt.ref: one.actual for one in desk.client.costs()}
    assert [costs[job.ref].usd for job in (first, second, third)] == pytest.approx([0.05, 0.03, 0.02], abs=1e-3)


def test_an_unknown_cost_of_a_continued_job_is_refused(memory_path: Path) -> None:
    desk = Desk(memory_path, usd_per_hour=None)
    desk.vendor.follow(Script(steps=99, fails="no memory"))
    job = desk.client.submit(desk.spec(cap=0.05), accept_unknown_cost=True)
    desk.clock.advance(10_000)
    with pytest.raises(PolicyRefused, match=f"the cost of {job.ref} is unknown"):
        job.resume()
    child = job.resume(accept_unknown_cost=True)
    warnings = [one.message for one in desk.client.ledger.of_ref(child.ref).plan.warnings if one.field == CAP]
    assert any(f"the cost of {job.ref} is unknown" in one for one in warnings)


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.soak)])
def test_no_random_job_costs_more_than_its_limit(memory_path: Path, count: int) -> None:
    desk, dice = Desk(memory_path), random.Random(7)
    stopped = refused = 0
    for variant in range(count):
        cap = round(10 ** dice.uniform(-2, 0), 3)
        try:
            desk.vendor.follow(Script(steps=dice.randint(1, 300)))
            desk.client.submit(desk.spec(variant, cap=cap, hyperparameters={"epochs": dice.randint(1, 9)}))
        except PolicyRefused:
            refused += 1
        if variant % 10 == 9:
            desk.clock.advance(10_000)
            desk.client.costs()
    costs = desk.client.costs()
    assert len(costs) == count - refused
    for one in costs:
        assert one.actual is not None
        assert one.actual.usd is not None
        assert one.actual.usd <= one.attempt.plan.spec["limits"]["max_cost_usd"] + 1e-9
        if one.actual.state == "expired":
            stopped += 1
            assert one.attempt.ref is not None
            assert desk.client.attach(one.attempt.ref).checkpoints(), "one is saved every five seconds"
    assert stopped
    assert refused


# -- budgets ---------------------------------------------------------------------------------------------------------

BUDGET = """
[budgets.search]
usd = 0.1
per = "day"
tags = {team = "search"}
"""


def test_a_budget_counts_what_jobs_cost(memory_path: Path) -> None:
    desk = Desk(memory_path, config=BUDGET)
    desk.run(59, tags={"team": "search"}, cap=0.08)  # costs 0.06 of at most 0.08
    slow = {"hyperparameters": {"batch_size": 1}}  # how long such a job takes is unknown
    with pytest.raises(PolicyRefused, match=r"0.04 USD of the budget search are left") as caught:
        desk.client.plan(desk.spec(1, tags={"team": "search"}, cap=0.05, **slow))
    assert caught.value.exit_code == 7
    assert desk.client.plan(desk.spec(1, tags={"team": "search"}, cap=0.04, **slow))
    assert desk.client.plan(desk.spec(1, tags={"team": "other"}, cap=5.0)), "another team"
    desk.clock.advance(86400)
    assert desk.client.plan(desk.spec(1, tags={"team": "search"}, cap=0.09)), "the next day"


def test_a_budget_counts_the_most_that_running_jobs_can_cost(memory_path: Path) -> None:
    desk = Desk(memory_path, config=BUDGET)
    plans = [desk.client.plan(desk.spec(n, tags={"team": "search"}, cap=0.06)) for n in range(2)]
    job = desk.client.submit(plans[0])
    with pytest.raises(PolicyRefused, match=r"0.04 USD of the budget search are left"):
        desk.client.submit(plans[1])
    assert desk.client.submit(plans[0]) == job, "a job that exists is found again"


def test_two_submissions_at_once_share_a_budget(memory_path: Path) -> None:
    desk = Desk(memory_path, config=BUDGET)
    plans = [desk.client.plan(desk.spec(n, tags={"team": "search"}, cap=0.06)) for n in range(2)]
    first_is_sent, others_are_done = threading.Event(), threading.Event()

    def wait_in_the_first_step(_: StepUpdate) -> None:
        first_is_sent.set()
        assert others_are_done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(desk.client.submit, plans[0], on_step=wait_in_the_first_step)
        assert first_is_sent.wait(60)
        try:
            with pytest.raises(PolicyRefused, match=r"0.04 USD of the budget search are left"):
                desk.client.submit(plans[1])
        finally:
            others_are_done.set()
        assert first.result().state
    assert [one.token for one in desk.client.ledger.attempts()] == [plans[0].token], "the refused one is not recorded"


def test_a_submission_that_was_refused_does_not_count(memory_path: Path) -> None:
    desk = Desk(memory_path, config=BUDGET)
    attempt = desk.client.ledger.begin(desk.client.plan(desk.spec(tags={"team": "search"}, cap=0.06)))
    other = desk.spec(1, tags={"team": "search"}, cap=0.06)
    with pytest.raises(PolicyRefused, match=r"0.04 USD of the budget search are left"):
        desk.client.plan(other)
    desk.clock.advance(timedelta(minutes=2).total_seconds())
    assert desk.client.plan(other), "no process works on it, and nothing was sent"
    token, step, owner = attempt.token, attempt.plan.steps[-1].id, Owner.here()
    desk.client.ledger.claim(token, step, owner)
    desk.client.ledger.sending(token, step, owner)
    with pytest.raises(PolicyRefused, match=r"0.04 USD of the budget search are left"):
        desk.client.plan(other)


def test_a_budget_counts_the_most_not_the_likely_cost(memory_path: Path) -> None:
    plan = Desk(memory_path).client.plan(ScriptedWorld(memory_path).spec(0))
    cost = CostEstimate(usd=1.0, at_most_usd=3.0, basis="")
    for known, limit, expected in [
        (cost, 5.0, 3.0), (replace(cost, at_most_usd=None), 5.0, 5.0), (replace(cost, at_most_usd=None), None, 1.0),
        (replace(cost, unknown=("it",)), 5.0, 5.0), (replace(cost, unknown=("it",)), None, None), (None, None, None),
    ]:  # fmt: skip
        assert committed(replace(plan, cost=known, spec={**plan.spec, "limits": {"max_cost_usd": limit}})) == expected


def test_a_refusal_counts_jobs_with_an_unknown_cost(memory_path: Path) -> None:
    desk = Desk(memory_path, config=BUDGET)
    desk.client.submit(desk.spec(tags={"team": "search"}), accept_unknown_cost=True)
    with pytest.raises(PolicyRefused, match=r"per day; not counted: jobs with an unknown cost, 1\)"):
        desk.client.plan(desk.spec(1, tags={"team": "search"}, cap=0.2))


@pytest.mark.parametrize("table", ["attempts", "costs"])
def test_a_budget_needs_every_row_of_the_ledger(memory_path: Path, table: str) -> None:
    desk = Desk(memory_path, config=BUDGET)
    desk.run(59, tags={"team": "search"}, cap=0.08)
    column = {"attempts": "plan", "costs": "cost"}[table]
    with desk.client.ledger.store.write() as db:
        db.execute(f"UPDATE {table} SET {column} = '{{'")
    with pytest.raises(LedgerError, match=f"the ledger's table {table} is damaged") as caught:
        desk.client.plan(desk.spec(1, tags={"team": "search"}, cap=0.01))
    assert caught.value.hint == "run: cloudtune ledger check"
    repair_ledger(desk.client.ledger, desk.clock)
    assert desk.client.plan(desk.spec(1, tags={"team": "search"}, cap=0.01))
    costs = desk.client.costs()
    assert [one.actual and one.actual.usd for one in costs] == ([0.06] if table == "costs" else [])


def test_an_unknown_cost_with_a_budget_is_refused(memory_path: Path) -> None:
    desk = Desk(memory_path, config=BUDGET)
    with pytest.raises(PolicyRefused, match=r"the cost of the job is unknown, and the budget search allows"):
        desk.client.plan(desk.spec(tags={"team": "search"}))
    assert desk.client.submit(desk.spec(tags={"team": "search"}), accept_unknown_cost=True)


def test_a_budget_of_a_file_that_is_not_trusted_is_refused(memory_path: Path) -> None:
    desk = Desk(memory_path, config=BUDGET)
    (memory_path / "cloudtune.toml").write_text(BUDGET.replace("0.1", "9000"))
    desk.client = Client(desk.client.backend("scripted"), config=load_config(memory_path, environ={}))
    with pytest.raises(ConfigError, match="not trusted"):
        desk.client.plan(desk.spec())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('usd = "many"', "Expected `float`, got `str`"), ("per = 'day'", "required field `usd`"),
        ("usd = -1", "usd cannot be negative"), ("usd = 1\nper = 'hour'", "Invalid enum value 'hour'"),
        ("usd = 1\nteam = 'x'", "unknown field `team`"),
        ("usd = 1\nname = 'x'", "unknown field `name`: the name of the budget is that of the table, search"),
    ],
)  # fmt: skip
def test_a_wrong_budget_is_refused(memory_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Desk(memory_path, config=f"[budgets.search]\n{line}\n")
    assert caught.value.problems[0].field == "budgets.search"


def test_a_budget_that_is_no_table_is_refused(memory_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be a table: write \[budgets.search\] above its settings"):
        Desk(memory_path, config="[budgets]\nsearch = 100\n")


def test_a_budget_of_an_unknown_back_end_is_refused(memory_path: Path) -> None:
    """It would apply to no job."""
    with pytest.raises(ConfigError, match="unknown back end") as caught:
        Desk(memory_path, config='[budgets.search]\nusd = 1\nbackend = "opneai"\n')
    (problem,) = caught.value.problems
    assert (problem.field, problem.fix) == ("budgets.search.backend", "did you mean openai?")
