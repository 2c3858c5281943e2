"""Statements of IAM policies for SageMaker's training jobs. They are written to files, not applied.

Based on AWS's own template for such roles (sagemaker-core 2.27.0, ``core/helper/iam_policies.py``), if used here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloudtune_providers.aws.options import AwsOptions

Document = dict[str, Any]
LOGS = "/aws/sagemaker/TrainingJobs"
"""Log group, and namespace of the metrics."""
SERVICE = "sagemaker.amazonaws.com"
READ_AND_WRITE = ("s3:GetObject", "s3:PutObject")
WITH_UPLOADS = (*READ_AND_WRITE, "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
JOBS = (
    "CreateTrainingJob", "DescribeTrainingJob", "ListTrainingJobs", "StopTrainingJob", "DeleteTrainingJob", "AddTags",
    "ListTags",
)  # fmt: skip
ENDPOINTS = (
    "CreateModel", "DescribeModel", "DeleteModel", "CreateEndpointConfig", "DescribeEndpointConfig",
    "DeleteEndpointConfig", "CreateEndpoint", "DescribeEndpoint", "ListEndpoints", "DeleteEndpoint", "InvokeEndpoint",
    "InvokeEndpointWithResponseStream", "CreateInferenceComponent", "DescribeInferenceComponent",
    "ListInferenceComponents", "DeleteInferenceComponent",
)  # fmt: skip
SCALING = ("RegisterScalableTarget", "DescribeScalableTargets", "DeregisterScalableTarget", "PutScalingPolicy",
           "DescribeScalingPolicies", "DeleteScalingPolicy")  # fmt: skip
ALARMS = ("PutMetricAlarm", "DescribeAlarms", "DeleteAlarms")
_SCALER = "sagemaker.application-autoscaling.amazonaws.com"
# Its role is created with the first registered target
# (docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-service-linked-roles.html, seen
# 2026-11-21).
_SCALERS_ROLE = f"aws-service-role/{_SCALER}/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
_LOOKS = (
    "iam:GetRole", "iam:SimulatePrincipalPolicy", "servicequotas:ListServiceQuotas",
    "servicequotas:ListAWSDefaultServiceQuotas", "pricing:GetProducts",
)  # fmt: skip
"""The actions of `doctor` and `plan --check-remote`; jobs do not need them."""
_IMAGES = ("ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability")
_KMS = ("kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant")
_VPC = (
    "ec2:CreateNetworkInterface", "ec2:CreateNetworkInterfacePermission", "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission", "ec2:DescribeNetworkInterfaces", "ec2:DescribeVpcs",
    "ec2:DescribeDhcpOptions", "ec2:DescribeSubnets", "ec2:DescribeSecurityGroups",
)  # fmt: skip


def document(statements: list[Document]) -> Document:
    """A policy of these statements."""
    return {"Version": "2012-10-17", "Statement": statements}


def trust(account: str) -> Document:
    """The trust policy of the role: SageMaker, for this account."""
    return document([{
        "Effect": "Allow", "Principal": {"Service": SERVICE}, "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": account}},
    }])  # fmt: skip


def of_role(options: AwsOptions, account: str, region: str, *, in_vpc: bool) -> list[Document]:
    """The permissions of a job: read and write below the prefix, pull its image, write its log and its metrics."""
    statements: list[Document] = [
        *bucket(options, READ_AND_WRITE),
        {"Sid": "Image", "Effect": "Allow", "Action": list(_IMAGES),
         "Resource": f"arn:aws:ecr:{region}:*:repository/*"},
        {"Sid": "Registry", "Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
        {"Sid": "Log", "Effect": "Allow", "Resource": logs(account, region), "Action": [
            "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams",
        ]},
        {"Sid": "Figures", "Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*",
         "Condition": {"StringEquals": {"cloudwatch:namespace": LOGS}}},
    ]  # fmt: skip
    if options.kms_key:
        statements.append(_key(options, account, region))
    if in_vpc:
        statements.append({"Sid": "Vpc", "Effect": "Allow", "Action": list(_VPC), "Resource": "*"})
    return statements


def of_caller(options: AwsOptions, account: str, region: str, calls: Iterable[str]) -> list[Document]:
    """Return the submitting user's policy: SageMaker's ``calls``, pass the role, read the log, use the bucket."""
    role = options.role_arn or f"arn:aws:iam::{account}:role/ROLE"
    statements: list[Document] = [
        {"Sid": "SageMaker", "Effect": "Allow", "Action": [f"sagemaker:{name}" for name in calls], "Resource": "*",
         "Condition": {"StringEquals": {"aws:RequestedRegion": region}}},
        {"Sid": "PassTheRole", "Effect": "Allow", "Action": "iam:PassRole", "Resource": role,
         "Condition": {"StringEquals": {"iam:PassedToService": SERVICE}}},
        {"Sid": "Log", "Effect": "Allow", "Action": "logs:FilterLogEvents", "Resource": logs(account, region)},
        *bucket(options, WITH_UPLOADS), *_scaling(account, region),
    ]  # fmt: skip
    if options.kms_key:
        statements.append(_key(options, account, region))
    return statements


def _scaling(account: str, region: str) -> list[Document]:
    """The permissions for endpoints whose copies scale with the requests."""
    return [
        {"Sid": "Scaling", "Effect": "Allow", "Action": [f"application-autoscaling:{name}" for name in SCALING],
         "Resource": "*", "Condition": {"StringEquals": {"aws:RequestedRegion": region}}},
        {"Sid": "Alarms", "Effect": "Allow", "Action": [f"cloudwatch:{name}" for name in ALARMS],
         "Resource": f"arn:aws:cloudwatch:{region}:{account}:alarm:*"},
        {"Sid": "ScalersRole", "Effect": "Allow", "Action": "iam:CreateServiceLinkedRole",
         "Resource": f"arn:aws:iam::{account}:role/{_SCALERS_ROLE}",
         "Condition": {"StringLike": {"iam:AWSServiceName": _SCALER}}},
    ]  # fmt: skip


def logs(account: str, region: str) -> str:
    """The ARN of the jobs' log group."""
    return f"arn:aws:logs:{region}:{account}:log-group:{LOGS}*"


def bucket(options: AwsOptions, objects: tuple[str, ...]) -> list[Document]:
    """The bucket itself, and the objects below the prefix."""
    arn = f"arn:aws:s3:::{options.bucket or 'BUCKET'}"
    whole = ["s3:ListBucket", "s3:GetBucketLocation"]
    if "s3:DeleteObject" in objects:
        whole.append("s3:ListBucketMultipartUploads")
    return [
        {"Sid": "Bucket", "Effect": "Allow", "Action": whole, "Resource": arn},
        {"Sid": "Objects", "Effect": "Allow", "Action": list(objects), "Resource": f"{arn}/{options.prefix}/*"},
    ]


def _key(options: AwsOptions, account: str, region: str) -> Document:
    given = str(options.kms_key)
    key = given if given.startswith("arn:") else f"arn:aws:kms:{region}:{account}:key/KEY"
    return {"Sid": "Key", "Effect": "Allow", "Action": list(_KMS), "Resource": key}
