"""Checks of one record: what makes a conversation impossible to learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from cloudtune.data.records import Chat, Record, Text
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEXT: dict[str, frozenset[str]] = {
    "": frozenset({"system", "user"}),
    "system": frozenset({"user"}),
    "user": frozenset({"assistant"}),
    "assistant": frozenset({"user", "tool"}),
    "tool": frozenset({"assistant", "tool"}),
}


def _fault(code: str, field: str, message: str, fix: str) -> Problem:
    return Problem(code=code, field=field, message=message, fix=fix)


def faults_of(record: Record, *, answer_last: bool) -> Sequence[Problem]:
    """Everything that is wrong with the record. ``answer_last``: the assistant must have the last word."""
    if isinstance(record, Text):
        return [] if record.text and not record.text.isspace() else [_blank("text")]
    before = ""
    for message in record.messages:
        role, content = message.role, message.content
        if role not in _NEXT[before] or not content or content.isspace() or message.weight is not UNSET:
            break
        before = role
    else:
        if before == "assistant" or (before and not answer_last):
            return ()
    return _in_full(record, answer_last)


def _in_full(chat: Chat, answer_last: bool) -> list[Problem]:
    """The slow way, for a record that the quick look could not pass."""
    if not chat.messages:
        return [_fault("no_messages", "messages", "there are no messages", "remove the row, or give it turns")]
    found: list[Problem] = []
    before = ""
    for i, message in enumerate(chat.messages):
        field = f"messages[{i}]"
        if message.role not in _NEXT[before]:
            where = f"after {before}" if before else "as the first turn"
            what, fix = f"{message.role} may not stand {where}", f"{' or '.join(sorted(_NEXT[before]))} belongs here"
            found.append(_fault("role_order", f"{field}.role", what, fix))
        if message.role != "tool" and (not message.content or message.content.isspace()):
            found.append(_blank(f"{field}.content", f"the {message.role}'s turn"))
        if message.weight is not UNSET and message.role != "assistant":
            found.append(
                _fault("weight_role", f"{field}.weight", "only an assistant's turn may have a weight", "remove it")
            )
        before = message.role
    answers = [message for message in chat.messages if message.role == "assistant"]
    if answer_last and before != "assistant":
        found.append(
            _fault(
                "last_not_assistant",
                f"messages[{len(chat.messages) - 1}].role",
                f"the last turn is {before}'s",
                "end the conversation with the answer to learn",
            )
        )
    if answers and all(message.weight == 0 for message in answers):
        found.append(
            _fault(
                "nothing_to_learn",
                "messages",
                "every answer has weight 0",
                "give one of them weight 1, or none a weight",
            )
        )
    return found


def _blank(field: str, what: str = "the text") -> Problem:
    return _fault("blank", field, f"{what} is empty", "fill it, or remove the row")
