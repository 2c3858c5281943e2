"""Checks of one record: what makes a conversation impossible to learn from."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import UNSET

from cloudtune.data.records import Chat, Record, Text

_NEXT: dict[str, frozenset[str]] = {
    "": frozenset({"system", "user"}),
    "system": frozenset({"user"}),
    "user": frozenset({"assistant"}),
    "assistant": frozenset({"user", "tool"}),
    "tool": frozenset({"assistant", "tool"}),
}


class Fault(NamedTuple):
    """What is wrong with a record, and where in it."""

    code: str
    field: str
    message: str
    fix: str


def faults_of(record: Record, *, answer_last: bool) -> list[Fault] | tuple[()]:
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


def _in_full(chat: Chat, answer_last: bool) -> list[Fault]:
    """The slow way, for a record that the quick look could not pass."""
    if not chat.messages:
        return [Fault("no_messages", "messages", "there are no messages", "remove the row, or give it turns")]
    found: list[Fault] = []
    before = ""
    for i, message in enumerate(chat.messages):
        field = f"messages[{i}]"
        if message.role not in _NEXT[before]:
            allowed = " or ".join(sorted(_NEXT[before]))
            place = f"after {before}" if before else "as the first turn"
            found.append(
                Fault("role_order", f"{field}.role", f"{message.role} may not stand {place}", f"{allowed} belongs here")
            )
        if message.role != "tool" and (not message.content or message.content.isspace()):
            found.append(_blank(f"{field}.content", f"the {message.role}'s turn"))
        if message.weight is not UNSET and message.role != "assistant":
            found.append(
                Fault("weight_role", f"{field}.weight", "only an assistant's turn may have a weight", "remove it")
            )
        before = message.role
    answers = [message for message in chat.messages if message.role == "assistant"]
    if answer_last and before != "assistant":
        found.append(
            Fault(
                "last_not_assistant",
                f"messages[{len(chat.messages) - 1}].role",
                f"the last turn is {before}'s",
                "end the conversation with the answer to learn",
            )
        )
    if answers and all(message.weight == 0 for message in answers):
        found.append(
            Fault(
                "nothing_to_learn",
                "messages",
                "every answer has weight 0",
                "give one of them weight 1, or none a weight",
            )
        )
    return found


def _blank(field: str, what: str = "the text") -> Fault:
    return Fault("blank", field, f"{what} is empty", "fill it, or remove the row")
