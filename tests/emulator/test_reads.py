"""The results of reads depend on the records and the time only. Reads change neither."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import boto3
import openai
import pytest
from tests.emulator.access import aws_keys
from tests.emulator.aws_desk import asked, converse_rows, desk
from tests.emulator.callers import Caller
from tests.emulator.conftest import MODEL, chat_rows
from tests.emulator.routes import Route, credentials, every_route, send
from tests.emulator.test_bedrock_hosting import FILES, bring
from tests.emulator.test_bedrock_registering import NOVA, trained

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.aws import shapes
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STEP_S, STEPS = 150.0, 8
"""Together longer than an idle component keeps its copies."""
GROUP = "/aws/sagemaker/TrainingJobs"
MOTO = re.compile(rb"<(RequestId|CreationDate)>.*?</")
"""moto numbers its answers, and makes the first bucket when it starts."""
READS = ("Describe", "List", "Get")
SHOWN = ("Content-Type", "ETag", "Content-Length")


def fill(emulator: Emulator) -> dict[str, dict[str, str]]:
    """Something of every kind, some of it on its way; returns what paths name, by API or by call."""
    ids: dict[str, dict[str, str]] = {}
    for api, path, key in (("openai", "v1", emulator.settings.api_key),
                           ("azure", "openai/v1", emulator.settings.azure_key)):  # fmt: skip
        with openai.OpenAI(base_url=f"{emulator.url}/{path}", api_key=key, max_retries=0) as client:
            file = client.files.create(file=("train.jsonl", chat_rows()), purpose="fine-tune").id
            job = client.fine_tuning.jobs.create(model=MODEL, training_file=file).id
        ids[api] = {"file": file, "job": job, "model": MODEL}
    caller, settings = Caller(emulator), emulator.settings
    group = f"/subscriptions/{settings.subscription}/resourceGroups/{settings.resource_group}/providers"
    model = {"name": MODEL, "format": "OpenAI", "version": "1"}
    body = {"sku": {"name": "Standard", "capacity": 1}, "properties": {"model": model}}
    account = f"{group}/Microsoft.CognitiveServices/accounts/{settings.account}"
    put(caller, f"{account}/deployments/d", body)
    details = {"model": {"uri": "x"}, "trainingData": {"uri": "x"}, "taskType": "ChatCompletion"}
    work = {"properties": {"jobType": "FineTuning", "fineTuningDetails": details, "outputs": {"o": {"uri": "x"}}}}
    put(caller, f"{group}/Microsoft.MachineLearningServices/workspaces/w/jobs/j", work)
    blob = f"/blobs/{settings.account}/workspaceblobs/a.txt"
    assert caller.blob("PUT", blob, b"a").status == 201
    ids["arm"] = {"deployment": "d", "job": "j", "workspace": "w", "datastore": "workspaceblobstore"}
    with desk(emulator) as aws:
        ids["bedrock"] = fill_aws(emulator, aws)
    imported = {"modelIdentifier": "brought"}
    ids |= {"bedrock.GetImportedModel": imported, "bedrock.GetModelImportJob": {"jobIdentifier": "import-brought"}}
    ids["bedrock.GetFoundationModel"] = {"modelIdentifier": "amazon.nova-lite-v1:0:300k"}
    return ids


def put(caller: Caller, path: str, body: Mapping[str, Any]) -> None:
    answer = caller.management("PUT", f"{path}?api-version=2025-01-01", json.dumps(body).encode())
    assert answer.status == 201, answer.data


def fill_aws(emulator: Emulator, aws: Any) -> dict[str, str]:
    bucket, role = os.environ["EMULATED_BUCKET"], os.environ["EMULATED_ROLE"]
    aws("s3").put_object(Bucket=bucket, Key="rows.jsonl", Body=converse_rows())
    aws("s3").put_object(Bucket=bucket, Key="kept", Body=b"kept")
    sagemaker, bedrock = aws("sagemaker"), aws("bedrock")
    sagemaker.create_model_package_group(ModelPackageGroupName="mine")
    trained(emulator, aws, NOVA)
    bedrock.create_model_customization_job(**asked())
    emulator.clock.advance(5000.0)
    bedrock.create_custom_model_deployment(modelDeploymentName="d", modelArn=bedrock.get_custom_model(
        modelIdentifier="first-model")["modelArn"])  # fmt: skip
    bedrock.create_provisioned_model_throughput(modelUnits=1, provisionedModelName="units", modelId="first-model")
    variant = {"VariantName": "v", "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant], ExecutionRoleArn=role)
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    container = {"Image": "i", "ModelDataUrl": f"s3://{bucket}/m.tar.gz"}
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer=container)
    emulator.clock.advance(5.0)
    needs = {"MinMemoryRequiredInMb": 1024}
    sagemaker.create_inference_component(
        InferenceComponentName="part", EndpointName="e", VariantName="v", RuntimeConfig={"CopyCount": 2},
        Specification={"ModelName": "m", "ComputeResourceRequirements": needs},
    )  # fmt: skip
    scaled: dict[str, str] = {"ServiceNamespace": "sagemaker", "ResourceId": "inference-component/part",
                              "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount"}  # fmt: skip
    # Not of the desk's: it holds answers against patterns, and Python's re does not know this service's.
    scaling = boto3.client("application-autoscaling", endpoint_url=emulator.url, region_name="us-east-1",
                           **aws_keys(emulator))  # fmt: skip
    scaling.register_scalable_target(**scaled, MinCapacity=0, MaxCapacity=2)
    scaling.put_scaling_policy(
        **scaled, PolicyName="p", PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={"TargetValue": 5.0},
    )  # fmt: skip
    # Of two jobs, the one that is made first ends last.
    for name, running_s in (("slow", 300.0), ("quick", 100.0)):
        emulator.script = Script(running_s=running_s)
        bedrock.create_model_customization_job(**asked(jobName=name, customModelName=f"of-{name}"))
        serverless(sagemaker, bucket, role, name)
    bring(aws, FILES)
    return {"modelIdentifier": "first-model", "jobIdentifier": "slow", "customModelDeploymentIdentifier": "d",
            "provisionedModelId": "units"}  # fmt: skip


def serverless(sagemaker: Any, bucket: str, role: str, name: str) -> None:
    """A job that registers a version in its group when it ends."""
    group = sagemaker.describe_model_package_group(ModelPackageGroupName="mine")["ModelPackageGroupArn"]
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/rows.jsonl"}
    hub = f"arn:aws:sagemaker:us-east-1:aws:hub-content/SageMakerPublicHub/Model/{NOVA}"
    sagemaker.create_training_job(
        TrainingJobName=name, RoleArn=role, HyperParameters={}, OutputDataConfig={"S3OutputPath": f"s3://{bucket}/out"},
        InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        ServerlessJobConfig={"BaseModelArn": hub, "JobType": "FineTuning", "CustomizationTechnique": "SFT",
                             "Peft": "LORA"},
        ModelPackageConfig={"ModelPackageGroupArn": group},
    )  # fmt: skip


def reads(emulator: Emulator, ids: dict[str, dict[str, str]]) -> Iterator[Route]:
    """Every route that reads, found in the emulator's own tables."""
    named = {
        "TrainingJobName": "slow", "ModelPackageGroupName": "mine", "ModelPackageName": "mine/1", "ModelName": "m",
        "HubName": "SageMakerPublicHub", "HubContentType": "Model", "HubContentName": NOVA.partition("/")[0],
        "EndpointConfigName": "c", "EndpointName": "e", "InferenceComponentName": "part", "TrackingServerName": "t",
        "Arn": "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app", "ServiceNamespace": "sagemaker",
        "ResourceArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e",
    }  # fmt: skip
    for route in every_route(emulator.settings, ids):
        operation = route.headers.get("X-Amz-Target", "").rpartition(".")[2]
        if route.method in ("GET", "HEAD") and route.name != "GET requests":  # which lists the requests themselves
            yield route
        elif operation.startswith(READS) and route.api in ("sagemaker", "application-autoscaling"):
            members = shapes.model(route.api).operation_model(operation).input_shape.members
            yield route._replace(body=json.dumps({name: named[name] for name in members if name in named}).encode())
    for operation in ("DescribeLogGroups", "DescribeLogStreams", "FilterLogEvents"):
        headers = {"X-Amz-Target": f"Logs_20140328.{operation}", "Content-Type": "application/x-amz-json-1.1"}
        body = {} if operation == "DescribeLogGroups" else {"logGroupName": GROUP}
        yield Route("logs", f"logs.{operation}", "POST", "/", headers, json.dumps(body).encode())


