"""The documents for roles: no more than what is called, below the prefix only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cloudtune_providers.sagemaker import policies
from cloudtune_providers.sagemaker.options import SageMakerOptions

PROVIDERS = Path(policies.__file__).parents[1]
OPTIONS: dict[str, Any] = {
    "bucket": "a-bucket", "role_arn": "arn:aws:iam::123456789012:role/cloudtune", "region": "eu-west-1",
}  # fmt: skip


def made(**options: Any) -> dict[str, Any]:
    given = SageMakerOptions.model_validate(OPTIONS | options)
    texts = policies.documents(given, account="123456789012", region="eu-west-1")
    return {name: json.loads(text)["Statement"] for name, text in texts.items()}


def actions(statements: list[dict[str, Any]]) -> set[str]:
    return {one for s in statements for one in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}


def test_the_caller_may_what_the_back_end_calls() -> None:
    """Every call of boto3's sagemaker client in our code is allowed, and nothing that the service does not know."""
    from botocore.session import get_session

    runtime = set(get_session().get_service_model("sagemaker-runtime").operation_names)
    known = set(get_session().get_service_model("sagemaker").operation_names) | runtime
    assert {*policies.CALLER, *policies.SERVERLESS} <= known
    rooms = [*(PROVIDERS / "sagemaker").glob("*.py"), *(PROVIDERS / "aws").glob("*.py")]
    text = "\n".join(path.read_text() for path in rooms)
    called = {"".join(part.title() for part in name.split("_")) for name in re.findall(r"_client\.([a-z_]+)\(", text)}
    assert called & known
    assert called & known <= {*policies.CALLER, *policies.SERVERLESS}


def test_objects_are_those_below_the_prefix() -> None:
    for statements in made(prefix="team/nlp").values():
        for statement in statements:
            if "s3:GetObject" in statement["Action"]:
                assert statement["Resource"] == "arn:aws:s3:::a-bucket/team/nlp/*"


def test_what_is_not_used_is_not_allowed() -> None:
    plain = actions(made()["sagemaker-role-policy.json"])
    assert not {one for one in plain if one.startswith(("kms:", "ec2:", "secretsmanager:", "sagemaker"))}
    options = {
        "kms_key": "arn:aws:kms:eu-west-1:123456789012:key/k", "subnets": ["subnet-1"], "security_groups": ["sg-1"],
        "hub_token_secret": "hub", "compute": "serverless",
    }  # fmt: skip
    whole = actions(made(**options)["sagemaker-role-policy.json"])
    assert {"kms:Decrypt", "ec2:CreateNetworkInterface", "secretsmanager:GetSecretValue"} < whole
    assert "sagemaker:DescribeHubContent" in whole
    assert "sagemaker:DescribeHubContent" in actions(made(compute="serverless")["sagemaker-caller-policy.json"])
    assert not any("*" in one for one in whole | plain)


def test_only_the_service_takes_the_role_on_and_only_it_is_passed() -> None:
    documents = made()
    (statement,) = documents["sagemaker-role-trust.json"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    (passing,) = [one for one in documents["sagemaker-caller-policy.json"] if one["Action"] == "iam:PassRole"]
    assert passing["Resource"] == OPTIONS["role_arn"]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


@pytest.mark.parametrize("name", ["sagemaker-role-policy.json", "sagemaker-caller-policy.json"])
def test_what_is_not_known_is_left_open(name: str) -> None:
    texts = policies.documents(SageMakerOptions(), account=None, region=None)
    assert "ACCOUNT" in texts[name]
    assert "arn:aws:s3:::BUCKET/cloudtune/*" in texts[name]


@pytest.mark.parametrize(
    ("kind", "whole", "reads"),
    [
        ("mlflow-app/app-X", {"sagemaker:CallMlflowAppApi", "sagemaker-mlflow:*"},
         {"sagemaker:CallMlflowAppApi", "sagemaker:DescribeMlflowApp"}),
        ("mlflow-tracking-server/ours", {"sagemaker-mlflow:*"},
         {"sagemaker-mlflow:GetRun", "sagemaker-mlflow:GetMetricHistory", "sagemaker:DescribeMlflowTrackingServer"}),
    ],
)  # fmt: skip
def test_curves_are_written_by_the_role_and_read_by_the_caller(kind: str, whole: set[str], reads: set[str]) -> None:
    arn = f"arn:aws:sagemaker:eu-west-1:123456789012:{kind}"
    documents = made(compute="serverless", mlflow=arn)
    writing = [one for one in documents["sagemaker-role-policy.json"] if one["Resource"] == arn]
    reading = [one for one in documents["sagemaker-caller-policy.json"] if one["Resource"] == arn]
    assert whole <= actions(writing)
    assert actions(reading) == reads
    assert not any("mlflow" in one for one in actions(made(compute="serverless")["sagemaker-caller-policy.json"]))
