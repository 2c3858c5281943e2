"""Converts botocore's exceptions to cloudtune's errors, by the service's own codes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudtune.errors import (
    BackendError,
    CloudtuneError,
    ConfigError,
    Conflict,
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
    from collections.abc import Iterable

# Codes of botocore 1.44.5's models of bedrock, bedrock-runtime, sagemaker, sagemaker-runtime, application-autoscaling,
# cloudwatch, s3, sts and iam, and of the common errors
# (docs.aws.amazon.com/awssupport/latest/APIReference/CommonErrors.html, seen 2026-11-21).
_CODES: dict[type[CloudtuneError], frozenset[str]] = {
    CredentialsError: frozenset({
        "UnrecognizedClientException", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId",
        "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSignatureException", "MissingAuthenticationToken",
        "MissingAuthenticationTokenException", "IncompleteSignature", "AuthFailure", "RequestExpired",
        "RequestTimeTooSkewed", "InvalidToken", "401",
    }),
    PermissionDenied: frozenset({
        "AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Forbidden", "NotAuthorized", "OptInRequired",
        "AllAccessDisabled", "403",
    }),
    JobNotFound: frozenset({
        "ResourceNotFoundException", "ResourceNotFound", "NotFound", "NoSuchKey", "NoSuchBucket", "NoSuchEntity",
        "NoSuchUpload", "ObjectNotFoundException", "404",
    }),
    Conflict: frozenset({"ConflictException", "ResourceInUse", "ResourceInUseException", "ResourceConflictException"}),
    QuotaExceeded: frozenset({
        "ServiceQuotaExceededException", "ResourceLimitExceeded", "LimitExceeded", "LimitExceededException",
    }),
    RateLimited: frozenset({
        "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
        "TooManyRequestsException", "RequestLimitExceeded", "SlowDown", "BandwidthLimitExceeded",
        "PriorRequestNotComplete", "ModelNotReadyException", "429",
    }),
    Unavailable: frozenset({
        "InternalServerException", "InternalServerError", "InternalFailure", "InternalError", "ServiceUnavailable",
        "ServiceUnavailableException", "ModelTimeoutException", "RequestTimeout", "RequestTimeoutException",
        "InternalDependencyException", "InternalServiceException", "InternalServiceFault", "ConcurrentUpdateException",
        "ModelStreamError", "InternalStreamFailure",
    }),
    InvalidRequest: frozenset({"ValidationException", "ValidationError", "TooManyTagsException"}),
}  # fmt: skip
_CLASS_OF = {code: cls for cls, codes in _CODES.items() for code in codes}
# SageMaker reports these in a ValidationException (messages from aws-sdk issues, seen 2026-11-21).
_MISSING = re.compile(r"not found|could not find|does not exist", re.IGNORECASE)
_ADDRESS_HINT = "check that the endpoint is AWS, not a proxy's page"
_HINTS: dict[type[CloudtuneError], str] = {
    CredentialsError: "check which identity is in use: `aws sts get-caller-identity`",
    QuotaExceeded: "check Service Quotas in the console, or wait until another job ends",
}
# The response of an inference component without copies, a ValidationError
# (aws.amazon.com/blogs/machine-learning, scale down to zero in SageMaker inference, seen 2026-11-21).
_NO_COPY = re.compile(r"no capacity to process this request", re.IGNORECASE)
_WAKING = "it scales to zero when idle and is starting now; try again in about ten minutes"
_ASLEEP = "an idle imported model loads within minutes; try again"


def code_of(error: BaseException | None) -> str:
    """The service's code in botocore's ClientError; empty for anything else."""
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def words_of(error: BaseException | None) -> str:
    """The service's message, without the SDK's prefix."""
    answer = getattr(error, "response", None)
    said = answer.get("Error", {}).get("Message") if isinstance(answer, dict) else None
    return str(said or error)


def translated(
    error: Exception, doing: str, *, missing: type[CloudtuneError] = JobNotFound, secrets: Iterable[str] = ()
) -> CloudtuneError:
    """The cloudtune error for botocore's exception while ``doing``. ``missing`` is the error for "not found"."""
    from botocore import exceptions as aws

    code = code_of(error)
    said = words_of(error)
    for secret in secrets:
        said = said.replace(secret, "***")
    message = f"{doing}: {said}" + (f" ({code})" if code and code not in said else "")
    if not isinstance(error, aws.ClientError):
        return _without_answer(error, message)
    cls = _class(error, code, said)
    if cls is InvalidRequest and _NO_COPY.search(said):
        return Unavailable(message, acted=False, hint=_WAKING)
    hint = _ASLEEP if code == "ModelNotReadyException" else _HINTS.get(cls)
    if cls is RateLimited:
        return RateLimited(message, retry_after=_retry_after(error.response), hint=hint)
    return missing(message) if cls is JobNotFound else cls(message, hint=hint)


def _class(error: Any, code: str, said: str) -> type[CloudtuneError]:
    if code in ("ValidationException", "ValidationError") and _MISSING.search(said):
        return JobNotFound
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    by_status = {401: CredentialsError, 403: PermissionDenied, 404: JobNotFound, 429: RateLimited}
    if code in _CLASS_OF:
        return _CLASS_OF[code]
    if status >= 500:
        return Unavailable
    if 0 < status < 400:  # e.g. a redirect to a host that is not AWS
        return InvalidResponse
    return by_status.get(status, InvalidRequest if 400 <= status < 500 else BackendError)


def _retry_after(answer: Any) -> float | None:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _without_answer(error: Exception, message: str) -> CloudtuneError:
    from botocore import exceptions as aws

    never_left = (aws.EndpointConnectionError, aws.ConnectTimeoutError, aws.ProxyConnectionError, aws.SSLError)
    if isinstance(error, never_left):
        return Unavailable(message, acted=False)
    if isinstance(error, aws.HTTPClientError):  # including timeouts and broken connections
        return Unavailable(message)
    if _is_unreadable(error):
        return InvalidResponse(message, hint=_ADDRESS_HINT)
    if isinstance(error, aws.NoRegionError):
        return ConfigError("no AWS region is set", hint="set region in the settings, or AWS_REGION")
    if isinstance(error, aws.ProfileNotFound | aws.ConfigNotFound | aws.ConfigParseError | aws.InvalidRegionError):
        return ConfigError(message)
    credentials = (aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError,
                   aws.TokenRetrievalError, aws.SSOError, aws.NoAuthTokenError)  # fmt: skip
    if isinstance(error, credentials):
        return CredentialsError(message, hint=_HINTS[CredentialsError])
    if isinstance(error, aws.ParamValidationError):
        return InvalidRequest(message)
    return BackendError(message)


def _is_unreadable(error: Exception) -> bool:
    """Whether a response was truncated, or does not match the service's model."""
    from botocore.exceptions import IncompleteReadError
    from botocore.parsers import ResponseParserError

    return isinstance(error, ResponseParserError | IncompleteReadError)
