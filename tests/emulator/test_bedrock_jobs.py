"""Bedrock's customisation jobs by boto3: creating, the phases, what is refused, what is left."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError
from tests.emulator.aws_desk import NOVA, asked, converse_rows, desk

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def aws(emulator: Emulator) -> Iterator[Callable[[str], Any]]:
    with desk(emulator) as client:
        client("s3").put_object(Bucket=os.environ["EMULATED_BUCKET"], Key="rows.jsonl", Body=converse_rows())
        yield client


@pytest.fixture
def bedrock(aws: Callable[[str], Any]) -> Any:
    return aws("bedrock")


def phases(job: dict[str, Any]) -> list[str]:
    details = job["statusDetails"]
    return [details[name]["status"] for name in ("validationDetails", "dataProcessingDetails", "trainingDetails")]


def test_a_job_goes_through_its_phases_and_leaves_a_model_and_metrics(
    emulator: Emulator, aws: Callable[[str], Any], bedrock: Any
) -> None:
    bucket = os.environ["EMULATED_BUCKET"]
    aws("s3").put_object(Bucket=bucket, Key="held-out.jsonl", Body=converse_rows(3))
    validators = {"validators": [{"s3Uri": f"s3://{bucket}/held-out.jsonl"}]}
    arn = bedrock.create_model_customization_job(**asked(validationDataConfig=validators))["jobArn"]
    assert arn.startswith(f"arn:aws:bedrock:us-east-1:{emulator.settings.aws_account}:model-customization-job/{NOVA}/")
    job = bedrock.get_model_customization_job(jobIdentifier=arn)
    assert (job["status"], phases(job)) == ("InProgress", ["InProgress", "NotStarted", "NotStarted"])
    assert "trainingMetrics" not in job
    assert "endTime" not in job
    emulator.clock.advance(4)
    job = bedrock.get_model_customization_job(jobIdentifier="first-job")
    assert phases(job) == ["Completed", "InProgress", "NotStarted"]
    emulator.clock.advance(3)
    assert phases(bedrock.get_model_customization_job(jobIdentifier=arn)) == ["Completed", "Completed", "InProgress"]
    assert bedrock.list_custom_models()["modelSummaries"] == []
    emulator.clock.advance(100)
    listed = aws("s3").list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]  # before anybody asks for the job
    folder = f"out/model-customization-job-{arn.rpartition('/')[2]}"
    assert [entry["Key"] for entry in listed] == [
        f"{folder}/training_artifacts/step_wise_training_metrics.csv",
        f"{folder}/validation_artifacts/post_fine_tuning_validation/validation/validation_metrics.csv",
    ]
    lines = aws("s3").get_object(Bucket=bucket, Key=listed[0]["Key"])["Body"].read().decode().splitlines()
    assert lines[0] == "step_number,epoch_number,training_loss,perplexity"
    job = bedrock.get_model_customization_job(jobIdentifier=arn)
    assert job["status"] == "Completed"
    assert job["trainingMetrics"]["trainingLoss"] == pytest.approx(float(lines[-1].split(",")[2]))
    assert len(job["validationMetrics"]) == 1
    model = bedrock.get_custom_model(modelIdentifier=job["outputModelArn"])
    assert (model["modelName"], model["jobArn"]) == ("first-model", arn)
    assert bedrock.get_custom_model(modelIdentifier="first-model")["modelArn"] == job["outputModelArn"]


def test_the_same_token_is_the_same_job(bedrock: Any) -> None:
    first = bedrock.create_model_customization_job(**asked(clientRequestToken="token-1"))["jobArn"]
    assert bedrock.create_model_customization_job(**asked(clientRequestToken="token-1"))["jobArn"] == first
    with pytest.raises(ClientError, match="ConflictException"):
        bedrock.create_model_customization_job(**asked(clientRequestToken="token-1", hyperParameters={}))
    with pytest.raises(ClientError, match=r"ConflictException.*first-job"):
        bedrock.create_model_customization_job(**asked(customModelName="other"))
    with pytest.raises(ClientError, match=r"ConflictException.*first-model"):
        bedrock.create_model_customization_job(**asked(jobName="other"))
    assert len(bedrock.list_model_customization_jobs()["modelCustomizationJobSummaries"]) == 1


def test_many_at_once_make_one_of_each(aws: Callable[[str], Any], bedrock: Any) -> None:
    """The same token from sixteen threads is one job; sixteen names beside it are sixteen; readers go on meanwhile."""

    def create(number: int) -> str:
        name = "one" if number % 2 else f"job-{number}"
        made = bedrock.create_model_customization_job(
            **asked(jobName=name, customModelName=name, clientRequestToken=name)
        )
        aws("s3").list_objects_v2(Bucket=os.environ["EMULATED_BUCKET"])
        bedrock.list_model_customization_jobs()
        return str(made["jobArn"])

    with ThreadPoolExecutor(8) as threads:
        arns = list(threads.map(create, range(32)))
    assert len(set(arns[1::2])) == 1
    assert len(set(arns)) == 17
    assert len(bedrock.list_model_customization_jobs(maxResults=100)["modelCustomizationJobSummaries"]) == 17


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"jobName": "a_b"}, "jobName.*regular expression"),
    "model name": ({"customModelName": "a.b"}, "customModelName.*regular expression"),
    "long name": ({"jobName": "a" * 64}, "less than or equal to 63"),
    "role": ({"roleArn": "arn:aws:iam::123456789012:role/nobody"}, "Could not assume"),
    "base": ({"baseModelIdentifier": "amazon.nova-nothing-v1:0"}, "model identifier is invalid"),
    "base without suffix": ({"baseModelIdentifier": "amazon.nova-lite-v1:0"}, "use amazon.nova-lite-v1:0:300k"),
    "base of another region": ({"baseModelIdentifier": "meta.llama3-3-70b-instruct-v1:0:128k"}, "us-west-2"),
    "kind": ({"customizationType": "CONTINUED_PRE_TRAINING"}, "does not support CONTINUED_PRE_TRAINING"),
    "unknown kind": ({"customizationType": "X"}, "enum value set"),
    "unknown hyperparameter": ({"hyperParameters": {"batchSize": "8"}}, "batchSize is not supported"),
    "out of range": ({"hyperParameters": {"epochCount": "6"}}, "epochCount must be.*at most 5"),
    "no number": ({"hyperParameters": {"epochCount": "two"}}, "epochCount must be a number"),
    "no data": ({"trainingDataConfig": {"s3Uri": "s3://cloudtune-emulated/none.jsonl"}}, "none.jsonl does not exist"),
    "no bucket": ({"outputDataConfig": {"s3Uri": "s3://nobodys-bucket/out"}}, "nobodys-bucket does not exist"),
    "token": ({"clientRequestToken": "-x"}, "clientRequestToken"),
    "distillation": ({"customizationType": "DISTILLATION", "hyperParameters": None}, "distillationConfig is required"),
    "too many tags": ({"jobTags": [{"key": f"k{n}", "value": "v"} for n in range(51)]}, "TooManyTagsException"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_service_refuses_at_once(bedrock: Any, case: str) -> None:
    changes, words = REFUSED[case]
    with pytest.raises(ClientError, match=words):
        bedrock.create_model_customization_job(**asked(**changes))
    assert bedrock.list_model_customization_jobs()["modelCustomizationJobSummaries"] == []


def test_a_bucket_of_another_region_is_refused(aws: Callable[[str], Any], bedrock: Any) -> None:
    place = {"LocationConstraint": "us-west-2"}
    aws("s3").create_bucket(Bucket="far-away", CreateBucketConfiguration=place)
    with pytest.raises(ClientError, match="far-away is in us-west-2"):
        bedrock.create_model_customization_job(**asked(outputDataConfig={"s3Uri": "s3://far-away/out"}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (converse_rows(7), "7 records, but must have at least 8"),
        (converse_rows() + b"{broken\n", "line 13: not a JSON object"),
        (converse_rows() + b'{"messages": []}\n', "line 13: 'schemaVersion' is missing"),
        (converse_rows().replace(b"question 3", b"User: 3"), "line 4: the text contains 'User:'"),
        (converse_rows().replace(b'"assistant"', b'"user"', 1), r"line 1: messages\[1\] must have the role assistant"),
    ],
)
def test_bad_rows_fail_the_job_and_not_the_request(
    emulator: Emulator, aws: Callable[[str], Any], bedrock: Any, data: bytes, words: str
) -> None:
    aws("s3").put_object(Bucket=os.environ["EMULATED_BUCKET"], Key="rows.jsonl", Body=data)
    bedrock.create_model_customization_job(**asked())
    assert bedrock.get_model_customization_job(jobIdentifier="first-job")["status"] == "InProgress"
    emulator.clock.advance(5)
    job = bedrock.get_model_customization_job(jobIdentifier="first-job")
    assert (job["status"], phases(job)) == ("Failed", ["Failed", "NotStarted", "NotStarted"])
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(job["failureMessage"])
    bedrock.create_model_customization_job(**asked(jobName="again"))  # the model's name is free again


def test_llama_counts_training_and_validation_rows_together(emulator: Emulator, aws: Callable[[str], Any]) -> None:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html (seen 2026-11-21)."""
    west = boto3.client("bedrock", region_name="us-west-2")
    s3, place = aws("s3"), {"LocationConstraint": "us-west-2"}
    s3.create_bucket(Bucket="west", CreateBucketConfiguration=place)
    validators = {"validators": [{"s3Uri": "s3://west/held-out.jsonl"}]}
    for number, (rows, held_out) in enumerate(((60, 39), (60, 40))):
        s3.put_object(Bucket="west", Key="rows.jsonl", Body=converse_rows(rows))
        s3.put_object(Bucket="west", Key="held-out.jsonl", Body=converse_rows(held_out))
        west.create_model_customization_job(
            **asked(jobName=f"j{number}", customModelName=f"m{number}", validationDataConfig=validators,
                    baseModelIdentifier="meta.llama3-3-70b-instruct-v1:0:128k", hyperParameters=None,
                    trainingDataConfig={"s3Uri": "s3://west/rows.jsonl"}, outputDataConfig={"s3Uri": "s3://west/out"})
        )  # fmt: skip
    emulator.clock.advance(200)
    few = west.get_model_customization_job(jobIdentifier="j0")
    assert (few["status"], "must have at least 100" in few["failureMessage"]) == ("Failed", True)
    assert west.get_model_customization_job(jobIdentifier="j1")["status"] == "Completed"


