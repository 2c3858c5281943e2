"""Minimal policies for JumpStart's execution role and for the submitting user, as IAM documents. Never applied."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cloudtune_providers.aws import training_policies as statements
from cloudtune_providers.jumpstart.hub import MANIFEST, cache_bucket, gated_bucket

if TYPE_CHECKING:
    from cloudtune_providers.aws.training_policies import Document
    from cloudtune_providers.jumpstart.options import JumpStartOptions

CALLER = (*statements.JOBS, *statements.ENDPOINTS, "DescribeHubContent")


def documents(options: JumpStartOptions, *, account: str | None, region: str | None) -> dict[str, str]:
    """Return file names and JSON texts. Unknown values are placeholders in capitals."""
    account, region = account or "ACCOUNT", region or "REGION"
    made = {
        "jumpstart-role-trust.json": statements.trust(account),
        "jumpstart-role-policy.json": role_policy(options, account, region),
        "jumpstart-caller-policy.json": caller_policy(options, account, region),
    }
    return {name: json.dumps(document, indent=2) + "\n" for name, document in made.items()}


def role_policy(options: JumpStartOptions, account: str, region: str) -> Document:
    """The job's permissions: those of any training job, and reading AWS's scripts and weights."""
    found = statements.of_role(options, account, region, in_vpc=bool(options.subnets))
    caches = [f"arn:aws:s3:::{name}" for name in (cache_bucket(region), gated_bucket(region))]
    found += [
        {"Sid": "Caches", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": caches},
        {"Sid": "Weights", "Effect": "Allow", "Action": "s3:GetObject", "Resource": [f"{arn}/*" for arn in caches]},
        {"Sid": "Hub", "Effect": "Allow", "Action": "sagemaker:DescribeHubContent", "Resource": "*"},
    ]  # fmt: skip
    return statements.document(found)


def caller_policy(options: JumpStartOptions, account: str, region: str) -> Document:
    """Return the submitting user's policy. It includes the list of models, to suggest similar ids."""
    found = statements.of_caller(options, account, region, CALLER)
    manifest = f"arn:aws:s3:::{cache_bucket(region)}/{MANIFEST}"
    found.append({"Sid": "Models", "Effect": "Allow", "Action": "s3:GetObject", "Resource": manifest})
    return statements.document(found)
