"""Explains why a row's values are wrong, in JSON terms and with their field."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import ValidationError

from cloudtune.data.read import dialects
from cloudtune.data.read.causes import UNEXPECTED_ERRORS, find_cause
from cloudtune.data.read.dialects import TurnError
from cloudtune.data.read.json_syntax import without_capital
from cloudtune.data.read.size_limits import SHOWN_CHARS
from cloudtune.data.records import ROLES, Message
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.data.read.kinds import Kind

_PATH = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")


_TYPES = {"str": "a string", "array": "an array", "object": "an object", "int": "a number", "float": "a number",
          "bool": "true or false", "null": "null"}  # fmt: skip


def _plain(message: str) -> tuple[str, str | None]:
    """msgspec's message, and the field it names."""
    found = _PATH.search(message)
    text = message[: found.start()] if found else message
    if text.startswith("Expected `"):
        text = re.sub(r"`([^`]*)`", lambda types: _named(types.group(1)), text)
    return without_capital(text), (found.group(1) or None) if found else None


def _named(types: str) -> str:
    """msgspec's names of types, such as ``str | array``, in JSON terms."""
    return " or ".join(dict.fromkeys(_TYPES.get(name, name) for name in types.split(" | ")))


_ROLES = dialects.ROLES | {"customer": "user", "bot": "assistant", "ai": "assistant", "chatbot": "assistant"}
"""Other names of roles."""
_KEYS = {
    "text": "content", "value": "content", "message": "content", "body": "content", "parts": "content",
    "from": "role", "speaker": "role", "author": "role", "sender": "role", "reasoning": "reasoning_content",
    "thinking": "reasoning_content", "thought": "reasoning_content", "call_id": "tool_call_id",
}  # fmt: skip
"""Other names of a message's keys."""


def validation(message: str, row: object = None, kind: Kind | None = None) -> Problem:
    """Return the problem of a failed typed decoding of the row."""
    text, field = _plain(message)
    fix, code = "correct the value", "wrong_type"
    if text.startswith("invalid enum value"):
        value = text.removeprefix("invalid enum value ").strip("'")[:SHOWN_CHARS]
        if field and field.endswith("role"):
            code = "unknown_role"
            text, fix = _role(value, kind)
        else:
            text = f"{value!r} is not allowed here"
            fix = "use 0 or 1" if field and field.endswith("weight") else fix
    elif found := re.match(r"object missing required field `(.*)`", text):
        code, text, fix = "missing_key", f"the key {found.group(1)!r} is missing", "add it"
    elif found := re.match(r"object contains unknown field `(.*)`", text):
        key = found.group(1)
        code, text, fix = "unknown_key", f"unknown key {key!r}", _meant(key, _at(row, field))
    elif text.startswith("expected"):
        fix = "change it to that type"
    return Problem(code=code, message=text, field=field, fix=fix)


def _role(role: str, kind: Kind | None) -> tuple[str, str]:
    """Message and remedy for a role that messages of the kind do not have."""
    if role in ROLES:
        what = f"messages{f' of {kind.name} rows' if kind else ''} do not have the role {role!r}"
        if role == "system" and kind is not None and "system" in kind.keys:
            return what, "put its text under the row's key 'system'"
        return what, "use user or assistant" + ("; a result of a tool is a block of a user's turn" * (role == "tool"))
    meant = _ROLES.get(role.lower()) or next(iter(difflib.get_close_matches(role, ROLES, n=1)), None)
    return f"{role!r} is not a role", f"use {meant}" if meant else f"use one of {', '.join(ROLES)}"


def _at(row: object, field: str | None) -> object:
    """The value of a field such as ``messages[0].content``."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", field or ""):
        if isinstance(row, dict) and name:
            row = row.get(name)
        elif isinstance(row, list) and index and int(index) < len(row):
            row = row[int(index)]
        else:
            return None
    return row


def _meant(key: str, parent: object) -> str:
    """The remedy for an unknown key in an object."""
    if isinstance(parent, dict):
        own = _KEYS.get(key) or next(iter(difflib.get_close_matches(key, Message.__struct_fields__, n=1)), None)
        if own is not None and own not in parent and not parent.keys().isdisjoint({"role", "content", "from"}):
            return f"rename {key} to {own}"
    return "remove it, if the row means the same without it"


def conversion(error: Exception, row: Any = None, make: Callable[[Any], object] | None = None) -> Problem:
    """Why a row with valid types cannot be converted. ``make`` converts a row to a record."""
    if isinstance(error, TurnError):
        problem = validation(error.detail, _at(row, error.field))
        inner = problem.field or ""
        return msgspec.structs.replace(problem, field=error.field + "." * (inner[:1] not in ("", "[")) + inner)
    field, _, message = str(error).partition(": ")
    if isinstance(error, ValueError) and message and " " not in field:
        what, _, fix = message.partition("; ")  # a message may have a remedy of its own
        return Problem(code="bad_content", message=what, field=field, fix=fix or "correct the row, or remove it")
    field, value = find_cause(error, row, make) if make is not None else ("", None)
    message = str(error)
    if isinstance(error, ValidationError):
        message, _ = _plain(message)
    elif isinstance(error, KeyError):
        message = f"the key {error} is missing"
    elif isinstance(error, UNEXPECTED_ERRORS):
        message = f"{_TYPES[_json_type(value)]} such as this is not valid here" if field else "the row is malformed"
    return Problem(code="bad_content", message=message, field=field or None, fix="correct it, or remove the row")


def _json_type(value: object) -> str:
    names: list[tuple[type, str]] = [(bool, "bool"), (str, "str"), (list, "array"), (int, "int"), (float, "float")]
    return "null" if value is None else next((name for cls, name in names if isinstance(value, cls)), "object")
