"""Rows that are conversations, in the words of those who use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
from msgspec import UNSET, UnsetType

from cloudtune.data.read.kinds import Kind
from cloudtune.data.records import Chat, Item, Message, Part, TextPart, ToolCall, compact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Words = str | list[Message]
"""A text, or the turns themselves."""
SYSTEM = {"system": str | None | UnsetType}
TOOLS = {"tools": list[dict[str, Any]] | UnsetType, "parallel_tool_calls": bool | UnsetType}


class Foreign(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Part of a row in a shape of its own."""


# --- prompt and completion, instruction and output


def turns(words: Words, role: Literal["user", "assistant"]) -> list[Message]:
    """A text as one turn; turns as they are."""
    return [Message(role, words)] if isinstance(words, str) else words


def opened(system: object, messages: list[Message]) -> list[Message]:
    """The messages, after the system's words where there are any."""
    return [Message("system", system), *messages] if system and isinstance(system, str) else messages


def _from_prompt(row: Any) -> Chat:
    return Chat(opened(row.system, turns(row.prompt, "user") + turns(row.completion, "assistant")), row.tools)


def _from_question(row: Any) -> Chat:
    """A question; some of them may be answered."""
    answer = [] if row.completion in (UNSET, None) else turns(row.completion, "assistant")
    return Chat(opened(row.system, turns(row.prompt, "user") + answer))


def _is_prompt_alone(row: Mapping[str, Any]) -> bool:
    return row.keys() <= {"prompt", "completion", "system"} and row.get("completion") is None


def _instruct(instruction: str, given: Any, answer: Any, system: object) -> Chat:
    if given is not UNSET and given is not None and given != "":
        instruction = f"{instruction}\n\n{compact(given)}"
    return Chat(opened(system, [Message("user", instruction), Message("assistant", compact(answer))]))


def _from_instruction(row: Any) -> Chat:
    return _instruct(row.instruction, row.input, row.output, row.system)


def _from_response(row: Any) -> Chat:
    return _instruct(row.instruction, row.context, row.response, row.system)


# --- ShareGPT


class ShareGptTurn(Foreign, rename={"who": "from"}):
    """``{"from": "human", "value": "..."}``."""

    who: str
    value: str
    weight: Literal[0, 1] | UnsetType = UNSET


SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bard": "assistant", "bing": "assistant", "model": "assistant", "system": "system", "tool": "tool",
    "observation": "tool", "function_call": "assistant",
}  # fmt: skip


def _from_sharegpt(row: Any) -> Chat:
    messages = []
    for i, turn in enumerate(row.conversations):
        if turn.who not in SHAREGPT_ROLES:
            raise ValueError(f"conversations[{i}].from: unknown role {turn.who!r}; use {', '.join(SHAREGPT_ROLES)}")
        messages.append(Message(cast("Any", SHAREGPT_ROLES[turn.who]), turn.value, turn.weight))
    return Chat(opened(row.system, messages), row.tools)


# --- for kinds whose turns are made of blocks


def blocks_of(row: Mapping[str, Any]) -> Iterable[Any]:
    """The blocks of all messages whose content is a list."""
    messages = row["messages"] if isinstance(row["messages"], list) else ()
    for message in messages:
        if isinstance(message, dict) and isinstance(message.get("content"), list):
            yield from message["content"]


def spoken(
    role: Literal["user", "assistant"], parts: list[Part], calls: list[ToolCall], thought: list[str],
    results: list[Message],
) -> list[Message]:  # fmt: skip
    """The message that a turn's blocks make. Blocks that are nothing but results of tools make none."""
    if results and not (parts or calls or thought):
        return []
    one = parts[0] if len(parts) == 1 else None
    content = one.text if isinstance(one, TextPart) else parts or None
    return [Message(role, content, tool_calls=calls or UNSET, reasoning_content="\n".join(thought) or UNSET)]


_WITH_TOOLS = {**SYSTEM, "tools": list[dict[str, Any]] | UnsetType}
CHAT_KINDS: tuple[Kind, ...] = (
    Kind("chat", {"messages": list[Message]}, TOOLS, canonical=Chat),
    Kind("sharegpt", {"conversations": list[ShareGptTurn]}, _WITH_TOOLS, _from_sharegpt),
    Kind("prompt_completion", {"prompt": Words, "completion": Words}, _WITH_TOOLS, _from_prompt),
    Kind(
        "prompt",
        {"prompt": Words},
        {"completion": Words | None | UnsetType, **SYSTEM},
        _from_question,
        tell=_is_prompt_alone,
    ),
    Kind("instruction", {"instruction": str, "output": Any}, {"input": Any, **SYSTEM}, _from_instruction),
    Kind("instruction_response", {"instruction": str, "response": Any}, {"context": Any, **SYSTEM}, _from_response),
)


GRADER_KEYS = ("reference_answer", "answer", "reference", "ground_truth")
"""Keys under which rows keep what a grader compares answers with."""


def item(messages: list[Message], **fields: Any) -> Item:
    """A question for a grader, with the fields that are there."""
    return Item(messages, {key: value for key, value in fields.items() if value is not UNSET})
