"""Bedrock's models in use, by boto3: deployments, throughput, imports, and answers of the script engine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from botocore.exceptions import ClientError, ReadTimeoutError
from tests.emulator.aws_desk import NOVA, asked, converse_rows, desk
from tests.emulator.signing import signed_headers

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.aws import shapes
from cloudtune_emulator.bedrock.routes import CONTROL, RUNTIME
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAID = [{"role": "user", "content": [{"text": "question 7"}]}]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(Settings(deploying_s=10), scale=0) as emulator:
        yield emulator


@pytest.fixture
def aws(emulator: Emulator) -> Iterator[Callable[[str], Any]]:
    with desk(emulator) as client:
        client("s3").put_object(Bucket=os.environ["EMULATED_BUCKET"], Key="rows.jsonl", Body=converse_rows())
        yield client


@pytest.fixture
def bedrock(aws: Callable[[str], Any]) -> Any:
    return aws("bedrock")


@pytest.fixture
def runtime(aws: Callable[[str], Any]) -> Any:
    return aws("bedrock-runtime")


@pytest.fixture
def tuned(emulator: Emulator, bedrock: Any) -> str:
    """A tuned model's ARN."""
    bedrock.create_model_customization_job(**asked())
    emulator.clock.advance(200)
    return str(bedrock.get_model_customization_job(jobIdentifier="first-job")["outputModelArn"])


def deploy(bedrock: Any, model: str, name: str = "mine", **more: Any) -> str:
    made = bedrock.create_custom_model_deployment(modelDeploymentName=name, modelArn=model, **more)
    return str(made["customModelDeploymentArn"])


def text(answer: dict[str, Any]) -> str:
    return str(answer["output"]["message"]["content"][0]["text"])


def test_every_operation_has_its_place_on_the_wire() -> None:
    known = {name for service in ("bedrock", "bedrock-runtime") for _, _, name in shapes.routes(service)}
    assert set(CONTROL) | set(RUNTIME) <= known


def test_a_deployment_from_creating_to_gone(emulator: Emulator, bedrock: Any, runtime: Any, tuned: str) -> None:
    arn = deploy(bedrock, tuned, description="for tests", tags=[{"key": "team", "value": "a"}])
    assert bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn)["status"] == "Creating"
    with pytest.raises(ClientError, match="ModelNotReadyException"):
        runtime.converse(modelId=arn, messages=SAID)
    with pytest.raises(ClientError, match="ConflictException"):
        bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
    emulator.clock.advance(11)
    found = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier="mine")
    assert (found["status"], found["modelArn"], found["description"]) == ("Active", tuned, "for tests")
    assert text(runtime.converse(modelId=arn, messages=SAID)) == "answer 7"
    listed = bedrock.list_custom_model_deployments(modelArnEquals=tuned)["modelDeploymentSummaries"]
    assert [one["customModelDeploymentArn"] for one in listed] == [arn]
    with pytest.raises(ClientError, match="ConflictException.*in use"):  # noqa: RUF043
        bedrock.delete_custom_model(modelIdentifier=tuned)
    bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn)
    bedrock.delete_custom_model(modelIdentifier=tuned)
    assert bedrock.list_custom_models()["modelSummaries"] == []
    assert bedrock.get_model_customization_job(jobIdentifier="first-job")["status"] == "Completed"


def test_a_deployment_is_made_once_and_its_name_is_its_own(bedrock: Any, tuned: str) -> None:
    first = deploy(bedrock, tuned, clientRequestToken="t-1")
    assert deploy(bedrock, tuned, clientRequestToken="t-1") == first
    with pytest.raises(ClientError, match="ConflictException"):
        deploy(bedrock, tuned, "other", clientRequestToken="t-1")
    with pytest.raises(ClientError, match="already in use"):
        deploy(bedrock, tuned)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        deploy(bedrock, tuned[:-12] + "abcdefghijkl", "other")


