"""moto's own SageMaker, in process, as a second implementation: it accepts the requests and answers the queries.

It ends every job at once and keeps no transitions, so that only the shape of things is looked at.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from cloudtune.client import Client
from cloudtune.errors import JobNotFound
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef, JobState
from cloudtune_providers.sagemaker.backend import SageMakerBackend
from cloudtune_providers.sagemaker.options import SageMakerOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune_trainer.submit.bundle import Bundle

BUCKET, ROLE = "a-bucket", "arn:aws:iam::123456789012:role/cloudtune"


def code() -> Bundle:
    from cloudtune_trainer.submit.bundle import Bundle

    return Bundle(b"the trainer", hashlib.sha256(b"the trainer").hexdigest())


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
        options = SageMakerOptions(region="us-east-1", bucket=BUCKET, role_arn=ROLE, root=tmp_path / "home")
        yield Client(SageMakerBackend(options, code=code), ledger=f"sqlite:///{tmp_path}/ledger.db")


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    rows = [{"prompt": f"{n}?", "completion": f"{n}"} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tiny.json").write_text("{}")
    document = {"name": "small", "model": str(tmp_path / "tiny.json"), "data": {"train": str(tmp_path / "rows.jsonl")}}
    return JobSpec.model_validate(document | {"tags": {"team": "nlp"}})


def test_moto_takes_the_job_and_tells_of_it(client: Client, spec: JobSpec) -> None:
    job = client.submit(spec)
    assert client.submit(spec).ref == job.ref
    response = boto3.client("sagemaker", region_name="us-east-1").describe_training_job(TrainingJobName=job.ref.id)
    assert response["AlgorithmSpecification"]["ContainerEntrypoint"][0] == "/bin/bash"
    assert json.loads(response["HyperParameters"]["adapter.rank"]) == 8
    assert job.snapshot().state is JobState.SUCCEEDED
    assert [one.ref for one in client.jobs(backend="sagemaker", remote=True)] == [job.ref]
    objects = boto3.client("s3", region_name="us-east-1").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert {entry["Key"].split("/")[1] for entry in objects} == {"data", "code", "models"}
    assert list(job.metrics()) == []


def test_moto_knows_no_stranger(client: Client) -> None:
    with pytest.raises(JobNotFound):
        client.backend("sagemaker").get(JobRef("sagemaker", "123456789012/us-east-1", "nobody"))