def ask(emulator: Emulator, route: Route) -> tuple[int, dict[str, str], Any]:
    answer = send(emulator, route, credentials(emulator, route))
    assert answer.status_code < 500, (route, answer.data)
    headers = {name: answer.headers[name] for name in SHOWN if name in answer.headers}
    if route.api != "logs":
        content = answer.data.replace(emulator.url.encode(), b"")
        return answer.status_code, headers, MOTO.sub(b"", content)
    # moto takes the time of receipt from the machine's clock.
    document = json.loads(answer.data)
    entries = document.get("events") or document.get("logStreams") or document["logGroups"]
    shown = [{name: one[name] for name in ("logStreamName", "timestamp", "message") if name in one} for one in entries]
    return answer.status_code, {}, shown


def name_of(route: Route) -> str:
    return f"{route.name} {route.method} {route.path}"


def held(emulator: Emulator) -> dict[str, Any]:
    """All that the emulator keeps: documents, files, objects in S3 and logs."""
    store = emulator.store
    rows = store._db.execute("SELECT kind, api, id, body FROM documents ORDER BY kind, api, seq").fetchall()
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
             for path in sorted(store.content("").rglob("*")) if path.is_file()}  # fmt: skip
    buckets = emulator.context.aws.backend("s3").buckets
    objects = {f"{name}/{key}": (entry.etag, entry.last_modified.isoformat())
               for name, bucket in buckets.items() for key, entry in bucket.keys.items()}  # fmt: skip
    groups = emulator.context.aws.backend("logs", "us-east-1").groups
    lines = {name: [(event.timestamp, event.message) for event in stream.events]
             for group in groups.values() for name, stream in group.streams.items()}  # fmt: skip
    return {"documents": rows, "files": files, "objects": objects, "logs": lines}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, str]]]:
    """A stopped emulator's store, and what is in it."""
    folder = tmp_path_factory.mktemp("kept")
    with Emulator(Settings(store=folder / "store"), scale=0) as emulator:
        emulator.clock.advance(86400.0)  # ahead of the machine, so that it is the same time when it starts again
        ids = fill(emulator)
    return folder / "store", ids


