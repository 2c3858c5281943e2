"""CreateCustomModel by boto3: Nova's models out of SageMaker, from a package or from AWS's own bucket."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.emulator.aws_desk import asked, converse_rows, desk

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.aws import buckets
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOVA, QWEN = "nova-textgeneration-lite-v2/1.0.0", "huggingface-reasoning-qwen3-8b/1.0.4"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(Settings(deploying_s=0.0), scale=0) as emulator:
        yield emulator


@pytest.fixture
def aws(emulator: Emulator) -> Iterator[Callable[[str], Any]]:
    with desk(emulator) as client:
        client("s3").put_object(Bucket=os.environ["EMULATED_BUCKET"], Key="rows.jsonl", Body=converse_rows())
        client("sagemaker").create_model_package_group(ModelPackageGroupName="mine")
        yield client


@pytest.fixture
def bedrock(aws: Callable[[str], Any]) -> Any:
    return aws("bedrock")


def trained(emulator: Emulator, aws: Callable[[str], Any], model: str = NOVA, *, peft: str | None = "LORA") -> str:
    """The package that a serverless job has made."""
    bucket, name = os.environ["EMULATED_BUCKET"], f"job-{model[:4]}-{peft or 'full'}"
    config = {"BaseModelArn": f"arn:aws:sagemaker:us-east-1:aws:hub-content/SageMakerPublicHub/Model/{model}",
              "JobType": "FineTuning", "CustomizationTechnique": "SFT"}  # fmt: skip
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/rows.jsonl"}
    group = aws("sagemaker").describe_model_package_group(ModelPackageGroupName="mine")["ModelPackageGroupArn"]
    aws("sagemaker").create_training_job(
        TrainingJobName=name, RoleArn=os.environ["EMULATED_ROLE"], HyperParameters={},
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/out"},
        InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        ServerlessJobConfig=config | ({"Peft": peft} if peft else {}),
        ModelPackageConfig={"ModelPackageGroupArn": group},
    )  # fmt: skip
    emulator.clock.advance(5000.0)
    response = aws("sagemaker").describe_training_job(TrainingJobName=name)
    assert response["TrainingJobStatus"] == "Completed", response.get("FailureReason")
    return str(response["OutputModelPackageArn"])


def of_package(arn: str, **more: Any) -> dict[str, Any]:
    source = {"modelPackageArnDataSource": {"modelPackageArn": arn}}
    return {"modelName": "brought", "customModelDataSource": source, "roleArn": os.environ["EMULATED_ROLE"]} | more


def refused(call: Callable[[], Any], code: str, words: str) -> None:
    with pytest.raises(ClientError, match=words) as error:
        call()
    assert error.value.response["Error"]["Code"] == code


def test_from_creating_to_active_to_an_answer(emulator: Emulator, aws: Callable[[str], Any], bedrock: Any) -> None:
    made = bedrock.create_custom_model(**of_package(trained(emulator, aws), modelTags=[{"key": "a", "value": "b"}]))
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    response = bedrock.get_custom_model(modelIdentifier="brought")
    assert (response["modelStatus"], response["customizationType"]) == ("Creating", "IMPORTED")
    assert not {"jobName", "hyperParameters", "failureMessage"} & set(response)
    (listed,) = bedrock.list_custom_models()["modelSummaries"]
    assert (listed["modelArn"], listed["modelStatus"]) == (made["modelArn"], "Creating")
    deploy = {"modelDeploymentName": "d", "modelArn": made["modelArn"]}
    refused(lambda: bedrock.create_custom_model_deployment(**deploy), "ValidationException", "only an Active model")
    refused(lambda: bedrock.delete_custom_model(modelIdentifier="brought"), "ConflictException", "being created")
    emulator.clock.advance(5000.0)
    assert bedrock.get_custom_model(modelIdentifier=made["modelArn"])["modelStatus"] == "Active"
    assert bedrock.list_tags_for_resource(resourceARN=made["modelArn"])["tags"] == [{"key": "a", "value": "b"}]
    place = bedrock.create_custom_model_deployment(**deploy)["customModelDeploymentArn"]
    said = aws("bedrock-runtime").converse(modelId=place, messages=[{"role": "user", "content": [{"text": "hello"}]}])
    assert said["output"]["message"]["content"][0]["text"]
    refused(lambda: bedrock.delete_custom_model(modelIdentifier="brought"), "ConflictException", "in use")
    bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=place)
    bedrock.delete_custom_model(modelIdentifier="brought")
    refused(lambda: bedrock.get_custom_model(modelIdentifier="brought"), "ResourceNotFoundException", "not found")


def test_the_same_token_makes_one_model_and_names_are_taken(
    emulator: Emulator, aws: Callable[[str], Any], bedrock: Any
) -> None:
    request = of_package(trained(emulator, aws), clientRequestToken="once")
    arn = bedrock.create_custom_model(**request)["modelArn"]
    assert bedrock.create_custom_model(**request)["modelArn"] == arn
    other = {"modelName": "another"}
    refused(lambda: bedrock.create_custom_model(**request | other), "ConflictException", "different parameters")
    again = {"clientRequestToken": "twice"}
    refused(lambda: bedrock.create_custom_model(**request | again), "ConflictException", "already in use")
    tuned = asked(customModelName="brought")
    refused(lambda: bedrock.create_model_customization_job(**tuned), "ConflictException", "already in use")
    assert len(emulator.store.all("custom_model", "bedrock")) == 1


def test_what_is_refused(emulator: Emulator, aws: Callable[[str], Any], bedrock: Any) -> None:
    nova, qwen = trained(emulator, aws), trained(emulator, aws, QWEN)
    bare = {"Containers": [{"Image": "an/image:1", "BaseModel": {"HubContentName": "nova-textgeneration-micro"}}]}
    empty = aws("sagemaker").create_model_package(ModelPackageName="bare", InferenceSpecification=bare)
    mine = {"modelSourceConfig": {"s3DataSource": {"s3Uri": f"s3://{os.environ['EMULATED_BUCKET']}/out/"}}}
    escrow = {"modelSourceConfig": {"s3DataSource": {"s3Uri": "s3://customer-escrow-123456789012-smtj-0/none/"}}}
    for changes, code, words in (
        ({"customModelDataSource": None}, "ValidationException", "exactly one"),
        (mine, "ValidationException", "exactly one"),
        (mine | {"customModelDataSource": None}, "ValidationException", "not in an Amazon-managed bucket"),
        (escrow | {"customModelDataSource": None}, "ValidationException", "no model files"),
        ({"modelName": "with spaces"}, "ValidationException", "regular expression"),
        ({"roleArn": "arn:aws:iam::123456789012:role/none"}, "ValidationException", "Could not assume"),
        (of_package(f"{nova}9"), "ResourceNotFoundException", "was not found"),
        (of_package(nova.replace("us-east-1", "eu-west-1")), "ValidationException", "not in this account and region"),
        (of_package(empty["ModelPackageArn"]), "ValidationException", "names no model data"),
        (of_package(qwen), "ValidationException", "use CreateModelImportJob"),
    ):  # fmt: skip
        given = {name: value for name, value in (of_package(nova) | changes).items() if value is not None}
        refused(lambda given=given: bedrock.create_custom_model(**given), code, words)  # type: ignore[misc]
    assert emulator.store.all("custom_model", "bedrock") == []


def test_weights_that_aws_keeps_are_named_and_not_shown(
    emulator: Emulator, aws: Callable[[str], Any], bedrock: Any
) -> None:
    package = aws("sagemaker").describe_model_package(ModelPackageName=trained(emulator, aws))
    (container,) = package["InferenceSpecification"]["Containers"]
    address = container["ModelDataSource"]["S3DataSource"]["S3Uri"]
    bucket, _, key = address.removeprefix("s3://").partition("/")
    assert bucket.startswith("customer-escrow-123456789012-")
    refused(lambda: aws("s3").list_objects_v2(Bucket=bucket), "AccessDenied", "Access Denied")
    refused(lambda: aws("s3").get_object(Bucket=bucket, Key=f"{key}scripted.json"), "AccessDenied", "Access Denied")
    source = {"s3DataSource": {"s3Uri": address}}
    bedrock.create_custom_model(modelName="by-address", modelSourceConfig=source)
    emulator.clock.advance(5000.0)
    response = bedrock.get_custom_model(modelIdentifier="by-address")
    assert (response["modelStatus"], response.get("baseModelArn")) == ("Active", None)


def test_full_weights_want_provisioned_units(emulator: Emulator, aws: Callable[[str], Any], bedrock: Any) -> None:
    arn = bedrock.create_custom_model(**of_package(trained(emulator, aws, peft=None)))["modelArn"]
    emulator.clock.advance(5000.0)
    deploy = {"modelDeploymentName": "d", "modelArn": arn}
    refused(lambda: bedrock.create_custom_model_deployment(**deploy), "ValidationException", "not supported")
    made = bedrock.create_provisioned_model_throughput(modelUnits=1, provisionedModelName="units", modelId="brought")
    body = b'{"messages":[{"role":"user","content":[{"text":"hello"}]}]}'
    said = aws("bedrock-runtime").invoke_model(modelId=made["provisionedModelArn"], body=body)
    assert b"outputTokens" in said["body"].read(), "it speaks Nova's own form"


def test_a_registration_fails_of_the_service(emulator: Emulator, aws: Callable[[str], Any], bedrock: Any) -> None:
    package = trained(emulator, aws)
    emulator.script = Script(fail_at=0.5, error_message="The model artifacts are not valid.")
    bedrock.create_custom_model(**of_package(package))
    emulator.clock.advance(5000.0)
    response = bedrock.get_custom_model(modelIdentifier="brought")
    assert (response["modelStatus"], response["failureMessage"]) == ("Failed", "The model artifacts are not valid.")
    assert bedrock.list_custom_models(modelStatus="Active")["modelSummaries"] == []
    bedrock.delete_custom_model(modelIdentifier="brought")


def test_training_on_from_a_registered_model_is_not_emulated(
    emulator: Emulator, aws: Callable[[str], Any], bedrock: Any
) -> None:
    """By its ARN it does not even fit the pattern of a base model."""
    arn = bedrock.create_custom_model(**of_package(trained(emulator, aws)))["modelArn"]
    for base, words in ((arn, "regular expression pattern"), ("brought", "not emulated")):
        tuned = asked(baseModelIdentifier=base)
        create = bedrock.create_model_customization_job
        refused(lambda create=create, tuned=tuned: create(**tuned), "ValidationException", words)  # type: ignore[misc]


def test_a_registered_model_has_files_of_its_own(emulator: Emulator, aws: Callable[[str], Any], bedrock: Any) -> None:
    """What becomes of the package and of its weights is nothing to it."""
    package = trained(emulator, aws)
    made = bedrock.create_custom_model(**of_package(package))["modelArn"]
    emulator.clock.advance(5000.0)
    assert bedrock.get_custom_model(modelIdentifier=made)["modelStatus"] == "Active"
    (kept,) = emulator.store.all("custom_model", "bedrock")
    place = buckets.parse(kept["source"]["uri"])
    emulator.context.aws.backend("s3").get_bucket(place.bucket).keys.clear()
    aws("sagemaker").delete_model_package(ModelPackageName=package)
    assert [path.name for path in emulator.store.content(f"imported-{kept['id']}").iterdir()] == ["scripted.json"]
    bedrock.create_custom_model_deployment(modelDeploymentName="d", modelArn=made)
