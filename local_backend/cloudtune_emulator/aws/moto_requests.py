"""Validation of requests for moto against the service's own model: moto fails on requests that no SDK sends.

A valid request has the members that its operation needs, of the types in the model. Amazon headers that the operation
does not know are dropped, as the services ignore them.
"""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET

from cloudtune_emulator.aws import shapes
from cloudtune_emulator.aws.errors import AwsError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Call

_MODELS = {"monitoring": "cloudwatch", "servicequotas": "service-quotas"}
"""Signing name -> botocore's name of the service, where they differ."""
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-(?:[0-9]{1,18})?|-[0-9]{1,18})(?:,[0-9, -]*)?")
_GENERIC = ("x-amz-content-sha256", "x-amz-date", "x-amz-security-token", "x-amz-decoded-content-length",
            "x-amz-trailer", "x-amz-user-agent")  # fmt: skip
_GENERIC_BEGIN = ("x-amz-meta-", "x-amz-checksum-", "x-amz-sdk-")


def check(context: EmulatorContext, call: Call) -> None:
    """Raises AwsError where a request does not fit its operation."""
    service, name = _operation(call)
    model = _model(_MODELS.get(service, service))
    if model is None or name not in model.operation_names:
        raise unknown(call.name)
    shape = model.operation_model(name).input_shape
    match _protocol(model, call):
        case "json":
            shapes.json_body(call, _MODELS.get(service, service), name)
        case "query":
            _check_query(shape, call)
        case "rest-xml":
            _check_rest(shape, call)


def _protocol(model: Any, call: Call) -> str:
    """The protocol of the request: some services support several."""
    if "query" in model.metadata.get("protocols", ()) and "x-amz-target" not in call.headers:
        return "query"
    protocol: str = model.resolved_protocol
    return protocol


def _operation(call: Call) -> tuple[str, str]:
    """Signing name and operation."""
    service, _, name = call.name.partition(".")
    if name == "UploadPart" and "x-amz-copy-source" in call.headers:
        name = "UploadPartCopy"
    return service, name


@lru_cache(maxsize=32)
def _model(service: str) -> Any:
    from botocore.exceptions import UnknownServiceError

    try:
        return shapes.model(service)
    except UnknownServiceError:
        return None


@lru_cache(maxsize=1)
def subresources() -> Mapping[tuple[str, str, str], str]:
    """S3's operations that a query parameter selects, by method, level and that parameter."""
    found = {}
    model = shapes.model("s3")
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, query = http["requestUri"].partition("?")
        keys = [pair.partition("=")[0] for pair in query.split("&") if pair and not pair.startswith("x-id")]
        if len(keys) == 1:
            found[http["method"], "object" if "{Key+}" in path else "bucket", keys[0]] = name
    return found


def without_unknown_headers(call: Call, environ: Mapping[str, Any]) -> dict[str, Any]:
    """The environment for moto's S3.

    A range that cannot be parsed is dropped too: the response is then the whole object
    (https://datatracker.ietf.org/doc/html/rfc9110#section-14.2, seen 2026-11-29).
    """
    service, name = _operation(call)
    if service != "s3":
        return dict(environ)
    shape = shapes.model("s3").operation_model(name).input_shape
    known = {member.serialization.get("name", "").lower() for member in shape.members.values()} if shape else set()

    def is_kept(key: str) -> bool:
        if key == "HTTP_RANGE":
            return _RANGE.fullmatch(environ[key]) is not None
        header = key.removeprefix("HTTP_").replace("_", "-").lower()
        is_known = header in known or header in _GENERIC or header.startswith(_GENERIC_BEGIN)
        return is_known or not header.startswith("x-amz-")

    return {key: value for key, value in environ.items() if not key.startswith("HTTP_") or is_kept(key)}


# -- S3 --------------------------------------------------------------------------------------------------------------


def _check_rest(shape: Any, call: Call) -> None:
    if shape is None:
        return
    given: dict[str, Any] = {}
    payload = shape.serialization.get("payload")
    for name, member in shape.members.items():
        place, wire = member.serialization.get("location"), member.serialization.get("name", name)
        if place == "uri":
            given[name] = call.body.get(name)
        elif place == "querystring" and wire in call.query:
            given[name] = _typed(member, call.query[wire])
        elif place == "header" and wire.lower() in call.headers:
            given[name] = _typed(member, call.headers[wire.lower()])
        elif name == payload and member.type_name in ("structure", "string"):
            given[name] = _payload(member, call)
    if faults := list(shapes.ShapeValidator().faults(shape, given)):
        raise AwsError(400, "InvalidArgument", shapes.refusal(faults), protocol="s3")


