"""SageMaker before the train engine: what was shipped is what trains, the model lies in S3, its endpoint answers.

The quickstart's one file goes the same way in every test run (``tests/examples/test_one_word.py``).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from cloudtune import Client, GenerateOptions, JobSpec
from cloudtune.registry import open_backend
from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.sagemaker.train_engine import TrainTrainer
from cloudtune_emulator.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune import Job

LLAMA = "meta-textgeneration-llama-3-2-1b-instruct"
LIMIT_S = 300
TINY = {"model": {"hidden_size": 64, "intermediate_size": 128}, "tokenizer": {"vocab_size": 300}}
PROGRAM = """
import json, os, pathlib, sys
rows = list(pathlib.Path(os.environ["SM_CHANNEL_TRAINING"]).iterdir())
print("'loss':", 0.25, flush=True)
if "--break" in sys.argv:
    pathlib.Path(os.environ["SM_OUTPUT_DIR"], "failure").write_text("the rows are upside down")
    sys.exit(3)
model = pathlib.Path(os.environ["SM_MODEL_DIR"], "model.json")
model.write_text(json.dumps({"rows": [row.name for row in rows], "said": sys.argv[1:]}))
"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(Settings(engine="train", deploying_s=0.0)) as emulator, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in emulator.environment().items():
            patch.setenv(name, value)
        yield emulator


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> JobSpec:
    folder = tmp_path_factory.mktemp("spec")
    rows = [{"prompt": f"{n}+1?", "completion": f"{n + 1}!"} for n in range(8)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "tiny.json").write_text(json.dumps(TINY), encoding="utf-8")
    tiny = str(folder / "tiny.json")
    return JobSpec.model_validate({
        "name": "sums", "model": {"jumpstart": LLAMA, "sagemaker": tiny, "local": tiny}, "seed": 3,
        "data": {"train": str(folder / "rows.jsonl")}, "unsupported": "drop", "adapter": {"type": "lora", "rank": 4},
        "hyperparameters": {"epochs": 2, "batch_size": 4, "learning_rate": 2e-3},
    })  # fmt: skip


def settings(emulator: Emulator) -> dict[str, Any]:
    known = emulator.settings
    role = f"arn:aws:iam::{known.aws_account}:role/{known.aws_role}"
    return {"bucket": known.aws_bucket, "role_arn": role}


def losses(job: Job) -> list[tuple[int, float]]:
    return [(one.step, one.values["loss"]) for one in job.metrics() if one.split == "train" and "loss" in one.values]


def answered(client: Client, job: Job) -> str:
    """Deployed, asked, taken down again."""
    deployment = job.deploy()
    (said,) = job.generate(["3+1?"], GenerateOptions(max_tokens=6))
    client.remove(deployment)
    assert client.deployments(backend=job.ref.backend) == []
    return said.text


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_the_shipped_trainer_trains_as_the_local_one(emulator: Emulator, spec: JobSpec, tmp_path: Path) -> None:
    """The bundle goes through S3 into the container; losses and answer are those of the local back end, bit by bit."""
    given = settings(emulator) | {"image": "an/image:1", "instance_type": "ml.m5.xlarge", "requirements": "image"}
    given |= {"root": str(tmp_path / "sagemaker"), "answers": "endpoint"}
    client = Client(open_backend("sagemaker", given), ledger=f"sqlite:///{tmp_path}/sagemaker.db")
    job = client.submit(spec)
    model = job.wait(timeout=LIMIT_S)
    assert str(model.uri).endswith(f"{job.ref.id}/output/model.tar.gz")
    here = Client(open_backend("local", {"root": str(tmp_path / "runs")}), ledger=f"sqlite:///{tmp_path}/local.db")
    duplicate = here.submit(spec)
    duplicate.wait(timeout=LIMIT_S)
    assert losses(job) == losses(duplicate)
    assert [step for step, _ in losses(job)] == [1, 2, 3, 4]
    (said,) = duplicate.generate(["3+1?"], GenerateOptions(max_tokens=6))
    assert answered(client, job) == said.text


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_the_shipped_trainer_learns_from_pairs_as_the_local_one(
    emulator: Emulator, spec: JobSpec, tmp_path: Path, adapter: str
) -> None:
    rows = [{"prompt": f"{n}+1?", "chosen": f"{n + 1}!", "rejected": f"I think it is {n + 1}."} for n in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pairs = {"train": str(tmp_path / "pairs.jsonl"), "validation": str(tmp_path / "pairs.jsonl")}
    changed = {"method": {"name": "dpo", "beta": 0.2}, "data": pairs, "adapter": {"type": adapter}}
    job_spec = JobSpec.model_validate(spec.model_dump(exclude_none=True) | changed)
    given = settings(emulator) | {"image": "an/image:1", "instance_type": "ml.m5.xlarge", "requirements": "image"}
    given |= {"root": str(tmp_path / "sagemaker")}
    client = Client(open_backend("sagemaker", given), ledger=f"sqlite:///{tmp_path}/sagemaker.db")
    job = client.submit(job_spec)
    job.wait(timeout=LIMIT_S)
    here = Client(open_backend("local", {"root": str(tmp_path / "runs")}), ledger=f"sqlite:///{tmp_path}/local.db")
    duplicate = here.submit(job_spec)
    duplicate.wait(timeout=LIMIT_S)
    for figure in ("loss", "rewards/chosen", "accuracy", "base_preferred"):
        there, own = ([(m.step, m.split, m.values[figure]) for m in one.metrics()] for one in (job, duplicate))
        assert there == own
    assert {one.split for one in job.metrics()} == {"train", "validation"}
    response = boto3.client("sagemaker").describe_training_job(TrainingJobName=job.ref.id)["FinalMetricDataList"]
    assert "validation:rewards/rejected" in {one["MetricName"] for one in response}


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_the_hubs_model_is_trained_by_the_local_back_end(emulator: Emulator, spec: JobSpec, tmp_path: Path) -> None:
    backend = open_backend("jumpstart", settings(emulator) | {"accept_eula": [LLAMA]})
    client = Client(backend, ledger=f"sqlite:///{tmp_path}/jumpstart.db")
    job = client.submit(spec)
    model = job.wait(timeout=LIMIT_S)
    curve = losses(job)
    assert [step for step, _ in curve] == [1, 2, 3, 4]
    assert curve[-1][1] < curve[0][1]
    bucket, _, key = str(model.uri).removeprefix("s3://").partition("/")
    content = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert {"tuned.json", "tokenizer.json"} <= set(archive.getnames())
    answered(client, job)
    job.delete()


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_serverless_job_makes_a_version_that_answers(emulator: Emulator, spec: JobSpec, tmp_path: Path) -> None:
    backend = open_backend("sagemaker", settings(emulator) | {"compute": "serverless"})
    client = Client(backend, ledger=f"sqlite:///{tmp_path}/serverless.db")
    given = {"epochs": 1.0, "batch_size": 8}
    changed = {"model": LLAMA, "hyperparameters": given, "overrides": {"sagemaker": {"accept_eula": True}}}
    job = client.submit(JobSpec.model_validate(spec.model_dump(exclude_none=True) | {"adapter": "lora"} | changed))
    model = job.wait(timeout=LIMIT_S)
    bucket, _, folder = str(model.uri).removeprefix("s3://").partition("/")
    listed = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]
    assert "tuned.json" in {entry["Key"].removeprefix(folder) for entry in listed}
    answered(client, job)
    assert emulator.census()["sagemaker"]["endpoints"] == 0


