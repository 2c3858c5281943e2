"""What the contract does not ask of the SageMaker back end: models in S3, what is left behind, limits, endpoints."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.emulated_aws import BUCKET, REGION
from tests.contract.sagemaker_world import SageMakerWorld, ServerlessWorld

from cloudtune.client import Client
from cloudtune.errors import BackendError, InputError, InvalidRequest, SpecError, TransientError, UnsupportedError
from cloudtune.optional import GenerateOptions
from cloudtune.state import JobState
from cloudtune_emulator.aws import buckets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SageMakerWorld]:
    world = SageMakerWorld(tmp_path, tmp_path / "untrained")
    yield world
    world.close()


@pytest.fixture
def customised(tmp_path: Path) -> Iterator[ServerlessWorld]:
    world = ServerlessWorld(tmp_path)
    yield world
    world.close()


def client_of(world: SageMakerWorld | ServerlessWorld, **options: Any) -> Client:
    world.options |= options
    return Client(world.backend(), ledger=f"sqlite:///{world.root}/ledger.db", clock=world.clock)


def put(world: SageMakerWorld, key: str, content: bytes) -> None:
    buckets.put(world.emulator.context, buckets.Place(BUCKET, key), content)


def channels(world: SageMakerWorld, name: str) -> dict[str, str]:
    given = world.emulator.store.get(world.kind, world.api, name)
    assert given is not None
    return {c["ChannelName"]: c["DataSource"]["S3DataSource"]["S3Uri"] for c in given["request"]["InputDataConfig"]}


def test_a_model_in_s3_is_used_where_it_lies(world: SageMakerWorld) -> None:
    prefix = f"s3://{BUCKET}/models/llama"
    with pytest.raises(SpecError, match="has no model"):
        client_of(world).plan(world.spec(model=prefix))
    put(world, "models/llama/config.json", b'{"max_position_embeddings": 256, "vocab_size": 9}')
    put(world, "models/llama/model.safetensors", b"weights")
    client = client_of(world)
    plan = client.plan(world.spec(model=prefix))
    assert plan.resolved.facts["model"]["context_length"] == 256
    job = client.submit(plan)
    assert channels(world, job.ref.id)["model"] == f"{prefix}/"
    put(world, "models/llama/model.safetensors", b"other weights")
    assert client.plan(world.spec(model=prefix)).key != plan.key, "another model is another job"


def test_what_a_job_leaves_is_removed_with_it(world: SageMakerWorld) -> None:
    """Rows that another job still reads stay until that is gone too; so does the uploaded base model."""
    client = client_of(world)
    rows = world.rows("rows", [{"prompt": f"{n}?", "completion": f"{n}"} for n in range(12)])
    jobs = [client.submit(world.spec(name=name, data={"train": rows})) for name in ("one", "two")]
    marker = {"step": 3, "epoch": 1.0, "best": False, "metrics": {}, "progress": {}, "files": {}}
    for job in jobs:
        put(world, f"cloudtune/checkpoints/{job.ref.id}/step-00000003/checkpoint.json", json.dumps(marker).encode())
        world.training(job.ref)
    with pytest.raises(InvalidRequest, match="cancel it first"):
        jobs[0].delete()
    world.emulator.clock.advance(300_000)
    assert [checkpoint.step for checkpoint in jobs[0].checkpoints()] == [3]
    jobs[0].delete()
    left = [key for key, _ in world.held()]
    assert not [key for key in left if jobs[0].ref.id in key]
    assert len([key for key in left if "/data/" in key]) == 1
    jobs[0].delete()
    jobs[1].delete()
    assert {key.split("/")[1] for key, _ in world.held()} == {"models"}


def test_a_parent_stays_while_its_child_may_need_it(world: SageMakerWorld) -> None:
    client = client_of(world)
    job = client.submit(world.spec())
    world.reach(job.ref, JobState.FAILED, message="out_of_memory: no room\nUse less.")
    problem = job.snapshot().problem
    assert problem is not None
    assert (problem.code, problem.message, problem.hint) == ("out_of_memory", "no room", "Use less.")
    with pytest.raises(InvalidRequest, match="left no valid checkpoint"):
        job.resume()
    marker = {"step": 3, "epoch": 1.0, "best": False, "metrics": {}, "progress": {}, "files": {"weights": "0" * 64}}
    place = f"cloudtune/checkpoints/{job.ref.id}/step-00000003"
    put(world, f"{place}/checkpoint.json", json.dumps(marker).encode())
    with pytest.raises(InvalidRequest, match="left no valid checkpoint"):
        job.resume()  # its weights have not come to S3
    put(world, f"{place}/weights", b"0")
    child = job.resume()
    given = world.job(child.ref)["request"]
    assert given["HyperParameters"]["resume_from"] == '"start/step-00000003"'
    assert channels(world, child.ref.id)["start"].endswith(f"/checkpoints/{job.ref.id}")
    with pytest.raises(InvalidRequest, match="started from a checkpoint"):
        job.delete()


def test_an_archive_that_is_not_the_trainer_s_is_told(world: SageMakerWorld) -> None:
    job = client_of(world).submit(world.spec())
    world.training(job.ref)
    world.emulator.clock.advance(300_000)
    assert job.result().uri == f"s3://{BUCKET}/cloudtune/jobs/{job.ref.id}/output/model.tar.gz"
    with pytest.raises(InvalidRequest, match=r"no tuned\.json"):
        job.generate(["?"])
    put(world, f"cloudtune/jobs/{job.ref.id}/output/model.tar.gz", b"no archive")
    with pytest.raises(BackendError, match="cannot unpack"):
        job.export(world.root / "export")


def test_an_endpoint_alone_may_be_asked_for(world: SageMakerWorld) -> None:
    client = client_of(world, answers="endpoint")
    job = client.submit(world.spec())
    world.training(job.ref)
    world.emulator.clock.advance(300_000)
    with pytest.raises(InvalidRequest, match="no active endpoint"):
        job.generate(["?"])
    plan = client.plan_deploy(job.result(), serverless_memory_mb=4096, max_concurrency=3)
    model, config = (step.request["body"] for step in plan.steps[:2])
    assert config["ProductionVariants"][0]["ServerlessConfig"] == {"MemorySizeInMB": 4096, "MaxConcurrency": 3}
    assert "cpu" in model["PrimaryContainer"]["Image"]
    assert model["PrimaryContainer"]["Environment"] == {"CLOUDTUNE_BASE": "/opt/ml/additional-model-data-sources/base"}
    (source,) = model["PrimaryContainer"]["AdditionalModelDataSources"]
    assert source["S3DataSource"]["S3Uri"] == channels(world, job.ref.id)["model"]
    client.deploy(plan)
    (answer,) = job.generate(["What is 2 plus 0?"], GenerateOptions(max_tokens=5))
    assert answer.text == "2"
    (based,) = job.generate(["?"], GenerateOptions(max_tokens=5, base=True))
    assert based.model == world.spec().model


def test_several_models_on_one_endpoint(world: SageMakerWorld) -> None:
    """As inference components: each is made, listed, asked and removed by itself, and the endpoint stays."""
    store, made = world.emulator.store, {"created": 0.0, "changed": 0.0, "deleting": None, "counts": {}}
    variant = {"VariantName": "AllTraffic", "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 1}
    for kind, request in (("sm_config", {"ProductionVariants": [variant]}), ("sm_endpoint", {})):
        arn = f"arn:aws:sagemaker:{REGION}:123456789012:{kind}/shared"
        store.add(kind, world.api, {"id": "shared", "arn": arn, "request": request, "config": "shared"} | made)
    client = client_of(world)
    jobs = [client.submit(world.spec(number)) for number in (1, 2)]
    for job in jobs:
        world.training(job.ref)
    world.emulator.clock.advance(300_000)
    world.emulator.faults.add("lost_reply", "sagemaker.CreateInferenceComponent", times=2)
    models = [job.result() for job in jobs]
    for model in models:
        with contextlib.suppress(TransientError):
            client.deploy(model, endpoint="shared", memory_mb=2048, accelerators=1)
        standing = client.deploy(model, endpoint="shared", memory_mb=2048, accelerators=1)
        assert (standing.model, standing.state) == (model.id, "ready")
    assert store.count("sm_component") == 2
    listed = client.deployments(backend="sagemaker")
    assert sorted(one.model for one in listed) == sorted(model.id for model in models)
    for number, job in enumerate(jobs, 1):
        (answer,) = job.generate([f"What is 2 plus {number}?"], GenerateOptions(max_tokens=5))
        assert answer.text == str(2 + number)
    for one in listed:
        client.remove(one)
        client.remove(one)
    assert client.deployments(backend="sagemaker") == []
    assert world.endpoints() == {"sm_model": 0, "sm_config": 1, "sm_endpoint": 1}
    with pytest.raises(InputError, match="memory_mb"):
        client.plan_deploy(models[0], endpoint="shared", memory_mb=1)


def test_a_serverless_job_tells_its_steps_and_its_tokens(customised: ServerlessWorld) -> None:
    client = client_of(customised)
    job = client.submit(customised.spec(hyperparameters={"epochs": 2}))
    customised.reach(job.ref, JobState.RUNNING)
    progress = job.snapshot().progress
    assert progress.total_steps
    customised.reach(job.ref, JobState.SUCCEEDED)
    model = job.result()
    assert (model.base, model.adapter, model.needs_deploy) == (customised.spec().model, "lora", True)
    assert model.raw["billable_tokens"] > 0
    with pytest.raises(InvalidRequest, match="no active endpoint"):
        job.generate(["?"])
    with pytest.raises(UnsupportedError, match="merge_weights"):
        job.export(customised.root / "merged", merged=True)
    again = client.submit(customised.spec(1, overrides={"sagemaker": {"continue_from": model.raw["package"]}}))
    given = customised.job(again.ref)["request"]["ModelPackageConfig"]
    assert given["SourceModelPackageArn"] == model.raw["package"]
    assert customised.packages() == 3, "a group for each job's key, and one version"
    job.delete()
    assert customised.packages() == 2


def test_a_model_that_the_hub_does_not_teach_is_refused(customised: ServerlessWorld) -> None:
    client = client_of(customised)
    with pytest.raises(SpecError, match="has no model 'llama-of-nobody'"):
        client.plan(customised.spec(model="llama-of-nobody"))
    with pytest.raises(SpecError, match=r"does not support DPO with all weights \(supported: DPO \(LORA\)"):
        client.plan(customised.spec(method={"name": "dpo"}, adapter={"type": "full"}))
    assert not customised.jobs()
