"""Minimal policies for SageMaker's execution role and for the submitting user, as IAM documents. Never applied."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cloudtune_providers.aws import training_policies as statements
from cloudtune_providers.sagemaker.mlflow import APP, SERVER, kind_of

if TYPE_CHECKING:
    from cloudtune_providers.aws.training_policies import Document
    from cloudtune_providers.sagemaker.options import SageMakerOptions

CALLER = (*statements.JOBS, *statements.ENDPOINTS)
SERVERLESS = (
    "DescribeHubContent", "CreateModelPackageGroup", "DescribeModelPackageGroup", "DescribeModelPackage",
    "DeleteModelPackage",
)  # fmt: skip
_ROLE_SERVERLESS = (
    "sagemaker:DescribeHub", "sagemaker:DescribeHubContent", "sagemaker:ListHubContents",
    "sagemaker:CreateModelPackage", "sagemaker:DescribeModelPackage", "sagemaker:DescribeModelPackageGroup",
)  # fmt: skip

_READS = {
    APP: ["sagemaker:CallMlflowAppApi", "sagemaker:DescribeMlflowApp"],  # an app's API has only the first
    SERVER: [
        "sagemaker-mlflow:GetRun",
        "sagemaker-mlflow:GetMetricHistory",
        "sagemaker:DescribeMlflowTrackingServer",
    ],
}
"""Actions for reading, and for checking whether a run exists.

SageMaker developer guide, the data plane's IAM actions of MLflow Apps and of tracking servers (seen 2026-11-21).
"""


def documents(options: SageMakerOptions, *, account: str | None, region: str | None) -> dict[str, str]:
    """Return file names and JSON texts. Unknown values are placeholders in capitals."""
    account, region = account or "ACCOUNT", region or "REGION"
    made = {
        "sagemaker-role-trust.json": statements.trust(account),
        "sagemaker-role-policy.json": role_policy(options, account, region),
        "sagemaker-caller-policy.json": caller_policy(options, account, region),
    }
    return {name: json.dumps(document, indent=2) + "\n" for name, document in made.items()}


def role_policy(options: SageMakerOptions, account: str, region: str) -> Document:
    """The job's permissions."""
    found = statements.of_role(options, account, region, in_vpc=bool(options.subnets))
    if options.hub_token_secret:
        secret = options.hub_token_secret
        arn = secret if secret.startswith("arn:") else f"arn:aws:secretsmanager:{region}:{account}:secret:{secret}-*"
        found.append({"Sid": "HubToken", "Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": arn})
    if options.compute == "serverless":
        found.append({"Sid": "Hub", "Effect": "Allow", "Action": list(_ROLE_SERVERLESS), "Resource": "*"})
        if options.mlflow:
            app = (
                ["sagemaker:CallMlflowAppApi", "sagemaker:DescribeMlflowApp"] if kind_of(options.mlflow) == APP else []
            )
            whole = [*app, "sagemaker-mlflow:*"]
            found.append({"Sid": "Mlflow", "Effect": "Allow", "Action": whole, "Resource": options.mlflow})
    return statements.document(found)


def caller_policy(options: SageMakerOptions, account: str, region: str) -> Document:
    """Return the submitting user's policy."""
    calls = (*CALLER, *(SERVERLESS if options.compute == "serverless" else ()))
    found = statements.of_caller(options, account, region, calls)
    if options.compute == "serverless" and options.mlflow:
        found.append({"Sid": "Curves", "Effect": "Allow", "Action": _READS[kind_of(options.mlflow)],
                      "Resource": options.mlflow})  # fmt: skip
    return statements.document(found)
