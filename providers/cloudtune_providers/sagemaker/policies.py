"""The least that SageMaker's execution role and whoever submits need, as IAM documents. Written out, never applied.

After AWS's own template for such roles (sagemaker-core 2.27.0, ``core/helper/iam_policies.py``), less what is not used.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudtune_providers.sagemaker.options import SageMakerOptions

Document = dict[str, Any]
_LOGS = "/aws/sagemaker/TrainingJobs"
_IMAGES = ("ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability")
_KMS = ("kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant")
_VPC = (
    "ec2:CreateNetworkInterface", "ec2:CreateNetworkInterfacePermission", "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission", "ec2:DescribeNetworkInterfaces", "ec2:DescribeVpcs",
    "ec2:DescribeDhcpOptions", "ec2:DescribeSubnets", "ec2:DescribeSecurityGroups",
)  # fmt: skip
CALLER = (
    "CreateTrainingJob", "DescribeTrainingJob", "ListTrainingJobs", "StopTrainingJob", "DeleteTrainingJob", "AddTags",
    "ListTags", "CreateModel", "DescribeModel", "DeleteModel", "CreateEndpointConfig", "DescribeEndpointConfig",
    "DeleteEndpointConfig", "CreateEndpoint", "DescribeEndpoint", "ListEndpoints", "DeleteEndpoint", "InvokeEndpoint",
    "CreateInferenceComponent", "DescribeInferenceComponent", "ListInferenceComponents", "DeleteInferenceComponent",
)  # fmt: skip
SERVERLESS = (
    "DescribeHubContent", "CreateModelPackageGroup", "DescribeModelPackageGroup", "DescribeModelPackage",
    "DeleteModelPackage",
)  # fmt: skip
_ROLE_SERVERLESS = (
    "sagemaker:DescribeHub", "sagemaker:DescribeHubContent", "sagemaker:ListHubContents",
    "sagemaker:CreateModelPackage", "sagemaker:DescribeModelPackage", "sagemaker:DescribeModelPackageGroup",
)  # fmt: skip


def documents(options: SageMakerOptions, *, account: str | None, region: str | None) -> dict[str, str]:
    """File name -> JSON text. What is not known stands as a word in capitals, for a person to fill in."""
    account, region = account or "ACCOUNT", region or "REGION"
    made = {
        "sagemaker-role-trust.json": trust(account),
        "sagemaker-role-policy.json": role_policy(options, account, region),
        "sagemaker-caller-policy.json": caller_policy(options, account, region),
    }
    return {name: json.dumps(document, indent=2) + "\n" for name, document in made.items()}


def trust(account: str) -> Document:
    """Who may take the role on: SageMaker, for this account."""
    return _document([{
        "Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": account}},
    }])  # fmt: skip


def role_policy(options: SageMakerOptions, account: str, region: str) -> Document:
    """What the job may do: read and write below the prefix, fetch its image, write its log and its figures."""
    logs = f"arn:aws:logs:{region}:{account}:log-group:{_LOGS}*"
    statements: list[Document] = [
        *_bucket(options, ("s3:GetObject", "s3:PutObject")),
        {"Sid": "Image", "Effect": "Allow", "Action": list(_IMAGES),
         "Resource": f"arn:aws:ecr:{region}:*:repository/*"},
        {"Sid": "Registry", "Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
        {"Sid": "Log", "Effect": "Allow", "Resource": logs, "Action": [
            "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams",
        ]},
        {"Sid": "Figures", "Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*",
         "Condition": {"StringEquals": {"cloudwatch:namespace": _LOGS}}},
    ]  # fmt: skip
    if options.kms_key:
        statements.append(_key(options, account, region))
    if options.subnets:
        statements.append({"Sid": "Vpc", "Effect": "Allow", "Action": list(_VPC), "Resource": "*"})
    if options.hub_token_secret:
        secret = options.hub_token_secret
        arn = secret if secret.startswith("arn:") else f"arn:aws:secretsmanager:{region}:{account}:secret:{secret}-*"
        statements.append(
            {"Sid": "HubToken", "Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": arn}
        )
    if options.compute == "serverless":
        statements.append({"Sid": "Hub", "Effect": "Allow", "Action": list(_ROLE_SERVERLESS), "Resource": "*"})
        if options.mlflow:
            statements.append(
                {"Sid": "Mlflow", "Effect": "Allow", "Action": "sagemaker-mlflow:*", "Resource": options.mlflow}
            )
    return _document(statements)


def caller_policy(options: SageMakerOptions, account: str, region: str) -> Document:
    """What whoever runs cloudtune may do."""
    role = options.role_arn or f"arn:aws:iam::{account}:role/ROLE"
    names = (*CALLER, *(SERVERLESS if options.compute == "serverless" else ()))
    logs = f"arn:aws:logs:{region}:{account}:log-group:{_LOGS}*"
    statements: list[Document] = [
        {"Sid": "SageMaker", "Effect": "Allow", "Action": [f"sagemaker:{name}" for name in names], "Resource": "*",
         "Condition": {"StringEquals": {"aws:RequestedRegion": region}}},
        {"Sid": "PassTheRole", "Effect": "Allow", "Action": "iam:PassRole", "Resource": role,
         "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}},
        {"Sid": "Log", "Effect": "Allow", "Action": "logs:FilterLogEvents", "Resource": logs},
        *_bucket(options, ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload",
                           "s3:ListMultipartUploadParts")),
    ]  # fmt: skip
    if options.kms_key:
        statements.append(_key(options, account, region))
    return _document(statements)


def _bucket(options: SageMakerOptions, objects: tuple[str, ...]) -> list[Document]:
    bucket = f"arn:aws:s3:::{options.bucket or 'BUCKET'}"
    whole = ["s3:ListBucket", "s3:GetBucketLocation"]
    if "s3:DeleteObject" in objects:
        whole.append("s3:ListBucketMultipartUploads")
    return [
        {"Sid": "Bucket", "Effect": "Allow", "Action": whole, "Resource": bucket},
        {"Sid": "Objects", "Effect": "Allow", "Action": list(objects), "Resource": f"{bucket}/{options.prefix}/*"},
    ]


def _key(options: SageMakerOptions, account: str, region: str) -> Document:
    given = str(options.kms_key)
    key = given if given.startswith("arn:") else f"arn:aws:kms:{region}:{account}:key/KEY"
    return {"Sid": "Key", "Effect": "Allow", "Action": list(_KMS), "Resource": key}


def _document(statements: list[Document]) -> Document:
    return {"Version": "2012-10-17", "Statement": statements}