def test_an_update_swaps_the_model(emulator: Emulator, bedrock: Any, runtime: Any, tuned: str) -> None:
    bedrock.create_model_customization_job(**asked(jobName="second-job", customModelName="second-model"))
    emulator.clock.advance(200)
    second = bedrock.get_custom_model(modelIdentifier="second-model")["modelArn"]
    arn = deploy(bedrock, tuned)
    with pytest.raises(ClientError, match="not Active"):
        bedrock.update_custom_model_deployment(customModelDeploymentIdentifier=arn, modelArn=second)
    emulator.clock.advance(11)
    bedrock.update_custom_model_deployment(customModelDeploymentIdentifier=arn, modelArn=second)
    found = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn)
    assert (found["modelArn"], found["updateDetails"]["updateStatus"]) == (tuned, "Updating")
    assert text(runtime.converse(modelId=arn, messages=SAID)) == "answer 7"
    emulator.clock.advance(11)
    found = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn)
    assert (found["modelArn"], found["updateDetails"]["updateStatus"]) == (second, "UpdateCompleted")
    bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)


def test_throughput_by_the_unit(emulator: Emulator, bedrock: Any, runtime: Any, tuned: str) -> None:
    more: dict[str, Any] = {"modelUnits": 1, "modelId": tuned}
    arn = bedrock.create_provisioned_model_throughput(provisionedModelName="units", **more)["provisionedModelArn"]
    assert bedrock.get_provisioned_model_throughput(provisionedModelId=arn)["status"] == "Creating"
    emulator.clock.advance(11)
    assert bedrock.get_provisioned_model_throughput(provisionedModelId="units")["status"] == "InService"
    assert text(runtime.converse(modelId=arn, messages=SAID)) == "answer 7"
    bedrock.update_provisioned_model_throughput(provisionedModelId=arn, desiredProvisionedModelName="renamed")
    committed = bedrock.create_provisioned_model_throughput(
        provisionedModelName="committed", commitmentDuration="OneMonth", **more
    )["provisionedModelArn"]
    listed = bedrock.list_provisioned_model_throughputs()["provisionedModelSummaries"]
    assert [one["provisionedModelName"] for one in listed] == ["committed", "renamed"]
    bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
    with pytest.raises(ClientError, match="committed until"):
        bedrock.delete_provisioned_model_throughput(provisionedModelId=committed)
    emulator.clock.advance(31 * 86400)
    bedrock.delete_provisioned_model_throughput(provisionedModelId=committed)
    assert bedrock.list_provisioned_model_throughputs()["provisionedModelSummaries"] == []


def test_answers_whole_and_in_a_stream(emulator: Emulator, bedrock: Any, runtime: Any, tuned: str) -> None:
    arn = deploy(bedrock, tuned)
    emulator.clock.advance(11)
    whole = runtime.converse(modelId=arn, messages=SAID, system=[{"text": "be brief"}])
    assert (whole["stopReason"], text(whole)) == ("end_turn", "answer 7")
    assert whole["usage"]["totalTokens"] == whole["usage"]["inputTokens"] + whole["usage"]["outputTokens"]
    cut = runtime.converse(modelId=arn, messages=SAID, inferenceConfig={"maxTokens": 1})
    assert (cut["stopReason"], text(cut)) == ("max_tokens", "answer")
    stopped = runtime.converse(modelId=arn, messages=SAID, inferenceConfig={"stopSequences": [" 7"]})
    assert (stopped["stopReason"], text(stopped)) == ("stop_sequence", "answer")
    events = list(runtime.converse_stream(modelId=arn, messages=SAID)["stream"])
    assert [next(iter(event)) for event in events] == [
        "messageStart", "contentBlockDelta", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata",
    ]  # fmt: skip
    assert events[-1]["metadata"]["usage"] == runtime.converse(modelId=arn, messages=SAID)["usage"]
    body = {"messages": SAID, "inferenceConfig": {"maxTokens": 10}}
    answer = runtime.invoke_model(modelId=arn, body=json.dumps(body))
    assert text(json.load(answer["body"])) == "answer 7"
    chunks = runtime.invoke_model_with_response_stream(modelId=arn, body=json.dumps(body))["body"]
    documents = [json.loads(event["chunk"]["bytes"]) for event in chunks]
    said = [one["contentBlockDelta"]["delta"]["text"] for one in documents if "contentBlockDelta" in one]
    assert "".join(said) == "answer 7"


