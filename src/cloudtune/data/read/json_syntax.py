"""Explains why a row is not JSON, with the position."""

from __future__ import annotations

import json
import re

import msgspec

from cloudtune.data.read.duplicate_keys import duplicate_key
from cloudtune.errors import Problem

TOO_DEEP = Problem(code="too_deep", message="the JSON is nested too deeply", fix="flatten the row")
"""Some program that reads the row would exceed its recursion limit."""


class NestedError(Exception):
    """A text within the row is not valid JSON."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def syntax(row: bytes) -> Problem | None:
    """The error of the row as UTF-8 and as JSON; None if it is valid."""
    try:
        text = row.decode()
    except UnicodeDecodeError as error:
        return Problem(
            code="invalid_utf8", message=f"byte {error.start + 1} of this row, {row[error.start]:#04x}, is not UTF-8",
            fix="save the file as UTF-8",
        )  # fmt: skip
    try:
        msgspec.json.decode(row)
        return duplicate_key(row)
    except RecursionError:
        return TOO_DEEP
    except msgspec.ValidationError:
        return Problem(
            code="number_range", message="a number does not fit 64 bits", fix="write a smaller number, or a string"
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _malformed(text, str(error))


def _malformed(text: str, message: str) -> Problem:
    """Use a second parser, which reports the position and recognizes NaN and unpaired surrogates."""
    try:
        json.loads(text, parse_constant=_constant)
    except _ConstantError as error:
        return Problem(code="not_json_number", message=f"{error} is not valid JSON", fix="write null or a number")
    except json.JSONDecodeError as error:
        what, fix = _cause(text, error)
        return Problem(code="invalid_json", message=f"not valid JSON: {what}, at character {error.pos + 1} of the row",
                       fix=fix)  # fmt: skip
    except RecursionError:
        return TOO_DEEP
    except ValueError:
        pass
    else:
        if re.search(r"\\u[dD][89a-fA-F]", text):
            return Problem(
                code="lone_surrogate", message="unpaired surrogate (\\ud800 to \\udfff)",
                fix="write the whole character",
            )  # fmt: skip
    return Problem(code="invalid_json", message=f"not valid JSON: {message}", fix="correct the row")


def _cause(text: str, error: json.JSONDecodeError) -> tuple[str, str]:
    """The error at the position where the parser stopped, and the fix."""
    at, rest = error.pos, text[error.pos :].lstrip()
    before, found = text[:at].rstrip(), rest[:1]
    if error.msg == "Extra data":
        if found == ",":
            error.pos = text.index(",", at)
            return "a comma follows the row", "remove the comma: rows are separated by line breaks"
        return "something follows the row", "write one JSON object per line, and nothing else"
    if not rest:
        return "the row ends too early", "complete the row, and write it on one line"
    if before.endswith(",") and found in ("}", "]"):
        return f"a comma precedes {found}", "remove the comma"
    if found in ("\u201c", "\u201d", "\u2018", "\u2019", "'"):
        return f"{found} is not a JSON quote", 'write keys and strings in double quotes: "..."'
    if word := re.match(r"(?:True|False|None|undefined)\b", rest):
        return f"{word.group()} is not JSON", "write true, false or null"
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments", "remove the comment"
    if error.msg.startswith("Invalid control character"):
        return f"a string contains the control character {text[at]!r}", "write it as an escape, such as \\n or \\t"
    if error.msg.startswith("Invalid \\"):
        return f"{text[at : at + 2]!r} is not a JSON escape", "write a backslash as \\\\"
    if error.msg.startswith("Unterminated string"):
        return "a string has no closing quote", "close it, and write line breaks in strings as \\n"
    return without_capital(error.msg), "write one JSON object per line, with keys and strings in double quotes"


def without_capital(text: str) -> str:
    """The text with a small first letter, to follow a colon."""
    return text[:1].lower() + text[1:]


class _ConstantError(Exception):
    pass


def _constant(name: str) -> None:
    raise _ConstantError(name)
