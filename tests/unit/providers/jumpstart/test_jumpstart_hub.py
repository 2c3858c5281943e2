"""Which hub is asked for what, with a Stubber in the place of the service."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from cloudtune.clock import SystemClock
from cloudtune.errors import BackendError, SpecError
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.options import AwsOptions
from cloudtune_providers.jumpstart.hub import Hub

ARN = "arn:aws:sagemaker:us-east-1:123456789012:hub-content/mine/ModelReference/a-model/1.0.0"


def hub_of(name: str) -> tuple[Hub, Stubber]:
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "yyyyyyyy", "region_name": "us-east-1"}
    made = {service: boto3.client(service, **keys) for service in ("sagemaker", "s3", "sts")}
    stubber = Stubber(made["sagemaker"])
    stubber.activate()
    closed = Stubber(made["s3"])
    closed.add_client_error("get_object", "AccessDenied", http_status_code=403)
    closed.activate()
    return Hub(Clients(AwsOptions(region="us-east-1"), made.__getitem__), name, SystemClock(), 60.0), stubber


def told(kind: str, document: str) -> dict[str, Any]:
    return {
        "HubContentName": "a-model", "HubContentArn": ARN, "HubContentVersion": "1.0.0", "HubContentType": kind,
        "DocumentSchemaVersion": "2.0.0", "HubName": "mine", "HubArn": ARN.partition("-content")[0],
        "HubContentDocument": document, "HubContentStatus": "Available", "CreationTime": 0,
    }  # fmt: skip


def asked(kind: str) -> dict[str, Any]:
    return {"HubName": "mine", "HubContentType": kind, "HubContentName": "a-model"}


def test_a_private_hub_is_asked_for_a_reference_and_then_for_a_model() -> None:
    hub, stubber = hub_of("mine")
    stubber.add_client_error("describe_hub_content", "ResourceNotFound", expected_params=asked("ModelReference"))
    stubber.add_response("describe_hub_content", told("Model", '{"TrainingSupported": true}'), asked("Model"))
    facts = hub.facts("a-model", None)
    assert (facts["reference"], facts["version"], facts["document"]) == (False, "1.0.0", {"TrainingSupported": True})
    assert hub.facts("a-model", None) is facts
    stubber.assert_no_pending_responses()


def test_a_reference_says_so() -> None:
    hub, stubber = hub_of("mine")
    stubber.add_response("describe_hub_content", told("ModelReference", "{}"), asked("ModelReference"))
    facts = hub.facts("a-model", None)
    assert (facts["reference"], facts["arn"]) == (True, ARN)


def test_nothing_of_that_name_is_a_fault_of_the_spec_even_if_the_manifest_is_closed() -> None:
    hub, stubber = hub_of("SageMakerPublicHub")
    stubber.add_client_error("describe_hub_content", "ResourceNotFound")
    with pytest.raises(SpecError, match="no model 'a-model'"):
        hub.facts("a-model", None)


def test_a_torn_document_is_told() -> None:
    hub, stubber = hub_of("SageMakerPublicHub")
    stubber.add_response("describe_hub_content", told("Model", json.dumps({"a": 1})[:-1]))
    with pytest.raises(BackendError, match="cannot read"):
        hub.facts("a-model", None)
