"""Converts pydantic's errors to Problems with location, message and fix.

pydantic reports every branch of a union separately, with the branch in the path. Here they become one problem at the
location in the file.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Path_ = tuple[str | int, ...]

_A = "a mapping of keys and values"
MOST_PROBLEMS = 200
"""Maximum problems listed for one document. Others are counted."""
_TYPES = {
    "string_type": "text", "int_type": "a whole number", "int_parsing": "a whole number", "float_type": "a number",
    "float_parsing": "a number", "bool_type": "true or false", "bool_parsing": "true or false", "list_type": "a list",
    "tuple_type": "a list", "dict_type": _A, "model_type": _A, "mapping_type": _A, "model_attributes_type": _A,
    "dataclass_type": _A, "int_from_float": "a whole number", "is_instance_of": _A,
}  # fmt: skip
_BOUNDS = {"greater_than": ("greater than", "gt"), "greater_than_equal": ("at least", "ge"),
           "less_than": ("less than", "lt"), "less_than_equal": ("at most", "le")}  # fmt: skip


def problems_of(
    error: ValidationError,
    *,
    model: type[BaseModel],
    values: Any,
    place: Callable[[Path_], tuple[str | None, int | None]],
    aliases: Mapping[str, str] | None = None,
    examples: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Return each problem once.

    ``values`` was validated; ``place`` returns file and line of a path; ``aliases`` maps common wrong keys to the
    intended field; ``examples`` shows how to write a missing field.
    """
    groups: dict[Path_, list[tuple[Path_, ErrorDetails]]] = {}
    for fault in error.errors(include_url=False):
        path, branch = _in_file(fault["loc"], values, missing=fault["type"] == "missing")
        groups.setdefault(branch, []).append((path, fault))
    settled = [one for faults in groups.values() for one in _settled(faults)]
    found = []
    for path, fault, also in settled[:MOST_PROBLEMS]:
        message, fix = _worded(path, fault, also, model, aliases or {}, examples or {})
        file, line = place(path)
        field = ".".join(map(str, path)) or None
        found.append(Problem(code=fault["type"], message=message, file=file, line=line, field=field, fix=fix))
    if len(settled) > MOST_PROBLEMS:
        more = f"{len(settled) - MOST_PROBLEMS:,} more problems are not listed"
        found.append(Problem(code="more", message=more, file=place(())[0]))
    return found


def quoted(value: Any) -> str:
    """Return a value for a message: short, and never a whole section."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return _A
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _in_file(loc: Sequence[str | int], values: Any, *, missing: bool) -> tuple[Path_, Path_]:
    """Return the path in the file, and the path at which a union's branches diverge."""
    path: list[str | int] = []
    branch: Path_ | None = None
    here = values
    for number, part in enumerate(loc):
        if _has(here, part):
            here = here[part]
        elif not (missing and number == len(loc) - 1 and isinstance(here, Mapping)):
            branch = tuple(path) if branch is None else branch
            continue
        path.append(part)
    return tuple(path), tuple(path) if branch is None else branch


def _has(holder: Any, part: str | int) -> bool:
    if isinstance(holder, list | tuple):
        return isinstance(part, int) and part < len(holder)
    return isinstance(holder, Mapping) and part in holder


def _settled(faults: list[tuple[Path_, ErrorDetails]]) -> Iterator[tuple[Path_, ErrorDetails, tuple[str, ...]]]:
    """Select the errors of the intended branch of a union, and the other accepted types."""
    if len(faults) == 1:
        yield *faults[0], ()
        return
    of_type = [fault for _, fault in faults if fault["type"] in _TYPES]
    meant = [(path, fault) for path, fault in faults if fault["type"] not in _TYPES]
    if any(not isinstance(fault["input"], str) for _, fault in meant):
        meant = [(path, fault) for path, fault in meant if fault["type"] != "literal_error"] or meant
    also = tuple(dict.fromkeys(_TYPES[fault["type"]] for fault in of_type))
    if meant:
        for path, fault in meant:
            yield path, fault, also if fault["type"] == "literal_error" else ()
        return
    deepest = max(len(path) for path, _ in faults)
    if deepest > min(len(path) for path, _ in faults):  # the branch of which only a part is wrong
        for path, fault in faults:
            if len(path) == deepest:
                yield path, fault, ()
        return
    yield *faults[0], also[1:]


def _worded(
    path: Path_,
    fault: ErrorDetails,
    also: tuple[str, ...],
    model: type[BaseModel],
    aliases: Mapping[str, str],
    examples: Mapping[str, str],
) -> tuple[str, str | None]:
    kind, value, context = fault["type"], fault["input"], fault.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key", _nearest_keys(path, model, aliases)
    if kind == "missing":
        example = examples.get(".".join(map(str, path)))
        return "is missing", f"add `{example}`" if example else None
    if kind == "literal_error":
        expected = [word.strip("' ") for word in str(context["expected"]).replace(" or ", ", ").split(",")]
        near = get_close_matches(str(value), expected, n=1)
        message = f"{quoted(value)} is not {' or '.join((_listed(expected), *also))}"
        return message, f"did you mean {near[0]!r}?" if near else None
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, not {value}", None
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"must be {word} {context[key]}, not {quoted(value)}", None
    if kind in _TYPES:
        needed = " or ".join(dict.fromkeys((_TYPES[kind], *also)))
        fix = "quote it" if needed == "text" and isinstance(value, int | float) else None
        if needed == _A and (example := examples.get(".".join(map(str, path)))):
            fix = f"for example: `{example}`"
        return f"expected {needed}, got {quoted(value)}", fix
    if kind == "string_too_short":
        return "must not be empty", None
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}", None


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"one of: {', '.join(words)}"


# -- names ---------------------------------------------------------------------------------------------------------


def _nearest_keys(path: Path_, model: type[BaseModel], aliases: Mapping[str, str]) -> str:
    key = str(path[-1])
    level = _model_at(model, path[:-1])
    known = list(level.model_fields) if level else []
    if near := get_close_matches(key, known, n=2, cutoff=0.7):
        return f"did you mean {' or '.join(near)}?"
    elsewhere = [field for field in _all_fields(model) if field.rpartition(".")[2] == key]
    if key in aliases:
        elsewhere = [aliases[key]]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    far = [field for field in _all_fields(model) if get_close_matches(key, [field.rpartition(".")[2]], cutoff=0.8)]
    if far:
        return f"did you mean {far[0]}?"
    return f"known keys: {', '.join(known)}" if known else "remove it"


def _model_at(model: type[BaseModel], path: Path_) -> type[BaseModel] | None:
    """Return the model that describes the mapping at that path."""
    here: type[BaseModel] | None = model
    for part in path:
        field = here.model_fields.get(str(part)) if here else None
        here = next(_models_in(field.annotation), None) if field else None
    return here


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        for part in get_args(annotation):
            yield from _models_in(part)


def _all_fields(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{above}{name}"
        for inner in _models_in(field.annotation):
            yield from _all_fields(inner, f"{above}{name}.")
