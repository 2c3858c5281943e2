"""Settings of every back end on AWS."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat

from cloudtune.config.option_types import Credential, Endpoint, Safe

_PREFIX = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/.+")


def _prefix(value: str) -> str:
    # Nova's jobs accept object keys with these characters only
    # (docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html, seen 2026-11-21).
    value = value.strip("/")
    if not _PREFIX.fullmatch(value):
        raise ValueError("use letters, digits, and _ - . between slashes")
    return value


def _bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise ValueError("a bucket's name has 3 to 63 lower-case letters, digits, hyphens and dots, and no s3://")
    return value


def _role(value: str) -> str:
    if not _ROLE.fullmatch(value):
        raise ValueError("a role's ARN looks like arn:aws:iam::123456789012:role/cloudtune")
    return value


class AwsOptions(BaseModel):
    """Account, region and storage. Credentials come from AWS's default chain and are not settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    region: Safe[Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] | None] = None
    """Default: AWS_REGION, AWS_DEFAULT_REGION or the profile's."""
    profile: Credential[str | None] = None
    """A profile of ``~/.aws/config``. Default: AWS_PROFILE, environment variables, the machine's own role."""
    endpoint_url: Endpoint[str | None] = None
    """The endpoint of every service, for emulators. Default: AWS_ENDPOINT_URL, else AWS's own endpoints."""
    bucket: Endpoint[Annotated[str, AfterValidator(_bucket)] | None] = None
    """The bucket of rows and results, in the job's region."""
    prefix: Safe[Annotated[str, AfterValidator(_prefix)]] = "cloudtune"
    """The prefix of every key that cloudtune writes into the bucket."""
    role_arn: Credential[Annotated[str, AfterValidator(_role)] | None] = None
    """The role that the service assumes to read and write the bucket; the back end's ``init`` writes its policies."""
    kms_key: Credential[str | None] = None
    """Id, ARN or alias of the key that encrypts written objects. Default: AWS's own keys."""
    tags: Safe[dict[Annotated[str, Field(min_length=1, max_length=128)], Annotated[str, Field(max_length=256)]]] = {}
    """Tags of every new resource, in addition to the spec's tags."""
    timeout: Safe[PositiveFloat] = 60.0
    """Seconds to wait for a response."""
