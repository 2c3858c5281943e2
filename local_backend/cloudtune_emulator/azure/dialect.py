"""Differences of Azure's data plane from OpenAI's API: keys, versions, status values, fields that may be null.

Fields and values: litellm #24687 and Azure/azure-dev #6532 (users' reports), learn.microsoft.com, Azure OpenAI
fine-tuning how-to and REST reference; seen 2026-11-21. The same reports disagree between api-versions: clients should
treat every value as an open string.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.http import ApiError, Call

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.job_timeline import JobStatus

MOST_FILES = 100
"""Limit of files in a resource (learn.microsoft.com, Azure OpenAI quotas and limits, seen 2026-11-21)."""
MOST_GOING = 23
"""Limit of active jobs of a resource: 3 running and 20 waiting (the same page). The script decides when a scripted job
starts; really trained jobs wait for this machine."""
_DENIED = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource."
)


def check_key(context: EmulatorContext, request: Request) -> None:
    """``api-key`` or a bearer token. The v1 endpoint also accepts the key as a bearer, as the plain client sends it.

    (learn.microsoft.com, Azure OpenAI v1 API, seen 2026-11-21.)
    """
    key = request.headers.get("api-key")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    settings = context.settings
    if key is not None and context.opens(key, settings.azure_key):
        return
    bearers = (settings.azure_token, settings.azure_key)
    if key is None and scheme.lower() == "bearer" and any(context.opens(token, known) for known in bearers):
        return
    raise ApiError(401, _DENIED, code="401")


def check_version(context: EmulatorContext, call: Call) -> None:
    """Outside ``/openai/v1`` every path needs an api-version; without one the response is 404."""
    if not call.query.get("api-version"):
        raise ApiError(404, "Resource not found", code="404")


def dressed_job(view: dict[str, Any], job: dict[str, Any], seen: JobStatus, now: float) -> dict[str, Any]:
    """A job in Azure's format: no organization, suffix or metadata; ``pending`` before file validation."""
    view = {name: value for name, value in view.items() if name not in ("metadata", "user_provided_suffix")}
    view["organization_id"] = None
    if not view["result_files"]:
        view["result_files"] = None
    if view["status"] == "validating_files" and now < job["created"] + 1:
        view["status"] = "pending"
    if tier := job["request"].get("trainingType"):
        view["trainingType"] = tier
    return view


def dressed_file(view: dict[str, Any]) -> dict[str, Any]:
    """A file that is not ready is ``pending``."""
    return view | {"status": "pending"} if view["status"] == "uploaded" else view


def refuse_full(context: EmulatorContext, call: Call) -> None:
    """Enforce the limit of a hundred files."""
    if context.store.count("file", call.api) >= MOST_FILES:
        message = f"The resource holds {MOST_FILES} files already. Delete some before you upload more."
        raise ApiError(400, message, code="quotaExceeded")


def refuse_busy(context: EmulatorContext, call: Call) -> None:
    """Enforce the limit of active jobs. The message and the status are not documented."""
    going = sum(context.status(job, call.now).finished_at is None for job in context.store.all("job", call.api))
    if going >= MOST_GOING:
        message = f"The resource has {going} fine-tuning jobs that run or wait. Wait for one to end, or cancel one."
        raise ApiError(429, message, code="quota_exceeded", type="requests")
