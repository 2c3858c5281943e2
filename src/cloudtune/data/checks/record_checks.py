"""Checks of one record: problems that make a conversation unusable for training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import UNSET, structs

from cloudtune.data.conversation_rules import decoded
from cloudtune.data.read.duplicate_keys import duplicate_key
from cloudtune.data.records import (
    ROLES,
    Chat,
    Contrastive,
    Item,
    Labelled,
    Message,
    Preference,
    Question,
    Rated,
    Record,
    Similarity,
    Tagged,
    TextPart,
)
from cloudtune.errors import Problem
from cloudtune.methods import DEFAULT_METHOD, METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLAIN_NEXT = {"": ("system", "user"), "system": ("user",), "user": ("assistant",), "assistant": ("user",), "tool": ()}
"""Roles that can follow a role if turns alternate. Vendors have their own rules."""
GENERAL: dict[str, str] = {
    "no_messages": "A conversation has at least one turn.",
    "role_order": "A tool turn follows an assistant turn or another tool turn.",
    "missing_key": "A turn has content; only an assistant turn with tool calls may omit it.",
    "blank": "Texts are not empty. Tool results and turns with tool calls may be.",
    "weight_role": "Only an assistant turn has a weight.",
    "assistant_only": "Only an assistant turn has tool calls or reasoning.",
    "last_not_assistant": "A conversation to learn from, and each answer of a pair, ends with an assistant turn.",
    "last_not_user": "A prompt ends with a user or tool turn.",
    "duplicate_key": "No key occurs twice in one object, the arguments of a tool call included.",
    "nothing_to_learn": "At least one assistant turn has no weight, or weight 1.",
    "same_answers": "The two answers of a pair differ.",
    "same_texts": "A positive differs from its anchor, and a negative from its positive and its anchor.",
    "score": "The score of two sentences is a finite number.",
    "answer_place": "An answer to a question is in the context, at its position.",
    "lengths": "Tokens and tags, or answers and their positions, have the same number of entries.",
}
"""Problem code -> the rule, for rows of every back end and method."""


_END = "end the conversation with an assistant turn"


def _fault(code: str, field: str, message: str, fix: str) -> Problem:
    return Problem(code=code, field=field, message=message, fix=fix)


def is_plain(chat: Chat) -> bool:
    """Whether it is a valid text-only conversation that ends with an answer. Most are, and need no other check."""
    before = ""
    for message in chat.messages:
        role, content = message.role, message.content
        if role not in _PLAIN_NEXT[before] or type(content) is not str or not content or content.isspace():
            return False
        if message.weight is not UNSET or message.tool_calls is not UNSET or role == "tool":
            return False
        if message.reasoning_content is not UNSET or message.name is not UNSET:
            return False
        before = role
    return before == "assistant" and chat.tools is UNSET and chat.parallel_tool_calls is UNSET


def faults_of(record: Record, *, method: str = DEFAULT_METHOD) -> Sequence[Problem]:
    """All problems of the record for a training method."""
    if isinstance(record, Chat):
        if is_plain(record):
            return ()
        return [*_turns(record.messages), *_ending(record.messages, method)]
    return _of_other(record)


def _of_other(record: Record) -> list[Problem]:
    if isinstance(record, Preference | Rated):
        found = _asked(record.messages)
        sides = {"completion": record.completion} if isinstance(record, Rated) else {
            "chosen": record.chosen, "rejected": record.rejected,
        }  # fmt: skip
        for name, answer in sides.items():
            found += _turns(answer, name)
            if answer and answer[-1].role != "assistant":
                found.append(_fault("last_not_assistant", name, f"the last turn has the role {answer[-1].role}", _END))
        if isinstance(record, Preference) and record.chosen == record.rejected:
            found.append(_fault("same_answers", "rejected", "both answers are the same", "remove the row"))
        return found
    if isinstance(record, Item):
        return _asked(record.messages)
    return [
        _blank(name, f"the {name}")
        for name in record.__struct_fields__
        if isinstance(value := getattr(record, name), str | list)
        and (not value or str(value).isspace())
        and not (isinstance(record, Labelled) and value == [])  # a text may have no label
    ] + _of_kind(record)


def _of_kind(record: Record) -> list[Problem]:
    """What only one kind of records can have wrong."""
    if isinstance(record, Tagged | Question):
        return _lengths(record)
    if isinstance(record, Similarity) and not math.isfinite(record.score):  # CSV can have nan and inf
        message = f"the score {record.score} is no finite number"
        return [_fault("score", "score", message, "correct it, or remove the row")]
    if not isinstance(record, Contrastive):
        return []
    found = []
    if record.positive == record.anchor:
        found.append(_fault("same_texts", "positive", "the positive is the anchor", "remove the row"))
    for i, negative in enumerate(record.negatives or ()):
        place = f"negatives[{i}]"
        if not negative or negative.isspace():
            found.append(_blank(place, "the negative"))
        elif negative in (record.positive, record.anchor):
            which = "positive" if negative == record.positive else "anchor"
            found.append(_fault("same_texts", place, f"the negative is the {which}", "remove it"))
    return found


def _lengths(record: Tagged | Question) -> list[Problem]:
    if isinstance(record, Tagged):
        one, other, names = len(record.tokens), len(record.tags), "tokens and {} tags"
    else:
        one, other, names = len(record.answers.text), len(record.answers.answer_start), "answers and {} places"
    if one == other:
        return _misplaced(record) if isinstance(record, Question) else []
    return [
        _fault("lengths", record.__struct_fields__[-1], f"{one} {names.format(other)}", "use the same number of each")
    ]


def _misplaced(row: Question) -> list[Problem]:
    """The answers that are not at their position."""
    fix = "count characters from 0; leave the answers empty if the context has none"
    return [
        _fault("answer_place", "answers", f"the answer {text[:50]!r} is not at character {start} of the context", fix)
        for text, start in zip(row.answers.text, row.answers.answer_start, strict=True)
        if not text.strip() or start < 0 or row.context[start : start + len(text)] != text
    ]


def _asked(messages: list[Message]) -> list[Problem]:
    found = _turns(messages)
    if messages and messages[-1].role not in {"user", "tool"}:
        found.append(
            _fault(
                "last_not_user",
                "messages",
                f"the prompt ends with a turn of {messages[-1].role}",
                "end it with a user turn",
            )
        )
    return found


def _turns(messages: list[Message], field: str = "messages") -> list[Problem]:
    """The problems of each turn."""
    if not messages:
        return [_fault("no_messages", field, "there are no messages", "remove the row, or add messages")]
    found: list[Problem] = []
    before = ""
    for i, message in enumerate(messages):
        place = f"{field}[{i}]"
        if message.role == "tool" and before not in {"assistant", "tool"}:
            where = f"after {before}" if before else "as the first turn"
            fix = "put it after the assistant turn with the call that it answers"
            found.append(_fault("role_order", f"{place}.role", f"the role tool is not allowed {where}", fix))
        found += _turn(message, place)
        before = message.role
    return found


def _turn(message: Message, place: str) -> list[Problem]:
    found: list[Problem] = []
    if message.content is None and not message.tool_calls:
        found.append(_fault("missing_key", place, "the key 'content' is missing", "add it"))
    elif message.role != "tool" and not message.tool_calls and _is_blank(message):
        found.append(_blank(f"{place}.content", f"the {message.role}'s turn"))
    if message.role != "assistant":
        for name in ("weight", "tool_calls", "reasoning_content"):
            if getattr(message, name) is not UNSET:
                code = "weight_role" if name == "weight" else "assistant_only"
                found.append(_fault(code, f"{place}.{name}", f"only an assistant turn can have {name}", "remove it"))
    for i, call in enumerate(message.tool_calls or ()):
        text = call.function.arguments
        if text.count(":") > 1 and decoded(text) is not None and (problem := duplicate_key(text.encode())):
            found.append(structs.replace(problem, field=f"{place}.tool_calls[{i}].function.arguments"))
    return found


def _is_blank(message: Message) -> bool:
    content = message.content
    if isinstance(content, list):
        return not any(not isinstance(part, TextPart) or part.text.strip() for part in content)
    return not content or content.isspace()


_ANSWER = frozenset({"assistant"})


def _last_roles(name: str) -> frozenset[str]:
    """The role of the last turn. A teacher answers rows that end with the user's turn."""
    method = METHODS.get(name)
    if method is not None and method.every_token:
        return frozenset(ROLES)
    return _ANSWER | {"user"} if method is not None and method.teacher else _ANSWER


def _ending(messages: list[Message], method: str) -> list[Problem]:
    found: list[Problem] = []
    last = messages[-1].role if messages else "assistant"
    if last not in _last_roles(method):
        where = f"messages[{len(messages) - 1}].role"
        found.append(_fault("last_not_assistant", where, f"the last turn has the role {last}", _END))
    answers = [message for message in messages if message.role == "assistant"]
    if answers and all(message.weight == 0 for message in answers):
        fix = "set weight 1 for at least one, or remove all weights"
        found.append(_fault("nothing_to_learn", "messages", "every assistant turn has weight 0", fix))
    return found


def _blank(field: str, what: str = "the text") -> Problem:
    return _fault("blank", field, f"{what} is empty", "fill it, or remove the row")
