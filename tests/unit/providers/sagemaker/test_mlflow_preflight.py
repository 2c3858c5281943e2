"""Whether the MLflow that curves are written to takes any: looked at before a serverless job."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.sagemaker.options import SageMakerOptions
from cloudtune_providers.sagemaker.preflight import Preflight

APP = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-X"
SERVER = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/ours"


def look(arn: str, call: str, reported: dict[str, Any] | None) -> tuple[str, str]:
    client = boto3.client(
        "sagemaker", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    )  # fmt: skip
    options = SageMakerOptions(compute="serverless", mlflow=arn)
    with Stubber(client) as stub:
        if reported is None:
            stub.add_client_error(call, "ResourceNotFound", "there is none", 400)
        else:
            stub.add_response(call, reported)
        (check,) = Preflight(Clients(options, lambda service: client), options)._serverless(None)
    client.close()
    assert check.what == "MLflow"
    return check.verdict, check.detail


@pytest.mark.parametrize(
    ("status", "verdict"), [("Created", "good"), ("Updated", "good"), ("Deleted", "denied"), ("Creating", "denied")]
)
def test_an_app_takes_curves_once_it_is_made(status: str, verdict: str) -> None:
    found, detail = look(APP, "describe_mlflow_app", {"Arn": APP, "Status": status})
    assert (found, status in detail) == (verdict, True)


@pytest.mark.parametrize(("active", "verdict"), [("Active", "good"), ("Inactive", "denied")])
def test_a_server_that_was_stopped_takes_none(active: str, verdict: str) -> None:
    reported = {"TrackingServerArn": SERVER, "TrackingServerStatus": "Started", "IsActive": active}
    assert look(SERVER, "describe_mlflow_tracking_server", reported)[0] == verdict


def test_one_that_is_not_there_is_denied() -> None:
    assert look(APP, "describe_mlflow_app", None)[0] == "denied"
