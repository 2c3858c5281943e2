"""The OpenAI-compatible back ends beyond the contract: parts, duplicates, foreign jobs, deployments, old jobs."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import openai
import pytest
from pydantic import TypeAdapter
from tests.contract.emulated import KEY, MODEL, TOKEN, AzureWorld, EmulatedWorld

from cloudtune.backend import Done, Intent
from cloudtune.client import Client
from cloudtune.errors import Conflict, CredentialsError, InputError, InvalidRequest, TransientError, Unavailable
from cloudtune.plan import Step, filled
from cloudtune.state import JobRef, JobState, TunedModel
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.plan import Plan


@pytest.fixture
def world(tmp_path: Path) -> Iterator[EmulatedWorld]:
    world = EmulatedWorld(tmp_path)
    yield world
    world.close()


class SlowAzure(AzureWorld):
    deploying_s = 5.0


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[AzureWorld]:
    world = SlowAzure(tmp_path)
    yield world
    world.close()


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[AzureWorld]:
    world = AzureWorld(tmp_path)
    yield world
    world.close()


def client_of(world: EmulatedWorld) -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


def sdk(world: EmulatedWorld) -> openai.OpenAI:
    return openai.OpenAI(base_url=world.emulator.openai_url, api_key=KEY, max_retries=0)


class Notes:
    """A journal that outlives the process that wrote it."""

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}

    def note(self, name: str, value: Any) -> None:
        self.notes[name] = json.loads(json.dumps(value))


# -- uploads in parts ------------------------------------------------------------------------------------------------

PART = 100


def parts_step(world: EmulatedWorld) -> tuple[Step, bytes]:
    content = b"".join(b'{"messages":[{"role":"user","content":"%d"}]}\n' % n for n in range(20))
    path = world.root / "big.jsonl"
    path.write_bytes(content)
    body = {"filename": "cloudtune-big.jsonl", "purpose": "fine-tune", "bytes": len(content), "mime_type": "text/plain"}
    request = {"call": "uploads", "body": body, "path": str(path), "bytes": len(content), "same": "cloudtune-big",
               "part_bytes": PART, "timeout_s": 60.0}  # fmt: skip
    return Step(id="upload_train", kind="upload", title="", request=request), content


def count(world: EmulatedWorld, call: str) -> int:
    return sum(seen["call"] == call for seen in world.emulator.requests)


def test_a_file_in_parts_arrives_whole(world: EmulatedWorld) -> None:
    step, content = parts_step(world)
    file = world.backend().do(step, Notes())["file"]
    assert sdk(world).files.content(file).content == content
    assert count(world, "uploads.part") == -(-len(content) // PART) > 3


def test_an_upload_goes_on_where_a_dead_process_left_it(world: EmulatedWorld) -> None:
    step, content = parts_step(world)
    journal = Notes()
    world.emulator.faults.add("server_error", "uploads.complete")
    with pytest.raises(Unavailable):
        world.backend().do(step, journal)
    sent = count(world, "uploads.part")
    file = world.backend().do(step, journal)["file"]
    assert count(world, "uploads.part") == sent
    assert count(world, "uploads.create") == 1
    assert sdk(world).files.content(file).content == content


@pytest.mark.parametrize("fault", ["lost_reply", "reset"])
def test_an_upload_with_a_part_of_unknown_fate_starts_again(world: EmulatedWorld, fault: str) -> None:
    step, content = parts_step(world)
    journal = Notes()
    world.emulator.faults.add(fault, "uploads.part", after=2)
    with pytest.raises(Unavailable):
        world.backend().do(step, journal)
    assert (journal.notes["parts_sent"], len(journal.notes["parts"])) == (3, 2)
    file = world.backend().do(step, journal)["file"]
    assert sdk(world).files.content(file).content == content
    assert [count(world, f"uploads.{call}") for call in ("create", "cancel", "complete")] == [2, 1, 1]
    assert len(world.uploads()) == 1


def test_an_upload_that_would_expire_starts_again(world: EmulatedWorld) -> None:
    step, _ = parts_step(world)
    journal = Notes()
    world.emulator.faults.add("server_error", "uploads.complete")
    with pytest.raises(Unavailable):
        world.backend().do(step, journal)
    world.clock.sleep(3500)
    world.backend().do(step, journal)
    assert count(world, "uploads.create") == 2
    assert len(world.uploads()) == 1


def test_a_completion_without_an_answer_is_found_by_name(world: EmulatedWorld) -> None:
    step, _ = parts_step(world)
    world.emulator.faults.add("lost_reply", "uploads.complete")
    backend = world.backend()
    with pytest.raises(Unavailable):
        backend.do(step, Notes())
    found = backend.find(step, Intent(begun_at=world.clock.now(), sends=1))
    assert isinstance(found, Done)
    assert [found.outputs["file"]] == list(world.uploads())


def test_files_above_the_threshold_go_in_parts(tmp_path: Path) -> None:
    world = EmulatedWorld(tmp_path, parts_above=100)
    try:
        job = client_of(world).submit(world.spec())
        assert count(world, "uploads.complete") == 1
        assert len(world.uploads()) == 1
        world.reach(job.ref, JobState.RUNNING)
        assert job.state is JobState.RUNNING
    finally:
        world.close()


# -- jobs ------------------------------------------------------------------------------------------------------------


def test_equal_rows_are_uploaded_once_for_several_jobs(world: EmulatedWorld) -> None:
    client = client_of(world)
    client.submit(world.spec())
    client.submit(world.spec(hyperparameters={"epochs": 2}))
    assert (len(world.jobs()), len(world.uploads())) == (2, 1)


def test_a_file_that_failed_is_not_used_again(world: EmulatedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = world.backend()
    client = Client(backend, ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)
    plan = client.plan(world.spec())
    client.submit(plan)
    from cloudtune_emulator.openai import files

    shown = files.view
    monkeypatch.setattr(files, "view", lambda *at: shown(*at) | {"status": "error", "status_details": "line 2 is torn"})
    upload = next(step for step in plan.steps if step.kind == "upload")
    request = filled(upload.request, {"encode_train": {"path": "", "bytes": _size(world)}})
    assert not isinstance(backend.find(msgspec.structs.replace(upload, request=request), _intent(world)), Done)
    waiting = Step(id="await_train", kind="await", title="", request={"file": world.uploads()[0]})
    assert (backend.probe(waiting).state, backend.probe(waiting).message) == ("failed", "line 2 is torn")


def _size(world: EmulatedWorld) -> int:
    return int(world.emulator.store.all("file", "openai")[0]["bytes"])


def _intent(world: EmulatedWorld) -> Intent:
    return Intent(begun_at=world.clock.now())


def created(world: EmulatedWorld) -> dict[str, Any]:
    """The body of the last create request, as the service read it."""
    bodies = [seen["body"] for seen in world.emulator.requests if seen["call"] == "jobs.create" and seen["acted"]]
    return dict(bodies[-1])


def fits_the_sdk(body: dict[str, Any], *extra: str) -> None:
    """The SDK's own types of the request take it, and know every field."""
    from openai.types.fine_tuning import job_create_params as types
    from openai.types.fine_tuning.job_create_params import JobCreateParams

    known = {key: value for key, value in body.items() if key not in extra}
    TypeAdapter(JobCreateParams).validate_python(known, strict=True)
    assert set(known) <= set(JobCreateParams.__annotations__)
    method = known["method"]
    assert set(method) <= set(types.Method.__annotations__)


