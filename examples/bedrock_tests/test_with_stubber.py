"""The program against botocore's Stubber: each answer is scripted, each request is held against the service's model.

The back end takes whatever makes its clients: here a function that hands out stubbed ones.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

sys.path.insert(0, str(Path(__file__).parent))

from nightly import submit_nightly

from cloudtune import Client, JobFailed
from cloudtune_providers.bedrock.backend import BedrockBackend
from cloudtune_providers.bedrock.options import BedrockOptions

ARN = "arn:aws:bedrock:us-east-1:123456789012:model-customization-job/amazon.nova-micro-v1:0:128k/abcdefghijkl"


class Aws:
    """Stubbed clients by service name."""

    def __init__(self) -> None:
        made = {"region_name": "us-east-1", "aws_access_key_id": "x", "aws_secret_access_key": "y"}
        self.clients: dict[str, Any] = {name: boto3.client(name, **made) for name in ("sts", "s3", "bedrock")}
        self.stubs = {name: Stubber(client) for name, client in self.clients.items()}
        for stub in self.stubs.values():
            stub.activate()


def told(status: str, **more: Any) -> dict[str, Any]:
    """Bedrock's response to a request for the job."""
    role = "arn:aws:iam::123456789012:role/tuning"
    base = "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0:128k"
    return {
        "jobArn": ARN, "jobName": "nightly", "outputModelName": "nightly", "baseModelArn": base, "status": status,
        "roleArn": role, "creationTime": datetime(2026, 1, 1, tzinfo=UTC), "validationDataConfig": {"validators": []},
        "trainingDataConfig": {"s3Uri": "s3://my-rows/x"}, "outputDataConfig": {"s3Uri": "s3://my-rows/y"}, **more,
    }  # fmt: skip


def test_a_failure_is_told_in_bedrocks_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n} + 1?", "completion": f"{n + 1}"}) + "\n" for n in range(20)))
    aws = Aws()
    aws.stubs["sts"].add_response("get_caller_identity", {"Account": "123456789012"})
    aws.stubs["s3"].add_client_error("head_object", "404", http_status_code=404)
    aws.stubs["s3"].add_response("put_object", {"ETag": '"0123456789abcdef"'})
    aws.stubs["bedrock"].add_client_error(
        "get_model_customization_job", "ResourceNotFoundException", "no such job", 404
    )
    aws.stubs["bedrock"].add_response(
        "create_model_customization_job",
        {"jobArn": ARN},
        {
            "jobName": ANY, "customModelName": ANY, "clientRequestToken": ANY, "jobTags": ANY, "customModelTags": ANY,
            "trainingDataConfig": ANY, "outputDataConfig": ANY, "customizationType": "FINE_TUNING",
            "roleArn": "arn:aws:iam::123456789012:role/tuning", "baseModelIdentifier": "amazon.nova-micro-v1:0:128k",
            "hyperParameters": {"epochCount": "2", "learningRate": "0.00001"},
        },
    )  # fmt: skip
    said = "Input data at train.jsonl is too strange"
    for _ in range(2):
        aws.stubs["bedrock"].add_response("get_model_customization_job", told("Failed", failureMessage=said))
    aws.stubs["s3"].add_response("list_objects_v2", {})  # the metrics, which a failed job does not have
    options = BedrockOptions(bucket="my-rows", role_arn="arn:aws:iam::123456789012:role/tuning")
    backend = BedrockBackend(options, factory=aws.clients.__getitem__)
    job = submit_nightly(Client(backend, ledger=f"sqlite:///{tmp_path}/ledger.db"), rows)
    with pytest.raises(JobFailed, match="too strange"):
        job.wait()
    aws.stubs["s3"].assert_no_pending_responses()