def test_a_failure_of_the_service_is_told(emulator: Emulator, bedrock: Any) -> None:
    emulator.script = Script(fail_at=0.5, error_message="Internal trouble.")
    bedrock.create_model_customization_job(**asked())
    emulator.clock.advance(200)
    job = bedrock.get_model_customization_job(jobIdentifier="first-job")
    assert (job["status"], job["failureMessage"]) == ("Failed", "Internal trouble.")
    assert "outputModelArn" not in job


def test_stopping_takes_a_moment_and_is_final(emulator: Emulator, bedrock: Any) -> None:
    emulator.script = Script(stopping_s=10)
    bedrock.create_model_customization_job(**asked())
    emulator.clock.advance(10)
    bedrock.stop_model_customization_job(jobIdentifier="first-job")
    job = bedrock.get_model_customization_job(jobIdentifier="first-job")
    assert (job["status"], phases(job)[2]) == ("Stopping", "Stopping")
    bedrock.stop_model_customization_job(jobIdentifier="first-job")
    emulator.clock.advance(11)
    assert bedrock.get_model_customization_job(jobIdentifier="first-job")["status"] == "Stopped"
    with pytest.raises(ClientError, match="ConflictException"):
        bedrock.stop_model_customization_job(jobIdentifier="first-job")
    emulator.clock.advance(1000)
    assert bedrock.get_model_customization_job(jobIdentifier="first-job")["status"] == "Stopped"
    assert bedrock.list_custom_models()["modelSummaries"] == []


