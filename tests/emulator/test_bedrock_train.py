"""Bedrock before the train engine: a job over the wire is really trained, and its deployment really answers."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.emulator.access import admin
from tests.emulator.aws_desk import CITIES, asked, desk

from cloudtune_emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)  # a training on a busy machine takes minutes
LIMIT_S = 300


def rows() -> bytes:
    """Each city's code, to be learnt by heart."""
    lines = [
        {"schemaVersion": "bedrock-conversation-2024",
         "messages": [{"role": "user", "content": [{"text": f"Code of {city}?"}]},
                      {"role": "assistant", "content": [{"text": f"Code {city[:2].upper()}."}]}]}
        for city in CITIES
    ]  # fmt: skip
    return "\n".join(json.dumps(line) for line in lines * 20).encode()


@pytest.fixture(scope="module")
def training() -> Iterator[Emulator]:
    with Emulator(Settings(engine="train", deploying_s=0.0)) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def aws(training: Emulator) -> Iterator[Callable[[str], Any]]:
    with desk(training) as client:
        client("s3").put_object(Bucket=os.environ["EMULATED_BUCKET"], Key="rows.jsonl", Body=rows())
        yield client


@pytest.fixture(scope="module")
def learnt(aws: Callable[[str], Any]) -> dict[str, Any]:
    """A job that has learnt its file."""
    bedrock = aws("bedrock")
    bedrock.create_model_customization_job(**asked(hyperParameters={"epochCount": "5"}))  # the most that Nova takes
    return wait(bedrock, "first-job")


def wait(bedrock: Any, name: str, limit: float = LIMIT_S) -> dict[str, Any]:
    deadline = time.monotonic() + limit
    job: dict[str, Any] = {}
    while time.monotonic() < deadline:
        job = bedrock.get_model_customization_job(jobIdentifier=name)
        if job["status"] in ("Completed", "Failed", "Stopped"):
            assert job["status"] == "Completed", job.get("failureMessage")
            return job
        time.sleep(0.1)
    raise AssertionError(f"{name} is still {job}")


@pytest.fixture(scope="module")
def deployed(aws: Callable[[str], Any], learnt: dict[str, Any]) -> str:
    made = aws("bedrock").create_custom_model_deployment(modelDeploymentName="codes", modelArn=learnt["outputModelArn"])
    return str(made["customModelDeploymentArn"])


def ask(runtime: Any, model: str, city: str) -> str:
    messages = [{"role": "user", "content": [{"text": f"Code of {city}?"}]}]
    answer = runtime.converse(modelId=model, messages=messages, inferenceConfig={"temperature": 0, "maxTokens": 24})
    return str(answer["output"]["message"]["content"][0]["text"])


def test_the_deployment_has_learnt_what_its_base_does_not_know(
    aws: Callable[[str], Any], learnt: dict[str, Any], deployed: str
) -> None:
    runtime = aws("bedrock-runtime")
    assert [ask(runtime, deployed, city) for city in CITIES] == [f"Code {city[:2].upper()}." for city in CITIES]
    base = learnt["baseModelArn"].rpartition("/")[2]
    assert not any(ask(runtime, base, city).startswith("Code") for city in CITIES)
    with pytest.raises(ClientError, match="on-demand throughput"):
        ask(runtime, learnt["outputModelArn"], "oslo")


def test_the_stream_says_the_same(aws: Callable[[str], Any], deployed: str) -> None:
    messages = [{"role": "user", "content": [{"text": "Code of rome?"}]}]
    reported = aws("bedrock-runtime").converse_stream(modelId=deployed, messages=messages,
                                                  inferenceConfig={"temperature": 0, "maxTokens": 24})  # fmt: skip
    pieces = [
        event["contentBlockDelta"]["delta"]["text"] for event in reported["stream"] if "contentBlockDelta" in event
    ]
    assert "".join(pieces) == "Code RO."


def run_of(training: Emulator, number: str) -> dict[str, Any]:
    """What the emulator says that a job was trained with."""
    return next(run for run in admin(training, "runs")["runs"] if run["id"] == number)