def test_preferences_are_learnt_by_dpo(world: EmulatedWorld) -> None:
    job = client_of(world).submit(world.spec(method={"name": "dpo", "beta": 0.3}, hyperparameters={"batch_size": 4}))
    body = created(world)
    assert body["method"] == {"type": "dpo", "dpo": {"hyperparameters": {"batch_size": 4, "beta": 0.3}}}
    fits_the_sdk(body)
    world.reach(job.ref, JobState.SUCCEEDED)
    assert job.state is JobState.SUCCEEDED  # the service has found every line well formed
    content = sdk(world).files.content(world.uploads()[0]).content.splitlines()[0]
    assert set(json.loads(content)) == {"input", "preferred_output", "non_preferred_output"}


def test_answers_are_graded_by_rft(azure: AzureWorld) -> None:
    spec = azure.spec(method={"name": "rft"})
    given = {**spec.overrides["azure_openai"], "reasoning_effort": "low", "eval_interval": 5}
    job = client_of(azure).submit(spec.model_copy(update={"overrides": {"azure_openai": given}}))
    body = created(azure)
    assert body["method"]["reinforcement"]["grader"] == given["grader"]
    assert body["method"]["reinforcement"]["hyperparameters"] == {"reasoning_effort": "low", "eval_interval": 5}
    assert body["validation_file"] != body["training_file"]
    fits_the_sdk(body, "trainingType")
    azure.reach(job.ref, JobState.SUCCEEDED)
    assert job.state is JobState.SUCCEEDED


