"""moto as a second opinion on training jobs and endpoints, as far as it implements them; it has no hub."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.backend import Absent, Done
from cloudtune.errors import Conflict, JobNotFound
from cloudtune.state import JobRef, JobState
from cloudtune_providers.aws import host_plans
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.endpoints import Endpoints
from cloudtune_providers.aws.host_plans import Aim
from cloudtune_providers.aws.names import tag_list, tags_of
from cloudtune_providers.aws.options import AwsOptions
from cloudtune_providers.aws.training_jobs import TrainingJobs

if TYPE_CHECKING:
    from collections.abc import Iterator

SCOPE = "123456789012/us-east-1"
ROLE = "arn:aws:iam::123456789012:role/cloudtune"
TOKEN = "0123456789abcdef" * 2
NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    from moto import mock_aws

    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "yyyyyyyy")
    with mock_aws():
        yield Clients(AwsOptions(region="us-east-1"))


def body(name: str, token: str = TOKEN) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://rows/in/", "S3DataDistributionType": "FullyReplicated"}
    return {
        "TrainingJobName": name, "RoleArn": ROLE, "HyperParameters": {"epoch": "1"},
        "AlgorithmSpecification": {"TrainingImage": "i", "TrainingInputMode": "File"},
        "InputDataConfig": [{"ChannelName": "training", "DataSource": {"S3DataSource": source}}],
        "OutputDataConfig": {"S3OutputPath": "s3://rows/out"},
        "ResourceConfig": {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600}, "Tags": tag_list(tags_of(token, "a-job"), upper=True),
    }  # fmt: skip


def test_a_training_job_is_made_found_and_listed(clients: Clients) -> None:
    jobs = TrainingJobs(clients, "jumpstart", lambda: SCOPE)
    assert jobs.find(body("a-job-1")) == Absent()
    made = jobs.create(body("a-job-1"))
    assert made["ref"] == str(JobRef("jumpstart", SCOPE, "a-job-1"))
    found = jobs.find(body("a-job-1"))
    assert isinstance(found, Done)
    assert found.outputs == made
    with pytest.raises(Conflict):
        jobs.find(body("a-job-1", token="f" * 32))
    ref = JobRef("jumpstart", SCOPE, "a-job-1")
    assert jobs.get(ref).state is JobState.SUCCEEDED  # moto's jobs end as they begin
    assert [job.ref for job in jobs.listed()] == [ref]
    assert list(jobs.get_many([ref])) == [ref]
    assert [event.message for event in jobs.events(ref)] == ["Starting"]
    assert jobs.metrics(ref, None, lambda line: None) == []
    with pytest.raises(JobNotFound):
        jobs.get(JobRef("jumpstart", SCOPE, "nobody"))
    with pytest.raises(JobNotFound):
        jobs.get(JobRef("jumpstart", "another/us-east-1", "a-job-1"))


def test_an_endpoint_is_made_and_taken_down(clients: Clients) -> None:
    endpoints = Endpoints(clients, "jumpstart")
    variant = {"VariantName": "AllTraffic", "ModelName": "e", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    bodies: dict[str, dict[str, Any]] = {
        "model": {"ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": "i", "ModelDataUrl": "s3://rows/m.tar.gz"}},
        "config": {"ProductionVariants": [variant]}, "endpoint": {"EndpointConfigName": "e"},
    }  # fmt: skip
    plan = host_plans.alone(Aim("jumpstart", SCOPE, "e", "a-model", TOKEN, {"team": "red"}, 60), bodies)
    for step in plan.steps[:-1]:
        assert endpoints.find(step.id, step.request, NOW) == Absent()
        endpoints.do(step.id, step.request)
        assert isinstance(endpoints.find(step.id, step.request, NOW), Done)
    assert endpoints.probe("e").state == "ready"
    (standing,) = endpoints.listed(SCOPE, lambda kind: 0.5 if kind == "ml.m5.xlarge" else None)
    assert (standing.model, standing.state, standing.hourly_cost_usd) == ("a-model", "ready", 0.5)
    assert Endpoints(clients, "sagemaker").listed(SCOPE) == []
    for step in host_plans.removal(standing, TOKEN).steps:
        endpoints.do(step.id, step.request)
        endpoints.do(step.id, step.request)
        assert isinstance(endpoints.find(step.id, step.request, NOW), Done)
    assert endpoints.listed(SCOPE) == []
