"""Holds requests against botocore's service model, which is the service's own: required, types, lengths, patterns.

botocore itself checks required members, types and smallest lengths only; the service checks all, and words it so:
"1 validation error detected: Value 'a_b' at 'trainingJobName' failed to satisfy constraint: ..."
(aws-samples/generative-ai-on-amazon-sagemaker#165 and Kenza-AI/sagify#57 quote it, seen 2026-11-21).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cloudtune_local.emulator.aws.errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "sagemaker"
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "long": (int,), "float": (int, float), "double": (int, float),
    "boolean": (bool,), "map": (dict,), "structure": (dict,), "list": (list,), "timestamp": (int, float, str),
}  # fmt: skip


@lru_cache(maxsize=1)
def model() -> Any:
    """The service model. Read at the first request, which takes a moment."""
    from botocore.session import get_session

    return get_session().get_service_model(SERVICE)


@lru_cache(maxsize=1)
def operations() -> frozenset[str]:
    """Every operation that the service has."""
    return frozenset(model().operation_names)


def check(operation: str, body: dict[str, Any]) -> None:
    """Raises ValidationException with every fault at once."""
    shape = model().operation_model(operation).input_shape
    faults = list(_faults(shape, body, "")) if shape is not None else []
    if faults:
        count = f"{len(faults)} validation error{'s' if len(faults) > 1 else ''} detected"
        raise refused(f"{count}: {'; '.join(faults)}")


def refused(message: str) -> AwsError:
    """ValidationException."""
    return AwsError(400, "ValidationException", message, protocol="json")


def failed(code: str, message: str) -> AwsError:
    """One of the service's own errors."""
    return AwsError(400, code, message, protocol="json")


def _faults(shape: Any, value: Any, where: str) -> Iterator[str]:
    wanted = _TYPES.get(shape.type_name)
    if wanted is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
        raise AwsError(400, "SerializationException", f"{where or 'body'} is no {shape.type_name}", protocol="json")
    if shape.type_name == "structure":
        yield from _members(shape, value, where)
    elif shape.type_name == "list":
        yield from _size(shape, len(value), "length", where, value)
        for number, item in enumerate(value, 1):
            yield from _faults(shape.member, item, f"{where}.{number}.member")
    elif shape.type_name == "map":
        yield from _size(shape, len(value), "length", where, value)
        for key, item in value.items():
            yield from _faults(shape.key, key, f"{where}.{key}.key")
            yield from _faults(shape.value, item, f"{where}.{key}.member")
    elif shape.type_name == "string":
        yield from _text(shape, value, where)
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from _size(shape, value, "value", where, value)


def _members(shape: Any, value: dict[str, Any], where: str) -> Iterator[str]:
    head = f"{where}." if where else ""
    for name in shape.required_members:
        if value.get(name) is None:
            yield f"Value null at '{head}{_camel(name)}' failed to satisfy constraint: Member must not be null"
    for name, item in value.items():
        if name in shape.members and item is not None:
            yield from _faults(shape.members[name], item, f"{head}{_camel(name)}")


def _text(shape: Any, value: str, where: str) -> Iterator[str]:
    yield from _size(shape, len(value), "length", where, value)
    pattern = shape.metadata.get("pattern")
    if pattern and not _compiled(pattern).fullmatch(value):
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


def _camel(name: str) -> str:
    return name[0].lower() + name[1:]


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    # Java's classes, in the few places where the model has them.
    return re.compile(pattern.replace(r"\p{L}", r"\w").replace(r"\p{Z}", r"\s").replace(r"\p{N}", r"\d"))
