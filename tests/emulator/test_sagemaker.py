"""SageMaker's API through boto3: jobs, their logs and artefacts, the hub, packages, endpoints and their answers."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError
from tests.emulator.access import aws_keys

from cloudtune_emulator import Emulator, app
from cloudtune_emulator.aws.shapes import ShapeValidator, model
from cloudtune_emulator.job_timeline import Script
from cloudtune_emulator.sagemaker import shapes
from cloudtune_emulator.sagemaker.routes import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

HUB = "SageMakerPublicHub"
LLAMA = "meta-textgeneration-llama-3-2-1b-instruct"
LOSS = {"Name": "train:loss", "Regex": r"'loss': ([0-9]+\.[0-9]+)"}


class Account:
    """An emulator with a paused clock, and its clients."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.settings = emulator.settings
        self.bucket = self.settings.aws_bucket
        self.role = f"arn:aws:iam::{self.settings.aws_account}:role/{self.settings.aws_role}"
        self.s3, self.logs = self.client("s3"), self.client("logs")
        self.sagemaker, self.runtime = self.client("sagemaker"), self.client("sagemaker-runtime")

    def client(self, service: str) -> Any:
        region = self.settings.aws_region
        return boto3.client(service, endpoint_url=self.emulator.url, region_name=region, **aws_keys(self.emulator))

    def rows(self, prefix: str = "in/") -> str:
        turns = [
            {"dialog": [{"role": "user", "content": f"{n}+1?"}, {"role": "assistant", "content": f"{n + 1} it is"}]}
            for n in range(12)
        ]
        body = "".join(json.dumps(row) + "\n" for row in turns)
        self.s3.put_object(Bucket=self.bucket, Key=f"{prefix}rows.jsonl", Body=body)
        return f"s3://{self.bucket}/{prefix}"

    def request(self, name: str = "job-1", **more: Any) -> dict[str, Any]:
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": self.rows()}}
        return {
            "TrainingJobName": name, "RoleArn": self.role, "HyperParameters": {"epoch": "2"},
            "AlgorithmSpecification": {
                "TrainingImage": "an/image:1", "TrainingInputMode": "File", "MetricDefinitions": [LOSS],
            },
            "InputDataConfig": [{"ChannelName": "training", "DataSource": source}],
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out"},
            "ResourceConfig": {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600}, "Tags": [{"Key": "team", "Value": "red"}],
        } | more  # fmt: skip

    def job(self, name: str = "job-1") -> dict[str, Any]:
        return dict(self.sagemaker.describe_training_job(TrainingJobName=name))

    def refused(self, operation: str, **given: Any) -> tuple[str, str]:
        with pytest.raises(ClientError) as error:
            getattr(self.sagemaker, operation)(**given)
        return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


@pytest.fixture
def aws() -> Iterator[Account]:
    with Emulator(scale=0) as emulator:
        yield Account(emulator)


def words(job: dict[str, Any]) -> list[str]:
    return [entry["Status"] for entry in job["SecondaryStatusTransitions"]]


def test_a_job_goes_through_its_states_and_leaves_a_model(aws: Account) -> None:
    request = aws.request(Environment={"A": "b"}, RetryStrategy={"MaximumRetryAttempts": 3})
    arn = aws.sagemaker.create_training_job(**request)["TrainingJobArn"]
    seen = []
    for _ in range(40):
        job = aws.job()
        if (job["TrainingJobStatus"], job["SecondaryStatus"]) not in seen:
            seen.append((job["TrainingJobStatus"], job["SecondaryStatus"]))
        aws.emulator.clock.advance(2)
    phases = ["Starting", "Pending", "Downloading", "Training", "Uploading", "Completed"]
    assert seen == [("InProgress", word) for word in phases[:-1]] + [("Completed", "Completed")]
    assert words(job) == phases
    for field, value in request.items():
        if field != "Tags":
            assert job[field] == value, field
    assert job["TrainingTimeInSeconds"] == 62
    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "red"}]
    key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{aws.bucket}/")
    assert key == "out/job-1/output/model.tar.gz"
    with tarfile.open(fileobj=io.BytesIO(aws.s3.get_object(Bucket=aws.bucket, Key=key)["Body"].read())) as archive:
        assert archive.getnames() == ["scripted.json"]
    assert [entry["MetricName"] for entry in job["FinalMetricDataList"]] == ["train:loss"]


