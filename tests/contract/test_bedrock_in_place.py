"""Models that lie in AWS already: handed to Bedrock by their address, with nothing fetched and nothing uploaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.contract.emulated_aws import BUCKET, REGION, ROLE, BedrockWorld, connected
from tests.contract.sagemaker_world import open_sagemaker
from tests.contract.test_bedrock_storms import model_folder

from cloudtune.client import Client
from cloudtune.errors import (
    Conflict,
    InputError,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    UnsupportedError,
)
from cloudtune.importing import Importing
from cloudtune.job import Job
from cloudtune.optional import Elsewhere, GenerateOptions, InPlace
from cloudtune.runner import Runner
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef, JobState, TunedModel
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.plan import Plan

NOVA = "nova-textgeneration-lite-v2"
QWEN = "huggingface-reasoning-qwen3-8b"
LONG = 1_000_000.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BedrockWorld]:
    world = BedrockWorld(tmp_path)
    world.emulator.script = Script(running_s=1000.0)
    yield world
    world.close()


@pytest.fixture
def client(world: BedrockWorld) -> Client:
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


@pytest.fixture
def importing(client: Client) -> Importing:
    return Importing(Runner(client.backend("bedrock"), client.ledger, client.clock))


def aws(world: BedrockWorld, service: str) -> Any:
    return connected(world.emulator.url, REGION).client(service)


def put(world: BedrockWorld, folder: Path, below: str) -> str:
    """A folder's files under a prefix, as another tool left them there."""
    for path in sorted(folder.iterdir()):
        aws(world, "s3").put_object(Bucket=BUCKET, Key=f"{below}{path.name}", Body=path.read_bytes())
    return f"s3://{BUCKET}/{below}"


def called(world: BedrockWorld, name: str) -> list[dict[str, Any]]:
    return [seen for seen in world.emulator.requests if seen["call"] == name]


def codes(plan: Plan) -> list[str]:
    return [problem.code for problem in plan.warnings]


# -- open weights, under a prefix --------------------------------------------------------------------------------------


def test_files_in_s3_are_imported_from_where_they_lie(
    world: BedrockWorld, client: Client, importing: Importing
) -> None:
    address = put(world, model_folder(world.root, 1), "elsewhere/weights/")
    held, calls = world.held(), len(world.emulator.requests)
    plan = importing.plan(address)
    (step,) = plan.steps
    assert step.request["body"]["modelDataSource"] == {"s3DataSource": {"s3Uri": address}}
    assert codes(plan) == ["in_place", "role_reads"]
    ref = importing.submit(plan)
    assert importing.submit(importing.plan(address)) == ref
    requested = [seen["call"] for seen in world.emulator.requests[calls:]]
    assert requested.count("bedrock.CreateModelImportJob") == 1
    assert not {"s3.PutObject", "s3.CreateMultipartUpload"} & set(requested)
    world.clock.sleep(LONG)
    model = Job(client, ref).wait(timeout=10)
    assert ":imported-model/" in model.id
    client.backend("bedrock").delete(ref)
    assert world.held() == held, "the files are not the import's to remove"
    assert world.emulator.store.all("imported_model", "bedrock") == []


def test_of_the_weights_only_their_heads_are_read(world: BedrockWorld, importing: Importing) -> None:
    from tests.contract.test_bedrock_kills import large_model

    address = put(world, large_model(world.root, 3 << 20), "big/")
    read: list[int] = []
    events = importing._runner.backend._clients.client("s3").meta.events  # type: ignore[attr-defined]
    events.register("after-call.s3.GetObject", lambda parsed, **_: read.append(parsed["ContentLength"]))
    importing.plan(address)
    assert read
    assert sum(read) < 200_000


def test_what_was_looked_at_is_planned_without_another_look(world: BedrockWorld, importing: Importing) -> None:
    found = importing.locate(put(world, model_folder(world.root, 1), "weights/"))
    assert isinstance(found, InPlace)
    first = importing.plan(found)  # which asks whose account it is
    requested = len(world.emulator.requests)
    assert importing.plan(found) == first
    assert len(world.emulator.requests) == requested
    folder = world.root / "model-1"
    assert importing.plan(str(folder)) == importing.plan(folder)


