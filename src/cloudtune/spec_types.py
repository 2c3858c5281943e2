"""The types of a spec's fields: numbers with their ranges, durations, and the base of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from cloudtune.clock import duration

if TYPE_CHECKING:
    from collections.abc import Iterator


def not_bool(value: Any) -> Any:
    """Refuse a boolean: pydantic reads `epochs: yes` as 1, which is certainly a mistake."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic reports ValueErrors
    return value


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return not_bool(value)
    return duration(value)


LARGEST_INT = 2**53 - 1
"""The largest integer that every JSON parser represents exactly."""
LARGEST_SEED = 2**32 - 1
"""NumPy accepts no larger seed (numpy.org, RandomState.seed, seen 2026-11-28)."""

PositiveInt = Annotated[int, BeforeValidator(not_bool), Field(gt=0, le=LARGEST_INT)]
NaturalInt = Annotated[int, BeforeValidator(not_bool), Field(ge=0, le=LARGEST_INT)]
Seed = Annotated[int, BeforeValidator(not_bool), Field(ge=0, le=LARGEST_SEED)]
PositiveFloat = Annotated[float, BeforeValidator(not_bool), Field(gt=0, allow_inf_nan=False)]
NaturalFloat = Annotated[float, BeforeValidator(not_bool), Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, BeforeValidator(not_bool), Field(ge=0, lt=1, allow_inf_nan=False)]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=float | str),
    Field(gt=0, allow_inf_nan=False),
]


def short(key: str, accepts: Any) -> Any:
    """A validator that takes a string for ``{key: string}``."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value, json_schema_input_type=accepts
    )


class Part(BaseModel):
    """Base of the spec's parts: frozen, rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        # No file system, database or vendor accepts one.
        place = next(_nul_places(value, ""), None)
        if place is not None:
            raise ValueError(f"a NUL character is not allowed{f', in {place}' if place else ''}")
        return value


def _nul_places(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, str) and "\0" in value:
        yield place
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _nul_places(key, place)
            yield from _nul_places(item, f"{place}.{key}".strip("."))
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _nul_places(item, f"{place}.{number}".strip("."))


def as_sequence(value: Any) -> Any:
    """A list, also of a single value."""
    return [value] if isinstance(value, str | dict | Part) else value
