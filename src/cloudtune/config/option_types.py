"""Types for the fields of a back end's ``Options``: each one says what a value of that field can do.

A project's ``cloudtune.toml`` may come from somebody else. Its ``Safe`` fields take effect at once; every other field
takes effect only after the user runs ``cloudtune config trust``. A field without one of these types needs trust too::

    class Options(BaseModel):
        timeout: Safe[PositiveFloat] = 60.0
        base_url: Endpoint[str | None] = None
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel

Effect = Literal["safe", "program", "endpoint", "credential", "protection", "path", "unclassified"]
T = TypeVar("T")


@dataclass(frozen=True)
class SettingEffect:
    """Field metadata: what a value of the field can do."""

    effect: Effect


Safe = Annotated[T, SettingEffect("safe")]
"""Changes how a job runs within the account, endpoint and machine that the user chose."""
Program = Annotated[T, SettingEffect("program")]
"""Chooses code that runs: an interpreter, a container image, a source of training scripts."""
Endpoint = Annotated[T, SettingEffect("endpoint")]
"""Chooses where requests, keys, rows or models are sent: a URL, a bucket, a resource. Takes no ``${NAME}``."""
Credential = Annotated[T, SettingEffect("credential")]
"""Chooses a key, a token, an identity or a role."""
Protection = Annotated[T, SettingEffect("protection")]
"""Can switch off a protection, or agrees to terms in the user's name."""
WrittenPath = Annotated[T, SettingEffect("path")]
"""Chooses where files are written, and read again later."""

REASONS: dict[Effect, str] = {
    "program": "chooses a program that runs",
    "endpoint": "chooses where requests and data are sent",
    "credential": "chooses a credential",
    "protection": "can disable a protection or accept terms",
    "path": "chooses where files are written",
    "unclassified": "is not declared safe by its back end",
}


def effect_of(options: type[BaseModel], key: str) -> Effect:
    """What a value of that field can do; ``unclassified`` for a field without a declaration, and for no field."""
    field = options.model_fields.get(key)
    marks = [mark.effect for mark in field.metadata if isinstance(mark, SettingEffect)] if field else []
    return marks[0] if len(marks) == 1 else "unclassified"
