"""The client: what is planned, which attempt is meant, how jobs are found, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloudtune.client import Client, connect
from cloudtune.config.config import load_config
from cloudtune.errors import (
    ConfigError,
    DataError,
    InputError,
    InvalidRequest,
    JobNotFound,
    LedgerError,
    LostContact,
    PermissionDenied,
    SpecError,
    UnknownBackend,
    UnsupportedError,
)  # fmt: skip
from cloudtune.execute import StepUpdate
from cloudtune.plan import plan_to_json
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef, JobState
from cloudtune.testing import FakeClock, ScriptedBackend, ScriptedVendor, faults
from cloudtune.testing.scripted_world import ScriptedWorld


@pytest.fixture
def world(memory_path: Path) -> ScriptedWorld:
    return ScriptedWorld(memory_path)


@pytest.fixture
def client(world: ScriptedWorld) -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


def ended(client: Client, world: ScriptedWorld, state: JobState, **options: Any) -> JobRef:
    ref = client.submit(world.spec(), **options).ref
    world.reach(ref, JobState.RUNNING)
    world.reach(ref, state, message="reported by the vendor")
    return ref


# -- planning --------------------------------------------------------------------------------------------------------


def test_a_plan_says_who_chose_what_and_what_to_mind(client: Client, world: ScriptedWorld) -> None:
    spec = world.spec(hyperparameters={"learning_rate": 0.5, "epochs": 2}, overrides={"scripted": {"lane": "slow"}})
    plan = client.plan(spec)
    chosen = {setting.field: (setting.value, setting.source) for setting in plan.settings}
    assert chosen["hyperparameters.epochs"] == (2.0, "spec")
    assert chosen["hyperparameters.batch_size"] == (8, "default of scripted")
    assert chosen["overrides.scripted.lane"] == ("slow", "override")
    codes = [problem.code for problem in plan.warnings]
    assert codes == ["few_rows", "rate"], "the data's warnings, then the back end's"


def test_check_runs_once_per_plan(world: ScriptedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, checked = world.backend(), []
    check = backend.check
    monkeypatch.setattr(backend, "check", lambda spec: (checked.append(spec), check(spec))[1])
    client = Client(backend, ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)
    fast = world.spec(hyperparameters={"learning_rate": 0.5, "packing": True}, unsupported="drop")
    plan = client.plan(fast)
    assert [problem.code for problem in plan.warnings].count("rate") == len(checked) == 1
    assert checked[0].hyperparameters.packing is None, "what is dropped is not checked"
    ref = client.submit(plan).ref
    world.reach(ref, JobState.RUNNING)
    world.reach(ref, JobState.FAILED)
    checked.clear()
    resumed = client.resume(ref)
    assert len(checked) == 1
    attempt = client.ledger.of_ref(resumed.ref)
    assert attempt is not None
    assert "rate" in [problem.code for problem in attempt.plan.warnings]


def test_a_value_that_a_backend_refuses_is_told_with_what_it_cannot_do(client: Client, world: ScriptedWorld) -> None:
    spec = world.spec(hyperparameters={"learning_rate": 2.0, "packing": True}, overrides={"scripted": {"lan": "x"}})
    with pytest.raises(UnsupportedError) as refused:
        client.plan(spec)
    fields = [problem.field for problem in refused.value.problems]
    assert fields == ["hyperparameters.packing", "overrides.scripted.lan", "hyperparameters.learning_rate"]
    assert "'lane'" in str(refused.value)


def test_faults_of_the_data_and_of_the_world_are_told_together(client: Client, world: ScriptedWorld) -> None:
    rows = world.root / "bad.jsonl"
    rows.write_text('{"prompt":"a","completion":"%s"}\n{"prompt":"b"\n' % ("x" * 30_000), encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        client.plan(world.spec(data={"train": str(rows)}))
    assert {problem.line for problem in refused.value.problems} == {1, 2}
    rows.write_text('{"prompt":"b"\n', encoding="utf-8")
    with pytest.raises(DataError):
        client.plan(world.spec(data={"train": str(rows)}))


def test_the_job_is_its_spec_and_its_rows_and_nothing_else(client: Client, world: ScriptedWorld) -> None:
    plan = client.plan(world.spec())
    moved = world.root / "moved.jsonl"
    moved.write_bytes(Path(world.spec().data.train.path).read_bytes())  # type: ignore[arg-type]
    same = (
        world.spec(backend="scripted"), world.spec(limits={"stall_after": 60}), world.spec(unsupported="drop"),
        world.spec(data={"train": str(moved)}), world.spec(overrides={"elsewhere": {"a": 1}}),
        world.spec(model={"scripted": "tiny-1", "elsewhere": "m"}),
    )  # fmt: skip
    assert [client.plan(spec).key for spec in same] == [plan.key] * len(same)
    others = (
        world.spec(seed=1), world.spec(name="other"), world.spec(model="tiny-2"), world.spec(tags={"a": "b"}),
        world.spec(1, name="small-0"), world.spec(overrides={"scripted": {"lane": "x"}}),
        world.spec(hyperparameters={"epochs": 2}), world.spec(method={"name": "sft", "loss_on": "all"}),
    )  # fmt: skip
    keys = [client.plan(spec).key for spec in others]
    assert len({plan.key, *keys}) == len(keys) + 1


def test_a_plan_is_submitted_as_it_was_reviewed(client: Client, world: ScriptedWorld) -> None:
    plan = client.plan(world.spec())
    reported: list[StepUpdate] = []
    job = client.submit(plan, on_step=reported.append)
    assert [update.step.id for update in reported if update.what == "done"] == [step.id for step in plan.steps]
    assert client.ledger.latest(plan.key).plan == plan  # type: ignore[union-attr]
    assert client.submit(plan) == job


def test_rows_that_change_between_plan_and_submit_are_refused(client: Client, world: ScriptedWorld) -> None:
    plan = client.plan(world.spec())
    rows = Path(world.spec().data.train.path)  # type: ignore[arg-type]
    rows.write_text(rows.read_text(encoding="utf-8").replace("plus", "and"), encoding="utf-8")
    with pytest.raises(DataError, match="have changed since the check"):
        client.submit(plan)
    assert world.jobs() == []
    assert [attempt.name for attempt in client.unfinished()] == ["small-0"]


# -- attempts --------------------------------------------------------------------------------------------------------


def test_again_and_resume_mind_how_the_last_attempt_ended(client: Client, world: ScriptedWorld) -> None:
    spec = world.spec()
    first = client.submit(spec).ref
    for how in ({"again": True}, {"resume": True}, {}):
        assert client.plan(spec, **how).attempt == 1, "it goes on"
    world.reach(first, JobState.RUNNING)
    world.reach(first, JobState.SUCCEEDED)
    assert client.plan(spec).attempt == 1
    assert client.plan(spec, resume=True).attempt == 1, "there is nothing to resume"
    again = client.plan(spec, again=True)
    assert (again.attempt, again.parent) == (2, None)
    second = ended(client, world, JobState.FAILED, again=True)
    resumed = client.plan(spec, resume=True)
    assert (resumed.attempt, resumed.parent) == (3, str(second))
    third = client.submit(spec, resume=True)
    assert third.snapshot().parent == second
    assert client.plan(spec).parent == str(second), "the same attempt is the same plan"


def test_a_job_that_was_deleted_can_be_made_again(client: Client, world: ScriptedWorld) -> None:
    ref = ended(client, world, JobState.FAILED)
    client.attach(ref).delete()
    plan = client.plan(world.spec(), resume=True)
    assert (plan.attempt, plan.parent) == (2, None)


def test_continuing_a_job_whose_rows_have_changed_is_refused(client: Client, world: ScriptedWorld) -> None:
    ref = ended(client, world, JobState.FAILED)
    rows = Path(world.spec().data.train.path)  # type: ignore[arg-type]
    rows.write_text(rows.read_text(encoding="utf-8").replace("plus", "and"), encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"the data \(fingerprint \w+, now \w+\) of .* has changed"):
        client.resume(ref)
    assert len(world.jobs()) == 1


def test_a_resume_that_becomes_a_new_job_says_so(client: Client, world: ScriptedWorld) -> None:
    ref = ended(client, world, JobState.FAILED)
    assert "not_resumed" not in [problem.code for problem in client.plan(world.spec(), resume=True).warnings]
    changed = client.plan(world.spec(1, name="small-0"), resume=True)
    problems = next(problem for problem in changed.warnings if problem.code == "not_resumed")
    assert f"not a continuation of {ref}: the data (fingerprint" in problems.message
    assert "not_resumed" not in [problem.code for problem in client.plan(world.spec(2), resume=True).warnings]


def test_continuing_somebody_elses_job_is_refused(client: Client, world: ScriptedWorld) -> None:
    ref = ended(client, world, JobState.FAILED)
    stranger = Client(world.backend(), ledger=f"{world.root}/other.db", clock=world.clock)
    with pytest.raises(InvalidRequest, match="not submitted with this ledger"):
        stranger.attach(ref).resume()


def test_continuing_again_after_the_child_has_failed_continues_the_child(client: Client, world: ScriptedWorld) -> None:
    ref = ended(client, world, JobState.FAILED)
    child = client.resume(ref)
    assert client.resume(ref) == child
    world.reach(child.ref, JobState.FAILED, message="again")
    grandchild = client.resume(child.ref)
    assert grandchild.snapshot().parent == child.ref
    assert len(world.jobs()) == 3


# -- finding ---------------------------------------------------------------------------------------------------------


def test_attach_by_any_word_that_fits_one_job(client: Client, world: ScriptedWorld) -> None:
    first, second = client.submit(world.spec()), client.submit(world.spec(1))
    for text in (str(first.ref), first.ref.id, "small-0", f" {first.ref} ".strip()):
        assert client.attach(text) == first
    with pytest.raises(InputError, match="matches several jobs") as several:
        client.attach("ftjob-")
    assert str(second.ref) in str(several.value)
    with pytest.raises(JobNotFound, match="nothing-like-it"):
        client.attach("nothing-like-it")
    for bad in ("%", "_", "", "small-_"):
        with pytest.raises((JobNotFound, InputError)):
            client.attach(bad)


@pytest.mark.parametrize("last", ["heads", "heads-v2"])
def test_an_exact_name_is_preferred_to_a_prefix(client: Client, world: ScriptedWorld, last: str) -> None:
    jobs = {}
    for number, name in enumerate(sorted(("heads", "heads-v2"), key=lambda name: name == last)):
        jobs[name] = client.submit(world.spec(number, name=name))
    assert client.attach("heads") == jobs["heads"]
    assert client.attach("heads-v2") == jobs["heads-v2"]
    refs = [client.submit(world.spec(number, name="twice")).ref for number in (2, 3)]
    with pytest.raises(InputError, match="matches several jobs") as several:
        client.attach("twice")
    assert all(str(ref) in str(several.value) for ref in refs)


def test_the_name_of_a_deleted_job_finds_no_other_job(client: Client, world: ScriptedWorld) -> None:
    """Not by the beginning of an id either: what is deleted next would be another job."""
    other = client.submit(world.spec(1, name="other"))
    gone = client.submit(world.spec(name=other.ref.id[:4]))
    world.reach(gone.ref, JobState.RUNNING)
    world.reach(gone.ref, JobState.FAILED)
    gone.delete()
    for text in (other.ref.id[:4], gone.ref.id):
        with pytest.raises(JobNotFound, match="was deleted"):
            client.attach(text)


def test_of_several_attempts_the_newest_is_meant(client: Client, world: ScriptedWorld) -> None:
    first = ended(client, world, JobState.FAILED)
    second = client.submit(world.spec(), again=True)
    assert client.attach("small-0") == second
    assert client.attach(first.id).ref == first


def test_jobs_of_a_backend_that_does_not_answer_are_unknown_with_the_reason(
    client: Client, world: ScriptedWorld
) -> None:
    job = client.submit(world.spec())
    world.vendor.fail("*", faults.server_error(times=faults.FOREVER))
    (reported,) = client.jobs()
    assert (reported.ref, reported.state) == (job.ref, JobState.UNKNOWN)
    assert "service unavailable" in reported.detail
    world.heal()
    world.vendor.fail("*", faults.forbidden(times=faults.FOREVER))
    (reported,) = client.jobs()
    assert reported.state is JobState.UNKNOWN
    assert "may not do that" in reported.detail
    world.heal()
    assert client.jobs() == [job.snapshot()]


def test_jobs_of_a_backend_that_is_gone_do_not_hide_the_others(client: Client, world: ScriptedWorld) -> None:
    job = client.submit(world.spec())
    elsewhere = Client(_Elsewhere(vendor=world.vendor), ledger=f"{world.root}/ledger.db", clock=world.clock)
    far = elsewhere.submit(world.spec(1))
    reported = {shown.ref: shown for shown in Client(world.backend(), ledger=f"{world.root}/ledger.db").jobs()}
    assert reported[job.ref].state is JobState.QUEUED
    assert reported[far.ref].state is JobState.UNKNOWN
    assert "elsewhere" in reported[far.ref].detail


class _Elsewhere(ScriptedBackend):
    name = "elsewhere"

    def __init__(self, vendor: ScriptedVendor) -> None:
        super().__init__(vendor=vendor)
        self._key = vendor._api_key


def test_jobs_are_newest_first_and_limited(client: Client, world: ScriptedWorld) -> None:
    refs = [client.submit(world.spec(n)).ref for n in range(4)]
    assert [job.ref for job in client.jobs()] == refs[::-1]
    assert [job.ref for job in client.jobs(limit=2)] == refs[:1:-1]
    assert client.jobs(backend="elsewhere") == []
    assert [job.ref for job in client.jobs(backend="scripted", limit=1)] == [refs[-1]]


def test_jobs_asks_once_for_many(client: Client, world: ScriptedWorld) -> None:
    for n in range(6):
        client.submit(world.spec(n))
    calls = world.calls()
    client.jobs()
    assert world.calls() - calls <= 2


def test_remote_jobs_are_those_of_others_too(client: Client, world: ScriptedWorld) -> None:
    mine = client.submit(world.spec())
    other = Client(world.backend(), ledger=f"{world.root}/other.db", clock=world.clock).submit(world.spec(1))
    assert [job.ref for job in client.jobs()] == [mine.ref]
    assert [job.ref for job in client.jobs(remote=True)] == [other.ref, mine.ref]
    assert [job.ref for job in client.jobs(remote=True, limit=1)] == [other.ref]


def test_unfinished_submissions_are_told_and_go_on(client: Client, world: ScriptedWorld) -> None:
    world.fail("create", faults.forbidden())
    with pytest.raises(PermissionDenied):
        client.submit(world.spec())
    assert client.jobs() == []
    (attempt,) = client.unfinished()
    assert (attempt.name, attempt.ref, attempt.backend) == ("small-0", None, "scripted")
    job = client.submit(attempt.plan)
    assert client.unfinished() == []
    assert [reported.ref for reported in client.jobs()] == [job.ref]


def test_watching_many(client: Client, world: ScriptedWorld) -> None:
    jobs = [client.submit(world.spec(n)) for n in range(3)]
    for job in jobs[:2]:
        world.reach(job.ref, JobState.RUNNING)
    clock = world.clock
    assert isinstance(clock, FakeClock)
    clock.call_at(10, lambda: world.reach(jobs[0].ref, JobState.FAILED, message="m"))
    clock.call_at(20, lambda: world.reach(jobs[1].ref, JobState.SUCCEEDED))
    clock.call_at(30, lambda: world.reach(jobs[2].ref, JobState.SUCCEEDED))
    seen = list(client.watch_many([job.ref for job in jobs]))
    last = {snapshot.ref: snapshot.state for snapshot in seen}
    assert last == {
        jobs[0].ref: JobState.FAILED, jobs[1].ref: JobState.SUCCEEDED, jobs[2].ref: JobState.SUCCEEDED,
    }  # fmt: skip


def test_watching_many_keeps_the_service_s_pace(
    client: Client, world: ScriptedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = client.submit(world.spec())
    clock = world.clock
    assert isinstance(clock, FakeClock)
    place = client.backend(job.ref.backend)
    calm = msgspec.structs.replace(place.capabilities, poll_s=3.0)
    monkeypatch.setattr(type(place), "capabilities", property(lambda self: calm))
    for step in range(3):  # 9 of the job's 10 steps, so that it does not end between two looks
        clock.call_at(5.0 + step, lambda: world.reach(job.ref, JobState.RUNNING))
    clock.call_at(60.0, lambda: world.reach(job.ref, JobState.SUCCEEDED))
    clock.sleeps.clear()
    changes = list(client.watch_many([job.ref]))
    assert len(changes) > 2
    assert min(clock.sleeps) >= 3.0 * 0.85  # the first look brings news, so that there is no quicker one


def test_watching_many_ends_when_nothing_is_known_of_the_rest(client: Client, world: ScriptedWorld) -> None:
    """A job that was deleted meanwhile, or a vendor that is away for good, must not be waited for for ever."""
    gone, alive = client.submit(world.spec()), client.submit(world.spec(1))
    world.reach(gone.ref, JobState.RUNNING)
    world.reach(gone.ref, JobState.SUCCEEDED)
    gone.delete()
    clock = world.clock
    assert isinstance(clock, FakeClock)
    clock.call_at(1000.0, lambda: world.reach(alive.ref, JobState.FAILED, message="m"))
    seen = []
    with pytest.raises(LostContact, match="not found") as lost:
        for snapshot in client.watch_many([gone.ref, alive.ref]):
            seen.append(snapshot)  # noqa: PERF402
    assert lost.value.ref == gone.ref
    assert seen[-1].state is JobState.FAILED, "the other one was followed to its end"
    assert 1290 < clock.monotonic() < 1400


# -- opening ---------------------------------------------------------------------------------------------------------


def test_an_unknown_backend_is_told_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownBackend, match="did you mean 'local'"):
        Client("locl", config=load_config(), ledger=str(tmp_path / "l.db")).backend()
    with pytest.raises(UnknownBackend):
        connect("nowhere")
    with pytest.raises(ConfigError):
        connect("local", no_such_setting=1)


def test_connect_reads_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__LOCAL__ROOT", str(tmp_path / "configured"))
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__LOCAL__GRACE", "7")
    assert connect("local").backend().scope() == str(tmp_path / "configured")
    given = connect("local", root=tmp_path / "given").backend()
    assert (given.scope(), given.options.grace) == (str(tmp_path / "given"), 7)


def test_a_spec_from_plain_values(tmp_path: Path) -> None:
    values = {"model": "m", "method": "dpo", "adapter": "lora", "data": {"train": Path("rows.jsonl")}}
    spec = JobSpec.parse(values, folder=tmp_path)
    assert (spec.method.name, spec.data.train.paths) == ("dpo", (str(tmp_path / "rows.jsonl"),))
    with pytest.raises(SpecError) as refused:
        JobSpec.parse({"model": 3, "epochs": 2})
    assert [problem.field for problem in refused.value.problems] == ["model", "data", "epochs"]


def test_which_backend_is_meant(world: ScriptedWorld) -> None:
    client = Client(world.backend(), ledger=f"{world.root}/ledger.db", clock=world.clock)
    assert client.plan(world.spec()).backend == "scripted"
    assert client.plan(world.spec(backend="local")).backend == "scripted", "the call's client wins over the file"
    with pytest.raises(UnknownBackend):
        client.plan(world.spec(), backend="nowhere")


@pytest.mark.parametrize("url", ["mysql://host/db", "sqlite://host/path", "http://x"])
def test_a_ledger_that_cannot_be_is_refused(world: ScriptedWorld, url: str) -> None:
    client = Client(world.backend(), ledger=url, clock=world.clock)
    with pytest.raises(LedgerError):
        client.jobs()


def test_the_plan_is_json(client: Client, world: ScriptedWorld) -> None:
    import json

    spec = world.spec(tags={"team": "red"}, seed=1, with_validation=True)
    assert json.loads(json.dumps(plan_to_json(client.plan(spec))))["name"] == "small-0"
    assert isinstance(spec, JobSpec)
