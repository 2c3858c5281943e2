"""Minimal policies for Bedrock's service role and for the submitting user, as IAM documents. Never applied.

docs.aws.amazon.com/bedrock/latest/userguide/model-customization-iam-role.html, encryption-custom-job.html and
vpc-model-customization.html; docs.aws.amazon.com/service-authorization/latest/reference/list_bedrock-mantle.html for
the OpenAI-compatible API (all seen 2026-11-21).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune_providers.bedrock import open_weight

if TYPE_CHECKING:
    from cloudtune_providers.bedrock.options import BedrockOptions

Document = dict[str, Any]
READS = ("s3:GetObject", "s3:ListBucket")
READABLE = ("data", "models", "media", "output", "jobs")
"""Folders below the prefix that the role can read; ``jobs`` has models of SageMaker's jobs, for imports."""
WRITES = ("s3:GetObject", "s3:PutObject", "s3:ListBucket")
CALLER_BEDROCK = (
    "CreateModelCustomizationJob", "GetModelCustomizationJob", "ListModelCustomizationJobs",
    "StopModelCustomizationJob", "CreateCustomModel", "GetCustomModel", "ListCustomModels", "DeleteCustomModel",
    "CreateCustomModelDeployment", "GetCustomModelDeployment", "ListCustomModelDeployments",
    "UpdateCustomModelDeployment", "DeleteCustomModelDeployment", "ListProvisionedModelThroughputs",
    "GetProvisionedModelThroughput", "CreateModelImportJob", "GetModelImportJob", "ListModelImportJobs",
    "GetImportedModel", "DeleteImportedModel", "GetFoundationModel", "ListFoundationModels", "InvokeModel",
    "InvokeModelWithResponseStream", "TagResource", "ListTagsForResource",
)  # fmt: skip
MANTLE = (
    "CreateFile", "GetFile", "ListFiles", "DeleteFile", "CreateFineTuningJob", "GetFineTuningJob",
    "ListFineTuningJobs", "CancelFineTuningJob", "CreateInference", "GetModel", "ListModels",
)  # fmt: skip
_MANTLE_MODELS = ("GetCustomizedModel", "ListCustomizedModels", "DeleteCustomizedModel")
_KMS = ("kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant")
_VPC = ("ec2:DescribeNetworkInterfaces", "ec2:DescribeVpcs", "ec2:DescribeDhcpOptions", "ec2:DescribeSubnets",
        "ec2:DescribeSecurityGroups")  # fmt: skip
_PLACEHOLDERS = {"account": "ACCOUNT", "region": "REGION", "bucket": "BUCKET"}


def documents(
    options: BedrockOptions, *, account: str | None, region: str | None, grader: str | None = None
) -> dict[str, str]:
    """Return file names and JSON texts. Unknown values are placeholders in capitals."""
    account = account or _PLACEHOLDERS["account"]
    region = region or _PLACEHOLDERS["region"]
    made = {
        "bedrock-role-trust.json": trust(account, region),
        "bedrock-role-policy.json": role_policy(options, account, region, grader),
        "bedrock-caller-policy.json": caller_policy(options, account, region),
        "bedrock-open-weight-policy.json": open_weight_policy(account, open_weight.region_for(region), grader),
    }
    return {name: json.dumps(document, indent=2) + "\n" for name, document in made.items()}


def trust(account: str, region: str) -> Document:
    """The trust policy of the role: Bedrock, for jobs of this account and region."""
    jobs = [f"arn:aws:bedrock:{region}:{account}:{kind}/*" for kind in ("model-customization-job", "model-import-job")]
    condition = {"StringEquals": {"aws:SourceAccount": account}, "ArnLike": {"aws:SourceArn": jobs}}
    return _document([{
        "Effect": "Allow", "Principal": {"Service": "bedrock.amazonaws.com"}, "Action": "sts:AssumeRole",
        "Condition": condition,
    }])  # fmt: skip


