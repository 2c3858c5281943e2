"""What the contract does not ask of every back end: Bedrock's deployments, answers, imports, lists, leftovers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_aws import BUCKET, NOVA, ROLE, BedrockWorld
from tests.contract.test_bedrock_storms import model_folder, standing

from cloudtune.client import Client
from cloudtune.errors import (
    Conflict,
    InputError,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    PolicyRefused,
    UnsupportedError,
)
from cloudtune.importing import Importing
from cloudtune.job import Job
from cloudtune.optional import GenerateOptions
from cloudtune.runner import Runner
from cloudtune.state import JobRef, JobState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.state import TunedModel

FEW = GenerateOptions(max_tokens=8)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BedrockWorld]:
    world = BedrockWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
def client(world: BedrockWorld) -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


def tuned(world: BedrockWorld, client: Client, variant: int = 0) -> Job:
    job = client.submit(world.spec(variant))
    world.reach(job.ref, JobState.SUCCEEDED)
    return job


def sent(world: BedrockWorld, name: str) -> list[dict[str, Any]]:
    return [seen["body"] for seen in world.emulator.requests if seen["call"] == f"bedrock.{name}"]


# -- deployments -------------------------------------------------------------------------------------------------------


def test_provisioned_throughput_only_for_who_agrees_to_its_price(world: BedrockWorld, client: Client) -> None:
    model = tuned(world, client).result()
    with pytest.raises(PolicyRefused, match=r"60\.5 USD per hour"):
        client.plan_deploy(model, kind="provisioned")
    with pytest.raises(PolicyRefused, match=r"60\.5 USD per hour|30\.25 USD per hour"):
        client.plan_deploy(model, kind="provisioned", commitment="SixMonths")
    assert standing(world) == []
    plan = client.plan_deploy(model, kind="provisioned", units=2, agree=True)
    assert plan.cost is not None
    assert "121 USD per hour, even when idle" in plan.cost.basis
    made = client.deploy(plan)
    assert (made.id.startswith("provisioned/"), made.state, made.hourly_cost_usd) == (True, "ready", 121.0)
    assert made.created_at is not None
    assert made.id == plan.name  # by which the ledger finds its time to live
    answers = list(client.backend("bedrock").generate(model, ["hello"], FEW))  # type: ignore[attr-defined]
    assert ":provisioned-model/" in answers[0].model
    client.remove(made)
    assert client.deployments(backend="bedrock") == []


def test_what_stands_is_listed_with_its_price_and_its_age(world: BedrockWorld, client: Client) -> None:
    model = tuned(world, client).result()
    client.deploy(model)
    client.deploy(model, kind="provisioned", agree=True)
    listed = client.deployments(backend="bedrock")
    assert [one.hourly_cost_usd for one in listed] == [0.0, 60.5]
    assert all(one.created_at is not None and one.model == model.id for one in listed)


def test_a_deployment_is_pointed_at_another_model(world: BedrockWorld, client: Client) -> None:
    first, second = (tuned(world, client, variant).result() for variant in (0, 1))
    made = client.deploy(first, name="mine")
    with pytest.raises(Conflict, match="mine"):
        client.deploy(second, name="mine")
    with pytest.raises(InputError, match="name the deployment"):
        client.plan_deploy(second, update=True)
    again = client.deploy(second, name="mine", update=True)
    assert (again.id, again.model) == (made.id, second.id)
    assert again.raw["customModelDeploymentArn"] == made.raw["customModelDeploymentArn"]
    assert len(sent(world, "UpdateCustomModelDeployment")) == 1
    assert client.deploy(second, name="mine", update=True).model == second.id
    assert len(sent(world, "UpdateCustomModelDeployment")) == 1
    assert client.deploy(first, name="mine", update=True).model == first.id


def test_a_base_that_answers_only_from_provisioned_throughput(world: BedrockWorld, client: Client) -> None:
    import msgspec

    model = tuned(world, client).result()
    llama = msgspec.structs.replace(model, base="meta.llama3-1-8b-instruct-v1:0:128k")
    with pytest.raises(UnsupportedError, match="kind=provisioned"):
        client.plan_deploy(llama)


def test_options_that_nobody_knows_are_refused(world: BedrockWorld, client: Client) -> None:
    model = tuned(world, client).result()
    with pytest.raises(InputError) as refused:
        client.plan_deploy(model, kind="serverless", unit=3)
    assert {problem.field for problem in refused.value.problems} == {"kind", "unit"}


# -- answers -----------------------------------------------------------------------------------------------------------


def test_answers_in_one_piece_and_in_many(world: BedrockWorld, client: Client) -> None:
    job = tuned(world, client)
    job.deploy()
    prompts: list[Any] = [
        "hello",
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "and you?"}],
    ]
    whole = list(job.generate(prompts, FEW))
    streamed = list(job.generate(prompts, GenerateOptions(max_tokens=8, stream=True)))
    pieces = [one for one in streamed if one.partial]
    assert [one.text for one in streamed if not one.partial] == [one.text for one in whole]
    assert "".join(one.text for one in pieces) == "".join(one.text for one in whole)
    assert all(one.finish_reason and one.prompt_tokens and one.completion_tokens for one in whole)
    requested = sent(world, "Converse")[-1]
    assert requested["system"] == [{"text": "Be brief."}]
    assert requested["messages"] == [{"role": "user", "content": [{"text": "and you?"}]}]


def test_the_deployments_arn_is_what_is_asked_and_the_base_by_its_own_id(world: BedrockWorld, client: Client) -> None:
    job = tuned(world, client)
    with pytest.raises(InvalidRequest, match="deployed"):
        list(job.generate(["hello"], FEW))
    made = job.deploy()
    (reported,) = job.generate(["hello"], FEW)
    assert reported.model == made.raw["customModelDeploymentArn"]
    (base,) = job.generate(["hello"], GenerateOptions(max_tokens=8, base=True))
    assert base.model == NOVA.rpartition(":")[0]


def test_nova_is_asked_by_invoke_in_its_own_form(tmp_path: Path) -> None:
    world = BedrockWorld(tmp_path, answers="invoke")
    try:
        client = Client(world.backend(), ledger=f"sqlite:///{tmp_path}/ledger.db", clock=world.clock)
        job = tuned(world, client)
        job.deploy()
        (reported,) = job.generate(["hello"], FEW)
        assert reported.text
        assert sent(world, "Converse") == []
    finally:
        world.close()


# -- imports -----------------------------------------------------------------------------------------------------------


def bring(client: Client, folder: Path, **more: Any) -> JobRef:
    importing = Importing(Runner(client.backend("bedrock"), client.ledger, client.clock))
    return importing.submit(importing.plan(folder, **more))


def test_an_import_is_a_job_from_its_files_to_nothing(world: BedrockWorld, client: Client) -> None:
    folder = model_folder(world.root, 1)
    ref = bring(client, folder, name="mine")
    assert ref.id.startswith("import/mine-")
    job = Job(client, ref)
    assert job.state is JobState.RUNNING
    assert bring(client, folder, name="mine") == ref
    assert [one.ref for one in client.jobs(remote=True)] == [ref]
    assert list(job.metrics()) == []
    with pytest.raises(UnsupportedError, match="cannot stop an import"):
        job.cancel()
    world.clock.sleep(1_000_000.0)
    model: TunedModel = job.wait(timeout=10)
    assert (model.needs_deploy, ":imported-model/" in model.id) == (False, True)
    with pytest.raises(UnsupportedError, match="requires no deployment"):
        client.plan_deploy(model)
    client.backend("bedrock").cancel(ref)
    client.backend("bedrock").delete(ref)
    client.backend("bedrock").delete(ref)
    assert world.held() == []
    assert world.emulator.store.all("imported_model", "bedrock") == []


def test_an_import_uploads_no_link_that_leaves_the_folder(world: BedrockWorld, client: Client) -> None:
    folder = model_folder(world.root, 1)
    (world.root / "secret").write_text("a key")
    (folder / "notes.txt").symlink_to(world.root / "secret")
    with pytest.raises(InputError, match=r"notes.txt: .*a link to .*secret, outside the folder"):
        bring(client, folder, name="mine")
    assert world.held() == []


def test_an_import_that_fails_says_why_and_may_be_made_again(world: BedrockWorld, client: Client) -> None:
    import msgspec

    script = world.emulator.script
    world.emulator.script = msgspec.structs.replace(script, fail_at=0.5, error_message="the weights are torn")
    folder = model_folder(world.root, 1)
    ref = bring(client, folder)
    world.clock.sleep(1_000_000.0)
    with pytest.raises(JobFailed, match="the weights are torn"):
        Job(client, ref).wait(timeout=10)
    world.emulator.script = script
    assert bring(client, folder) == ref
    second = bring(client, folder, again=True)
    assert second != ref
    assert bring(client, folder, again=True) == second


def test_what_would_be_refused_is_told_before_anything_is_sent(world: BedrockWorld, client: Client) -> None:
    folder = model_folder(world.root, 1)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (folder / "tokenizer.json").unlink()
    calls = world.calls()
    with pytest.raises(InputError) as refused:
        bring(client, folder)
    assert [problem.code for problem in refused.value.problems] == ["architecture", "no_tokenizer"]
    assert world.calls() == calls


def test_clearing_one_import_leaves_the_files_of_another_that_goes_on(world: BedrockWorld, client: Client) -> None:
    folder = model_folder(world.root, 1)
    first = bring(client, folder, name="one")
    world.clock.sleep(1_000_000.0)
    second = bring(client, folder, name="two")
    client.backend("bedrock").delete(first)
    assert world.held()
    world.clock.sleep(1_000_000.0)
    client.backend("bedrock").delete(second)
    assert world.held() == []


# -- lists and what is left --------------------------------------------------------------------------------------------


def test_the_state_of_a_thousand_jobs_takes_few_calls(world: BedrockWorld, client: Client) -> None:
    first = client.submit(world.spec()).ref
    job = world.job(first)
    for number in range(999):
        other = json.loads(json.dumps(job)) | {"id": f"{number:012}", "name": f"job-{number}"}
        other["arn"] = f"{job['arn'].rpartition('/')[0]}/{number:012}"
        world.emulator.store.add("job", "bedrock", other)
    refs = [JobRef(first.backend, first.scope, name) for name in world.jobs()]
    before = world.calls()
    found = world.backend().get_many(refs)  # type: ignore[attr-defined]
    assert len(found) == 1000
    assert world.calls() - before <= 2


def test_jobs_and_imports_are_listed_together_newest_first(world: BedrockWorld, client: Client) -> None:
    refs = [client.submit(world.spec(0)).ref]
    world.clock.sleep(5.0)
    refs.append(bring(client, model_folder(world.root, 1)))
    world.clock.sleep(5.0)
    refs.append(client.submit(world.spec(1)).ref)
    backend = world.backend()
    assert [job.ref for job in backend.list()] == refs[::-1]
    assert [job.ref for job in backend.list(limit=2)] == refs[:0:-1]
    assert set(backend.get_many(refs)) == set(refs)  # type: ignore[attr-defined]


def test_tear_down_in_the_right_order_leaves_nothing(world: BedrockWorld, client: Client) -> None:
    job = tuned(world, client)
    made = job.deploy()
    backend = client.backend("bedrock")
    with pytest.raises(Conflict, match="undeploy"):
        backend.delete(job.ref)
    client.remove(made)
    backend.delete(job.ref)
    assert (world.held(), world.begun(), standing(world)) == ([], 0, [])
    assert world.emulator.store.all("custom_model", "bedrock") == []
    assert backend.get(job.ref).state is JobState.SUCCEEDED


def test_rows_that_another_job_reads_are_left(world: BedrockWorld, client: Client) -> None:
    spec = world.spec()
    job = client.submit(spec)
    world.reach(job.ref, JobState.SUCCEEDED)
    other = client.submit(spec.model_copy(update={"name": "other"}))
    client.backend("bedrock").delete(job.ref)
    assert [key for key, _ in world.held()] == [
        other.snapshot().raw["trainingDataConfig"]["s3Uri"].partition(f"{BUCKET}/")[2]
    ]
    world.reach(other.ref, JobState.SUCCEEDED)
    client.backend("bedrock").delete(other.ref)
    assert world.held() == []


def test_a_strangers_job_under_our_name_is_a_conflict(world: BedrockWorld, client: Client) -> None:
    plan = client.plan(world.spec())
    body = dict(plan.steps[-1].request["body"]) | {"clientRequestToken": "somebody-else"}
    backend = world.backend()
    uri = f"s3://{BUCKET}/rows.jsonl"
    backend._objects({"bucket": BUCKET}).write("rows.jsonl", b'{"messages":[]}\n')  # type: ignore[attr-defined]
    bedrock = backend._clients.client("bedrock")  # type: ignore[attr-defined]
    bedrock.create_model_customization_job(**body | {"trainingDataConfig": {"s3Uri": uri}})
    with pytest.raises(Conflict, match="did not create it"):
        client.submit(plan)
    assert len(world.jobs()) == 1


def test_a_job_that_somebody_else_made_is_followed_and_stopped(world: BedrockWorld, client: Client) -> None:
    body = dict(client.plan(world.spec()).steps[-1].request["body"])
    backend = world.backend()
    backend._objects({"bucket": BUCKET}).write("rows.jsonl", b'{"messages":[]}\n' * 20)  # type: ignore[attr-defined]
    names = {"jobName": "from-the-console", "customModelName": "theirs", "clientRequestToken": "theirs"}
    given = body | names | {"trainingDataConfig": {"s3Uri": f"s3://{BUCKET}/rows.jsonl"}, "roleArn": ROLE}
    backend._clients.client("bedrock").create_model_customization_job(**given)  # type: ignore[attr-defined]
    (seen,) = client.jobs(remote=True)
    job = client.attach(seen.ref)
    job.cancel()
    world.settle(job.ref)
    assert job.state is JobState.CANCELLED


def test_who_may_not_read_the_bucket_may_follow_the_job(
    world: BedrockWorld, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    job = tuned(world, client)
    world.emulator.faults.add("forbidden", "s3.ListObjectsV2", times=10)
    assert job.wait(timeout=10).needs_deploy
    assert f"cannot read the metrics of {job.ref.id}" in caplog.text
    world.heal()
    assert list(job.metrics())


def test_another_accounts_job_is_not_cleared(world: BedrockWorld, client: Client) -> None:
    job = tuned(world, client)
    held = world.held()
    with pytest.raises(JobNotFound, match="belongs to"):
        client.attach(JobRef(job.ref.backend, "999999999999/us-east-1", job.ref.id)).clear()
    assert world.held() == held
    job.clear()
    assert world.held() == []
