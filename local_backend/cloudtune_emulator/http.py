"""Requests and responses of the APIs; errors in the vendor's shape; pages."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any, Literal

import msgspec
from werkzeug.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from werkzeug.wrappers import Request

Api = Literal["openai", "azure", "mantle", "bedrock", "sagemaker", "aws"]
"""Whose account: ``aws`` is what moto emulates, ``mantle`` Bedrock's OpenAI-shaped API."""
LARGEST_JSON = 64 << 20
_LARGEST_FORM = (512 << 20) + (1 << 20)
"""The largest file, and the multipart form around it."""
LARGEST_OBJECT = 5 << 30
"""S3's limit for one request (docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html, seen 2026-11-21)."""
_BLOCK = 1 << 18
SPOOL = "cloudtune.spool"
"""The WSGI environment's key of a body that was read to verify its signature; closed after the response."""


@dataclass(frozen=True, kw_only=True)
class SentFile:
    """A file in a multipart form. The stream can be read again from its start."""

    filename: str
    stream: IO[bytes]


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A request for another WSGI application, its body unread."""

    environ: dict[str, Any]
    body: IO[bytes]

    def kept(self) -> Raw:
        """Move the body to a temporary file, to execute the request later, or twice."""
        if self.body.seekable():
            return self
        return Raw(environ=self.environ, body=received(self.body, LARGEST_OBJECT))

    def again(self) -> dict[str, Any]:
        """The WSGI environment, with the body rewound if possible."""
        if self.body.seekable():
            self.body.seek(0)
        return self.environ | {"wsgi.input": self.body}

    def close(self) -> None:
        """Close the temporary file. The server reads what the client still sends."""
        if not self.body.closed and self.body.seekable():
            self.body.close()


@dataclass(frozen=True, kw_only=True)
class Call:
    """A completely read request: it can be executed later, or twice."""

    api: Api
    name: str
    """E.g. ``jobs.create``: faults are selected by it."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """The parameters in the path."""
    query: Mapping[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    files: Mapping[str, SentFile] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    now: float = 0.0
    base: str = ""
    """Scheme and host that the client used."""
    region: str = ""
    raw: Raw | None = None

    def kept(self) -> Call:
        """The call, so that it can be executed later, or twice."""
        return self if self.raw is None else replace(self, raw=self.raw.kept())

    def close(self) -> None:
        """Close its files. The request is not executed again."""
        if self.raw is not None:
            self.raw.close()
        for sent in self.files.values():
            sent.stream.close()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A response: JSON, bytes, or a stream of bytes."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class ApiError(Exception):
    """An error response in the shape that the SDK reads: ``{"error": {message, type, param, code}}``.

    The SDK's exceptions take ``code``, ``param`` and ``type`` from there (openai 3.52.0, ``_exceptions.py``).
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str = "invalid_request_error",  # noqa: A002 - the vendor's name
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"error": {"message": message, "type": type, "param": param, "code": code}}
        self.headers = dict(headers or {})
        self.vendor_words: tuple[str | None, str | None] = (None, None)
        """The code and the message of an injected fault, used in place of the vendor's."""

    def reply(self) -> Reply:
        """The HTTP response of this error."""
        return Reply(status=self.status, body=self.body, headers=self.headers)


class ConnectionDropped(Exception):
    """Disconnect without a response."""


def read_call(request: Request, api: Api, name: str, ids: Mapping[str, str], now: float) -> Call:
    """Read a request to its end. Raises ApiError if the body does not match its content type."""
    body: dict[str, Any] = {}
    files: dict[str, SentFile] = {}
    if request.mimetype == "multipart/form-data":
        request.max_content_length = _LARGEST_FORM
        try:
            body = _nested(request.form.items(multi=True))
            files = {key: _kept(part.filename or key, part.stream) for key, part in request.files.items()}
        except ApiError:
            request.close()
            raise
        except HTTPException as error:
            raise ApiError(error.code or 400, f"The form cannot be read: {error.description}") from error
    elif data := read_body(request, LARGEST_JSON):
        body = _json(data)
    return replace(read_head(request, api, name, ids, now), body=body, files=files)


def read_head(request: Request, api: Api, name: str, ids: Mapping[str, str], now: float) -> Call:
    """The call without its body, for checking the key before the body is read."""
    return Call(
        api=api, name=name, ids=ids, query=request.args.to_dict(), now=now, base=request.host_url.rstrip("/"),
        headers={key.lower(): value for key, value in request.headers.items()},
    )  # fmt: skip


