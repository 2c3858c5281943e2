"""Finds the part of a row that a conversion fails on, by trying the row without its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct, ValidationError, structs

if TYPE_CHECKING:
    from collections.abc import Callable

UNEXPECTED_ERRORS = (KeyError, TypeError, AttributeError, IndexError)
"""What the conversion of a vendor's free-form blocks raises when a block has another form."""


def find_cause(error: Exception, row: Any, make: Callable[[Any], object]) -> tuple[str, Any]:
    """Field and value of the part of the row without which ``make`` does not raise this error.

    The field is empty if the row is nested too deeply to search.
    """

    def fails(value: Any) -> bool:
        try:
            make(value)
        except (ValueError, ValidationError, *UNEXPECTED_ERRORS) as other:
            return type(other) is type(error) and str(other) == str(error)
        return False

    try:
        field, value = _inner(row, fails)
    except RecursionError:
        return "", row
    return field.lstrip("."), value


def _inner(value: Any, fails: Callable[[Any], bool]) -> tuple[str, Any]:
    if isinstance(value, list):
        for i, one in enumerate(value):
            if fails(value[: i + 1]):
                place, inner = _inner(one, lambda new, i=i: fails([*value[:i], new]))  # type: ignore[misc]
                return f"[{i}]{place}", inner
    if isinstance(value, Struct):
        for name in value.__struct_fields__:
            one = getattr(value, name)

            def fails_with(new: Any, name: str = name) -> bool:
                try:
                    other = structs.replace(value, **{name: new})
                except (ValueError, *UNEXPECTED_ERRORS):
                    return True  # the struct cannot be without the value, so nothing is known of it
                return fails(other)

            if isinstance(one, list | dict | Struct) and not fails_with([] if isinstance(one, list) else UNSET):
                place, inner = _inner(one, fails_with)
                return f".{name}{place}", inner
    if isinstance(value, dict):
        for name, one in value.items():
            if not fails({key: value[key] for key in value if key != name}):
                place, inner = _inner(one, lambda new, name=name: fails({**value, name: new}))  # type: ignore[misc]
                return f".{name}{place}", inner
    return "", value