def request(emulator: Emulator, name: str, **hyperparameters: str) -> dict[str, Any]:
    """A job in script mode, as the SDK's second line made them: a program in a tarball."""
    known, s3 = settings(emulator), boto3.client("s3")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("train.py")
        entry.size = len(PROGRAM)
        archive.addfile(entry, io.BytesIO(PROGRAM.encode()))
    s3.put_object(Bucket=known["bucket"], Key=f"{name}/sourcedir.tar.gz", Body=buffer.getvalue())
    s3.put_object(Bucket=known["bucket"], Key=f"{name}/in/rows.csv", Body=b"a,b\n1,2\n")
    where = f"s3://{known['bucket']}/{name}"
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{where}/in"}}
    program = {"sagemaker_program": '"train.py"', "sagemaker_submit_directory": f'"{where}/sourcedir.tar.gz"'}
    loss = {"Name": "loss", "Regex": "'loss': ([0-9.]+)"}
    return {
        "TrainingJobName": name, "RoleArn": known["role_arn"], "HyperParameters": program | hyperparameters,
        "AlgorithmSpecification": {"TrainingImage": "i", "TrainingInputMode": "File", "MetricDefinitions": [loss]},
        "InputDataConfig": [{"ChannelName": "training", "DataSource": source}],
        "OutputDataConfig": {"S3OutputPath": f"{where}/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 5},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }  # fmt: skip


def ended(name: str) -> dict[str, Any]:
    sagemaker, deadline = boto3.client("sagemaker"), time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        job: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=name)
        if job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"):
            return job
        time.sleep(0.2)
    raise AssertionError(job)


def test_any_program_is_run_in_the_container_contract(emulator: Emulator) -> None:
    boto3.client("sagemaker").create_training_job(**request(emulator, "plain", depth="2"))
    job = ended("plain")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    bucket, _, key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
    with tarfile.open(fileobj=io.BytesIO(boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())) as made:
        held = made.extractfile("model.json")
        assert held is not None
        assert json.load(held) == {"rows": ["rows.csv"], "said": ["--depth", "2"]}
    assert job["FinalMetricDataList"][0]["Value"] == 0.25
    response = boto3.client("logs").filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs")["events"]
    assert "'loss': 0.25" in [line["message"] for line in response if line["logStreamName"].startswith("plain/")]


def test_a_program_that_fails_says_why(emulator: Emulator) -> None:
    boto3.client("sagemaker").create_training_job(**request(emulator, "broken", **{"break": "now"}))
    job = ended("broken")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: the rows are upside down, exit code: 3"
    assert "ModelArtifacts" not in job


def test_a_job_goes_on_when_the_server_is_started_again(tmp_path: Path) -> None:
    """Also one whose server went down before it had begun, and one that ran meanwhile."""
    kept = Settings(engine="train", store=tmp_path / "store")
    with Emulator(kept) as first, pytest.MonkeyPatch.context() as patch:
        for name, value in first.environment().items():
            patch.setenv(name, value)
        requested = [request(first, name) for name in ("before", "never-begun")]
        for body in requested:
            boto3.client("sagemaker").create_training_job(**body)
        ended("before")
        trainer = first.context.sagemaker
        assert isinstance(trainer, TrainTrainer)
        ended("never-begun")
        job = first.store.get("training_job", "sagemaker/us-east-1", "never-begun")
        assert job is not None
        folder = trainer._containers.folder(job)
    shutil.rmtree(folder)  # as if its thread had not come to it
    del job["artefact"]
    job["settled"] = False
    with closing(Store(kept.store)) as store:
        store.save("training_job", "sagemaker/us-east-1", job)
    with Emulator(kept) as second, pytest.MonkeyPatch.context() as patch:
        for name, value in second.environment().items():
            patch.setenv(name, value)
        assert {ended(name)["TrainingJobStatus"] for name in ("before", "never-begun")} == {"Completed"}
        assert (folder / "status.json").exists()