def test_every_field_of_a_full_request_is_the_sdks(world: EmulatedWorld) -> None:
    wandb = [{"type": "wandb", "wandb": {"project": "p"}}]
    overrides = {"learning_rate_multiplier": 0.5, "n_epochs": "auto", "suffix": "mine", "integrations": wandb}
    rows = world.rows("held", [{"prompt": "?", "completion": "!"}])
    spec = world.spec(seed=7, tags={"team": "red"}, overrides={"openai": overrides})
    data = spec.data.model_validate({"train": spec.data.train.path, "validation": rows})
    client_of(world).submit(spec.model_copy(update={"data": data}))
    body = created(world)
    fits_the_sdk(body)
    assert {key for key in body if key not in ("training_file", "validation_file", "metadata")} == {
        "model", "method", "suffix", "seed", "integrations",
    }  # fmt: skip
    assert body["metadata"].items() >= {"team": "red", "cloudtune_name": "small-0"}.items()


def test_jobs_that_others_made_are_listed_attached_and_asked(world: EmulatedWorld) -> None:
    rows = b'{"messages":[{"role":"user","content":"who?"},{"role":"assistant","content":"me"}]}\n' * 12
    theirs = sdk(world)
    file = theirs.files.create(file=("mine.jsonl", rows), purpose="fine-tune")
    made = theirs.fine_tuning.jobs.create(model=MODEL, training_file=file.id, suffix="theirs")
    client = client_of(world)
    (listed,) = client.jobs(remote=True)
    assert (listed.ref.id, listed.name) == (made.id, "theirs")
    job = client.attach(str(listed.ref))
    world.reach(job.ref, JobState.SUCCEEDED)
    assert [answer.text for answer in job.generate(["who?"])] == ["me"]
    assert job.checkpoints()[-1].uri == job.model().id


def test_answers_by_the_responses_api(tmp_path: Path) -> None:
    world = EmulatedWorld(tmp_path, answers="responses")
    try:
        job = client_of(world).submit(world.spec(variant=1))
        world.reach(job.ref, JobState.SUCCEEDED)
        (answer,) = job.generate(["What is 3 plus 1?"])
        assert (answer.text, answer.finish_reason) == ("4", "stop")
        assert count(world, "responses.create") == 1
    finally:
        world.close()


@pytest.mark.parametrize("encoded", [False, True])
def test_metrics_of_a_job_whose_events_are_gone_come_from_its_result_file(
    world: EmulatedWorld, monkeypatch: pytest.MonkeyPatch, encoded: bool
) -> None:
    job = client_of(world).submit(world.spec())
    world.reach(job.ref, JobState.RUNNING)
    world.reach(job.ref, JobState.SUCCEEDED)
    reported = [(metric.step, metric.split, metric.values["loss"]) for metric in job.metrics()]
    if encoded:
        world.emulator.faults.add("base64_results", "*")
    from cloudtune_emulator.openai import jobs

    monkeypatch.setattr(
        jobs, "_event", lambda *at: {"id": f"ev{at[2]}", "created_at": 0, "level": "info", "message": ""}
    )
    again = job.metrics()
    assert [(metric.step, metric.split, metric.values["loss"]) for metric in again] == reported
    assert job.metrics(after=again[4].cursor) == again[5:]


