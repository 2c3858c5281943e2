"""Translates the SDK's exceptions, by status and by the service's codes."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from cloudtune.errors import (
    BackendError,
    CloudtuneError,
    CredentialsError,
    InvalidRequest,
    InvalidResponse,
    JobNotFound,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# 429, but waiting for minutes does not help (developers.openai.com/api/docs/guides/error-codes; llmcomp#58;
# the last is Azure's; seen 2026-11-21).
_USED_UP = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "daily_rate_limit_exceeded",
        "InsufficientQuota",
        "quota_exceeded",
    }
)
_HINTS = {
    "training_not_available": "OpenAI is closing fine-tuning; use the same spec with `backend: azure_openai`",
    "insufficient_quota": "check the account's billing page",
    "daily_rate_limit_exceeded": "the daily job limit is reached; submit again tomorrow",
    "model_not_available": "run `cloudtune plan` to see which models can be tuned",
}
_REFUSED: dict[int, type[CloudtuneError]] = {
    400: InvalidRequest, 401: CredentialsError, 403: PermissionDenied, 405: InvalidRequest, 409: InvalidRequest,
    413: InvalidRequest, 415: InvalidRequest, 422: InvalidRequest,
}  # fmt: skip
_ADDRESS_HINT = "check that the address is the API's"
_REDIRECT_HINT = "cloudtune follows no redirects, so that your data goes only to the address that you set: check it"
_KEY_HINT = "check that the key is valid for the endpoint and project in use: `cloudtune config show`"


def to_error(
    error: Exception, what: str, *, missing: type[CloudtuneError] = JobNotFound, secrets: Iterable[str] = ()
) -> CloudtuneError:
    """The cloudtune error for the SDK's exception about ``what``. ``missing`` is the error for a 404.

    Some services repeat the rejected key: ``secrets`` are removed from the message.
    """
    status = getattr(error, "status_code", None)
    message = clean(f"{what}: {_words(error)}", secrets)
    if status is None:
        return _without_answer(error, message)
    code = getattr(error, "code", None)
    hint = _HINTS.get(str(code))
    if status == 429:
        if code in _USED_UP:
            return QuotaExceeded(message, hint=hint)
        return RateLimited(message, retry_after=retry_after(error.response.headers), hint=hint)  # type: ignore[attr-defined]
    if status >= 500 or status == 408:
        return Unavailable(message)
    if 300 <= status < 400:
        return redirected(what, str(error.response.url), error.response.headers)  # type: ignore[attr-defined]
    if status < 400:  # a body that the SDK cannot parse
        return InvalidResponse(message, hint=_ADDRESS_HINT)
    if status == 404:
        return missing(message, hint=hint)
    return _REFUSED.get(status, BackendError)(message, hint=hint or (_KEY_HINT if status == 401 else None))


def redirected(what: str, url: str, headers: Mapping[str, str]) -> InvalidResponse:
    """The error for a redirect of a request to ``url``. It names only the origin: the rest can contain secrets."""
    try:
        target = urlsplit(urljoin(url, headers.get("location", "")))
        origin = f"{target.scheme}://{target.netloc.rpartition('@')[2]}"
    except ValueError:
        origin = "an invalid address"
    return InvalidResponse(f"{what}: the service redirects to {origin}", hint=_REDIRECT_HINT)


def _words(error: Exception) -> str:
    """The service's message, without the SDK's rendering of the whole body."""
    body = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    cause = error.__cause__
    said = getattr(error, "message", None) or str(error)
    return f"{said} ({type(cause).__name__}: {cause})" if cause is not None and str(cause) else str(said)


def _without_answer(error: Exception, message: str) -> CloudtuneError:
    import httpx2
    import openai

    if isinstance(error, openai.APIConnectionError):
        never_left = isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
        return Unavailable(message, acted=False if never_left else None)
    if isinstance(error, openai.APIResponseValidationError | ValueError):  # not JSON, or truncated
        return InvalidResponse(message, hint=_ADDRESS_HINT)
    if isinstance(error, openai.APIError | httpx2.HTTPError):
        return Unavailable(message)
    return CredentialsError(message, hint=_KEY_HINT)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The service's requested wait in seconds: given in milliseconds, in seconds, or as a date."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) / divisor)
        except (KeyError, ValueError):
            continue
    try:
        until = email.utils.parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until.tzinfo else None


def clean(text: Any, secrets: Iterable[str]) -> str:
    """The text without the secrets."""
    cleaned = str(text)
    for secret in secrets:
        if secret:
            cleaned = cleaned.replace(secret, "***")
    return cleaned
