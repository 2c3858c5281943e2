"""Error responses in the shapes of AWS's protocols, also for the emulator's own faults.

REST-JSON and JSON 1.1 name the error in ``x-amzn-ErrorType`` or ``__type``, the query protocol and S3 in XML (botocore
1.44.5, ``parsers.py``). Codes: Bedrock's and SageMaker's service models; S3's list of error responses
(https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, seen 2026-11-21).
"""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING, Literal
from xml.sax.saxutils import escape

from cloudtune_emulator.http import ApiError, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Protocol = Literal["rest-json", "json", "query", "s3"]


class AwsError(ApiError):
    """An error response with a code."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        protocol: Protocol = "rest-json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, code=code, headers=headers)
        self.code = code
        self.protocol = protocol

    def reply(self) -> Reply:
        """The HTTP response of this error."""
        number = str(uuid.uuid4())
        headers = {"x-amzn-RequestId": number, **self.headers}
        if self.protocol in ("rest-json", "json"):
            body = {"message": str(self)} | ({"__type": self.code} if self.protocol == "json" else {})
            kind = "application/json" if self.protocol == "rest-json" else "application/x-amz-json-1.1"
            return Reply(status=self.status, body=body, headers={"x-amzn-ErrorType": self.code, **headers},
                         content_type=kind)  # fmt: skip
        description = f"<Code>{self.code}</Code><Message>{escape(str(self))}</Message>"
        if self.protocol == "s3":
            text = f"<Error>{description}<RequestId>{secrets.token_hex(8).upper()}</RequestId></Error>"
        else:
            kind = "Sender" if self.status < 500 else "Receiver"
            text = f"<ErrorResponse><Error><Type>{kind}</Type>{description}</Error><RequestId>{number}</RequestId>"
            text += "</ErrorResponse>"
        body_bytes = b'<?xml version="1.0" encoding="UTF-8"?>\n' + text.encode()
        return Reply(status=self.status, body=body_bytes, headers=headers, content_type="text/xml")


def invalid(message: str) -> AwsError:
    """ValidationException, 400."""
    return AwsError(400, "ValidationException", message)


def not_found(message: str) -> AwsError:
    """ResourceNotFoundException, 404."""
    return AwsError(404, "ResourceNotFoundException", message)


def conflict(message: str) -> AwsError:
    """ConflictException, 400 (botocore 1.44.5, the bedrock service model)."""
    return AwsError(400, "ConflictException", message)


def unreadable(name: str, error: Exception) -> AwsError:
    """The error for values that moto uses unchecked; clients do not retry it."""
    protocol = _protocol(name)
    code = {"s3": "InvalidRequest", "query": "ValidationError"}.get(protocol, "ValidationException")
    message = f"The request holds a value that {name} cannot use: {type(error).__name__}: {error}"
    return AwsError(400, code, message, protocol=protocol)


def _protocol(name: str) -> Protocol:
    service = name.partition(".")[0]
    return "s3" if service == "s3" else "query" if service in ("sts", "iam") else "json"


def unknown(name: str) -> AwsError:
    """The error for an operation that is not emulated, in its service's protocol; clients do not retry it."""
    service, _, operation = name.partition(".")
    protocol = _protocol(name)
    code = {"s3": "NotImplemented", "query": "InvalidAction"}.get(protocol, "UnknownOperationException")
    return AwsError(400, code, f"{service} has no operation {operation} in this emulator.", protocol=protocol)


_WORDS: dict[Protocol, dict[int, tuple[int, str, str]]] = {
    "rest-json": {
        401: (403, "ExpiredTokenException", "The security token included in the request is expired"),
        403: (403, "AccessDeniedException", "You don't have access to the model or the action."),
        413: (413, "RequestEntityTooLargeException", "The request is too large."),
        429: (429, "ThrottlingException", "Too many requests, please wait before trying again."),
        500: (500, "InternalServerException", "The service had an internal error."),
        503: (503, "ServiceUnavailableException", "The service is temporarily unavailable."),
    },
    "json": {
        401: (400, "ExpiredTokenException", "The security token included in the request is expired"),
        403: (400, "AccessDeniedException", "You are not authorized to perform this action."),
        429: (400, "ThrottlingException", "Rate exceeded"),
        500: (500, "InternalFailure", "The request processing has failed."),
        503: (503, "ServiceUnavailable", "The request has failed due to a temporary failure of the server."),
    },
    "query": {
        401: (403, "ExpiredToken", "The security token included in the request is expired"),
        403: (403, "AccessDenied", "Access denied."),
        429: (400, "Throttling", "Rate exceeded"),
        500: (500, "InternalFailure", "The request processing has failed."),
        503: (503, "ServiceUnavailable", "The request has failed due to a temporary failure of the server."),
    },
    "s3": {
        401: (400, "ExpiredToken", "The provided token has expired."),
        403: (403, "AccessDenied", "Access Denied"),
        429: (503, "SlowDown", "Please reduce your request rate."),
        500: (500, "InternalError", "We encountered an internal error. Please try again."),
        503: (503, "ServiceUnavailable", "Service is unable to handle request."),
    },
}


def dressed(protocol: Protocol) -> Callable[[ApiError], ApiError]:
    """Return a function that converts the emulator's own errors to that protocol's; AWS errors pass unchanged."""

    def dress(error: ApiError) -> ApiError:
        if isinstance(error, AwsError):
            return error
        usual = (error.status, "ValidationException", "")
        status, code, message = _WORDS[protocol].get(error.status, usual)
        wanted_code, wanted_message = error.vendor_words
        return AwsError(
            status, wanted_code or code, wanted_message or message or str(error), protocol=protocol,
            headers=error.headers,
        )  # fmt: skip

    return dress
