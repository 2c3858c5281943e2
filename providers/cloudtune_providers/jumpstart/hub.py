"""Documents of the hub: read, dated, hashed and cached; and the public manifest of all models.

``DescribeHubContent`` needs credentials; JumpStart's public bucket has the list of all models as well
(``models_manifest.json``: sagemaker-core 2.27.0, ``jumpstart/types.py`` and ``region_config.json``).
"""

from __future__ import annotations

import hashlib
import json
import threading
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from cloudtune.errors import CloudtuneError, InvalidResponse, JobNotFound, Problem, SpecError
from cloudtune_providers.jumpstart.document import Document, kept
from cloudtune_providers.jumpstart.options import PUBLIC_HUB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.clock import Clock
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.jumpstart.document import Hyper

_REFERENCE = "ModelReference"
MANIFEST = "models_manifest.json"


def cache_bucket(region: str) -> str:
    """JumpStart's public bucket of a region."""
    return f"jumpstart-cache-prod-{region}"


def gated_bucket(region: str) -> str:
    """JumpStart's bucket of a region for models whose terms must be accepted first."""
    return f"jumpstart-private-cache-prod-{region}"


class Hub:
    """The documents of one hub. Thread-safe."""

    def __init__(self, clients: Clients, hub: str, clock: Clock, age_s: float) -> None:
        self._clients = clients
        self._hub = hub
        self._clock = clock
        self._age_s = age_s
        self._lock = threading.Lock()
        self._read: dict[tuple[str, str | None], tuple[float, dict[str, Any]]] = {}

    def facts(self, model: str, version: str | None) -> dict[str, Any]:
        """Return the document and its source. Raises SpecError, with similar names, if there is no such model."""
        key, now = (model, version), self._clock.monotonic()
        with self._lock:
            seen = self._read.get(key)
        if seen is not None and now - seen[0] < self._age_s:
            return seen[1]
        facts = self._asked(model, version)
        with self._lock:
            self._read[key] = (now, facts)
        return facts

    def known(self, model: str, version: str | None, given: Mapping[str, Any]) -> dict[str, Hyper] | None:
        """The hyperparameters of a document that is already read; None otherwise. No I/O."""
        with self._lock:
            seen = self._read.get((model, version))
        if seen is None:
            return None
        document = Document(seen[1]["document"], given.get("config"))
        return document.hyperparameters(
            str(given.get("instance_type") or document["DefaultTrainingInstanceType"] or "")
        )

    def _asked(self, model: str, version: str | None) -> dict[str, Any]:
        described = self._described(model, version)
        text = str(described["HubContentDocument"])
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidResponse(f"cannot read the hub's document of {model}: {error}") from error
        return {
            "model": model,
            "version": str(described["HubContentVersion"]),
            "arn": str(described["HubContentArn"]),
            "reference": described["HubContentType"] == _REFERENCE,
            "schema": str(described.get("DocumentSchemaVersion") or ""),
            "status": str(described.get("SupportStatus") or ""),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "document": kept(document),
            "read_at": self._clock.now().isoformat(timespec="seconds"),
        }

    def _described(self, model: str, version: str | None) -> dict[str, Any]:
        """A private hub can have references to public models besides its own models."""
        more = {} if version is None else {"HubContentVersion": version}
        kinds = ("Model",) if self._hub == PUBLIC_HUB else (_REFERENCE, "Model")
        for kind in kinds:
            try:
                with self._clients.asking(f"document of {model}"):
                    return dict(
                        self._clients.client("sagemaker").describe_hub_content(
                            HubName=self._hub, HubContentType=kind, HubContentName=model, **more
                        )
                    )
            except JobNotFound as error:
                if kind == kinds[-1]:
                    raise SpecError([self._missing(model, version)]) from error
        raise AssertionError("the last kind returns or raises")

    def _missing(self, model: str, version: str | None) -> Problem:
        if version is not None:
            return Problem(
                code="unknown_model", field="overrides.jumpstart.model_version",
                message=f"the hub has no version {version} of {model}", fix="remove it to use the newest version",
            )  # fmt: skip
        near = get_close_matches(model, self.models(), n=3)
        fix = f"did you mean {' or '.join(near)}?" if near else "find the model's id in the SageMaker hub"
        return Problem(code="unknown_model", field="model", message=f"JumpStart has no model {model!r}", fix=fix)

    def models(self) -> list[str]:
        """Ids of all models, from the public manifest; none if it cannot be read."""
        try:
            bucket = cache_bucket(self._clients.region)
            with self._clients.asking("JumpStart's manifest"):
                body = self._clients.client("s3").get_object(Bucket=bucket, Key=MANIFEST)["Body"].read()
            return sorted({str(entry["model_id"]) for entry in json.loads(body)})
        except (CloudtuneError, json.JSONDecodeError, KeyError, TypeError):
            return []
