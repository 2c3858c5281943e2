"""Tags of SageMaker resources, read once per resource, because cloudtune's tags never change."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from cloudtune.errors import JobNotFound
from cloudtune_providers.aws.names import TOKEN_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune_providers.aws.clients import Clients

MODEL_TAG = "cloudtune:model"
BACKEND_TAG = "cloudtune:backend"
BASE_TAG = "cloudtune:base"
"""On an adapter: the inference component of its base model."""
COPIES_TAG = "cloudtune:copies"
"""On a scaling component: its minimum and maximum number of copies."""
OWN_TAGS = (MODEL_TAG, BACKEND_TAG, BASE_TAG, COPIES_TAG)
_PAGE = 100


class Labels:
    """The tags of one account and region. Thread-safe."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._lock = threading.Lock()
        self._known: dict[tuple[str, Any], dict[str, str]] = {}

    def of(self, arn: str, made: Any) -> dict[str, str]:
        """The tags of a resource with that creation time; none if it no longer exists."""
        key = (arn, made)
        with self._lock:
            if key in self._known:
                return self._known[key]
        try:
            with self._clients.asking(f"tags of {arn}"):
                page = self._clients.client("sagemaker").list_tags(ResourceArn=arn, MaxResults=_PAGE)
                found = {tag["Key"]: tag["Value"] for tag in page["Tags"]}
        except JobNotFound:
            return {}
        with self._lock:
            self._known[key] = found
        return found


def token_in(body: Mapping[str, Any]) -> str | None:
    """The token of the submission of a create request."""
    return {tag["Key"]: tag["Value"] for tag in body["Tags"]}.get(TOKEN_TAG)
