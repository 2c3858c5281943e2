"""Validates SageMaker's requests against the service's own model, with ``aws.shapes``."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws import shapes
from cloudtune_emulator.aws.errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE = "sagemaker"


@lru_cache(maxsize=1)
def operations() -> frozenset[str]:
    """Every operation of the service."""
    return frozenset(shapes.model(SERVICE).operation_names)


def check(operation: str, body: Mapping[str, Any]) -> None:
    """Raises ValidationException that lists every error."""
    shape = shapes.model(SERVICE).operation_model(operation).input_shape
    if shape is not None and (faults := list(shapes.ShapeValidator(json=True).faults(shape, body))):
        raise refused(shapes.refusal(faults))


def refused(message: str) -> AwsError:
    """ValidationException."""
    return AwsError(400, "ValidationException", message, protocol="json")


def failed(code: str, message: str) -> AwsError:
    """One of the service's own errors."""
    return AwsError(400, code, message, protocol="json")
