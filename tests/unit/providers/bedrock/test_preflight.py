"""What is looked at before a job: good, denied, and what may not be looked at, told apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.stub import Stubber

from cloudtune.spec import JobSpec
from cloudtune_providers.aws.preflight import role_of, trusts
from cloudtune_providers.bedrock.backend import BedrockBackend
from cloudtune_providers.bedrock.options import BedrockOptions
from cloudtune_providers.bedrock.policies import CALLER_BEDROCK, documents

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLE = "arn:aws:iam::123456789012:role/cloudtune"
CALLER = "arn:aws:sts::123456789012:assumed-role/engineer/me"
NOVA = "amazon.nova-lite-v1:0:300k"
TRUST = {
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "bedrock.amazonaws.com"}}]
}
_SERVICES = ("sts", "s3", "iam", "bedrock", "service-quotas")


class Stubs:
    """Clients that answer from a script."""

    def __init__(self) -> None:
        secrets = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
        self.clients = {name: boto3.client(name, **secrets) for name in _SERVICES}  # type: ignore[call-overload]
        self.stubs = {name: Stubber(client) for name, client in self.clients.items()}
        for stub in self.stubs.values():
            stub.activate()

    def good(self) -> None:
        for _ in range(1):
            self.stubs["sts"].add_response("get_caller_identity", {"Account": "123456789012", "Arn": CALLER})
        self.stubs["s3"].add_response("head_bucket", {"BucketRegion": "us-east-1"})
        role = {"Path": "/", "RoleName": "cloudtune", "RoleId": "A" * 20, "Arn": ROLE, "CreateDate": 0,
                "AssumeRolePolicyDocument": json.dumps(TRUST)}  # fmt: skip
        self.stubs["iam"].add_response("get_role", {"Role": role})
        for _ in range(4):  # the role's objects and bucket, the caller's calls, handing the role over
            self.simulated("allowed")
        status = {"modelArn": "arn:aws:bedrock:us-east-1::foundation-model/x", "modelId": NOVA,
                  "customizationsSupported": ["FINE_TUNING"], "modelLifecycle": {"status": "ACTIVE"}}  # fmt: skip
        self.stubs["bedrock"].add_response("get_foundation_model", {"modelDetails": status})
        quota = {"QuotaName": "Scheduled customization jobs", "Value": 2.0}
        self.stubs["service-quotas"].add_response("list_service_quotas", {"Quotas": [quota]})
        self.stubs["bedrock"].add_response("list_model_customization_jobs", {"modelCustomizationJobSummaries": []})

    def simulated(self, decision: str, *missing: str) -> None:
        result = {"EvalActionName": "s3:GetObject", "EvalDecision": decision, "MissingContextValues": list(missing)}
        self.stubs["iam"].add_response("simulate_principal_policy", {"EvaluationResults": [result]})


@pytest.fixture
def stubs() -> Iterator[Stubs]:
    stubs = Stubs()
    yield stubs
    for client in stubs.clients.values():
        client.close()


def verdicts(stubs: Stubs, spec: JobSpec | None = None, **options: Any) -> dict[str, tuple[str, str]]:
    settings = BedrockOptions.model_validate({"bucket": "rows", "role_arn": ROLE} | options)
    backend = BedrockBackend(settings, factory=stubs.clients.__getitem__)
    return {check.what: (check.verdict, check.detail) for check in backend.preflight(spec)}


def _spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate({"model": NOVA, "data": {"train": "rows.jsonl"}} | changes)


def test_all_is_well(stubs: Stubs) -> None:
    stubs.good()
    found = verdicts(stubs, _spec())
    assert {verdict for verdict, _ in found.values()} == {"good"}, found
    assert list(found) == [
        "identity",
        "region",
        "bucket",
        "role",
        "role's policy",
        "your permissions",
        "model",
        "quota",
    ]
    for stub in stubs.stubs.values():
        stub.assert_no_pending_responses()


def test_without_credentials_nothing_else_is_asked(stubs: Stubs) -> None:
    stubs.stubs["sts"].add_client_error("get_caller_identity", "ExpiredToken", "The token has expired", 403)
    found = verdicts(stubs)
    assert list(found) == ["identity"]
    assert found["identity"][0] == "denied"


def test_denied_and_not_to_be_told_are_kept_apart(stubs: Stubs) -> None:
    stubs.stubs["sts"].add_response("get_caller_identity", {"Account": "123456789012", "Arn": CALLER})
    stubs.stubs["s3"].add_client_error("head_bucket", "403", "Forbidden", 403)
    stubs.stubs["iam"].add_client_error("get_role", "AccessDenied", "not authorized to perform: iam:GetRole", 403)
    stubs.simulated("implicitDeny")
    stubs.simulated("allowed")
    stubs.stubs["iam"].add_client_error("simulate_principal_policy", "AccessDenied", "not authorized", 403)
    stubs.stubs["bedrock"].add_client_error("get_foundation_model", "ResourceNotFoundException", "no such", 404)
    stubs.stubs["service-quotas"].add_client_error("list_service_quotas", "AccessDeniedException", "no", 403)
    found = {what: verdict for what, (verdict, _) in verdicts(stubs, _spec()).items()}
    assert found == {
        "identity": "good", "region": "good", "bucket": "denied", "role": "cannot_verify", "role's policy": "denied",
        "your permissions": "cannot_verify", "model": "denied", "quota": "cannot_verify",
    }  # fmt: skip


def test_a_bucket_of_another_region_and_a_role_of_another_service(stubs: Stubs) -> None:
    stubs.good()
    stubs.stubs["s3"]._queue.clear()
    stubs.stubs["s3"].add_response("head_bucket", {"BucketRegion": "eu-west-1"})
    stubs.stubs["iam"]._queue.popleft()
    other = json.dumps(TRUST).replace("bedrock", "sagemaker")
    role = {"Path": "/", "RoleName": "cloudtune", "RoleId": "A" * 20, "Arn": ROLE, "CreateDate": 0,
            "AssumeRolePolicyDocument": other}  # fmt: skip
    stubs.stubs["iam"]._queue.appendleft(_queued(stubs, {"Role": role}))
    found = verdicts(stubs, _spec())
    assert found["bucket"] == (
        "denied",
        "rows is in eu-west-1, but jobs in us-east-1 can only read buckets in that region",
    )
    assert found["role"][0] == "denied"
    assert "cloudtune init bedrock" in found["role"][1]


def _queued(stubs: Stubs, answer: dict[str, Any]) -> Any:
    before = len(stubs.stubs["iam"]._queue)
    stubs.stubs["iam"].add_response("get_role", answer)
    assert len(stubs.stubs["iam"]._queue) == before + 1
    return stubs.stubs["iam"]._queue.pop()


def test_conditions_that_the_simulator_cannot_judge_deny_nothing(stubs: Stubs) -> None:
    stubs.good()
    stubs.stubs["iam"]._queue.clear()
    role = {"Path": "/", "RoleName": "cloudtune", "RoleId": "A" * 20, "Arn": ROLE, "CreateDate": 0,
            "AssumeRolePolicyDocument": json.dumps(TRUST)}  # fmt: skip
    stubs.stubs["iam"].add_response("get_role", {"Role": role})
    stubs.simulated("implicitDeny", "aws:SourceVpc")
    for _ in range(3):
        stubs.simulated("allowed")
    found = verdicts(stubs, _spec())
    assert found["role's policy"][0] == "cannot_verify"
    assert found["your permissions"][0] == "good"


def test_a_full_quota_is_a_warning(stubs: Stubs) -> None:
    stubs.good()
    stubs.stubs["bedrock"]._queue.pop()
    job = {"jobArn": "arn:aws:bedrock:us-east-1:123456789012:model-customization-job/a.b/abcdefghijkl",
           "baseModelArn": "arn:aws:bedrock:us-east-1::foundation-model/x.y", "jobName": "j", "status": "InProgress",
           "creationTime": 0}  # fmt: skip
    stubs.stubs["bedrock"].add_response("list_model_customization_jobs", {"modelCustomizationJobSummaries": [job, job]})
    assert verdicts(stubs, _spec())["quota"] == ("warning", "2 of at most 2 jobs running")


def test_whose_policies_can_be_simulated() -> None:
    assert role_of(CALLER) == "arn:aws:iam::123456789012:role/engineer"
    assert role_of("arn:aws:iam::123456789012:user/me") == "arn:aws:iam::123456789012:user/me"
    assert role_of("arn:aws:iam::123456789012:root") is None


def test_who_trusts_whom() -> None:
    assert trusts(TRUST, "bedrock.amazonaws.com")
    assert not trusts(TRUST, "sagemaker.amazonaws.com")
    assert not trusts({"Statement": TRUST["Statement"][0] | {"Effect": "Deny"}}, "bedrock.amazonaws.com")
    assert trusts({"Statement": TRUST["Statement"][0]}, "bedrock.amazonaws.com")
    assert not trusts({}, "bedrock.amazonaws.com")


# -- documents ---------------------------------------------------------------------------------------------------------


def test_the_documents_give_the_least() -> None:
    options = BedrockOptions(bucket="rows", role_arn=ROLE, prefix="ours")
    made = {
        name: json.loads(text) for name, text in documents(options, account="123456789012", region="us-east-1").items()
    }
    trust = made["bedrock-role-trust.json"]["Statement"][0]
    assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}
    assert (
        "arn:aws:bedrock:us-east-1:123456789012:model-customization-job/*"
        in trust["Condition"]["ArnLike"]["aws:SourceArn"]
    )
    assert trusts(made["bedrock-role-trust.json"], "bedrock.amazonaws.com")
    role = made["bedrock-role-policy.json"]["Statement"]
    assert {one["Sid"] for one in role} == {"List", "Read", "Write"}
    for statement in role:
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            assert resource == "arn:aws:s3:::rows" or resource.startswith("arn:aws:s3:::rows/ours/")
    actions = [
        action for one in role for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
    ]
    assert not any("*" in action or "Delete" in action for action in actions)
    caller = {one["Sid"]: one for one in made["bedrock-caller-policy.json"]["Statement"]}
    assert caller["PassTheRole"]["Resource"] == ROLE


def test_key_vpc_and_grader_are_let_only_where_they_are_used() -> None:
    options = BedrockOptions(bucket="rows", kms_key="arn:aws:kms:us-east-1:123456789012:key/k", subnets=("s",),
                             security_groups=("g",))  # fmt: skip
    grader = "arn:aws:lambda:us-east-1:123456789012:function:grade"
    made = documents(options, account="123456789012", region="us-east-1", grader=grader)
    sids = {one["Sid"] for one in json.loads(made["bedrock-role-policy.json"])["Statement"]}
    assert {"Key", "MakeInterfaces", "Grade"} <= sids


def test_what_is_not_known_is_left_to_be_filled_in() -> None:
    made = documents(BedrockOptions(), account=None, region=None)
    assert "ACCOUNT" in made["bedrock-role-trust.json"]
    assert "arn:aws:s3:::BUCKET" in made["bedrock-role-policy.json"]


def test_every_permission_is_one_of_the_services() -> None:
    from botocore.session import get_session

    control = set(get_session().get_service_model("bedrock").operation_names)
    runtime = set(get_session().get_service_model("bedrock-runtime").operation_names)
    extra = {"InvokeModelWithResponseStream"}
    assert set(CALLER_BEDROCK) <= control | runtime | extra