def read_body(request: Request, limit: int) -> bytes:
    """Read a body of limited size, with or without a declared length. Raises ApiError."""
    parts, count = [], 0
    if (request.content_length or 0) <= limit:
        while count <= limit and (block := request.stream.read(min(_BLOCK, limit + 1 - count))):
            parts.append(block)
            count += len(block)
    if (request.content_length or 0) > limit or count > limit:
        raise ApiError(413, f"The body of a request has at most {limit >> 20} MB.")
    return b"".join(parts)


def received(stream: IO[bytes], limit: int) -> IO[bytes]:
    """Read a body of limited size into a temporary file. Raises ApiError."""
    held = spool()
    try:
        for block in blocks(stream, limit):
            held.write(block)
        held.seek(0)
    except BaseException:
        held.close()
        raise
    return held


def blocks(stream: IO[bytes], limit: int) -> Iterator[bytes]:
    """Read a body of limited size as it arrives. Raises ApiError."""
    count = 0
    while block := stream.read(_BLOCK):
        count += len(block)
        if count > limit:
            raise ApiError(413, f"The body of a request has at most {limit >> 20} MB.")
        yield block


def _kept(filename: str, stream: IO[bytes]) -> SentFile:
    # An unnamed temporary file of any size: it exists as long as the call is held.
    return SentFile(filename=filename, stream=stream)


def _json(data: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ApiError(400, f"We could not parse the JSON body of your request. ({error})") from error
    if not isinstance(body, dict):
        raise ApiError(400, "The body of the request must be a JSON object.")
    return body


def fit(body: Mapping[str, Any], shape: type[msgspec.Struct]) -> None:
    """Raises ApiError if a member of the body has the wrong type."""
    try:
        msgspec.convert(body, shape)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`") or None
        raise ApiError(400, f"Invalid type for '{name}': {said}.", code="invalid_type", param=name) from error


def _nested(fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Form fields; ``expires_after[seconds]`` becomes a dict in a dict, ``ids[]`` a list."""
    found: dict[str, Any] = {}
    for key, value in fields:
        outer, bracket, inner = key.partition("[")
        kind: type = str if not bracket else list if inner == "]" else dict
        if not isinstance(found.setdefault(outer, kind()), kind):
            raise ApiError(400, f"'{outer}' is sent in two forms: as a value, a list or an object.", param=outer)
        if kind is str:
            found[outer] = value
        elif kind is list:
            found[outer].append(value)
        else:
            found[outer][inner.rstrip("]")] = value
    return found


def page(views: Sequence[dict[str, Any]], call: Call, *, default: int, most: int, ends: bool = False) -> dict[str, Any]:
    """A page of a list: ``after`` is the last id seen, ``limit`` the page size (openai 3.52.0, ``pagination.py``).

    ``ends`` adds ``first_id`` and ``last_id``, as the file and checkpoint lists have them.
    """
    limit = whole(call.query.get("limit"), "limit", default, least=1, most=most)
    start = 0
    if after := call.query.get("after"):
        ids = [view["id"] for view in views]
        if after not in ids:
            raise ApiError(400, f"Invalid 'after' cursor: no object {after} in this list.", param="after")
        start = ids.index(after) + 1
    shown = list(views[start : start + limit])
    result: dict[str, Any] = {"object": "list", "data": shown, "has_more": start + limit < len(views)}
    if ends:
        result["first_id"] = shown[0]["id"] if shown else None
        result["last_id"] = shown[-1]["id"] if shown else None
    return result


def whole(value: str | None, param: str, default: int, *, least: int, most: int) -> int:
    """An integer query parameter, in its range."""
    if value is None or value == "":
        return default
    try:
        number = int(value)
    except ValueError as error:
        raise ApiError(400, f"Invalid type for '{param}': expected an integer.", param=param) from error
    if not least <= number <= most:
        raise ApiError(400, f"Invalid '{param}': {number} is not between {least} and {most}.", param=param)
    return number


def sse(events: Iterable[tuple[str | None, Any]], *, done: bool) -> Iterator[bytes]:
    """Server-sent events: each has a name (or none) and a JSON document; ``done`` adds ``[DONE]``."""
    for name, document in events:
        head = f"event: {name}\n" if name else ""
        yield f"{head}data: ".encode() + msgspec.json.encode(document) + b"\n\n"
    if done:
        yield b"data: [DONE]\n\n"


def spool() -> IO[bytes]:
    """An unnamed file, for joining parts."""
    return tempfile.TemporaryFile()