def role_policy(options: BedrockOptions, account: str, region: str, grader: str | None = None) -> Document:
    """The role's permissions: read rows and models, write metrics; key, VPC and grader if used."""
    bucket, prefix = options.bucket or _PLACEHOLDERS["bucket"], options.prefix
    owner = {"StringEquals": {"aws:ResourceAccount": account}}
    objects = f"arn:aws:s3:::{bucket}/{prefix}"
    statements: list[Document] = [
        {"Sid": "List", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{bucket}",
         "Condition": owner | {"StringLike": {"s3:prefix": [f"{prefix}/*"]}}},
        {"Sid": "Read", "Effect": "Allow", "Action": "s3:GetObject",
         "Resource": [f"{objects}/{place}/*" for place in READABLE], "Condition": owner},
        {"Sid": "Write", "Effect": "Allow", "Action": "s3:PutObject", "Resource": f"{objects}/output/*",
         "Condition": owner},
    ]  # fmt: skip
    if options.kms_key:
        key = options.kms_key if options.kms_key.startswith("arn:") else f"arn:aws:kms:{region}:{account}:key/KEY"
        statements.append({"Sid": "Key", "Effect": "Allow", "Action": list(_KMS), "Resource": key})
    if options.subnets:
        statements += _vpc(account, region)
    if grader:
        statements.append({"Sid": "Grade", "Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": grader})
    return _document(statements)


def _vpc(account: str, region: str) -> list[Document]:
    made = f"arn:aws:ec2:{region}:{account}"
    places = [f"{made}:{kind}/*" for kind in ("network-interface", "subnet", "security-group")]
    tagged = {
        "StringLike": {"ec2:ResourceTag/BedrockModelCustomizationJobArn": f"arn:aws:bedrock:{region}:{account}:*"}
    }
    return [
        {"Sid": "LookAtVpc", "Effect": "Allow", "Action": list(_VPC), "Resource": "*"},
        {"Sid": "MakeInterfaces", "Effect": "Allow", "Action": ["ec2:CreateNetworkInterface", "ec2:CreateTags"],
         "Resource": places},
        {"Sid": "RemoveInterfaces", "Effect": "Allow", "Condition": tagged, "Resource": "*",
         "Action": ["ec2:CreateNetworkInterfacePermission", "ec2:DeleteNetworkInterface",
                    "ec2:DeleteNetworkInterfacePermission"]},
    ]  # fmt: skip


def caller_policy(options: BedrockOptions, account: str, region: str) -> Document:
    """Return the submitting user's policy."""
    bucket, role = options.bucket or _PLACEHOLDERS["bucket"], options.role_arn or f"arn:aws:iam::{account}:role/ROLE"
    passed = {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}}
    return _document([
        {"Sid": "Bedrock", "Effect": "Allow", "Action": [f"bedrock:{name}" for name in CALLER_BEDROCK],
         "Resource": "*", "Condition": {"StringEquals": {"aws:RequestedRegion": region}}},
        {"Sid": "PassTheRole", "Effect": "Allow", "Action": "iam:PassRole", "Resource": role, "Condition": passed},
        {"Sid": "Bucket", "Effect": "Allow", "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
         "Resource": f"arn:aws:s3:::{bucket}"},
        {"Sid": "Objects", "Effect": "Allow", "Resource": f"arn:aws:s3:::{bucket}/{options.prefix}/*",
         "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload",
                    "s3:ListMultipartUploadParts"]},
    ])  # fmt: skip


def open_weight_policy(account: str, region: str, grader: str | None = None) -> Document:
    """Return the policy for tuning open-weight models, whose actions have the prefix ``bedrock-mantle``.

    Its resources are projects, which contain files and jobs; an account has a default one. The key in
    AWS_BEARER_TOKEN_BEDROCK requires permission to call with a bearer token, also for Bedrock itself, because AWS's
    SDKs then send that key there too.
    """
    grader = grader or f"arn:aws:lambda:{region}:{account}:function:GRADER"
    own = f"arn:aws:bedrock-mantle:{region}:{account}"
    return _document([
        {"Sid": "OpenWeight", "Effect": "Allow", "Action": [f"bedrock-mantle:{name}" for name in MANTLE],
         "Resource": f"{own}:project/*"},
        {"Sid": "OpenWeightModels", "Effect": "Allow", "Action": [f"bedrock-mantle:{name}" for name in _MANTLE_MODELS],
         "Resource": f"{own}:customized-model/*"},
        {"Sid": "ByKey", "Effect": "Allow", "Resource": "*",
         "Action": ["bedrock-mantle:CallWithBearerToken", "bedrock:CallWithBearerToken"]},
        {"Sid": "Grade", "Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": grader},
    ])  # fmt: skip


def _document(statements: list[Document]) -> Document:
    return {"Version": "2012-10-17", "Statement": statements}
