"""Regular expressions of users, and JSON Schemas with such patterns, with a time limit for each search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.errors import InputError
from cloudtune.install_command import install_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

SEARCH_S = 1.0
"""The limit of one search. Some patterns take time exponential in the length of the text."""


class SlowPattern(Exception):
    """A search exceeded the limit."""

    def __init__(self, pattern: str) -> None:
        super().__init__(f"the pattern {pattern!r} takes more than {SEARCH_S:g} s")


def searcher(pattern: str) -> Callable[[str], bool]:
    """Whether a text has a match.

    Raises:
        ValueError: The pattern is not valid.
        InputError: The package is missing.
    """
    try:
        import regex
    except ImportError as error:
        raise InputError("patterns require regex", hint=f"run: {install_command('evaluate')}") from error
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(str(error)) from error

    def search(text: str) -> bool:
        try:
            return compiled.search(text, timeout=SEARCH_S) is not None
        except TimeoutError as error:
            raise SlowPattern(pattern) from error

    return search


def with_limited_patterns(validator: Any) -> Any:
    """The class of jsonschema's validators with keywords that limit their searches.

    Some schemas have searches that are not limited: see `unlimited_search`.
    """
    from jsonschema import validators
    from jsonschema.exceptions import ValidationError

    def pattern(validator: Any, wanted: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if validator.is_type(instance, "string") and not searcher(wanted)(instance):
            yield ValidationError(f"{instance!r} does not match {wanted!r}")

    def pattern_properties(
        validator: Any, wanted: Mapping[str, Any], instance: Any, schema: Any
    ) -> Iterator[ValidationError]:
        for one, subschema in wanted.items() if validator.is_type(instance, "object") else ():
            for name, value in instance.items():
                if searcher(one)(name):
                    yield from validator.descend(value, subschema, path=name, schema_path=one)

    def additional_properties(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        patterns = [searcher(one) for one in schema.get("patternProperties", {})]
        for name, value in instance.items() if validator.is_type(instance, "object") else ():
            if name not in schema.get("properties", {}) and not any(search(name) for search in patterns):
                yield from validator.descend(value, wanted, path=name)

    keywords = {
        "pattern": pattern, "patternProperties": pattern_properties, "additionalProperties": additional_properties,
    }  # fmt: skip
    return validators.extend(validator, keywords)


def unlimited_search(schema: Any) -> str:
    """The keywords of the schema, at any place, whose searches have no limit. Empty if there are none."""
    names: set[str] = set()
    left = [*_parts(schema)]
    if isinstance(schema, dict):
        names |= schema.keys() - {"$schema"}
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if isinstance(one.get("$schema"), str):
                return "$schema within a part"  # jsonschema then takes its own class for that part
            names |= one.keys()
        left += _parts(one)
    together = {"unevaluatedProperties", "patternProperties"}
    return "unevaluatedProperties and patternProperties" if together <= names else ""


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