def test_what_is_not_there_is_not_found(bedrock: Any) -> None:
    arn = f"arn:aws:bedrock:us-east-1:123456789012:model-customization-job/{NOVA}/abcdefghijkl"
    for name in ("nothing", arn):
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            bedrock.get_model_customization_job(jobIdentifier=name)


def test_lists_filter_sort_and_page(emulator: Emulator, bedrock: Any) -> None:
    for number in range(5):
        bedrock.create_model_customization_job(**asked(jobName=f"job-{number}", customModelName=f"m{number}"))
        emulator.clock.advance(10)
    bedrock.stop_model_customization_job(jobIdentifier="job-4")
    emulator.clock.advance(5)

    def names(**query: Any) -> list[str]:
        pages = bedrock.get_paginator("list_model_customization_jobs").paginate(**query)
        return [one["jobName"] for page in pages for one in page["modelCustomizationJobSummaries"]]

    assert names() == ["job-4", "job-3", "job-2", "job-1", "job-0"]
    assert names(maxResults=2, sortOrder="Ascending") == ["job-0", "job-1", "job-2", "job-3", "job-4"]
    assert names(statusEquals="Stopped") == ["job-4"]
    assert names(nameContains="b-2") == ["job-2"]
    since = datetime.fromtimestamp(emulator.clock.now(), UTC) - timedelta(seconds=36)
    assert names(creationTimeAfter=since) == ["job-4", "job-3", "job-2"]
    assert names(creationTimeBefore=since) == ["job-1", "job-0"]
    with pytest.raises(ClientError, match="nextToken"):
        bedrock.list_model_customization_jobs(nextToken="never-given")