def test_what_changed_there_is_another_import(world: BedrockWorld, importing: Importing) -> None:
    address = put(world, model_folder(world.root, 1), "weights/")
    first = importing.plan(address)
    assert importing.plan(address).token == first.token
    put(world, model_folder(world.root, 2), "weights/")
    assert importing.plan(address).token != first.token
    assert importing.plan(address, name="other").token != importing.plan(address).token


def test_the_same_checks_as_of_a_folder_and_all_at_once(world: BedrockWorld, importing: Importing) -> None:
    folder = model_folder(world.root, 1)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "quantization_config": {"bits": 4}}))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1])
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError) as there:
        importing.plan(put(world, folder, "weights/"))
    with pytest.raises(InputError) as here:
        importing.plan(folder)
    found = [(problem.code, problem.message) for problem in there.value.problems]
    assert found == [(problem.code, problem.message) for problem in here.value.problems]
    assert [code for code, _ in found] == ["architecture", "quantized", "torn", "no_tokenizer"]
    assert all(str(problem.file).startswith(f"s3://{BUCKET}/weights/") for problem in there.value.problems)


def test_weights_that_a_trainer_merged_further_down_are_found(world: BedrockWorld, importing: Importing) -> None:
    put(world, model_folder(world.root, 1), "job/model/checkpoints/hf_merged/")
    aws(world, "s3").put_object(Bucket=BUCKET, Key="job/model/checkpoints/hf/adapter_config.json", Body=b"{}")
    plan = importing.plan(f"s3://{BUCKET}/job/model")
    source = plan.steps[0].request["body"]["modelDataSource"]["s3DataSource"]["s3Uri"]
    assert source == f"s3://{BUCKET}/job/model/checkpoints/hf_merged/"


@pytest.mark.parametrize("address", ["file:///etc", "https://a.com/model", "s3://", "arn:aws:s3:::bucket", "s3://UP/x"])
def test_addresses_that_are_none(importing: Importing, address: str) -> None:
    with pytest.raises(InputError, match="cannot import from this address") as refused:
        importing.plan(address)
    assert refused.value.problems[0].fix


def test_what_cannot_be_taken_from_where_it_lies(world: BedrockWorld, importing: Importing) -> None:
    s3 = aws(world, "s3")
    s3.put_object(Bucket=BUCKET, Key="adapter/adapter_config.json", Body=b"{}")
    other = connected(world.emulator.url, "eu-west-1").client("s3")
    other.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    other.put_object(Bucket="far-away", Key="m/config.json", Body=b"{}")
    for address, reason in (
        (f"s3://{BUCKET}/out/model.tar.gz", "an archive"), (f"s3://{BUCKET}/adapter/", "an adapter"),
        ("s3://far-away/m/", "is in eu-west-1, but the settings select us-east-1"),
        (f"arn:aws:sagemaker:{REGION}:999999999999:model-package/g/1", "999999999999"),
    ):  # fmt: skip
        assert isinstance(importing.locate(address), Elsewhere)
        with pytest.raises(InputError, match=reason) as refused:
            importing.plan(address)
        assert [problem.code for problem in refused.value.problems] == ["not_in_place"]
        assert refused.value.problems[0].fix
    with pytest.raises(InputError, match="no files there"):
        importing.plan(f"s3://{BUCKET}/nowhere/")


