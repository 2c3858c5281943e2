"""A service's own model, as botocore ships it: its operations, their paths, and the shapes of requests.

botocore itself checks required members, types and minimum lengths only; the service checks all constraints:
"1 validation error detected: Value 'a_b' at 'jobName' failed to satisfy constraint: ..."
(aws-samples/generative-ai-on-amazon-sagemaker#165 and Kenza-AI/sagify#57 quote it, seen 2026-11-21).
"""

from __future__ import annotations

import re
from base64 import b64decode
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec
import regex
from werkzeug.exceptions import MethodNotAllowed, NotFound

from cloudtune_emulator.aws.errors import AwsError, invalid
from cloudtune_emulator.route_table import path_map

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from werkzeug.routing import MapAdapter

    from cloudtune_emulator.http import Call

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "long": (int,), "float": (int, float), "double": (int, float),
    "boolean": (bool,), "map": (dict,), "structure": (dict,), "list": (list,), "timestamp": (int, float, str),
}  # fmt: skip
_NUMBERS = ("integer", "long", "float", "double")
_PAIRS = (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
"""Java writes characters beyond the basic plane as surrogate pairs; regex reads the rest of the patterns as is."""
_PATTERN_S = 1.0
"""Time limit of a pattern: some of them backtrack."""
_LABEL = re.compile(r"\{([A-Za-z]+)\}")


@lru_cache(maxsize=8)
def model(service: str) -> Any:
    """A service's model. Loading it is slow."""
    from botocore.session import get_session

    return get_session().get_service_model(service)


@lru_cache(maxsize=8)
def routes(service: str) -> tuple[tuple[str, str, str], ...]:
    """Method, path (``/model/<modelId>``) and name of every operation of a REST service."""
    operations = [(name, model(service).operation_model(name).http) for name in model(service).operation_names]
    return tuple(
        (http["method"], _LABEL.sub(r"<\1>", http["requestUri"].partition("?")[0]), name) for name, http in operations
    )


@lru_cache(maxsize=8)
def _router(service: str) -> MapAdapter:
    return path_map(routes(service)).bind("emulator")


def route(service: str, method: str, path: str) -> tuple[str, dict[str, str]] | None:
    """The operation of a request, by its escaped path, and the path's parameters."""
    try:
        name, ids = _router(service).match(path, method)
    except (MethodNotAllowed, NotFound):
        return None
    return name, {key: unquote(value) for key, value in ids.items()}


def check(
    service: str, operation: str, ids: Mapping[str, str], query: Mapping[str, str], body: Mapping[str, Any]
) -> None:
    """Validate a REST request against its shape. Raises ValidationException that lists every error."""
    shape = model(service).operation_model(operation).input_shape
    if shape is None:
        return
    if shape.serialization.get("payload"):  # the model defines the body, not the service
        given: dict[str, Any] = {**ids}
        members = {name: shape.members[name] for name in ids if name in shape.members}
        faults = [
            fault for name, member in members.items() for fault in ShapeValidator().faults(member, given[name], name)
        ]
    else:
        known = {name: _typed(member, query[name]) for name, member in shape.members.items()
                 if name in query and member.serialization.get("location") == "querystring"}  # fmt: skip
        given = {**body, **known, **ids}
        faults = list(ShapeValidator().faults(shape, given))
    if faults:
        raise invalid(refusal(faults))


def json_body(call: Call, service: str, operation: str) -> dict[str, Any]:
    """The body of a JSON protocol's request for moto, validated against its shape. Raises AwsError."""
    assert call.raw is not None
    data = call.raw.again()["wsgi.input"].read()
    call.raw.body.seek(0)
    try:
        body = msgspec.json.decode(data) if data else {}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise AwsError(400, "SerializationException", f"The body is not JSON: {error}", protocol="json") from error
    if not isinstance(body, dict):
        raise AwsError(400, "SerializationException", "The body must be a JSON object.", protocol="json")
    shape = model(service).operation_model(operation).input_shape
    if shape is not None and (faults := list(ShapeValidator(json=True).faults(shape, body))):
        raise AwsError(400, "ValidationException", refusal(faults), protocol="json")
    return body


def _typed(shape: Any, text: str) -> Any:
    if shape.type_name in ("integer", "long"):
        try:
            return int(text)
        except ValueError:
            return text
    return text == "true" if shape.type_name == "boolean" else text


def refusal(faults: Sequence[str]) -> str:
    """The message of a ValidationException that lists all errors."""
    return f"{len(faults)} validation error{'s' if len(faults) > 1 else ''} detected: {'; '.join(faults)}"


class ShapeValidator:
    """Validates values against shapes.

    ``json`` is for the services of the JSON protocol: they ignore unknown members, write names in messages with a
    lowercase first letter, and fail to deserialize a value of another type.
    """

    def __init__(self, *, json: bool = False) -> None:
        self._json = json

    def faults(self, shape: Any, value: Any, where: str = "") -> Iterator[str]:
        """The errors of a value. Raises SerializationException where ``json`` cannot deserialize it."""
        kind = shape.type_name
        wanted = _TYPES.get(kind)
        if kind == "timestamp" and not self._json:
            return
        if wanted is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
            if self._json:
                raise AwsError(400, "SerializationException", f"{where or 'body'} is no {kind}", protocol="json")
            yield _broken(value, where or "body", f"be a {kind}")
        elif kind == "structure":
            yield from self._members(shape, value, where)
        elif kind == "list":
            yield from _size(shape, len(value), "length", where, value)
            for number, item in enumerate(value, 1):
                yield from self.faults(shape.member, item, f"{where}.{number}.member")
        elif kind == "map":
            yield from _size(shape, len(value), "length", where, value)
            for key, item in value.items():
                yield from self.faults(shape.key, key, f"{where}.{key}.key")
                yield from self.faults(shape.value, item, f"{where}.{key}.member")
        elif kind == "string":
            yield from _text(shape, value, where)
        elif kind == "blob" and self._json:
            self._check_blob(value, where)
        elif kind in _NUMBERS:
            yield from _size(shape, value, "value", where, value)

    @staticmethod
    def _check_blob(value: Any, where: str) -> None:
        try:
            b64decode(value, validate=True)
        except (TypeError, ValueError) as error:
            raise AwsError(400, "SerializationException", f"{where} is not base64", protocol="json") from error

    def _members(self, shape: Any, value: Mapping[str, Any], where: str) -> Iterator[str]:
        head = f"{where}." if where else ""
        for name in shape.required_members:
            if value.get(name) is None:
                yield f"Value null at '{head}{self._told(name)}' failed to satisfy constraint: Member must not be null"
        given = {name: item for name, item in value.items() if item is not None}
        for name, item in given.items():
            if name in shape.members:
                yield from self.faults(shape.members[name], item, f"{head}{self._told(name)}")
            elif not self._json:
                yield f"Value at '{head}{name}' failed to satisfy constraint: there is no such member"
        if getattr(shape, "is_tagged_union", False) and len(given) != 1:
            yield f"Value at '{where}' failed to satisfy constraint: exactly one member must be set"

    def _told(self, name: str) -> str:
        return name[0].lower() + name[1:] if self._json else name


def _text(shape: Any, value: str, where: str) -> Iterator[str]:
    yield from _size(shape, len(value), "length", where, value)
    pattern = shape.metadata.get("pattern")
    if pattern and not _matches(pattern, value):
        yield _broken(value, where, f"satisfy regular expression pattern: {pattern}")
    if shape.enum and value not in shape.enum:
        yield _broken(value, where, f"satisfy enum value set: [{', '.join(shape.enum)}]")


def _size(shape: Any, size: float, what: str, where: str, value: Any) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if most is not None and size > most:
        yield _broken(value, where, f"have {what} less than or equal to {most}")
    if least is not None and size < least:
        yield _broken(value, where, f"have {what} greater than or equal to {least}")


def _broken(value: Any, where: str, rule: str) -> str:
    return f"Value '{value}' at '{where}' failed to satisfy constraint: Member must {rule}"


def _matches(pattern: str, value: str) -> bool:
    try:
        return compiled(pattern).fullmatch(value, timeout=_PATTERN_S) is not None
    except TimeoutError:
        return False


@lru_cache(maxsize=512)
def compiled(pattern: str) -> Any:
    """A pattern of a service model, whose dialect is Java's."""
    return regex.compile(pattern.replace(*_PAIRS))
