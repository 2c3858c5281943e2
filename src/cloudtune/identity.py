"""The identity of a job: the same key always means the same job.

A key is the hash of (spec, data content, back end, scope). A token is the hash of (key, attempt). Every name and
idempotency token at a vendor is derived from it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from cloudtune.plan import DataReport, Resolved
    from cloudtune.spec import JobSpec

# The rows' location is not their content (which is hashed separately), the place of the job is part of the scope,
# and a watch's timeouts do not affect the training.
_NOT_IDENTITY = {"backend", "data", "model", "overrides", "unsupported", "version"}


def job_key(spec: JobSpec, data: DataReport, backend: str, resolved: Resolved) -> str:
    """Return 32 hex digits. The same spec and rows on the same back end and account give the same key."""
    document: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True, exclude=_NOT_IDENTITY)
    document.get("limits", {}).pop("stall_after", None)
    return _digest(
        {
            "spec": document,
            "model": spec.model_for(backend),
            "overrides": spec.overrides.get(backend, {}),
            "data": data.fingerprint,
            "backend": backend,
            "scope": resolved.scope,
            "identity": resolved.identity,
        }
    )


def job_token(key: str, attempt: int) -> str:
    """Return 32 hex digits, different for each attempt of the same key."""
    return _digest({"key": key, "attempt": attempt})


def _digest(document: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()[:32]