def test_a_config_that_would_be_misread_there_is_not_left_as_it_is(world: BedrockWorld, importing: Importing) -> None:
    folder = model_folder(world.root, 1)
    config = json.loads((folder / "config.json").read_text())
    usual = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    (folder / "config.json").write_text(json.dumps(config | usual))
    assert isinstance(importing.locate(put(world, folder, "usual/")), InPlace)
    far = {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
    (folder / "config.json").write_text(json.dumps(config | far))
    found = importing.locate(put(world, folder, "far/"))
    assert isinstance(found, Elsewhere)
    assert "rope_theta" in found.reason


def test_a_back_end_without_such_a_call_wants_a_folder(world: BedrockWorld, client: Client) -> None:
    class FoldersOnly:
        name = "folders"

        def check_import(self, folder: Path) -> None: ...
        def resolve_import(self) -> None: ...
        def plan_import(self, request: Any) -> None: ...

    found = Importing(Runner(FoldersOnly(), client.ledger, client.clock)).locate("s3://bucket/key/")  # type: ignore[arg-type]
    assert isinstance(found, Elsewhere)
    assert "folders only" in found.reason


# -- what SageMaker's jobs left ----------------------------------------------------------------------------------------


def trained(world: BedrockWorld, model: str, *, adapter: str = "lora") -> Job:
    """A serverless job of SageMaker's that has ended, in the same account."""
    hands = str(world.root / "clock")
    backend, _ = open_sagemaker(world.emulator.url, hands, str(world.root / "home"), compute="serverless")
    client = Client(backend, ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)
    rows = world.rows("rows", [{"prompt": f"{n}?", "completion": f"{n}"} for n in range(12)])
    document = {"name": "small", "model": model, "adapter": adapter, "data": {"train": rows}}
    job = client.submit(JobSpec.model_validate(document))
    world.clock.sleep(LONG)
    assert job.state is JobState.SUCCEEDED
    return job


def package_of(job: Job) -> str:
    return str(job.model().raw["package"])


def registered(importing: Importing, job: Job, **more: Any) -> JobRef:
    found = importing.locate(job.model())
    assert isinstance(found, InPlace)
    return importing.submit(importing.plan(found, **more))


def models(world: BedrockWorld) -> list[str]:
    return [one["name"] for one in world.emulator.store.all("custom_model", "bedrock")]


def test_novas_package_becomes_a_custom_model(world: BedrockWorld, client: Client, importing: Importing) -> None:
    job = trained(world, NOVA)
    found = importing.locate(job.model())
    assert isinstance(found, InPlace)
    plan = importing.plan(found, name="mine")
    (step,) = plan.steps
    assert step.request["call"] == "bedrock.create_custom_model"
    assert codes(plan) == ["in_place", "role_reads"]
    assert plan.warnings[1].file == "arn:aws:s3:::customer-escrow-123456789012-*"
    assert "stay with AWS" in plan.warnings[0].message
    assert plan.cost is not None
    assert "1.95 USD per model and month, deployed or not" in plan.cost.basis
    ref = importing.submit(plan)
    assert ref.id.startswith("registration/mine-")
    (sent,) = called(world, "bedrock.CreateCustomModel")
    assert sent["body"] == step.request["body"]
    source = sent["body"]["customModelDataSource"]["modelPackageArnDataSource"]
    assert source == {"modelPackageArn": package_of(job)}
    followed = Job(client, ref)
    assert (followed.state, followed.snapshot().native_state) == (JobState.RUNNING, "Creating")
    assert importing.submit(importing.plan(found, name="mine")) == ref
    with pytest.raises(UnsupportedError, match="Bedrock cannot stop"):
        followed.cancel()
    with pytest.raises(InvalidRequest, match="wait"):
        client.backend("bedrock").delete(ref)
    with pytest.raises(InvalidRequest, match="Creating"):
        followed.model()
    world.clock.sleep(LONG)
    model = followed.wait(timeout=10)
    assert (model.base, model.adapter, model.needs_deploy) == ("amazon.nova-2-lite-v1:0", "lora", True)
    assert list(followed.metrics()) == []
    followed.cancel()
    assert len(called(world, "bedrock.CreateCustomModel")) == 1


def test_a_registered_model_is_deployed_asked_and_taken_down_in_order(
    world: BedrockWorld, client: Client, importing: Importing
) -> None:
    ref = registered(importing, trained(world, NOVA))
    world.clock.sleep(LONG)
    job = Job(client, ref)
    plan = client.plan_deploy(job.model())
    assert codes(plan) == ["perhaps_no_on_demand"]
    made = client.deploy(plan)
    (answer,) = job.generate(["hello"], GenerateOptions(max_tokens=8))
    assert answer.text
    (base,) = job.generate(["hello"], GenerateOptions(max_tokens=8, base=True))
    assert base.model == "amazon.nova-2-lite-v1:0"
    (standing,) = client.deployments(backend="bedrock")
    assert (standing.id, standing.model) == (made.id, job.model().id)
    with pytest.raises(Conflict, match="undeploy"):
        job.delete()
    client.remove(made)
    job.delete()
    job.delete()
    assert models(world) == []
    with pytest.raises(JobNotFound):
        job.snapshot()


def test_full_weights_answer_from_provisioned_throughput_only(
    world: BedrockWorld, client: Client, importing: Importing
) -> None:
    ref = registered(importing, trained(world, NOVA, adapter="full"))
    world.clock.sleep(LONG)
    model = Job(client, ref).model()
    assert model.adapter == "full"
    with pytest.raises(UnsupportedError, match="full weights") as refused:
        client.plan_deploy(model)
    assert "provisioned" in str(refused.value.problems[0].fix)
    plan = client.plan_deploy(model, kind="provisioned", agree=True)
    assert plan.cost is not None
    assert "60.5 USD per hour" in plan.cost.basis
    made = client.deploy(plan)
    assert client.backend("bedrock").generate(model, ["hello"])  # type: ignore[attr-defined]
    client.remove(made)


def test_after_it_was_removed_the_same_command_registers_it_again(
    world: BedrockWorld, client: Client, importing: Importing
) -> None:
    job = trained(world, NOVA)
    first = registered(importing, job)
    world.clock.sleep(LONG)
    Job(client, first).delete()
    second = registered(importing, job)
    assert second != first
    assert models(world) == [second.id.removeprefix("registration/")]


def test_a_registration_that_fails_says_why(world: BedrockWorld, client: Client, importing: Importing) -> None:
    job = trained(world, NOVA)
    script = world.emulator.script
    world.emulator.script = msgspec.structs.replace(script, fail_at=0.5, error_message="the weights are torn")
    ref = registered(importing, job)
    world.clock.sleep(LONG)
    with pytest.raises(JobFailed, match="the weights are torn"):
        Job(client, ref).wait(timeout=10)
    world.emulator.script = script
    assert registered(importing, job) == ref
    assert registered(importing, job, again=True) != ref
    Job(client, ref).delete()
    assert len(models(world)) == 1


def test_a_package_by_its_arn_and_weights_in_the_bucket_of_awss_own(world: BedrockWorld, importing: Importing) -> None:
    job = trained(world, NOVA)
    (step,) = importing.plan(package_of(job), name="by-arn").steps
    assert step.request["body"]["customModelDataSource"]["modelPackageArnDataSource"]["modelPackageArn"]
    note = f"cloudtune/jobs/{job.ref.id}/output/output/manifest.json"
    address = json.loads(aws(world, "s3").get_object(Bucket=BUCKET, Key=note)["Body"].read())["checkpoint_s3_bucket"]
    plan = importing.plan(address, name="by-address")
    assert plan.steps[0].request["body"]["modelSourceConfig"] == {"s3DataSource": {"s3Uri": address}}
    importing.submit(plan)
    assert models(world) == [plan.steps[0].request["body"]["modelName"]]
    with pytest.raises(InputError, match="no such model package"):
        importing.plan(f"arn:aws:sagemaker:{REGION}:123456789012:model-package/none/1")


def test_open_weights_of_a_package_are_imported_and_an_adapter_is_not(
    world: BedrockWorld, client: Client, importing: Importing
) -> None:
    job = trained(world, QWEN)
    model = job.model()
    below = str(model.uri).removeprefix(f"s3://{BUCKET}/").rstrip("/") + "/"
    put(world, model_folder(world.root, 3), f"{below}checkpoints/hf_merged/")
    found = importing.locate(model)
    assert isinstance(found, InPlace)
    plan = importing.plan(found)
    assert codes(plan) == ["in_place"], "the role's own documents let it read there"
    assert plan.steps[0].request["call"] == "bedrock.create_model_import_job"
    assert found.at == f"s3://{BUCKET}/{below}checkpoints/hf_merged/"
    by_arn = importing.plan(package_of(job)).steps[0].request["body"]
    assert by_arn["modelDataSource"]["s3DataSource"]["s3Uri"] == found.at
    importing.submit(plan)
    s3 = aws(world, "s3")
    for key, _ in world.held():
        if key.startswith(below):
            s3.delete_object(Bucket=BUCKET, Key=key)
    s3.put_object(Bucket=BUCKET, Key=f"{below}adapter_config.json", Body=b"{}")
    assert isinstance(importing.locate(model), Elsewhere)


def test_what_another_account_or_an_archive_holds_is_brought_here(importing: Importing) -> None:
    scope = importing._runner.backend.resolve_import().scope  # type: ignore[attr-defined]
    there = TunedModel(id="j", base="b", backend="sagemaker", scope="999999999999/us-east-1", uri="s3://b/k/")
    packed = msgspec.structs.replace(there, scope=scope, uri="s3://bucket/out/model.tar.gz")
    here = msgspec.structs.replace(there, scope=scope, uri="file:///home/me/model")
    reasons = []
    for model in (there, packed, here):
        found = importing.locate(model)
        assert isinstance(found, Elsewhere)
        reasons.append(found.reason)
    assert all(word in reported for word, reported in zip(("999999999999", "archive", "S3 only"), reasons, strict=True))


# -- names, states, lists ----------------------------------------------------------------------------------------------


def test_the_states_are_the_sdks_own_and_an_unseen_word_is_kept(
    world: BedrockWorld, client: Client, importing: Importing
) -> None:
    from botocore.session import get_session

    from cloudtune_providers.bedrock.responses import REGISTRATION_STATES

    assert set(get_session().get_service_model("bedrock").shape_for("ModelStatus").enum) == set(REGISTRATION_STATES)
    ref = registered(importing, trained(world, NOVA))
    world.emulator.faults.add("invented_status", "bedrock.GetCustomModel", value="Pondering")
    snapshot = client.backend("bedrock").get(ref)
    assert (snapshot.state, snapshot.native_state) == (JobState.UNKNOWN, "Pondering")


def test_a_strangers_model_of_that_name_is_a_conflict(world: BedrockWorld, importing: Importing) -> None:
    found = importing.locate(trained(world, NOVA).model())
    assert isinstance(found, InPlace)
    plan = importing.plan(found)
    body = dict(plan.steps[0].request["body"]) | {"clientRequestToken": "theirs", "modelTags": []}
    aws(world, "bedrock").create_custom_model(**body | {"modelTags": [{"key": "cloudtune:token", "value": "theirs"}]})
    with pytest.raises(Conflict, match="did not create it"):
        importing.submit(plan)
    assert len(models(world)) == 1


def test_registrations_are_listed_beside_jobs_and_told_apart_from_their_models(
    world: BedrockWorld, client: Client, importing: Importing
) -> None:
    tuned = client.submit(world.spec()).ref
    world.reach(tuned, JobState.SUCCEEDED)
    ref = registered(importing, trained(world, NOVA))
    backend = client.backend("bedrock")
    assert [job.ref for job in backend.list()] == [ref, tuned]
    found = backend.get_many([ref, tuned])  # type: ignore[attr-defined]
    assert {one: job.state for one, job in found.items()} == {ref: JobState.RUNNING, tuned: JobState.SUCCEEDED}
    (custom,) = [one for one in world.emulator.store.all("custom_model", "bedrock") if one["job"]]
    with pytest.raises(JobNotFound, match="not by a registration"):
        backend.get(JobRef(ref.backend, ref.scope, f"registration/{custom['name']}"))
    with pytest.raises(JobNotFound):
        backend.get(JobRef(ref.backend, ref.scope, "registration/none"))


def test_whoever_may_not_read_tags_still_finds_what_was_made(world: BedrockWorld, importing: Importing) -> None:
    job = trained(world, NOVA)
    world.emulator.faults.add("lost_reply", "bedrock.CreateCustomModel")
    world.emulator.faults.add("forbidden", "bedrock.ListTagsForResource", times=10)
    ref = registered(importing, job)
    assert models(world) == [ref.id.removeprefix("registration/")]


def test_settings_that_a_registration_lacks(tmp_path: Path) -> None:
    world = BedrockWorld(tmp_path, kms_key="alias/mine", role_arn=None)
    try:
        client = Client(world.backend(), ledger=f"sqlite:///{tmp_path}/l.db", clock=world.clock)
        importing = Importing(Runner(client.backend("bedrock"), client.ledger, client.clock))
        with pytest.raises(UnsupportedError) as refused:
            importing.plan("s3://customer-escrow-123456789012-smtj-1/x/")
        assert {str(one.field).rpartition(".")[2] for one in refused.value.problems} == {"role_arn", "kms_key"}
        assert ROLE not in str(refused.value)
    finally:
        world.close()
