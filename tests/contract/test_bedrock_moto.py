"""moto as a second opinion, in process and as a server, on the calls of Bedrock and S3 that it implements."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.backend import Done
from cloudtune.client import Client
from cloudtune.errors import InvalidRequest, JobNotFound
from cloudtune.spec import JobSpec
from cloudtune.state import JobState
from cloudtune_providers.bedrock.backend import BedrockBackend
from cloudtune_providers.bedrock.options import BedrockOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCOUNT = "123456789012"
MODEL = "amazon.nova-micro-v1:0:128k"


@pytest.fixture(params=["in process", "server"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Where moto answers: settings of the back end."""
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "yyyyyyyy",
                        "AWS_EC2_METADATA_DISABLED": "true"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "server":
        from moto.moto_api._internal.models import moto_api_backend
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield {"endpoint_url": f"http://{host}:{port}"}
        server.stop()
        moto_api_backend.reset()
        return
    from moto import mock_aws

    with mock_aws():
        yield {}


@pytest.fixture
def backend(place: dict[str, Any]) -> BedrockBackend:
    role = f"arn:aws:iam::{ACCOUNT}:role/cloudtune"
    backend = BedrockBackend(BedrockOptions(region="us-east-1", bucket="rows", role_arn=role, **place))
    backend._clients.client("s3").create_bucket(Bucket="rows")
    return backend


@pytest.fixture
def client(backend: BedrockBackend, tmp_path: Path) -> Client:
    return Client(backend, ledger=f"sqlite:///{tmp_path}/ledger.db")


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": f"{n}!"}) + "\n" for n in range(12)))
    return JobSpec.model_validate(
        {"name": "small", "model": MODEL, "data": {"train": str(rows)}, "tags": {"team": "a"}}
    )


def _finish(status: str) -> None:
    from moto.backends import get_backend

    for job in get_backend("bedrock")[ACCOUNT]["us-east-1"].model_customization_jobs.values():
        job.status = status


def test_a_job_from_rows_to_its_figures(client: Client, backend: BedrockBackend, spec: JobSpec) -> None:
    job = client.submit(spec)
    assert (job.ref.scope.partition("@")[0], job.state) == (f"{ACCOUNT}/us-east-1", JobState.RUNNING)
    assert client.submit(spec) == job
    assert [seen.ref for page in backend._jobs.pages() for seen in page] == [job.ref]
    reported = job.snapshot()
    assert (reported.name, reported.model) == (job.ref.id, MODEL)
    s3 = backend._clients.client("s3")
    sent = s3.get_object(Bucket="rows", Key=reported.raw["trainingDataConfig"]["s3Uri"].removeprefix("s3://rows/"))
    first = json.loads(sent["Body"].read().splitlines()[0])
    assert first["schemaVersion"] == "bedrock-conversation-2024"
    with pytest.raises(InvalidRequest):
        backend.model(job.ref)
    assert list(job.metrics()) == []
    _finish("Completed")
    place = f"cloudtune/output/{reported.name}/model-customization-job-{reported.raw['jobArn'].rpartition('/')[2]}/"
    figures = b"step_number,epoch_number,training_loss,perplexity\n0,0,2.5,12.2\n1,0,2.0,7.4\n"
    s3.put_object(Bucket="rows", Key=f"{place}training_artifacts/step_wise_training_metrics.csv", Body=figures)
    held = b"step_number,epoch_number,validation_loss,perplexity\n1,0,2.1,8.2\n"
    inner = "validation_artifacts/post_fine_tuning_validation/validation/validation_metrics.csv"
    s3.put_object(Bucket="rows", Key=f"{place}{inner}", Body=held)
    assert [(m.step, m.split, m.values["loss"]) for m in job.metrics()] == [
        (0, "train", 2.5), (1, "train", 2.0), (1, "validation", 2.1),
    ]  # fmt: skip
    assert job.wait(timeout=10).needs_deploy


def test_stopping_and_what_is_not_there(client: Client, backend: BedrockBackend, spec: JobSpec) -> None:
    job = client.submit(spec)
    job.cancel()
    assert job.state is JobState.CANCELLED
    with pytest.raises(JobNotFound):
        backend.get(type(job.ref)(job.ref.backend, job.ref.scope, "surely-not-there"))


def test_the_job_is_found_by_its_name_after_a_lost_reply(
    client: Client, backend: BedrockBackend, spec: JobSpec
) -> None:
    """moto refuses a second create of the same name and token; Bedrock itself would say nothing."""
    plan = client.plan(spec)
    job = client.submit(plan)
    create = plan.steps[-1]
    body = create.request["body"] | {"trainingDataConfig": {"s3Uri": "s3://rows/x"}}
    assert backend._jobs.create(body)["ref"] == str(job.ref)
    found = backend._jobs.find(body)
    assert isinstance(found, Done)
    assert found.outputs["ref"] == str(job.ref)


def test_clearing_leaves_nothing(client: Client, backend: BedrockBackend, spec: JobSpec) -> None:
    job = client.submit(spec)
    with pytest.raises(InvalidRequest):
        backend.delete(job.ref)
    _finish("Completed")
    objects = backend._objects({"bucket": "rows"})
    objects.write(f"cloudtune/output/{job.ref.id}/model-customization-job-x/a.csv", b"x")
    backend.delete(job.ref)
    backend.delete(job.ref)
    assert objects.list("") == []