def test_a_stopped_job_gives_its_newest_checkpoint(world: EmulatedWorld) -> None:
    world.emulator.script = Script(running_s=100.0)
    job = client_of(world).submit(world.spec(hyperparameters={"epochs": 4}))
    world.reach(job.ref, JobState.RUNNING)
    job.cancel()
    assert job.state is JobState.CANCELLED
    kept = job.checkpoints()
    assert kept
    assert job.model().id == kept[-1].uri


def test_deleting_removes_model_and_files_but_not_what_others_use(world: EmulatedWorld) -> None:
    client = client_of(world)
    backend = client.backend()
    one = client.submit(world.spec())
    with pytest.raises(InvalidRequest):
        backend.delete(one.ref)
    world.reach(one.ref, JobState.SUCCEEDED)
    two = client.submit(world.spec(hyperparameters={"epochs": 2}))
    model = one.model().id
    backend.delete(one.ref)
    assert len(world.uploads()) == 1  # the other job learns from it
    with pytest.raises(openai.NotFoundError):
        sdk(world).models.retrieve(model)
    world.reach(two.ref, JobState.SUCCEEDED)
    backend.delete(two.ref)
    backend.delete(two.ref)
    backend.delete(JobRef(one.ref.backend, one.ref.scope, "ftjob-none"))
    assert [file.id for file in sdk(world).files.list()] == []