def test_what_the_runtime_refuses(runtime: Any, tuned: str) -> None:
    with pytest.raises(ClientError, match=r"on-demand throughput isn.t supported"):
        runtime.converse(modelId=tuned, messages=SAID)
    with pytest.raises(ClientError, match="model identifier is invalid"):
        runtime.converse(modelId="amazon.nothing-v1:0", messages=SAID)
    with pytest.raises(ClientError, match="end of its life"):
        runtime.converse(modelId="anthropic.claude-3-haiku-20240307-v1:0", messages=SAID)
    with pytest.raises(ClientError, match="toolConfig is not emulated"):
        tool: Any = {"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}
        runtime.converse(modelId="amazon.nova-lite-v1:0", messages=SAID, toolConfig={"tools": [tool]})
    with pytest.raises(ClientError, match="only text is emulated"):
        picture: Any = {"image": {"format": "png", "source": {"bytes": b"x"}}}
        runtime.converse(modelId="amazon.nova-lite-v1:0", messages=[{"role": "user", "content": [picture]}])
    assert "received" in text(runtime.converse(modelId="amazon.nova-lite-v1:0", messages=SAID))


CONFIG = {"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"}
FILES = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"0", "tokenizer.json": b"{}",
         "tokenizer_config.json": b"{}"}  # fmt: skip


def bring(aws: Callable[[str], Any], files: dict[str, bytes], name: str = "brought", **more: Any) -> str:
    bucket = os.environ["EMULATED_BUCKET"]
    for key, data in files.items():
        aws("s3").put_object(Bucket=bucket, Key=f"weights-{name}/{key}", Body=data)
    source = {"s3DataSource": {"s3Uri": f"s3://{bucket}/weights-{name}"}}
    made = aws("bedrock").create_model_import_job(
        jobName=f"import-{name}", importedModelName=name, roleArn=os.environ["EMULATED_ROLE"], modelDataSource=source,
        **more,
    )  # fmt: skip
    return str(made["jobArn"])


def test_a_model_from_elsewhere(emulator: Emulator, aws: Callable[[str], Any], bedrock: Any, runtime: Any) -> None:
    arn = bring(aws, FILES, clientRequestToken="t")
    assert bring(aws, FILES, clientRequestToken="t") == arn
    with pytest.raises(ClientError, match="ConflictException"):
        bring(aws, FILES)
    assert bedrock.get_model_import_job(jobIdentifier=arn)["status"] == "InProgress"
    assert bedrock.list_imported_models()["modelSummaries"] == []
    emulator.clock.advance(100)
    job = bedrock.get_model_import_job(jobIdentifier="import-brought")
    assert job["status"] == "Completed"
    assert len(bedrock.list_model_import_jobs(statusEquals="Completed")["modelImportJobSummaries"]) == 1
    model = bedrock.get_imported_model(modelIdentifier="brought")
    assert (model["modelArn"], model["modelArchitecture"]) == (job["importedModelArn"], "llama")
    body = json.dumps({"prompt": "hello", "max_gen_len": 5})
    answer = json.load(runtime.invoke_model(modelId=model["modelArn"], body=body)["body"])
    assert answer["choices"][0]["message"]["content"]
    assert text(runtime.converse(modelId=model["modelArn"], messages=SAID))
    bedrock.delete_imported_model(modelIdentifier=model["modelArn"])
    assert bedrock.list_imported_models()["modelSummaries"] == []
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        runtime.converse(modelId=model["modelArn"], messages=SAID)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config.json": None}, "config.json is missing"),
        ({"config.json": b'{"architectures": ["PhiForCausalLM"]}'}, "PhiForCausalLM is not supported"),
        ({"config.json": json.dumps(CONFIG | {"quantization_config": {}}).encode()}, "Quantized"),
        ({"config.json": json.dumps(CONFIG | {"torch_dtype": "int8"}).encode()}, "int8"),
        ({"model.safetensors": None}, "no safetensors"),
        ({"tokenizer.json": None}, "tokenizer's files are missing"),
    ],
)
def test_what_cannot_be_imported_fails(
    emulator: Emulator, aws: Callable[[str], Any], bedrock: Any, change: dict[str, bytes | None], words: str
) -> None:
    bring(aws, {name: data for name, data in (FILES | change).items() if data is not None})
    emulator.clock.advance(2)
    job = bedrock.get_model_import_job(jobIdentifier="import-brought")
    assert job["status"] == "Failed"
    assert words in job["failureMessage"]


