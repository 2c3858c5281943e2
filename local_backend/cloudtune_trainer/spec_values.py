"""Reads JSON documents as frozen dataclasses. Standard library only."""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

SMALLEST = 1e-3
"""The smallest temperature, and the smallest margin."""


def read_values(cls: type, document: Any, where: str, faults: list[str]) -> Any:
    """The values of that dataclass, or None. Errors are added to ``faults``, with their place below ``where``."""
    if not isinstance(document, dict):
        faults.append(f"{where or 'spec'} must be an object")
        return None
    hints = get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    faults += [f"{where}{key}: unknown key" for key in document if key not in known]
    values = {}
    for item in dataclasses.fields(cls):
        place = f"{where}{item.name}"
        if item.name not in document:
            if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
                faults.append(f"{place}: missing")
            continue
        ok, value = _convert(hints[item.name], document[item.name], place, faults)
        if ok:
            values[item.name] = value
        else:
            faults.append(f"{place}: invalid value {document[item.name]!r}")
    if faults:
        return None
    return cls(**values)


def _convert(hint: Any, value: Any, place: str, faults: list[str]) -> tuple[bool, Any]:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for option in get_args(hint):
            ok, converted = _convert(option, value, place, faults)
            if ok:
                return True, converted
        return False, None
    if origin is Literal:
        return value in get_args(hint) and not isinstance(value, bool), value
    if origin in (tuple, dict):
        return _convert_items(hint, value, place, faults)
    if hint is type(None):
        return value is None, None
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            return False, None
        return True, read_values(hint, value, f"{place}.", faults)  # type: ignore[arg-type]
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool), value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value


def _convert_items(hint: Any, value: Any, place: str, faults: list[str]) -> tuple[bool, Any]:
    """A list of values of one type as a tuple, or an object with such values."""
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            return False, None
        parts = [_convert(get_args(hint)[0], part, place, faults) for part in value]
        return all(ok for ok, _ in parts), tuple(part for _, part in parts)
    if not isinstance(value, dict):
        return False, None
    items = {key: _convert(get_args(hint)[1], item, place, faults) for key, item in value.items()}
    return all(ok for ok, _ in items.values()), {key: item for key, (_, item) in items.items()}
