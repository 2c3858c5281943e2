"""Types for the fields of a back end's ``Options``. Each type declares the effect of the field.

A project's ``cloudtune.toml`` can come from other people. Its ``Safe`` fields apply immediately; all other fields
apply only after the user runs ``cloudtune config trust``. A field without one of these types requires trust too::

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
    """Field metadata: the effect of the field."""

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
"""Can disable a protection, or accepts terms for the user."""
WrittenPath = Annotated[T, SettingEffect("path")]
"""Chooses where files are written and later read."""

REASONS: dict[Effect, str] = {
    "program": "chooses a program that runs",
    "endpoint": "chooses where requests and data are sent",
    "credential": "chooses a credential",
    "protection": "can disable a protection or accept terms",
    "path": "chooses where files are written",
    "unclassified": "is not declared safe by its back end",
}


def effect_of(options: type[BaseModel], key: str) -> Effect:
    """Return the effect of that field; ``unclassified`` for an undeclared or unknown field."""
    field = options.model_fields.get(key)
    marks = [mark.effect for mark in field.metadata if isinstance(mark, SettingEffect)] if field else []
    return marks[0] if len(marks) == 1 else "unclassified"