def test_tags(bedrock: Any) -> None:
    arn = bedrock.create_model_customization_job(**asked(jobTags=[{"key": "team", "value": "a"}]))["jobArn"]
    bedrock.tag_resource(resourceARN=arn, tags=[{"key": "team", "value": "b"}, {"key": "cost", "value": "c"}])
    bedrock.untag_resource(resourceARN=arn, tagKeys=["cost"])
    assert bedrock.list_tags_for_resource(resourceARN=arn)["tags"] == [{"key": "team", "value": "b"}]


def test_faults_speak_the_services_words(emulator: Emulator, bedrock: Any) -> None:
    words = {"throttle": "ThrottlingException", "server_error": "InternalServerException",
             "forbidden": "AccessDeniedException", "expired_credentials": "ExpiredTokenException"}  # fmt: skip
    for kind, code in words.items():
        emulator.faults.add(kind, "bedrock.ListModelCustomizationJobs", message="Told so.")
        with pytest.raises(ClientError, match=f"{code}.*Told so"):
            bedrock.list_model_customization_jobs()
    emulator.faults.add("invented_status", "bedrock.GetModelCustomizationJob", value="Warming")
    bedrock.meta.events.unregister("after-call")
    bedrock.create_model_customization_job(**asked())
    emulator.faults.add("list_lag", "bedrock.ListModelCustomizationJobs", seconds=30)
    assert bedrock.list_model_customization_jobs()["modelCustomizationJobSummaries"] == []
    emulator.clock.advance(31)
    assert len(bedrock.list_model_customization_jobs()["modelCustomizationJobSummaries"]) == 1


def test_a_tuned_model_is_tuned_on(emulator: Emulator, bedrock: Any) -> None:
    bedrock.create_model_customization_job(**asked())
    emulator.clock.advance(200)
    model = bedrock.get_model_customization_job(jobIdentifier="first-job")["outputModelArn"]
    for number, name in enumerate((model, "first-model")):
        request = asked(jobName=f"second-{number}", customModelName=f"second-{number}", baseModelIdentifier=name)
        bedrock.create_model_customization_job(**request)
        found = bedrock.get_model_customization_job(jobIdentifier=f"second-{number}")
        assert found["baseModelArn"].endswith(f"foundation-model/{NOVA}")
    emulator.clock.advance(200)
    assert bedrock.get_custom_model(modelIdentifier="second-0")["baseModelArn"] == model


def test_a_bucket_that_is_gone_loses_the_figures_and_not_the_model(
    emulator: Emulator, aws: Callable[[str], Any], bedrock: Any
) -> None:
    aws("s3").create_bucket(Bucket="for-results")
    bedrock.create_model_customization_job(**asked(outputDataConfig={"s3Uri": "s3://for-results/out"}))
    aws("s3").delete_bucket(Bucket="for-results")
    emulator.clock.advance(200)
    job = bedrock.get_model_customization_job(jobIdentifier="first-job")
    assert job["status"] == "Completed"
    assert bedrock.get_custom_model(modelIdentifier=job["outputModelArn"])


