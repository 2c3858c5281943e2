"""S3 as moto plays it, in process, behind botocore's own clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.options import AwsOptions
from cloudtune_providers.aws.s3 import Objects

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET,
                        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clients(keys: None) -> Iterator[Clients]:
    from moto import mock_aws

    with mock_aws():
        yield Clients(AwsOptions())


@pytest.fixture
def objects(clients: Clients) -> Objects:
    clients.client("s3").create_bucket(Bucket="rows")
    return Objects(clients, "rows")


class Notes:
    """A journal in memory."""

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}

    def note(self, name: str, value: Any) -> None:
        self.notes[name] = value


@pytest.fixture
def journal() -> Notes:
    return Notes()