def test_many_jobs_are_looked_at_in_few_requests(world: EmulatedWorld) -> None:
    client = client_of(world)
    refs = [
        client.submit(world.spec(hyperparameters={"epochs": 1 + n % 50, "batch_size": 1 + n // 50})).ref
        for n in range(12)
    ]
    backend = client.backend()
    before = world.calls()
    assert set(backend.get_many(refs)) == set(refs)  # type: ignore[attr-defined]
    assert world.calls() - before == 1


@pytest.mark.parametrize("lag", [0.0, 25.0])
def test_one_submit_with_an_ignored_filter_and_a_lagging_list(tmp_path: Path, lag: float) -> None:
    world = EmulatedWorld(tmp_path, list_lag_s=lag)
    try:
        world.emulator.faults.add("ignore_filter", "jobs.list")
        world.emulator.faults.add("lost_reply", "jobs.create")
        ref = client_of(world).submit(world.spec()).ref
        assert list(world.jobs()) == [ref.id]
    finally:
        world.close()


@pytest.mark.parametrize("kind", [EmulatedWorld, AzureWorld])
def test_a_machine_without_the_ledger_finds_the_job(tmp_path: Path, kind: type[EmulatedWorld]) -> None:
    world = kind(tmp_path)
    try:
        ref = client_of(world).submit(world.spec()).ref
        elsewhere = Client(world.backend(), ledger=f"sqlite:///{tmp_path}/elsewhere.db", clock=world.clock)
        assert elsewhere.submit(world.spec()).ref == ref
        assert (len(world.jobs()), len(world.uploads())) == (1, 1)
    finally:
        world.close()


def test_credentials_that_expire_on_the_way(world: EmulatedWorld) -> None:
    client = client_of(world)
    world.emulator.faults.add("expired_credentials", "jobs.create")
    with pytest.raises(CredentialsError, match="expired"):
        client.submit(world.spec())
    assert client.submit(world.spec()).ref.id == world.jobs()[0]


def test_an_address_that_is_no_api_is_told(world: EmulatedWorld) -> None:
    from cloudtune_providers.openai.backend import OpenAIBackend
    from cloudtune_providers.openai.options import OpenAIOptions

    backend = OpenAIBackend(OpenAIOptions(api_key=KEY, base_url=world.emulator.url))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        list(backend.list())


# -- Azure -----------------------------------------------------------------------------------------------------------


def carry_out(world: AzureWorld, plan: Plan) -> None:
    """As the executor does, without its ledger."""
    backend, outputs = world.backend(), {}
    for step in plan.steps:
        ready = msgspec.structs.replace(step, request=filled(step.request, outputs))
        if step.kind == "await":
            while (probe := backend.probe(ready)).state == "pending":
                world.clock.sleep(1.0)
            assert probe.state == "ready", probe.message
            outputs[step.id] = probe.outputs
        else:
            found = backend.find(ready, _intent(world))
            outputs[step.id] = found.outputs if isinstance(found, Done) else backend.do(ready, Notes())


def tuned(world: AzureWorld, **changes: Any) -> TunedModel:
    job = client_of(world).submit(world.spec(variant=1, **changes))
    world.reach(job.ref, JobState.SUCCEEDED)
    return job.result()


def test_a_model_answers_once_it_is_deployed_and_not_after(slow: AzureWorld) -> None:
    model, backend = tuned(slow), slow.backend()
    assert model.needs_deploy
    with pytest.raises(InvalidRequest, match="deploy"):
        backend.generate(model, ["What is 3 plus 1?"])  # type: ignore[attr-defined]
    plan = backend.plan_deploy(model)  # type: ignore[attr-defined]
    assert any("15 days" in warning.message for warning in plan.warnings)
    assert plan.cost.basis.startswith("1.7 USD per hour, even when idle")
    carry_out(slow, plan)
    (standing,) = [one for one in backend.deployments() if one.model == model.id]  # type: ignore[attr-defined]
    assert (standing.state, standing.native_state, standing.hourly_cost_usd) == ("ready", "Succeeded", 1.7)
    assert ("15 days" in standing.ends, standing.ends_at) == (True, None)
    (answer,) = backend.generate(model, ["What is 3 plus 1?"])  # type: ignore[attr-defined]
    assert answer.text == "4"
    carry_out(slow, backend.plan_remove(standing))  # type: ignore[attr-defined]
    carry_out(slow, backend.plan_remove(standing))  # type: ignore[attr-defined]
    assert [one.id for one in backend.deployments()] == ["the-base"]  # type: ignore[attr-defined]


def test_what_is_being_taken_down_is_waited_for_and_made_again(slow: AzureWorld) -> None:
    client = client_of(slow)
    model = tuned(slow)
    made = client.deploy(model)
    client.remove(made)
    client.remove(made)
    assert [seen["call"] for seen in slow.emulator.requests].count("deployments.delete") == 1
    assert client.deployments()[0].id == "the-base"
    before = slow.clock.monotonic()
    again = client.deploy(model)
    assert slow.clock.monotonic() - before > 0
    assert (again.id, again.state) == (made.id, "ready")
    assert {one.id for one in client.deployments()} == {made.id, "the-base"}
    kept = [one for one in slow.emulator.store.all("deployment", "azure") if one["id"] == made.id]
    assert [one["deleting"] for one in kept] == [None]


def test_options_of_a_deployment_are_checked_all_at_once(azure: AzureWorld) -> None:
    model, backend = tuned(azure), azure.backend()
    with pytest.raises(InputError) as refused:
        backend.plan_deploy(model, capacity="many", skew="x", name="?")  # type: ignore[attr-defined]
    assert {problem.field for problem in refused.value.problems} == {"capacity", "skew", "name"}
    elsewhere = msgspec.structs.replace(model, scope="other.openai.azure.com")
    with pytest.raises(InvalidRequest, match="belongs to other"):
        backend.plan_deploy(elsewhere)  # type: ignore[attr-defined]


def test_a_strangers_deployment_is_not_overwritten(azure: AzureWorld) -> None:
    model, backend = tuned(azure), azure.backend()
    plan = backend.plan_deploy(model, name="the-base")  # type: ignore[attr-defined]
    with pytest.raises(Conflict, match="the-base"):
        backend.do(plan.steps[0], Notes())
    held = azure.emulator.store.get("deployment", "azure", "the-base")
    assert held is not None
    assert held["model"]["name"] == MODEL


@pytest.mark.parametrize("fault", ["lost_reply", "server_error", "throttle"])
def test_a_deployment_whose_answer_was_lost_is_made_once(azure: AzureWorld, fault: str) -> None:
    model, backend = tuned(azure), azure.backend()
    (deploy, _) = backend.plan_deploy(model).steps  # type: ignore[attr-defined]
    azure.emulator.faults.add(fault, "deployments.create")
    with pytest.raises(TransientError):
        backend.do(deploy, Notes())
    puts = sum(seen["call"] == "deployments.create" for seen in azure.emulator.requests)
    assert puts == 1, "the SDK has sent it again by itself"
    assert isinstance(backend.find(deploy, _intent(azure)), Done) == (fault == "lost_reply")
    backend.do(deploy, Notes())
    assert len([one for one in backend.deployments() if one.model == model.id]) == 1  # type: ignore[attr-defined]


def test_a_checkpoint_can_be_deployed(azure: AzureWorld) -> None:
    azure.emulator.script = Script(running_s=100.0)
    job = client_of(azure).submit(azure.spec(variant=1, hyperparameters={"epochs": 3}))
    azure.reach(job.ref, JobState.SUCCEEDED)
    first = job.checkpoints()[0]
    assert first.uri is not None
    backend = azure.backend()
    model = msgspec.structs.replace(job.result(), id=first.uri)
    carry_out(azure, backend.plan_deploy(model, sku="DeveloperTier"))  # type: ignore[attr-defined]
    (standing,) = [one for one in backend.deployments() if one.model == first.uri]  # type: ignore[attr-defined]
    assert "24 hours" in standing.ends
    assert standing.created_at is not None
    assert standing.ends_at == standing.created_at + timedelta(hours=24)


def test_a_wrong_management_token_is_told_and_not_repeated(tmp_path: Path) -> None:
    world = AzureWorld(tmp_path, management_token="wrong-token-9d8c7b")
    try:
        with pytest.raises(CredentialsError) as refused:
            world.backend().deployments()  # type: ignore[attr-defined]
        assert "wrong-token" not in str(refused.value)
        assert TOKEN not in str(refused.value)
    finally:
        world.close()


def test_a_seed_of_the_users_is_sent_and_the_attempts_are_told_apart(azure: AzureWorld) -> None:
    client = client_of(azure)
    first = client.submit(azure.spec(seed=7))
    azure.reach(first.ref, JobState.RUNNING)
    azure.reach(first.ref, JobState.FAILED, message="reported by the vendor")
    azure.emulator.faults.add("lost_reply", "jobs.create")
    second = client.submit(azure.spec(seed=7), again=True)
    assert second.ref != first.ref
    assert list(azure.jobs()) == [first.ref.id, second.ref.id]
    assert {job["request"]["seed"] for job in azure.emulator.store.all("job", "azure")} == {7}


def test_a_seed_derived_from_the_token_finds_the_job_again(azure: AzureWorld) -> None:
    azure.emulator.faults.add("lost_reply", "jobs.create")
    ref = client_of(azure).submit(azure.spec()).ref
    assert list(azure.jobs()) == [ref.id]
    (body,) = [seen["body"] for seen in azure.emulator.requests if seen["call"] == "jobs.create" and seen["acted"]]
    assert set(body) == {"model", "training_file", "method", "suffix", "seed", "trainingType"}


def test_names_of_azure_jobs_come_from_their_files(azure: AzureWorld) -> None:
    client = client_of(azure)
    refs = [client.submit(azure.spec(n)).ref for n in range(3)]
    assert [job.name for job in azure.backend().list()] == ["small-2", "small-1", "small-0"]
    azure.emulator.store.remove("file", "azure", azure.uploads()[0])
    assert azure.backend().get(refs[0]).name == ""


def test_entra_tokens_open_the_data_plane(azure: AzureWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudtune_providers.azure_openai import signing
    from cloudtune_providers.azure_openai.backend import AzureOpenAIBackend
    from cloudtune_providers.azure_openai.options import AzureOpenAIOptions

    requested = []
    monkeypatch.setattr(signing, "_tokens", lambda _: lambda: requested.append(1) or TOKEN)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "a key that is not meant")
    for more in ({"api": "v1"}, {"api": "classic", "api_version": "2025-04-01-preview"}):
        given = {"endpoint": azure.emulator.url, "auth": "entra"} | more
        assert list(AzureOpenAIBackend(AzureOpenAIOptions.model_validate(given)).list()) == []
    assert len(requested) == 2
