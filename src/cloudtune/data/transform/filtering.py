"""Conditions on records, as people write them: ``chars<=4000``, ``label=positive``, ``answer~^Sí``."""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any

from cloudtune.data.records import Chat, Item, Labelled, Message, Picture, Preference, Rated, Record
from cloudtune.data.rules import texts
from cloudtune.errors import DataError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

_FORM = re.compile(r"\s*(\w+)\s*(!=|<=|>=|!~|=|<|>|~)\s?(.*)", re.DOTALL)
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip


def _messages(record: Record) -> list[Message]:
    return record.messages if isinstance(record, Chat | Preference | Rated | Item) else []


def _text(record: Record) -> str:
    return "\n".join([words for _, _, words in texts(record)])


def _question(record: Record) -> str:
    questions = [message.text for message in _messages(record) if message.role == "user"]
    return "\n".join(questions) or str(getattr(record, "question", None) or getattr(record, "source", ""))


def _answer(record: Record) -> str:
    if isinstance(record, Preference):
        turns = record.chosen
    elif isinstance(record, Rated):
        turns = record.completion
    else:
        turns = _messages(record)
    given = [message.text for message in turns if message.role == "assistant"]
    return given[-1] if given else str(getattr(record, "target", "") or getattr(record, "transcript", ""))


def _label(record: Record) -> str:
    return str(record.label) if isinstance(record, Labelled | Picture | Rated) else _answer(record)


_WORDS: dict[str, Callable[[Record], str]] = {
    "text": _text, "question": _question, "answer": _answer, "label": _label,
    "system": lambda record: "\n".join([one.text for one in _messages(record) if one.role == "system"]),
}  # fmt: skip
_NUMBERS: dict[str, Callable[[Record], int]] = {
    "chars": lambda record: sum([len(words) for _, _, words in texts(record)]),
    "turns": lambda record: len(_messages(record)),
}


def condition(written: str) -> Callable[[Record], bool]:
    """The test that a condition is. Raises DataError for one that makes no sense."""
    found = _FORM.fullmatch(written)
    if found is None:
        raise _refusal(written, "not a condition")
    name, sign, value = found.groups()
    if name in _NUMBERS:
        if sign not in _ORDER or not value.strip().isdecimal():
            raise _refusal(written, f"{name} is a number")
        return _than(_NUMBERS[name], _ORDER[sign], int(value))
    if name not in _WORDS:
        raise _refusal(written, f"unknown field {name!r}")
    if sign in ("~", "!~"):
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise _refusal(written, f"{value!r} is not a valid regular expression: {error}") from error
        get, wanted = _WORDS[name], sign == "~"
        return lambda record: (pattern.search(get(record)) is not None) == wanted
    if sign not in ("=", "!="):
        raise _refusal(written, f"{name} is a string")
    return _than(_WORDS[name], _ORDER[sign], value)


def _than(get: Callable[[Record], Any], order: Callable[[Any, Any], bool], value: Any) -> Callable[[Record], bool]:
    return lambda record: order(get(record), value)


def _refusal(written: str, message: str) -> DataError:
    fix = (
        f"numbers: {', '.join(_NUMBERS)} with < <= > >= = !=; texts: {', '.join(_WORDS)} with = != and, for regular "
        "expressions, ~ !~; e.g. chars<=4000"
    )
    return DataError([Problem(code="filter", message=f"{written!r}: {message}", field="filter", fix=fix)])
