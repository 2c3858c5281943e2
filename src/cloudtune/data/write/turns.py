"""Parts of conversations that several formats write in the same way. Formats of other packages may use them too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from cloudtune.data.conversation_rules import decoded
from cloudtune.data.records import Message

if TYPE_CHECKING:
    from cloudtune.data.records import Chat, Preference, Rated

Json = dict[str, Any]
TALK = frozenset({"system", "turns"})
"""The features of conversations in words alone."""


def split_system(messages: list[Message]) -> tuple[str, list[Message]]:
    """The system prompt, empty if there is none, and the turns after it."""
    if messages and messages[0].role == "system":
        return messages[0].text, messages[1:]
    return "", messages


def question_and_answer(messages: list[Message]) -> tuple[str, str]:
    """The texts of the one question and its answer. Raises ValueError for a conversation of another form."""
    if [message.role for message in messages] != ["user", "assistant"]:
        raise ValueError("messages: exactly one prompt and one answer are required")
    return messages[0].text, messages[1].text


def object_of(arguments: str, place: str) -> Json:
    """The JSON object of a tool call's arguments. Raises ValueError if they are something else."""
    given = decoded(arguments)
    if not isinstance(given, dict):
        raise ValueError(f"{place}: the arguments of a tool call must be a JSON object")  # noqa: TRY004 - a row's fault
    return given


def short(messages: list[Message], role: str) -> str | list[Message]:
    """The text of a single plain turn of that role; other messages as they are."""
    one = messages[0] if len(messages) == 1 else None
    if one is not None and isinstance(one.content, str) and one == Message(role, one.content):  # type: ignore[arg-type]
        return one.content
    return messages


def to_prompt(chat: Chat) -> Json:
    """``{"prompt": ..., "completion": ...}``."""
    prompt, completion = question_and_answer(chat.messages)
    return {"prompt": prompt, "completion": completion}


def to_pairs(row: Preference) -> Json:
    """``{"prompt": ..., "chosen": ..., "rejected": ...}``: three texts, or else three lists of messages."""
    prompt = short(row.messages, "user")
    better, worse = short(row.chosen, "assistant"), short(row.rejected, "assistant")
    if not (isinstance(prompt, str) and isinstance(better, str) and isinstance(worse, str)):
        prompt, better, worse = row.messages, row.chosen, row.rejected
    return {"prompt": prompt, "chosen": better, "rejected": worse, **tools_of(row)}


def tools_of(row: Chat | Preference | Rated) -> Json:
    """The keys of the tools, where the record has them."""
    return {name: value for name in ("tools", "parallel_tool_calls") if (value := getattr(row, name)) is not UNSET}
