"""Who a job is: the key that answers the same question with the same job.

A key is the hash of (spec, data content, back end, scope); a token is the hash of (key, attempt), and every name and
idempotency token that a vendor sees is derived from it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from cloudtune.plan import DataReport, Resolved
    from cloudtune.spec import JobSpec

# Where the rows lie is not what they say (their content is hashed apart), where the job runs is the scope's business,
# and how patient a watch is changes nothing in the training.
_NOT_IDENTITY = {"backend", "data", "model", "overrides", "unsupported", "version"}


def job_key(spec: JobSpec, data: DataReport, backend: str, resolved: Resolved) -> str:
    """32 hex digits: the same spec and the same rows on the same back end and account give the same key."""
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
    """32 hex digits, different for each attempt at the same key."""
    return _digest({"key": key, "attempt": attempt})


def _digest(document: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()[:32]
