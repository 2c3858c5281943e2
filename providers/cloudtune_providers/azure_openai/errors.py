"""Translates azure-core's exceptions, by status and by the resource manager's codes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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
from cloudtune_providers.openai_dialect.errors import clean, redirected, retry_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ADDRESS_HINT = "check that the endpoint is Azure, not a proxy's page"
_REFUSED: dict[int, type[CloudtuneError]] = {
    400: InvalidRequest, 401: CredentialsError, 403: PermissionDenied, 404: JobNotFound, 409: InvalidRequest,
    412: InvalidRequest, 422: InvalidRequest,
}  # fmt: skip


@contextmanager
def asking(what: str, secrets: Iterable[str]) -> Iterator[None]:
    """Translate azure-core's exceptions to cloudtune errors about ``what``, without ``secrets`` in the message."""
    from azure.core import exceptions as azure

    try:
        yield
    except azure.AzureError as error:
        raise to_error(error, what, secrets) from error
    except CloudtuneError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        message = clean(f"{what}: unexpected response ({type(error).__name__}: {error})", secrets)
        raise InvalidResponse(message, hint=_ADDRESS_HINT) from error


def to_error(error: Any, what: str, secrets: Iterable[str]) -> CloudtuneError:
    """The cloudtune error for one of azure-core's."""
    from azure.core import exceptions as azure

    message = clean(f"{what}: {getattr(error, 'message', None) or error}", secrets)
    status = getattr(error, "status_code", None)
    if status is None:
        if isinstance(error, azure.ClientAuthenticationError):
            return CredentialsError(message, hint="sign in with `az login`, or configure a service principal")
        return Unavailable(message, acted=False if isinstance(error, azure.ServiceRequestError) else None)
    code = getattr(getattr(error, "error", None), "code", None)
    if code in ("InsufficientQuota", "QuotaExceeded"):
        return QuotaExceeded(message)
    if status == 429:
        return RateLimited(message, retry_after=retry_after(error.response.headers))
    if 300 <= status < 400:
        return redirected(what, error.response.request.url, error.response.headers)
    if status < 400:  # a page instead of JSON, or JSON of another shape
        return InvalidResponse(message, hint=_ADDRESS_HINT)
    if status >= 500 or status == 408:
        return Unavailable(message)
    return _REFUSED.get(status, BackendError)(message)