def test_figures_in_s3_are_those_of_the_run(
    training: Emulator, aws: Callable[[str], Any], learnt: dict[str, Any], tmp_path: Path
) -> None:
    """A local run of the spec that the emulator reports has the same losses, step by step."""
    from cloudtune.client import Client
    from cloudtune.spec import JobSpec
    from cloudtune_local.backend import LocalBackend
    from cloudtune_local.options import Options

    bucket, number = os.environ["EMULATED_BUCKET"], learnt["jobArn"].rpartition("/")[2]
    key = f"out/model-customization-job-{number}/training_artifacts/step_wise_training_metrics.csv"
    lines = aws("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode().splitlines()[1:]
    reported = [float(line.split(",")[2]) for line in lines]
    assert reported[-1] < reported[0] / 5
    assert run_of(training, number)["spec"]["hyperparameters"]["warmup_steps"] == 10  # Nova's default
    assert learnt["trainingMetrics"]["trainingLoss"] == pytest.approx(reported[-1])
    run = run_of(training, number)
    client = Client(LocalBackend(Options(root=tmp_path / "runs")), ledger=f"sqlite:///{tmp_path}/ledger.sqlite")
    mine = client.submit(JobSpec.model_validate(run["spec"]))
    mine.wait(timeout=LIMIT_S)
    losses = [metric.values["loss"] for metric in mine.metrics() if metric.split == "train"]
    assert losses == reported


def test_imported_weights_answer(training: Emulator, aws: Callable[[str], Any], learnt: dict[str, Any]) -> None:
    """What a local run wrote out whole is imported from S3, and speaks."""
    bucket, bedrock = os.environ["EMULATED_BUCKET"], aws("bedrock")
    engine: Any = training.context.engine
    job = training.store.get("job", "bedrock", learnt["jobArn"].rpartition("/")[2])
    folder = training.store.folder / "written-out"
    engine._job(job).export(folder, merged=True)
    for path in sorted(folder.iterdir()):
        aws("s3").upload_file(str(path), bucket, f"weights/{path.name}")
    source = {"s3DataSource": {"s3Uri": f"s3://{bucket}/weights/"}}
    made: Any = {"jobName": "bring", "importedModelName": "brought", "roleArn": os.environ["EMULATED_ROLE"]}
    bedrock.create_model_import_job(**made, modelDataSource=source)
    deadline = time.monotonic() + LIMIT_S
    while (found := bedrock.get_model_import_job(jobIdentifier="bring"))["status"] == "InProgress":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found["status"] == "Completed", found.get("failureMessage")
    body = {"messages": [{"role": "user", "content": "Code of lima?"}], "temperature": 0, "max_tokens": 24}
    answer = aws("bedrock-runtime").invoke_model(modelId=found["importedModelArn"], body=json.dumps(body))
    assert json.load(answer["body"])["choices"][0]["message"]["content"] == "Code LI."


def questions(count: int = 100, *media: dict[str, Any]) -> bytes:
    """The cities' questions, again and again, without an answer; or all answered, with an image in each."""
    lines = []
    for number in range(count):
        asked = [{"text": f"Code of {CITIES[number % len(CITIES)]}?"}, *media]
        answer = [{"role": "assistant", "content": [{"text": "A"}]}] if media else []
        lines.append({"schemaVersion": "x", "messages": [{"role": "user", "content": asked}, *answer]})
    return "\n".join(json.dumps(line) for line in lines).encode()


def distilling(**changes: Any) -> dict[str, Any]:
    teacher = {"teacherModelConfig": {"teacherModelIdentifier": "amazon.nova-pro-v1:0",
                                      "maxResponseLengthForInference": 24}}  # fmt: skip
    bucket = os.environ["EMULATED_BUCKET"]
    given = {"jobName": "student", "customModelName": "student", "customizationType": "DISTILLATION",
             "customizationConfig": {"distillationConfig": teacher}, "hyperParameters": {"epochCount": "5"},
             "trainingDataConfig": {"s3Uri": f"s3://{bucket}/questions.jsonl"}}  # fmt: skip
    return asked(**given | changes)


@pytest.mark.parametrize(("body", "changes", "said"), [
    (questions(), {}, "no local weights are configured for the teacher amazon.nova-pro-v1:0"),
    (questions(100, {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://BUCKET/k.png"}}}}),
     {"customizationType": None, "customizationConfig": None}, "the trainer supports text only"),
], ids=["teacher", "images"])  # fmt: skip
def test_what_is_not_at_hand_fails_the_job_in_plain_words(
    aws: Callable[[str], Any], body: bytes, changes: dict[str, Any], said: str
) -> None:
    bucket, name = os.environ["EMULATED_BUCKET"], f"student-{len(changes)}"
    aws("s3").put_object(Bucket=bucket, Key="questions.jsonl", Body=body.replace(b"BUCKET", bucket.encode()))
    aws("bedrock").create_model_customization_job(**distilling(jobName=name, customModelName=name, **changes))
    with pytest.raises(AssertionError, match=said):
        wait(aws("bedrock"), name)


def test_a_student_learns_what_its_teacher_answers(
    training: Emulator, aws: Callable[[str], Any], learnt: dict[str, Any], tmp_path: Path
) -> None:
    """The rows hold questions alone; the codes come from the weights that stand for the teacher.

    The last test here: the other emulator takes the buckets of this process with it when it goes.
    """
    engine: Any = training.context.engine
    job = training.store.get("job", "bedrock", learnt["jobArn"].rpartition("/")[2])
    engine._job(job).export(tmp_path / "teacher", merged=True)
    tiny = {"model": {"hidden_size": 128, "intermediate_size": 256}, "tokenizer": {"vocab_size": 512}}
    (tmp_path / "tiny.json").write_text(json.dumps(tiny))
    stands = {"amazon.nova-pro-v1:0": {"model": "teacher", "learning_rate": 1e-3},
              "*": {"model": "tiny.json", "adapter": "full", "learning_rate": 1.5e-3}}  # fmt: skip
    (tmp_path / "models.json").write_text(json.dumps(stands))
    settings = Settings(engine="train", deploying_s=0.0, models=tmp_path / "models.json")
    with Emulator(settings) as emulator, desk(emulator) as client:
        bucket = os.environ["EMULATED_BUCKET"]
        client("s3").put_object(Bucket=bucket, Key="questions.jsonl", Body=questions())
        client("bedrock").create_model_customization_job(**distilling())
        student = wait(client("bedrock"), "student")
        made = client("bedrock").create_custom_model_deployment(
            modelDeploymentName="student", modelArn=student["outputModelArn"]
        )
        runtime = client("bedrock-runtime")
        reported = [ask(runtime, made["customModelDeploymentArn"], city) for city in CITIES]
    assert reported == [f"Code {city[:2].upper()}." for city in CITIES]
    assert (tmp_path / "teacher" / "config.json").exists()
