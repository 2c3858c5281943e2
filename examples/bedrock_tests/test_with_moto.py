"""Tests the program with moto in this process: moto emulates S3 and the job, and botocore sends real requests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

sys.path.insert(0, str(Path(__file__).parent))

from nightly import submit_nightly

from cloudtune import connect


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n} + 1?", "completion": f"{n + 1}"}) + "\n" for n in range(20)))
    return path


def test_the_job_is_made_once(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "only-for-moto")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path))
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="my-rows")
        role = "arn:aws:iam::123456789012:role/tuning"
        client = connect("bedrock", region="us-east-1", bucket="my-rows", role_arn=role)
        job = submit_nightly(client, rows)
        assert submit_nightly(client, rows) == job
        bedrock = boto3.client("bedrock", region_name="us-east-1")
        (made,) = bedrock.list_model_customization_jobs()["modelCustomizationJobSummaries"]
        response = bedrock.get_model_customization_job(jobIdentifier=made["jobName"])
        assert response["hyperParameters"] == {"epochCount": "2", "learningRate": "0.00001"}
        assert str(job.state) == "running"