def test_reads_leave_the_store_as_it_is(kept: tuple[Path, dict[str, dict[str, str]]], tmp_path: Path) -> None:
    folder, ids = kept
    shutil.copytree(folder, tmp_path / "store")
    with Emulator(Settings(store=tmp_path / "store"), scale=0) as emulator:
        emulator.clock.advance(110.0)  # some jobs have ended, and others go on
        emulator.settle()
        before = held(emulator)
        reported = {}
        for route in reads(emulator, ids):
            reported[name_of(route)] = ask(emulator, route)
            assert held(emulator) == before, route
        assert {name_of(route): ask(emulator, route) for route in reads(emulator, ids)} == reported
        missing = sorted(name for name, (status, _, _) in reported.items() if status >= 300)
        assert len(missing) < 5, missing


def test_what_reads_tell_is_not_of_the_reads_before(
    kept: tuple[Path, dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    folder, ids = kept
    ends = []
    for steps in (STEPS, 1):
        store = tmp_path / f"store-{steps}"
        shutil.copytree(folder, store)
        with Emulator(Settings(store=store), scale=0) as emulator:
            for _ in range(steps):
                emulator.clock.advance(STEP_S * STEPS / steps)
                reported = {name_of(route): ask(emulator, route) for route in reads(emulator, ids)}
            ends.append((reported, held(emulator)))
    (often, often_held), (once, once_held) = ends
    for kind, found in often_held.items():
        assert found == once_held[kind]
    assert often == once