def _payload(shape: Any, call: Call) -> Any:
    assert call.raw is not None
    data = call.raw.again()["wsgi.input"].read()
    call.raw.body.seek(0)
    if shape.type_name == "string":
        _check_policy(data)
        return data.decode()
    if not data:
        return None
    try:
        root = ET.fromstring(data)  # noqa: S314 - expat limits what entities expand to
    except (ET.ParseError, ValueError, LookupError) as error:
        raise _malformed() from error
    if _local(root.tag) != shape.serialization.get("name", shape.name):
        raise _malformed()
    found = _from_xml(shape, root)
    if not found and call.name == "s3.CreateBucket":
        raise _malformed()
    return found


def _check_policy(data: bytes) -> None:
    """A bucket's policy: an object with statements."""
    try:
        policy = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AwsError(400, "MalformedPolicy", "This policy contains invalid Json", protocol="s3") from error
    given = policy.get("Statement") if isinstance(policy, dict) else None
    statements = given if isinstance(given, list) else [given]
    if not all(isinstance(one, dict) and one.get("Effect") in ("Allow", "Deny") for one in statements):
        raise AwsError(400, "MalformedPolicy", "Policy has no valid statement", protocol="s3")


def _malformed() -> AwsError:
    message = "The XML you provided was not well-formed or did not validate against our published schema"
    return AwsError(400, "MalformedXML", message, protocol="s3")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _from_xml(shape: Any, element: ET.Element) -> Any:
    if shape.type_name == "structure":
        found = {}
        for name, member in shape.members.items():
            tag = member.serialization.get("name", name)
            children = [child for child in element if _local(child.tag) == tag]
            if member.type_name == "list":
                is_flat = member.serialization.get("flattened", False)
                items = children if is_flat else [item for child in children for item in child]
                if items or children:
                    found[name] = [_from_xml(member.member, item) for item in items]
            elif children:
                found[name] = _from_xml(member, children[-1])
        return found
    return _typed(shape, element.text or "")


def _typed(shape: Any, text: str) -> Any:
    """Convert a text to its shape's type; text that cannot be converted stays text, and fails the type check."""
    if shape.type_name in ("integer", "long"):
        return int(text) if _WHOLE.fullmatch(text) else text
    if shape.type_name == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    if shape.type_name == "timestamp":
        return _moment(text)
    return text


def _moment(text: str) -> str:
    from datetime import datetime

    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            read(text)
        except (ValueError, IndexError, OverflowError):
            continue
        return text
    raise AwsError(400, "InvalidArgument", f"{text[:64]} is no time.", protocol="s3")


# -- the query protocol ----------------------------------------------------------------------------------------------


def _check_query(shape: Any, call: Call) -> None:
    if shape is None:
        return
    pairs = dict(call.query)
    try:
        pairs |= dict(parse_qsl(_form(call).decode(), keep_blank_values=True, errors="strict"))
    except ValueError as error:
        raise AwsError(400, "MalformedQueryString", "The form is not UTF-8.", protocol="query") from error
    given = _from_pairs(shape, pairs, "")
    if faults := list(shapes.ShapeValidator().faults(shape, given or {})):
        raise AwsError(400, "ValidationError", shapes.refusal(faults), protocol="query")


def _form(call: Call) -> bytes:
    assert call.raw is not None
    data: bytes = call.raw.again()["wsgi.input"].read()
    call.raw.body.seek(0)
    return data


def _from_pairs(shape: Any, pairs: Mapping[str, str], prefix: str) -> Any:
    """The member that these pairs encode under a prefix, or None: ``Tags.member.1.Key=a``."""
    dot = f"{prefix}." if prefix else ""
    if shape.type_name == "structure":
        if dot and not any(name.startswith(dot) for name in pairs):
            return None
        members = {name: _from_pairs(member, pairs, f"{dot}{member.serialization.get('name', name)}")
                   for name, member in shape.members.items()}  # fmt: skip
        return {name: value for name, value in members.items() if value is not None}
    if shape.type_name == "list":
        found, number = [], 1
        head = (
            dot if shape.serialization.get("flattened") else f"{dot}{shape.member.serialization.get('name', 'member')}."
        )
        while (item := _from_pairs(shape.member, pairs, f"{head}{number}")) is not None:
            found.append(item)
            number += 1
        return found or None
    text = pairs.get(prefix)
    if text is None or shape.type_name not in ("integer", "long", "boolean"):
        return text
    return _typed(shape, text)