def test_a_job_has_ended_once_what_it_leaves_is_recorded(aws: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it ended while a request is answered, after the store was settled for that request."""
    aws.sagemaker.create_training_job(**aws.request())
    settle = app.settle
    monkeypatch.setattr(app, "settle", lambda context, now: None)
    aws.emulator.clock.advance(1000)
    job = aws.job()
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("InProgress", "Uploading")
    assert "TrainingEndTime" not in job
    monkeypatch.setattr(app, "settle", settle)
    job = aws.job()
    assert job["TrainingJobStatus"] == "Completed"
    assert "S3ModelArtifacts" in job["ModelArtifacts"]


def test_the_log_grows_with_the_job(aws: Account) -> None:
    aws.sagemaker.create_training_job(**aws.request())
    group = "/aws/sagemaker/TrainingJobs"
    aws.emulator.clock.advance(37)
    half = aws.logs.filter_log_events(logGroupName=group)["events"]
    aws.emulator.clock.advance(100)
    whole = aws.logs.filter_log_events(logGroupName=group)["events"]
    assert 0 < len(half) < len(whole) == 6
    assert whole[: len(half)] == half
    assert "'loss': " in whole[-1]["message"]
    streams = aws.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="job-1/")["logStreams"]
    assert [stream["logStreamName"].rpartition("-")[0] for stream in streams] == ["job-1/algo-1"]


def test_what_is_wrong_is_refused_before_there_is_a_job(aws: Account) -> None:
    good = aws.request()
    aws.sagemaker.create_training_job(**good)
    assert aws.refused("create_training_job", **good)[0] == "ResourceInUse"
    code, message = aws.refused("create_training_job", **good | {"TrainingJobName": "a_b", "RoleArn": "x" * 30})
    assert (code, message[:28]) == ("ValidationException", "2 validation errors detected")
    wrong = {
        "does not exist": {"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket/out"}},
        "Could not assume role": {"RoleArn": aws.role + "-not"},
        "MaxWaitTimeInSeconds": {"EnableManagedSpotTraining": True},
        "ResourceConfig": {"ResourceConfig": {"VolumeSizeInGB": 5}},
        "enum value set": {"ResourceConfig": good["ResourceConfig"] | {"InstanceType": "ml.huge"}},
        "length less than or equal to 2500": {"HyperParameters": {"a": "x" * 2501}},
    }
    empty = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{aws.bucket}/none/"}}
    wrong["No S3 objects found"] = {"InputDataConfig": [{"ChannelName": "train", "DataSource": empty}]}
    for text, change in wrong.items():
        code, message = aws.refused("create_training_job", **good | {"TrainingJobName": "other"} | change)
        assert code == "ValidationException"
        assert text in message
    assert aws.refused("describe_training_job", TrainingJobName="other")[0] == "ValidationException"


def test_a_job_is_stopped_and_its_name_set_free(aws: Account) -> None:
    aws.emulator.script = Script(stopping_s=30)
    aws.sagemaker.create_training_job(**aws.request())
    aws.emulator.clock.advance(20)
    assert aws.refused("delete_training_job", TrainingJobName="job-1")[0] == "ResourceInUse"
    aws.sagemaker.stop_training_job(TrainingJobName="job-1")
    aws.sagemaker.stop_training_job(TrainingJobName="job-1")
    assert aws.job()["TrainingJobStatus"] == "Stopping"
    aws.emulator.clock.advance(31)
    job = aws.job()
    assert (job["TrainingJobStatus"], words(job)[-2:]) == ("Stopped", ["Stopping", "Stopped"])
    assert job["ModelArtifacts"]["S3ModelArtifacts"].endswith("model.tar.gz")
    assert "Stopped" in aws.refused("stop_training_job", TrainingJobName="job-1")[1]
    aws.sagemaker.delete_training_job(TrainingJobName="job-1")
    aws.sagemaker.create_training_job(**aws.request())


def test_limits_stop_a_job_and_spot_interrupts_it(aws: Account) -> None:
    aws.sagemaker.create_training_job(**aws.request("slow", StoppingCondition={"MaxRuntimeInSeconds": 20}))
    aws.emulator.script = Script(interrupt_at=0.5, interrupted_s=100)
    spot = {"EnableManagedSpotTraining": True}
    limits = {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    aws.sagemaker.create_training_job(**aws.request("spot", StoppingCondition=limits, **spot))
    limits = {"MaxRuntimeInSeconds": 50, "MaxWaitTimeInSeconds": 60}
    aws.sagemaker.create_training_job(**aws.request("late", StoppingCondition=limits, **spot))
    aws.emulator.clock.advance(40)
    assert aws.job("spot")["SecondaryStatus"] == "Interrupted"
    aws.emulator.clock.advance(500)
    ends = {name: aws.job(name) for name in ("slow", "spot", "late")}
    assert {name: (job["TrainingJobStatus"], job["SecondaryStatus"]) for name, job in ends.items()} == {
        "slow": ("Stopped", "MaxRuntimeExceeded"), "spot": ("Completed", "Completed"),
        "late": ("Stopped", "MaxWaitTimeExceeded"),
    }  # fmt: skip
    assert words(ends["spot"]).count("Training") == 2
    assert ends["spot"]["BillableTimeInSeconds"] < ends["spot"]["TrainingTimeInSeconds"]


def test_a_job_fails_with_a_reason(aws: Account) -> None:
    aws.emulator.script = Script(fail_at=0.5, error_code="AlgorithmError", error_message="exit code: 1")
    aws.sagemaker.create_training_job(**aws.request())
    aws.emulator.clock.advance(100)
    job = aws.job()
    assert (job["TrainingJobStatus"], job["FailureReason"]) == ("Failed", "AlgorithmError: exit code: 1")
    assert "ModelArtifacts" not in job


def test_lists_are_filtered_sorted_and_paged(aws: Account) -> None:
    for name in ("b-1", "a-1", "a-2"):
        aws.sagemaker.create_training_job(**aws.request(name))
        aws.emulator.clock.advance(100)
    names = lambda **asked: [  # noqa: E731
        job["TrainingJobName"] for job in aws.sagemaker.list_training_jobs(**asked)["TrainingJobSummaries"]
    ]
    assert names() == ["a-2", "a-1", "b-1"]
    assert names(SortBy="Name", SortOrder="Ascending") == ["a-1", "a-2", "b-1"]
    assert names(NameContains="A-", StatusEquals="Completed") == ["a-2", "a-1"]
    assert names(StatusEquals="InProgress") == []
    pages = aws.sagemaker.get_paginator("list_training_jobs").paginate(MaxResults=1)
    assert [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]] == names()
    made = aws.job("a-1")["CreationTime"]
    assert names(CreationTimeAfter=made) == ["a-2"]
    assert aws.refused("list_training_jobs", NextToken="nonsense")[0] == "ValidationException"


def test_the_hub_has_documents_and_a_manifest(aws: Account) -> None:
    listed = aws.sagemaker.list_hub_contents(HubName=HUB, HubContentType="Model")["HubContentSummaries"]
    assert LLAMA in {entry["HubContentName"] for entry in listed}
    for entry in listed:
        name = entry["HubContentName"]
        content = aws.sagemaker.describe_hub_content(HubName=HUB, HubContentType="Model", HubContentName=name)
        document = json.loads(content["HubContentDocument"])
        assert "invented" in document["CloudtuneNote"]
        for recipe in document.get("RecipeCollection", ()):
            bucket, _, key = recipe["SmtjOverrideParamsS3Uri"].removeprefix("s3://").partition("/")
            assert "max_epochs" in json.loads(aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    bucket = f"jumpstart-cache-prod-{aws.settings.aws_region}"
    manifest = json.loads(aws.s3.get_object(Bucket=bucket, Key="models_manifest.json")["Body"].read())
    assert {entry["model_id"] for entry in manifest} == {entry["HubContentName"] for entry in listed}
    nobody = {"HubName": HUB, "HubContentType": "Model", "HubContentName": "nobody"}
    assert aws.refused("describe_hub_content", **nobody)[0] == "ResourceNotFound"


def serverless(aws: Account, group: str, **more: Any) -> dict[str, Any]:
    content = aws.sagemaker.describe_hub_content(HubName=HUB, HubContentType="Model", HubContentName=LLAMA)
    config = {"BaseModelArn": content["HubContentArn"], "AcceptEula": True, "JobType": "FineTuning",
              "CustomizationTechnique": "SFT", "Peft": "LORA"}  # fmt: skip
    request = aws.request("serverless-1") | {"HyperParameters": {"max_epochs": "2"}} | more
    for key in ("AlgorithmSpecification", "ResourceConfig"):
        del request[key]
    config |= request.pop("config", {})
    return request | {"ServerlessJobConfig": config, "ModelPackageConfig": {"ModelPackageGroupArn": group}}


def test_a_serverless_job_makes_a_model_package(aws: Account) -> None:
    group = aws.sagemaker.create_model_package_group(ModelPackageGroupName="tuned")["ModelPackageGroupArn"]
    assert "already exists" in aws.refused("create_model_package_group", ModelPackageGroupName="tuned")[1]
    aws.sagemaker.create_training_job(**serverless(aws, group))
    aws.emulator.clock.advance(37)
    assert aws.job("serverless-1")["ProgressInfo"]["MaxEpoch"] == 2
    aws.emulator.clock.advance(100)
    job = aws.job("serverless-1")
    assert job["BillableTokenCount"] > 0
    package = aws.sagemaker.describe_model_package(ModelPackageName=job["OutputModelPackageArn"])
    assert (package["ModelPackageGroupName"], package["ModelPackageVersion"]) == ("tuned", 1)
    source = package["InferenceSpecification"]["Containers"][0]["ModelDataSource"]["S3DataSource"]["S3Uri"]
    assert source == f"s3://{aws.bucket}/out/serverless-1/output/model/"
    listed = aws.sagemaker.list_model_packages(ModelPackageGroupName="tuned")["ModelPackageSummaryList"]
    assert [one["ModelPackageArn"] for one in listed] == [job["OutputModelPackageArn"]]
    assert aws.refused("delete_model_package_group", ModelPackageGroupName="tuned")[0] == "ConflictException"
    aws.sagemaker.delete_model_package(ModelPackageName=job["OutputModelPackageArn"])
    aws.sagemaker.delete_model_package_group(ModelPackageGroupName="tuned")


def test_a_serverless_job_is_held_against_its_recipe(aws: Account) -> None:
    group = aws.sagemaker.create_model_package_group(ModelPackageGroupName="tuned")["ModelPackageGroupArn"]
    wrong: dict[str, dict[str, Any]] = {
        "global_batch_size": {"HyperParameters": {"global_batch_size": "9"}},
        "warp_speed is not supported": {"HyperParameters": {"warp_speed": "9"}},
        "agreement": {"config": {"AcceptEula": False}},
        "does not support RLVR": {"config": {"CustomizationTechnique": "RLVR", "Peft": "LORA", "BaseModelArn": ""}},
    }
    falcon = aws.sagemaker.describe_hub_content(
        HubName=HUB, HubContentType="Model", HubContentName="huggingface-llm-falcon-7b-bf16"
    )
    wrong["does not support RLVR"]["config"]["BaseModelArn"] = falcon["HubContentArn"]
    for text, change in wrong.items():
        assert text in aws.refused("create_training_job", **serverless(aws, group, **change))[1]


def test_gated_weights_need_the_agreement(aws: Account) -> None:
    content = aws.sagemaker.describe_hub_content(HubName=HUB, HubContentType="Model", HubContentName=LLAMA)
    uri = json.loads(content["HubContentDocument"])["TrainingArtifactUri"]
    source = {"S3DataType": "S3Prefix", "S3Uri": uri}
    request = aws.request()
    channel = {"ChannelName": "model", "DataSource": {"S3DataSource": source}}
    request["InputDataConfig"].append(channel)
    assert "AcceptEula" in aws.refused("create_training_job", **request)[1]
    source["ModelAccessConfig"] = {"AcceptEula": True}
    aws.sagemaker.create_training_job(**request)


def test_an_endpoint_answers_from_the_rows_and_is_taken_down(aws: Account) -> None:
    aws.sagemaker.create_training_job(**aws.request())
    aws.emulator.clock.advance(100)
    container = {"Image": "an/image:1", "ModelDataUrl": aws.job()["ModelArtifacts"]["S3ModelArtifacts"]}
    aws.sagemaker.create_model(ModelName="m", PrimaryContainer=container, ExecutionRoleArn=aws.role)
    variant = {"VariantName": "AllTraffic", "ModelName": "m", "InstanceType": "ml.g5.2xlarge"}
    config = {"EndpointConfigName": "c", "ProductionVariants": [variant | {"InitialInstanceCount": 1}]}
    assert "Could not find endpoint configuration" in aws.refused(
        "create_endpoint", EndpointName="e", EndpointConfigName="c"
    )[1]  # fmt: skip
    aws.sagemaker.create_endpoint_config(**config)
    assert "already existing" in aws.refused("create_endpoint_config", **config)[1]
    aws.sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    assert aws.sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Creating"
    with pytest.raises(ClientError, match="not found"):
        aws.runtime.invoke_endpoint(EndpointName="e", Body=b"{}")
    aws.emulator.clock.advance(5)
    requested = {"messages": [{"role": "user", "content": "4+1?"}]}
    given = {"EndpointName": "e", "ContentType": "application/json"}
    answer = json.loads(aws.runtime.invoke_endpoint(**given, Body=json.dumps(requested))["Body"].read())
    assert answer["choices"][0]["message"]["content"] == "5 it is"
    plain = json.dumps({"inputs": "4+1?", "parameters": {"max_new_tokens": 2}})
    assert json.loads(aws.runtime.invoke_endpoint(**given, Body=plain)["Body"].read()) == {"generated_text": "5 it"}
    streamed = aws.runtime.invoke_endpoint_with_response_stream(**given, Body=plain)["Body"]
    parts = [json.loads(part["PayloadPart"]["Bytes"].removeprefix(b"data:")) for part in streamed]
    assert [part["token"]["text"] for part in parts] == ["5", " it"]
    with pytest.raises(ClientError) as error:
        aws.runtime.invoke_endpoint(**given, Body=b'{"x": 1}')
    assert error.value.response["Error"]["Code"] == "ModelError"
    aws.sagemaker.delete_endpoint(EndpointName="e")
    assert aws.sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Deleting"
    aws.emulator.clock.advance(5)
    assert aws.sagemaker.list_endpoints()["Endpoints"] == []
    aws.sagemaker.delete_endpoint_config(EndpointConfigName="c")
    aws.sagemaker.delete_model(ModelName="m")
    assert "Could not find model" in aws.refused("delete_model", ModelName="m")[1]


def test_components_share_an_endpoint(aws: Account) -> None:
    aws.sagemaker.create_training_job(**aws.request())
    aws.emulator.clock.advance(100)
    uri = aws.job()["ModelArtifacts"]["S3ModelArtifacts"]
    variant = {"VariantName": "v", "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 1}
    aws.sagemaker.create_endpoint_config(
        EndpointConfigName="c", ProductionVariants=[variant], ExecutionRoleArn=aws.role
    )
    aws.sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    part: dict[str, Any] = {
        "InferenceComponentName": "base", "EndpointName": "e", "VariantName": "v",
        "Specification": {
            "Container": {"Image": "i", "ArtifactUrl": uri},
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 1024},
        },
        "RuntimeConfig": {"CopyCount": 1},
    }  # fmt: skip
    assert "not InService" in aws.refused("create_inference_component", **part)[1]
    aws.emulator.clock.advance(5)
    aws.sagemaker.create_inference_component(**part)
    adapter = {"BaseInferenceComponentName": "base", "Container": {"ArtifactUrl": uri}}
    named: dict[str, Any] = {"InferenceComponentName": "tuned", "EndpointName": "e", "Specification": adapter}
    for wrong, reported in (
        ({"ModelName": "m"}, "has no ModelName"),
        ({"Container": {}}, "needs Container.ArtifactUrl"),
        ({"BaseInferenceComponentName": "none"}, "Could not find"),
    ):
        assert reported in aws.refused("create_inference_component", **named | {"Specification": adapter | wrong})[1]
    aws.sagemaker.create_inference_component(**named)
    shown = aws.sagemaker.describe_inference_component(InferenceComponentName="tuned")
    assert shown["InferenceComponentStatus"] == "Creating"
    aws.emulator.clock.advance(5)
    requested = json.dumps({"inputs": "4+1?"})
    aws.sagemaker.update_inference_component(InferenceComponentName="base", RuntimeConfig={"CopyCount": 0})
    with pytest.raises(ClientError, match="has no capacity"):
        aws.runtime.invoke_endpoint(EndpointName="e", InferenceComponentName="tuned", Body=requested)
    aws.sagemaker.update_inference_component_runtime_config(
        InferenceComponentName="base", DesiredRuntimeConfig={"CopyCount": 1}
    )
    waiting = aws.sagemaker.describe_inference_component(InferenceComponentName="base")["RuntimeConfig"]
    assert (waiting["DesiredCopyCount"], waiting["CurrentCopyCount"]) == (1, 0)
    aws.emulator.clock.advance(5)
    answer = aws.runtime.invoke_endpoint(EndpointName="e", InferenceComponentName="tuned", Body=requested)
    assert json.loads(answer["Body"].read()) == {"generated_text": "5 it is"}
    with pytest.raises(ClientError, match="Inference Component Name"):
        aws.runtime.invoke_endpoint(EndpointName="e", Body=requested)
    listed = aws.sagemaker.list_inference_components(EndpointNameEquals="e")["InferenceComponents"]
    assert {one["InferenceComponentName"] for one in listed} == {"base", "tuned"}
    assert "tuned" in aws.refused("delete_inference_component", InferenceComponentName="base")[1]
    for name in ("tuned", "base"):
        assert "Cannot delete endpoint" in aws.refused("delete_endpoint", EndpointName="e")[1]
        aws.sagemaker.delete_inference_component(InferenceComponentName=name)
        aws.emulator.clock.advance(5)
    aws.sagemaker.delete_endpoint(EndpointName="e")


def test_what_scales_is_put_described_and_deleted(aws: Account) -> None:
    scaler = aws.client("application-autoscaling")
    where = {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/e/variant/v",
             "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}  # fmt: skip
    tracked = {"TargetValue": 9.0, "PredefinedMetricSpecification": {
        "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}  # fmt: skip
    policy = {"PolicyName": "p", "PolicyType": "TargetTrackingScaling",
              "TargetTrackingScalingPolicyConfiguration": tracked}  # fmt: skip
    with pytest.raises(ClientError, match="does not exist"):
        scaler.register_scalable_target(**where, MinCapacity=1, MaxCapacity=2)
    aws.sagemaker.create_model(
        ModelName="m", ExecutionRoleArn=aws.role, PrimaryContainer={"Image": "i", "ModelDataUrl": "s3://a-b-c/m.tar.gz"}
    )
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    aws.sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    aws.sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    with pytest.raises(scaler.exceptions.ObjectNotFoundException):
        scaler.put_scaling_policy(**where, **policy)
    scaler.register_scalable_target(**where, MinCapacity=1, MaxCapacity=2)
    scaler.register_scalable_target(**where, MaxCapacity=3)
    (target,) = scaler.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 3)
    arn = scaler.put_scaling_policy(**where, **policy)["PolicyARN"]
    assert scaler.put_scaling_policy(**where, **policy)["PolicyARN"] == arn
    (held,) = scaler.describe_scaling_policies(ServiceNamespace="sagemaker", PolicyNames=["p"])["ScalingPolicies"]
    assert held["TargetTrackingScalingPolicyConfiguration"] == tracked
    with pytest.raises(scaler.exceptions.ValidationException, match="enum value set"):
        scaler.put_scaling_policy(**where, **policy | {"PolicyType": "Guessing"})
    scaler.deregister_scalable_target(**where)
    assert scaler.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"] == []
    with pytest.raises(scaler.exceptions.ObjectNotFoundException):
        scaler.delete_scaling_policy(**where, PolicyName="p")


def test_tags_hang_on_things(aws: Account) -> None:
    arn = aws.sagemaker.create_training_job(**aws.request())["TrainingJobArn"]
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "team", "Value": "blue"}])
    aws.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a"])
    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "blue"}]


@pytest.mark.parametrize("kind", ["throttle", "server_error", "forbidden", "expired_credentials"])
def test_faults_are_in_the_services_words(aws: Account, kind: str) -> None:
    aws.emulator.faults.add(kind, "sagemaker.ListEndpoints", times=10)
    codes = {"throttle": "ThrottlingException", "server_error": "InternalFailure",
             "forbidden": "AccessDeniedException", "expired_credentials": "ExpiredTokenException"}  # fmt: skip
    assert aws.refused("list_endpoints")[0] == codes[kind]


def test_every_operation_is_one_of_the_services() -> None:
    assert set(OPERATIONS) <= shapes.operations()


def test_answers_keep_to_the_service_model(aws: Account) -> None:
    """Every member of an answer is one that botocore's model knows, and every required one is there."""
    aws.sagemaker.create_training_job(**aws.request())
    aws.emulator.clock.advance(100)
    aws.sagemaker.create_model_package_group(ModelPackageGroupName="g")
    calls: dict[str, dict[str, Any]] = {
        "DescribeTrainingJob": {"TrainingJobName": "job-1"}, "ListTrainingJobs": {},
        "DescribeHubContent": {"HubName": HUB, "HubContentType": "Model", "HubContentName": LLAMA},
        "ListHubContents": {"HubName": HUB, "HubContentType": "Model"}, "DescribeHub": {"HubName": HUB},
        "ListHubContentVersions": {"HubName": HUB, "HubContentType": "Model", "HubContentName": LLAMA},
        "DescribeModelPackageGroup": {"ModelPackageGroupName": "g"}, "ListModelPackageGroups": {},
    }  # fmt: skip
    from cloudtune_emulator.http import Call

    for operation, body in calls.items():
        call = Call(api="sagemaker", name=operation, body=body, now=aws.emulator.clock.now(), region="us-east-1")
        answer = OPERATIONS[operation](aws.emulator.context, call).body
        shape = model("sagemaker").operation_model(operation).output_shape
        assert set(answer) <= set(shape.members), operation
        assert set(shape.required_members) <= set(answer), operation
        assert not list(ShapeValidator(json=True).faults(shape, answer)), operation