def test_an_import_fails_of_the_service(emulator: Emulator, aws: Callable[[str], Any], bedrock: Any) -> None:
    emulator.script = Script(fail_at=0.5, error_message="Trouble.")
    bring(aws, FILES)
    emulator.clock.advance(100)
    job = bedrock.get_model_import_job(jobIdentifier="import-brought")
    assert (job["status"], job["failureMessage"]) == ("Failed", "Trouble.")


def test_foundation_models(bedrock: Any) -> None:
    tunable = bedrock.list_foundation_models(byCustomizationType="FINE_TUNING")["modelSummaries"]
    assert NOVA in {one["modelId"] for one in tunable}
    assert not any(one["modelId"].startswith("anthropic") for one in tunable)
    amazon = bedrock.list_foundation_models(byProvider="Amazon")["modelSummaries"]
    assert {one["providerName"] for one in amazon} == {"Amazon"}
    old = bedrock.get_foundation_model(modelIdentifier="anthropic.claude-3-haiku-20240307-v1:0")["modelDetails"]
    assert old["modelLifecycle"]["status"] == "LEGACY"
    assert bedrock.get_foundation_model(modelIdentifier=NOVA)["modelDetails"]["modelLifecycle"]["status"] == "ACTIVE"
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        bedrock.get_foundation_model(modelIdentifier="amazon.nothing-v1:0")


def test_a_bedrock_api_key_opens_without_a_signature() -> None:
    """Over TLS: boto3 sends bearer tokens nowhere else."""
    with Emulator(Settings(), tls=True) as emulator, desk(emulator) as client:
        os.environ["AWS_BEARER_TOKEN_BEDROCK"] = emulator.settings.bedrock_api_key
        assert client("bedrock").list_foundation_models()["modelSummaries"]
        assert text(client("bedrock-runtime").converse(modelId="amazon.nova-lite-v1:0", messages=SAID))
        assert client("sts").get_caller_identity()["Account"] == emulator.settings.aws_account
    with Emulator(Settings(bedrock_api_key="another"), tls=True) as emulator, desk(emulator) as client:
        os.environ["AWS_BEARER_TOKEN_BEDROCK"] = "not that one"
        with pytest.raises(ClientError, match="AccessDeniedException"):
            client("bedrock").list_foundation_models()


def test_what_is_not_emulated_says_so(emulator: Emulator, bedrock: Any, runtime: Any) -> None:
    with pytest.raises(ClientError, match="ListGuardrails is not emulated"):
        bedrock.list_guardrails()
    with pytest.raises(ClientError, match="GetAsyncInvoke is not emulated"):
        runtime.get_async_invoke(invocationArn="arn:aws:bedrock:us-east-1:123456789012:async-invoke/abcdefghijkl")
    url = f"{emulator.url}/no-such-path"
    answer = urllib3.request("GET", url, headers=signed_headers(emulator, "GET", url, service="bedrock"))
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")


def test_a_fault_of_the_emulators_own_is_told_as_the_services(
    emulator: Emulator, bedrock: Any, tuned: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(emulator.context.engine, "status", broken)
    with pytest.raises(ClientError, match=r"InternalServerException.*see its log"):
        bedrock.get_model_customization_job(jobIdentifier="first-job")
    assert "a mistake of ours" in caplog.text


def test_faults_of_the_runtime(emulator: Emulator, runtime: Any) -> None:
    emulator.faults.add("throttle", "bedrock.Converse")
    with pytest.raises(ClientError, match="ThrottlingException"):
        runtime.converse(modelId="amazon.nova-lite-v1:0", messages=SAID)
    emulator.faults.add("late", "bedrock.Converse", seconds=1)
    with pytest.raises((ReadTimeoutError, Exception)):
        runtime.converse(modelId="amazon.nova-lite-v1:0", messages=SAID)
    emulator.clock.advance(2)
    runtime.converse(modelId="amazon.nova-lite-v1:0", messages=SAID)
    assert [seen["note"] for seen in emulator.requests if seen["call"] == "bedrock.Converse"] == [
        "throttle", "late", "late", ""
    ]  # fmt: skip
