"""Why a row could not be decoded, in a person's words and with its place."""

from __future__ import annotations

import difflib
import heapq
import json
import re
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.read.dialects import TurnError
from cloudtune.data.read.kinds_other import KINDS, recognise
from cloudtune.data.records import ROLES
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cloudtune.data.read.kinds import Kind

COMMON = ("chat", "prompt_completion", "instruction", "text", "preference", "sharegpt")
_SHOWN = 8
_SHOWN_CHARS = 80
_PATH = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")


def syntax(row: bytes) -> Problem | None:
    """What is wrong with the row as UTF-8 and as JSON; None if nothing is."""
    try:
        text = row.decode()
    except UnicodeDecodeError as error:
        return Problem(
            code="invalid_utf8", message=f"byte {error.start + 1} of this row, {row[error.start]:#04x}, is not UTF-8",
            fix="save the file as UTF-8",
        )  # fmt: skip
    try:
        msgspec.json.decode(row)
    except RecursionError:
        return Problem(code="too_deep", message="the JSON is nested too deeply", fix="flatten the row")
    except msgspec.ValidationError as error:
        return Problem(code="number_range", message=_plain(str(error))[0], fix="write a number that fits 64 bits")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _malformed(text, str(error))
    return None


def _malformed(text: str, message: str) -> Problem:
    """Use a second parser, which reports the position and recognizes NaN and unpaired surrogates."""
    try:
        json.loads(text, parse_constant=_constant)
    except _ConstantError as error:
        return Problem(code="not_json_number", message=f"{error} is not valid JSON", fix="write null or a number")
    except json.JSONDecodeError as error:
        return Problem(
            code="invalid_json",
            message=f"not valid JSON: {_lower(error.msg)}, at character {error.colno} of the row",
            fix="write one JSON object per line, with keys and strings in double quotes",
        )  # fmt: skip
    except RecursionError:
        return Problem(code="too_deep", message="the JSON is nested too deeply", fix="flatten the row")
    except ValueError:
        pass
    else:
        if re.search(r"\\u[dD][89a-fA-F]", text):
            return Problem(
                code="lone_surrogate", message="unpaired surrogate (\\ud800 to \\udfff)",
                fix="write the whole character",
            )  # fmt: skip
    return Problem(code="invalid_json", message=f"not valid JSON: {message}", fix="correct the row")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


class _ConstantError(Exception):
    pass


def _constant(name: str) -> None:
    raise _ConstantError(name)


def _plain(message: str) -> tuple[str, str | None]:
    """msgspec's message and the field it names."""
    found = _PATH.search(message)
    text = message[: found.start()] if found else message
    return _lower(text), (found.group(1) or None) if found else None


def validation(message: str) -> Problem:
    """Return the problem of a failed typed decoding."""
    text, field = _plain(message)
    fix, code = "correct the value", "wrong_type"
    if field and field.endswith("role") and text.startswith("invalid enum value"):
        code = "unknown_role"
        role = text.split("'")[1] if "'" in text else ""
        role = role[:_SHOWN_CHARS]
        near = difflib.get_close_matches(role, ROLES, n=1)
        text, fix = f"{role!r} is not a role", f"use {near[0]}" if near else f"use one of {', '.join(ROLES)}"
    elif found := re.match(r"object missing required field `(.*)`", text):
        code, text, fix = "missing_key", f"the key {found.group(1)!r} is missing", "add it"
    elif found := re.match(r"object contains unknown field `(.*)`", text):
        code, text, fix = "unknown_key", f"unknown key {found.group(1)!r}", "remove it"
    elif text.startswith("expected"):
        fix = "change it to that type"
    return Problem(code=code, message=text, field=field, fix=fix)


def not_an_object(value: object) -> Problem:
    """A row that is JSON, but not an object."""
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    what = names.get(type(value), "a number")
    return Problem(code="not_an_object", message=f"a row must be a JSON object, not {what}", fix="write {...}")


def conversion(error: Exception) -> Problem:
    """Why a row of good types makes no record."""
    if isinstance(error, TurnError):
        problem = validation(error.detail)
        return msgspec.structs.replace(problem, field=".".join(filter(None, (error.field, problem.field))))
    field, _, message = str(error).partition(": ")
    if isinstance(error, KeyError):
        field, message = "", f"the key {error} is missing in a block of content"
    elif not message or " " in field:
        field, message = "", str(error)
    return Problem(code="bad_content", message=message, field=field or None, fix="correct the row, or remove it")


def mixed(other: Kind, kind: Kind) -> Problem:
    """A row of another kind than the file's."""
    return Problem(
        code="mixed_kinds", message=f"this row is {other.name}, but the file or setting requires {kind.name}",
        fix="put each kind in a separate file",
    )  # fmt: skip


def keys(
    row: Mapping[str, Any], kind: Kind | None, unmapped: set[str], suggest: Callable[[str], bool] = lambda _: True
) -> Problem:
    """Why these keys do not make a row of the kind, or of any kind. ``unmapped``: mapped columns that do not exist.

    ``suggest`` says whether to look for the names that may be meant in a problem of that code.
    """
    present = frozenset(row)
    shown = ", ".join(_few(present)) or "none"
    other = recognise(row)
    if (
        kind is not None
        and other is not None
        and other is not kind
        and not other.required.keys() < kind.required.keys()
    ):
        return mixed(other, kind)
    fix = _rename(present, kind) if suggest("unknown_keys" if kind is None else "missing_key") else None
    if unmapped:
        fix = f"columns maps {', '.join(_few(unmapped))}, which does not exist"
    if kind is None:
        fix = fix or _as_pair(row)
        wanted = "; ".join(" + ".join(KINDS[name].required) for name in COMMON)
        return Problem(
            code="unknown_keys", message=f"unknown kind of row; its keys are: {shown}",
            fix=fix or f"expected {wanted}; rename other keys with columns",
        )  # fmt: skip
    missing = [name for name in kind.required if name not in present]
    return Problem(
        code="missing_key", message=f"a {kind.name} row requires {', '.join(missing)}; this row has {shown}",
        field=missing[0] if missing else None, fix=fix or "add the key, or remove the row",
    )  # fmt: skip


def _as_pair(row: Mapping[str, Any]) -> str | None:
    """Two columns of texts in some language are most likely a question and its answer."""
    if len(row) != 2 or not all(isinstance(value, str) for value in row.values()):
        return None
    one, other = row
    return (
        f"if they are prompt and completion: columns: {{{one}: prompt, {other}: completion}} "
        f"(--map {one}=prompt --map {other}=completion)"
    )


def _rename(present: frozenset[str], kind: Kind | None) -> str | None:
    known = [name for one in ([kind] if kind else [KINDS[name] for name in COMMON]) for name in one.keys]
    pairs: list[str] = []
    for key in _few(present.difference(known)):
        pairs += [f"{key}: {ours}" for ours in difflib.get_close_matches(key, known, n=1)]
    return f"map them: columns: {{{', '.join(pairs)}}}" if pairs else None


def _few(names: Iterable[str]) -> list[str]:
    """The first names, cut to what can be shown: a row may have very many and very long ones."""
    return [name[:_SHOWN_CHARS] for name in heapq.nsmallest(_SHOWN, names)]