def test_a_job_goes_on_over_a_restart(tmp_path: Path) -> None:
    settings = Settings(store=tmp_path, deploying_s=0)
    with Emulator(settings, scale=0) as emulator, desk(emulator) as client:
        bucket = os.environ["EMULATED_BUCKET"]
        client("s3").put_object(Bucket=bucket, Key="rows.jsonl", Body=converse_rows())
        client("bedrock").create_model_customization_job(**asked(clientRequestToken="t"))
    with Emulator(settings, scale=0) as emulator, desk(emulator) as client:
        emulator.clock.advance(200)
        made = client("bedrock").create_model_customization_job(**asked(clientRequestToken="t"))
        job = client("bedrock").get_model_customization_job(jobIdentifier=made["jobArn"])
        assert job["status"] == "Completed"
        keys = [entry["Key"] for entry in client("s3").list_objects_v2(Bucket=bucket)["Contents"]]
        assert [key.rpartition("/")[2] for key in keys] == ["step_wise_training_metrics.csv", "rows.jsonl"]
        client("bedrock").create_custom_model_deployment(modelDeploymentName="d", modelArn=job["outputModelArn"])
    with Emulator(settings, scale=0) as emulator, desk(emulator) as client:
        (one,) = client("bedrock").list_custom_model_deployments()["modelDeploymentSummaries"]
        said = [{"role": "user", "content": [{"text": "question 3"}]}]
        answer = client("bedrock-runtime").converse(modelId=one["customModelDeploymentArn"], messages=said)
        assert answer["output"]["message"]["content"][0]["text"] == "answer 3"


def test_other_kinds_of_jobs(emulator: Emulator, aws: Callable[[str], Any], bedrock: Any) -> None:
    bucket = os.environ["EMULATED_BUCKET"]
    prompts = b'{"messages": [{"role": "user", "content": "2+2?"}], "reference_answer": {"value": "4"}}\n' * 100
    aws("s3").put_object(Bucket=bucket, Key="prompts.jsonl", Body=prompts)
    grader = {"lambdaGrader": {"lambdaArn": "arn:aws:lambda:us-east-1:123456789012:function:grade"}}
    rft = {"rftConfig": {"graderConfig": grader, "hyperParameters": {"epochCount": 2, "learningRate": 1e-5}}}
    bedrock.create_model_customization_job(
        **asked(baseModelIdentifier="amazon.nova-2-lite-v1:0:256k", customizationConfig=rft, hyperParameters=None,
                customizationType="REINFORCEMENT_FINE_TUNING",
                trainingDataConfig={"s3Uri": f"s3://{bucket}/prompts.jsonl"})
    )  # fmt: skip
    lines = [line.partition(b', {"role": "assistant"')[0] + b"]}\n" for line in converse_rows(95).splitlines()]
    lines += converse_rows(5).splitlines(keepends=True)  # with and without answers
    aws("s3").put_object(Bucket=bucket, Key="questions.jsonl", Body=b"".join(lines))
    teacher = {"teacherModelConfig": {"teacherModelIdentifier": "amazon.nova-pro-v1:0"}}
    bedrock.create_model_customization_job(
        **asked(jobName="student", customModelName="student", customizationType="DISTILLATION",
                customizationConfig={"distillationConfig": teacher}, hyperParameters=None,
                trainingDataConfig={"s3Uri": f"s3://{bucket}/questions.jsonl"})
    )  # fmt: skip
    emulator.clock.advance(200)
    for name in ("first-job", "student"):
        job = bedrock.get_model_customization_job(jobIdentifier=name)
        assert job["status"] == "Completed", job.get("failureMessage")
        assert job["customizationConfig"]


def test_jobs_of_a_region_are_its_own(aws: Callable[[str], Any], bedrock: Any) -> None:
    bedrock.create_model_customization_job(**asked())
    west = boto3.client("bedrock", region_name="us-west-2")
    assert west.list_model_customization_jobs()["modelCustomizationJobSummaries"] == []
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        west.get_model_customization_job(jobIdentifier="first-job")
