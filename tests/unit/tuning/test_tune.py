"""A search over a scripted vendor: what it chooses, spends, prunes, and what is left after a kill."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from tests.unit.tuning.learning import Learning

from cloudtune.client import Client
from cloudtune.config.budgets import Budget
from cloudtune.config.config import Config
from cloudtune.errors import DataError, JobFailed, PolicyRefused, Problem, SpecError
from cloudtune.evaluation.repeats import _doubt
from cloudtune.ledger.trials import trials_of
from cloudtune.spec import JobSpec, Limits
from cloudtune.spec_tune import Tune
from cloudtune.state import JobRef
from cloudtune.testing import Script
from cloudtune.testing.scripted_options import ScriptedOptions
from cloudtune.testing.scripted_world import KEY, ScriptedWorld
from cloudtune.testing.vendor import PERSONALITIES, Personality
from cloudtune.tuning.result import TuneResult
from cloudtune.tuning.sampler import Sampler
from cloudtune.tuning.study import TuneUpdate

pytest.importorskip("optuna")
SPACE = {
    "hyperparameters.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "hyperparameters.batch_size": [4, 8, 16],
}
ORIGINAL = {"learning_rate": 1e-5, "batch_size": 16}


class Killed(BaseException):
    """The process of the search ends here."""


class Scene:
    def __init__(self, root: Path, personality: Personality = "token") -> None:
        root.mkdir(exist_ok=True)
        self.world = ScriptedWorld(root, personality)
        self.vendor = self.world.vendor
        self.vendor.follow(Script(queue_s=0.0, prepare_s=1.0, step_s=2.0, steps=3, stop_s=1.0))
        self.trace: list[str] = []

    def client(self, kill_at: int | None = None, **options: Any) -> Client:
        """A client of a process that is killed at that point."""
        points = iter(range(1 << 30))

        def trace(name: str) -> None:
            self.trace.append(name)
            # A process that dies with a lease frees it; this one lives on, so it is not killed right after a claim.
            if next(points) == kill_at and not name.startswith("ledger after claim"):
                raise Killed(name)

        backend = Learning(ScriptedOptions(api_key=SecretStr(KEY), **options), vendor=self.vendor)
        return Client(backend, ledger=f"sqlite:///{self.world.root}/ledger.db", clock=self.world.clock, trace=trace)

    def tune(self, **tune: Any) -> Tune:
        return Tune.model_validate({"parameters": SPACE, **tune})

    def spec(self, **tune: Any) -> JobSpec:
        """A spec with test rows, if there are final trainings to compare."""
        tune = {"parameters": SPACE, "trials": 8, "seeds": 1, **tune}
        more: dict[str, Any] = {}
        if tune["seeds"]:
            test = self.world.root / "test.jsonl"
            rows = [{"prompt": f"{n} * {n + 1} =", "completion": f"{n * (n + 1)}"} for n in range(12)]
            test.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            more["evaluation"] = str(test)
        return self.world.spec(with_validation=True, hyperparameters=ORIGINAL, tune=tune, **more)


@pytest.fixture
def scene(memory_path: Path) -> Scene:
    return Scene(memory_path)


def numbers(vendor: Any) -> Counter[str]:
    """How many jobs the vendor has of each trial."""
    return Counter(vendor.body(job)["name"].rpartition("-")[0] for job in vendor.jobs())


def choices(found: TuneResult) -> list[Any]:
    return [(one.name, one.parameters, one.outcome.state, one.outcome.value) for one in found.trials if one.outcome]


def test_a_search_finds_better_parameters(scene: Scene) -> None:
    updates: list[TuneUpdate] = []
    found = scene.client().tune(scene.spec(), on_update=updates.append)
    assert [one.number for one in found.trials] == list(range(8))
    assert found.trials[0].parameters == {f"hyperparameters.{name}": value for name, value in ORIGINAL.items()}
    values = [one.outcome.value for one in found.trials if one.outcome and one.outcome.state == "complete"]
    assert found.best.outcome is not None
    assert found.best.outcome.value == min(value for value in values if value is not None)
    assert found.best.number > 0
    assert [(one.number, one.rerun) for one in found.reruns] == [(0, 1), (found.best.number, 1)]
    assert set(numbers(scene.vendor).values()) == {1}
    assert found.spec["hyperparameters"]["learning_rate"] == found.best.parameters["hyperparameters.learning_rate"]
    assert "tune" not in found.spec
    assert [update.what for update in updates].count("ended") == 10


def test_the_best_parameters_are_compared_on_test_rows(scene: Scene) -> None:
    space = {"hyperparameters.batch_size": [8, 16]}
    found = scene.client().tune(scene.spec(parameters=space, trials=6, seeds=2))
    assert found.best.parameters == {"hyperparameters.batch_size": 8}
    assert found.measured is not None
    assert found.measured.by_seed == {"tuned parameters": (1.0, 1.0), "original parameters": (0.0, 0.0)}
    assert found.measured.comparison.difference == 1.0
    assert found.verdict.startswith("Tuning was worth +100.0 ")
    assert found.verdict.endswith("on 12 test rows with 2 trainings each.")
    assert found.notes == ()


def test_without_test_rows_there_are_no_final_trainings(scene: Scene) -> None:
    spec = scene.spec(trials=3).model_copy(update={"evaluation": None})
    found = scene.client().tune(spec)
    assert found.best.number > 0
    assert (len(scene.vendor.jobs()), found.reruns) == (3, ())
    assert found.notes == ("not measured on test rows: the spec has neither data.test nor evaluation",)
    again = scene.client().tune(scene.spec(trials=3, seeds=0))
    assert again.notes == ("not measured on test rows: tune.seeds is 0",)


def test_the_cost_limit_of_the_evaluation_holds(scene: Scene) -> None:
    spec = scene.spec(trials=3)
    assert spec.evaluation is not None
    limited = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"max_cost_usd": 0.01})})
    found = scene.client().tune(limited)
    assert "the limit of 0.01 USD cannot be kept" in found.notes[0]
    assert found.measured is None
    assert not found.reruns, "final trainings that cannot be measured are of no use"
    assert scene.vendor.calls("generate") == 0


@pytest.mark.parametrize(
    ("by_seed", "doubt"),
    [
        ([(0.9,), (0.5,)], "does not show how much of this is due to the seed"),
        ([(0.9, 0.6), (0.7, 0.3)], "the values of single trainings overlap"),
        ([(0.9, 0.8), (0.7, 0.3)], ""),
    ],
)
def test_the_verdict_says_what_single_trainings_show(by_seed: list[Any], doubt: str) -> None:
    for ours, theirs in (by_seed, by_seed[::-1]):
        text = _doubt(ours, theirs)
        assert doubt in text
        assert bool(text) == bool(doubt)


@pytest.mark.parametrize(
    ("personality", "trials", "kills"),
    [
        ("token", 7, 6),
        *(pytest.param(one, 20, 20, marks=[pytest.mark.soak, pytest.mark.timeout(1800)]) for one in PERSONALITIES),
    ],
)
def test_a_killed_search_continues_as_if_nothing_happened(
    memory_path: Path, personality: Personality, trials: int, kills: int
) -> None:
    calm, killed = (Scene(memory_path / name, personality) for name in ("calm", "killed"))
    whole = calm.client().tune(calm.spec(trials=trials, seeds=0, seed=1))
    found = None
    for kill_at in [*range(0, len(calm.trace), len(calm.trace) // kills), None]:
        with suppress(Killed):
            found = killed.client(kill_at).tune(killed.spec(trials=trials, seeds=0, seed=1))
    assert found is not None
    assert choices(found) == choices(whole)
    assert len(killed.vendor.jobs()) == trials
    assert {killed.vendor.status(job).word for job in killed.vendor.jobs()} <= {"Completed", "Stopped"}


# -- the budget ------------------------------------------------------------------------------------------------------


def spent(client: Client) -> float:
    """What the ledger has recorded for all jobs."""
    costs = [one.actual.usd for one in client.costs() if one.actual is not None]
    return sum(cost for cost in costs if cost is not None)


def test_a_search_stops_before_it_exceeds_its_cost(scene: Scene) -> None:
    client = scene.client(usd_per_hour=3600.0)  # 1 USD for a second
    found = client.tune(scene.spec(max_cost_usd=60.0, seeds=1, prune=False))
    assert 0 < spent(client) <= 60.0
    assert found.cost_usd == pytest.approx(spent(client))
    assert 2 <= len(found.trials) < 8
    assert "tune.max_cost_usd" in found.notes[0]
    assert len(found.reruns) == 2, "money was left for the final trainings"
    more = client.tune(scene.spec(max_cost_usd=80.0, seeds=1, prune=False))
    assert choices(more)[: len(found.trials)] == choices(found), "a higher budget continues the same search"
    assert len(more.trials) > len(found.trials)


def test_jobs_of_a_former_best_trial_count(scene: Scene) -> None:
    client = scene.client(usd_per_hour=3600.0)
    few, found = (client.tune(scene.spec(trials=trials)) for trials in (2, 8))
    assert few.best.number != found.best.number
    assert found.jobs == len(scene.vendor.jobs()) > len(found.trials) + len(found.reruns)
    assert found.cost_usd == pytest.approx(spent(client))
    assert found.unknown_costs == 0


def test_unknown_costs_are_not_shown_as_zero(scene: Scene) -> None:
    found = scene.client().tune(scene.spec(trials=2, seeds=0))
    assert (found.jobs, found.cost_usd, found.unknown_costs) == (2, 0.0, 2)


def test_a_refusal_by_another_budget_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    client = scene.client(usd_per_hour=3600.0)
    monkeypatch.setattr(Config, "budgets", (Budget(name="team", usd=30.0),))
    spec = scene.spec(max_cost_usd=500.0, seeds=0, prune=False)
    found = client.tune(spec.model_copy(update={"limits": Limits(max_cost_usd=12.0)}))
    assert 2 <= len(found.trials) < 8
    assert "USD of the budget team are left" in found.notes[0]


def test_parallel_trials_share_what_the_budget_has_left(scene: Scene) -> None:
    client = scene.client(usd_per_hour=3600.0)
    client.tune(scene.spec(max_cost_usd=60.0, seeds=0, prune=False, parallel=4))
    limits = [attempt.plan.spec["limits"]["max_cost_usd"] for attempt in client.ledger.attempts()][::-1]
    assert sum(limits[:4]) <= 60.0
    assert spent(client) <= 60.0


def test_the_first_trials_leave_money_for_the_final_trainings(scene: Scene) -> None:
    scene.vendor.follow(Script(queue_s=0.0, prepare_s=1.0, step_s=5.0, steps=100, stop_s=1.0))
    client = scene.client(usd_per_hour=3600.0)  # a job uses up any limit
    found = client.tune(scene.spec(max_cost_usd=120.0, seeds=1, prune=False, parallel=4))
    limits = [attempt.plan.spec["limits"]["max_cost_usd"] for attempt in client.ledger.attempts()][::-1]
    assert limits[:4] == pytest.approx([20.0] * 4), "four trials and two final trainings"
    assert "keeps the cost of the final trainings" in found.notes[0]
    assert 0 < spent(client) <= 80.0


@pytest.mark.parametrize("has_job", [False, True])
def test_an_open_trial_that_is_now_refused_ends(scene: Scene, monkeypatch: pytest.MonkeyPatch, has_job: bool) -> None:
    spec, submit = scene.spec(trials=4, seeds=0, prune=False), Client.submit

    def killed(client: Client, plan: Any, **options: Any) -> Any:
        is_third = len(scene.vendor.jobs()) == 2
        if is_third and not has_job:
            raise Killed
        job = submit(client, plan, **options)
        if is_third:
            raise Killed
        return job

    monkeypatch.setattr(Client, "submit", killed)
    with pytest.raises(Killed):
        scene.client().tune(spec)
    monkeypatch.setattr(Client, "submit", submit)
    open_trial = next(one for one in trials_of(scene.client().ledger, _study(scene)) if one.outcome is None)
    refused = open_trial.parameters["hyperparameters.learning_rate"]

    def check(self: Learning, spec: JobSpec) -> list[Problem]:
        return [Problem(code="new", message="a new rule")] if spec.hyperparameters.learning_rate == refused else []

    monkeypatch.setattr(Learning, "check", check)
    found = scene.client().tune(spec)
    outcomes = [one.outcome for one in found.trials if one.outcome is not None]
    assert [one.state for one in outcomes] == ["complete", "complete", "complete" if has_job else "failed", "complete"]
    assert outcomes[2].message == ("" if has_job else "refused: a new rule")
    assert len(scene.vendor.jobs()) == 3 + has_job


def _study(scene: Scene) -> str:
    (row,) = scene.client().ledger.store.read("SELECT DISTINCT study FROM trials", ())
    return str(row["study"])


def test_a_budget_below_one_trial_starts_nothing(scene: Scene) -> None:
    client = scene.client()
    with pytest.raises(PolicyRefused, match="cannot be kept, because"):
        client.tune(scene.spec(max_cost_usd=1.0))
    assert scene.vendor.jobs() == []
    assert client.tune(scene.spec(max_cost_usd=1.0, trials=1), accept_unknown_cost=True).trials


def test_jobs_are_cancelled_when_the_time_is_over(scene: Scene) -> None:
    found = scene.client().tune(scene.spec(max_time=20.0, seeds=0, parallel=2))
    assert found.seconds < 40
    assert len(found.trials) < 8
    assert "tune.max_time" in found.notes[0]
    assert {scene.vendor.status(job).word for job in scene.vendor.jobs()} <= {"Completed", "Stopped"}


def test_the_time_of_running_jobs_counts_after_a_kill(scene: Scene) -> None:
    scene.vendor.follow(Script(queue_s=0.0, prepare_s=1.0, step_s=40.0, steps=3, stop_s=1.0))
    spec = scene.spec(max_time=60.0, seeds=0)

    def killed(update: TuneUpdate) -> None:
        raise Killed

    with pytest.raises(Killed):
        scene.client().tune(spec, on_update=killed)
    scene.world.clock.sleep(50.0)
    with pytest.raises(PolicyRefused, match=r"no trial was complete: tune\.max_time of 60 s"):
        scene.client().tune(spec)
    (job,) = scene.vendor.jobs()
    status = scene.vendor.status(job)
    assert status.word == "Stopped"
    ledger = scene.client().ledger
    (trial,) = trials_of(ledger, ledger.store.read("SELECT study FROM trials", ())[0]["study"])
    assert trial.outcome is not None
    assert trial.outcome.state == "stopped"
    assert trial.outcome.seconds < 75


# -- pruning and failures --------------------------------------------------------------------------------------------


def test_a_trial_worse_than_the_median_is_cancelled(scene: Scene) -> None:
    scene.vendor.follow(Script(queue_s=0.0, prepare_s=1.0, step_s=9.0, steps=3, stop_s=1.0))
    found = scene.client().tune(scene.spec(trials=8, seeds=0, seed=1))
    pruned = [one.outcome for one in found.trials if one.outcome and one.outcome.state == "pruned"]
    assert pruned
    assert all(one.ref and scene.vendor.status(JobRef.parse(one.ref).id).word == "Stopped" for one in pruned)
    assert all(len(one.curve) < 3 and one.value == one.curve[-1][1] for one in pruned)
    worst = [(1, 1e9)]
    assert [Sampler(scene.tune(prune=prune)).pruned_at(found.trials, worst, 0) for prune in (True, False)] == [0, None]


def test_a_search_whose_first_trials_fail_is_not_continued(scene: Scene) -> None:
    scene.vendor.follow(Script(queue_s=0.0, prepare_s=1.0, step_s=1.0, steps=2, fails="out of memory"))
    with pytest.raises(JobFailed, match="all trials have failed: out of memory"):
        scene.client().tune(scene.spec())
    assert len(scene.vendor.jobs()) == 3


def test_trials_that_the_back_end_refuses_count_as_failed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(self: Learning, spec: JobSpec) -> list[Problem]:
        is_wild = spec.hyperparameters.batch_size == 4 and spec.hyperparameters.learning_rate == 1e-3
        return [Problem(code="wild", message="too wild")] if is_wild else []

    monkeypatch.setattr(Learning, "check", check)
    space = {"hyperparameters.learning_rate": [1e-4, 1e-3], "hyperparameters.batch_size": [4, 8]}
    found = scene.client().tune(scene.spec(parameters=space, trials=9, seeds=0))
    refused = [one.outcome for one in found.trials if one.outcome and one.outcome.state == "failed"]
    assert {(one.message, one.ref) for one in refused} == {("refused: too wild", None)}
    assert len(scene.vendor.jobs()) == 9 - len(refused)


def test_refused_trials_end_no_search_whose_budget_is_used(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(self: Learning, spec: JobSpec) -> list[Problem]:
        is_wild = len(scene.vendor.jobs()) >= 3 and spec.hyperparameters.learning_rate != ORIGINAL["learning_rate"]
        return [Problem(code="wild", message="too wild")] if is_wild else []

    monkeypatch.setattr(Learning, "check", check)
    monkeypatch.setattr(Config, "budgets", (Budget(name="team", usd=30.0),))
    spec = scene.spec(trials=6, seeds=0, prune=False).model_copy(update={"limits": Limits(max_cost_usd=12.0)})
    found = scene.client(usd_per_hour=3600.0).tune(spec)
    assert [one.outcome and one.outcome.state for one in found.trials] == ["complete"] * 3 + ["failed"] * 3
    assert found.jobs == 3


def test_a_metric_that_no_job_reports_is_an_error(scene: Scene) -> None:
    with pytest.raises(JobFailed, match="reports no 'macro_f2' on validation rows"):
        scene.client().tune(scene.spec(metric="macro_f2"))


# -- what is refused before anything starts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hyperparameters.learning_rat": [1e-4, 1e-3]}, "no field hyperparameters.learning_rat"),
        ({"hyperparameters.learning_rate": [1e-4, -1.0]}, "-1.0 is not valid"),
        ({"hyperparameters.learning_rate": {"low": 1e-4, "high": 2.0}}, "2.0 is refused: 2 is too large"),
        ({"adapter.type": ["lora", "prefix"]}, "'prefix' is refused"),
        ({"data.train": ["a.jsonl", "b.jsonl"]}, "data.train cannot be tuned"),
        ({"name": ["a", "b"]}, "name cannot be tuned"),
        ({"tune.trials": [1, 2]}, "tune.trials cannot be tuned"),
    ],
)
def test_values_that_a_job_cannot_have_are_refused(scene: Scene, parameters: dict[str, Any], message: str) -> None:
    also = {"hyperparameters.max_length": [8, "x"]}
    with pytest.raises(SpecError) as caught:
        scene.client().tune(scene.spec(parameters={**parameters, **also}))
    assert [one.field for one in caught.value.problems] == [f"tune.parameters.{path}" for path in (*parameters, *also)]
    assert message in caught.value.problems[0].message
    assert scene.vendor.jobs() == []


def test_a_search_needs_validation_rows_and_a_space(scene: Scene) -> None:
    with pytest.raises(SpecError, match=r"measured on validation rows, and the spec has none"):
        scene.client().tune(scene.world.spec(tune={"parameters": SPACE}))
    with pytest.raises(SpecError, match="no section tune"):
        scene.client().tune(scene.world.spec(with_validation=True))


@pytest.mark.parametrize(
    "tune",
    [
        {"parameters": {}},
        {"parameters": {"seed": [1]}},
        {"parameters": {"seed": [1, 1]}},
        {"parameters": {"seed": {"low": 3, "high": 3}}},
        {"parameters": {"seed": {"low": 0, "high": 3, "log": True}}},
        {"parameters": {"seed": {"low": 0}}},
        {"parameters": {"seed": [1, 2]}, "trials": 0},
        {"parameters": {"seed": [1, 2]}, "max_time": "soon"},
    ],
)
def test_a_section_that_makes_no_sense_is_refused(scene: Scene, tune: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        scene.world.spec(tune=tune)


def test_a_parameter_that_is_dropped_is_refused(scene: Scene) -> None:
    spec = scene.spec(parameters={"hyperparameters.packing": [True, False]})
    with pytest.raises(SpecError, match=r"packing has no effect on scripted: the vendor always packs"):
        scene.client().tune(spec.model_copy(update={"unsupported": "drop"}))
    assert scene.vendor.jobs() == []


def test_two_paths_to_one_parameter_are_refused(scene: Scene) -> None:
    parameters = {"adapter.rank": [4, 8], "adapter": [{"type": "lora"}, {"type": "full"}]}
    with pytest.raises(SpecError, match="adapter is tuned too, and contains it"):
        scene.client().tune(scene.spec(parameters=parameters))


def test_the_name_of_a_metric_says_what_is_better(scene: Scene) -> None:
    lower = ["loss", "full_loss", "logloss", "eval/loss", "perplexity", "wer", "rmse", "mean_absolute_error", "kl"]
    higher = ["accuracy", "answer_accuracy", "power", "certainty", "macro_f1", "reward", "lossless_share"]
    assert [name for name in lower if not scene.tune(metric=name).minimizes] == []
    assert [name for name in higher if scene.tune(metric=name).minimizes] == []
    assert not scene.tune(metric="loss", direction="maximize").minimizes


def test_rows_that_change_during_a_search_end_it(scene: Scene) -> None:
    spec = scene.spec(trials=4, seeds=0)

    def change(update: TuneUpdate) -> None:
        if update.what == "ended" and update.trial is not None and update.trial.number == 1:
            Path(str(spec.data.train.path)).write_text('{"prompt": "other", "completion": "row"}\n' * 9)

    with pytest.raises(DataError, match="the rows have changed since the search began"):
        scene.client().tune(spec, on_update=change)
    assert len(scene.vendor.jobs()) == 2


# -- one search, several processes -----------------------------------------------------------------------------------


def test_two_processes_share_one_search(scene: Scene) -> None:
    clients = [scene.client(), scene.client()]
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda client: client.tune(scene.spec(trials=6, seeds=1, parallel=2)), clients)
    assert choices(one) == choices(other)
    assert len(scene.vendor.jobs()) == len(one.trials) + len(one.reruns)


def test_a_plan_says_that_a_single_job_does_not_search(scene: Scene) -> None:
    client = scene.client()
    spec = scene.spec()
    plan = client.plan(spec)
    assert [one.code for one in plan.warnings if one.field == "tune"] == ["not_tuned"]
    assert plan.key == client.plan(spec.model_copy(update={"tune": None})).key, "the search is not part of the job"


def test_a_trial_that_was_repaired_away_is_chosen_again(scene: Scene) -> None:
    client = scene.client()
    found = client.tune(scene.spec(trials=5, seeds=0))
    with client.ledger.write("test") as db:
        db.execute("DELETE FROM trials WHERE name = ?", (found.trials[2].name,))
    again = client.tune(scene.spec(trials=5, seeds=0))
    assert choices(again) == choices(found)
    assert len(scene.vendor.jobs()) == 5
