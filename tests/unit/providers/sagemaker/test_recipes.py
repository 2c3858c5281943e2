"""Which recipe of a document is taken, and where its parameters lie."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.response import StreamingBody
from botocore.stub import Stubber

from cloudtune.errors import SpecError
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.options import AwsOptions
from cloudtune_providers.sagemaker.recipes import find_recipe
from cloudtune_providers.sagemaker.storage import Stores

if TYPE_CHECKING:
    from collections.abc import Iterator

HUB = "SageMakerPublicHub"
NAME = "huggingface-reasoning-qwen3-8b"


def recipe(name: str, **more: Any) -> dict[str, Any]:
    """One for SFT with LoRA, unless said otherwise."""
    return {"Name": name, "CustomizationTechnique": "SFT", "Peft": "LORA", "SmtjRecipeTemplateS3Uri": "s3://a/b"} | more


class Desk:
    """Clients that answer from a script."""

    def __init__(self) -> None:
        secrets = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
        self.clients = {name: boto3.client(name, **secrets) for name in ("sts", "s3", "sagemaker")}  # type: ignore[call-overload]
        self.stubs = {name: Stubber(client) for name, client in self.clients.items()}
        for stub in self.stubs.values():
            stub.activate()

    def find(self, *recipes: dict[str, Any], **requested: Any) -> dict[str, Any]:
        reported = {
            "HubContentName": NAME, "HubContentVersion": "1.0.4", "HubContentType": "Model", "HubName": HUB,
            "HubArn": f"arn:aws:sagemaker:us-east-1:aws:hub/{HUB}", "DocumentSchemaVersion": "2.4.0",
            "HubContentArn": f"arn:aws:sagemaker:us-east-1:aws:hub-content/{HUB}/Model/{NAME}/1.0.4",
            "HubContentDocument": json.dumps({"RecipeCollection": recipes}), "HubContentStatus": "Available",
            "CreationTime": 0,
        }  # fmt: skip
        self.stubs["sagemaker"].add_response("describe_hub_content", reported)
        clients = Clients(AwsOptions(), self.clients.__getitem__)
        given: dict[str, Any] = {"hub": HUB, "model": NAME, "technique": "SFT", "peft": "LORA"} | requested
        return find_recipe(clients, Stores(clients, None), **given)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    for client in desk.clients.values():
        client.close()


def test_one_that_needs_no_subscription_comes_first(desk: Desk) -> None:
    assert desk.find(recipe("paid", IsSubscriptionModel=True), recipe("free"))["recipe"] == "free"
    assert desk.find(recipe("paid", IsSubscriptionModel=True))["recipe"] == "paid"


def test_one_for_clusters_is_not_taken(desk: Desk) -> None:
    cluster = recipe("cluster", HpEksPayloadTemplateS3Uri="s3://a/b") | {"SmtjRecipeTemplateS3Uri": None}
    assert desk.find(cluster, recipe("job"))["recipe"] == "job"
    with pytest.raises(SpecError, match="supported: nothing"):
        desk.find(cluster)


def test_the_length_asked_for_chooses(desk: Desk) -> None:
    every = (recipe("short", SequenceLength="4K"), recipe("long", SequenceLength="32K"))
    assert desk.find(*every)["recipe"] == "short"
    assert desk.find(*every, sequence_length="32K")["recipe"] == "long"
    with pytest.raises(SpecError, match=r"sequence_length.*no recipe for 8K.*4K, 32K"):
        desk.find(*every, sequence_length="8K")
    assert desk.find(recipe("any"), sequence_length="8K")["recipe"] == "any"


def test_parameters_of_a_subscription_lie_behind_an_access_point(desk: Desk) -> None:
    point = "arn:aws:s3:us-east-1:111122223333:accesspoint/recipes-{customer_id}"
    account = {"Account": "123456789012", "Arn": "arn:aws:iam::123456789012:user/me", "UserId": "me"}
    desk.stubs["sts"].add_response("get_caller_identity", account)
    rules = json.dumps({"max_epochs": {"type": "integer", "default": 1}, "name": "not a rule"}).encode()

    class Body(StreamingBody):
        def __init__(self) -> None:
            import io

            super().__init__(io.BytesIO(rules), len(rules))

    where = {"Bucket": point.replace("{customer_id}", "123456789012"), "Key": "sft/params.json"}
    desk.stubs["s3"].add_response("get_object", {"Body": Body()}, where)
    found = desk.find(recipe("paid", SmtjOverrideParamsS3Uri=f"s3://{point}/sft/params.json"))
    assert found["parameters"] == {"max_epochs": {"type": "integer", "default": 1}}
