"""Rules for conversations that several vendors share, used in their own modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cloudtune.data.records import Chat, Item, Preference, Rated, TextPart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.records import Message, Record
    from cloudtune.data.row_rules import Finding

Turns = list[tuple[str, "Message"]]
"""Turns of one conversation, each with its field."""


def turns_of(record: Record) -> Turns:
    """Every turn of the record, in the order of its fields."""
    if not isinstance(record, Chat | Preference | Rated | Item):
        return []
    names = [name for name in ("messages", "chosen", "rejected", "completion") if name in record.__struct_fields__]
    return [turn for name in names for turn in _named(name, getattr(record, name))]


def conversations_of(record: Record) -> list[Turns]:
    """The conversations in the record: for a pair, one for each answer, each with the prompt."""
    if not isinstance(record, Preference):
        return [turns_of(record)]
    prompt = _named("messages", record.messages)
    return [prompt + _named(name, getattr(record, name)) for name in ("chosen", "rejected")]


def _named(name: str, messages: list[Message]) -> Turns:
    return [(f"{name}[{i}]", message) for i, message in enumerate(messages)]


def texts_of(record: Record) -> Iterator[tuple[str, str, str]]:
    """Field, role and text of all content in the turns: content, reasoning and arguments of calls."""
    for field, message in turns_of(record):
        if isinstance(message.content, str):
            yield f"{field}.content", message.role, message.content
        for i, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if isinstance(part, TextPart):
                yield f"{field}.content[{i}].text", message.role, part.text
        if isinstance(message.reasoning_content, str):
            yield f"{field}.reasoning_content", message.role, message.reasoning_content
        for i, call in enumerate(message.tool_calls or ()):
            yield f"{field}.tool_calls[{i}].function.arguments", message.role, call.function.arguments


def unmatched_calls(record: Record) -> Iterator[Finding]:
    """Tool calls without a result, and results without a call. The calls of the last turn need no results."""
    found: dict[Finding, None] = {}
    for turns in conversations_of(record):
        found |= dict.fromkeys(_unmatched(turns))
    return iter(found)


def _unmatched(turns: Turns) -> Iterator[Finding]:
    waiting: dict[str, str] = {}
    for field, message in turns:
        if message.role == "tool":
            name = message.tool_call_id
            if not name:
                yield f"{field}.tool_call_id", "the tool turn does not say which call it answers"
            elif waiting.pop(name, None) is None:
                yield f"{field}.tool_call_id", f"{name!r} is not an unanswered call of the assistant turn before it"
            continue
        yield from _unanswered(waiting)
        waiting = {}
        for i, call in enumerate(message.tool_calls or ()):
            place = f"{field}.tool_calls[{i}].id"
            if not call.id or call.id in waiting:
                yield place, "the call has no id" if not call.id else f"two calls have the id {call.id!r}"
            waiting[call.id] = place
    if turns and turns[-1][1].role == "tool":
        yield from _unanswered(waiting)


def _unanswered(waiting: dict[str, str]) -> Iterator[Finding]:
    for name, place in waiting.items():
        if name:
            yield place, f"the call {name!r} has no tool turn with its result"


def arguments_not_an_object(record: Record) -> Iterator[Finding]:
    """Arguments of tool calls that are not the text of a JSON object."""
    for place, text, value in arguments_of(record):
        if not isinstance(value, dict):
            yield place, f"{text[:40]!r} is not the text of a JSON object"


def arguments_of(record: Record) -> Iterator[tuple[str, str, object]]:
    """Field, text and value of the arguments of each tool call. The value of text that is not JSON is None."""
    for field, message in turns_of(record):
        for i, call in enumerate(message.tool_calls or ()):
            yield (
                f"{field}.tool_calls[{i}].function.arguments",
                call.function.arguments,
                decoded(call.function.arguments),
            )


def decoded(text: str) -> object:
    """The JSON value of a text, or None."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def not_alternating(record: Record) -> Iterator[Finding]:
    """Turns other than an optional system turn, then user and assistant in turn. Results follow their calls."""
    follows = {"": "user", "user": "assistant", "assistant": "user", "tool": "assistant"}
    found: dict[Finding, None] = {}
    for turns in conversations_of(record):
        before = ""
        for i, (field, message) in enumerate(turns):
            role = message.role
            if role == "system" and i == 0:
                continue
            after_call = role == "tool" and before in {"assistant", "tool"}
            if role != follows[before] and not after_call and (before, role) != ("tool", "user"):
                where = f"after {before}" if before else "as the first turn"
                found[f"{field}.role", f"the role {role} is not allowed {where}; expected {follows[before]}"] = None
            before = role if role != "system" else before
    return iter(found)
