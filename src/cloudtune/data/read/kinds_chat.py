"""Rows that are conversations, in the words of those who use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
from msgspec import UNSET, UnsetType

from cloudtune.data.read.kinds import Kind
from cloudtune.data.records import (
    Chat,
    Function,
    ImagePart,
    ImageUrl,
    Item,
    Message,
    Part,
    TextPart,
    ToolCall,
    VideoPart,
    VideoUrl,
    compact,
    told_format,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Words = str | list[Message]
"""A text, or the turns themselves."""
SYSTEM = {"system": str | None | UnsetType}
TOOLS = {"tools": list[dict[str, Any]] | UnsetType, "parallel_tool_calls": bool | UnsetType}


class Foreign(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Part of a row in a vendor's own shape."""


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


# --- Bedrock's Converse


class ConverseText(Foreign):
    """``{"text": "..."}``."""

    text: str


class Converse(Foreign):
    """One turn; each block of its content holds one of these keys."""

    role: Literal["user", "assistant"]
    content: list[dict[str, Any]]


def converse_message(turn: Converse) -> list[Message]:
    """Return the messages of one Converse message. Tool results become separate messages."""
    parts: list[Part] = []
    calls: list[ToolCall] = []
    results: list[Message] = []
    thought: list[str] = []
    for block in turn.content:
        key, value = next(iter(block.items()), ("", None))
        if key == "text" and isinstance(value, str) and len(block) == 1:
            parts.append(TextPart(value))
        elif key in ("image", "video") and len(block) == 1 and _path(value, "source", "s3Location", "uri"):
            parts.append(_medium(key, value))
        elif key == "toolUse" and isinstance(value, dict):
            calls.append(ToolCall(value["toolUseId"], Function(value["name"], compact(value["input"]))))
        elif key == "toolResult" and isinstance(value, dict):
            text = "\n".join(compact(part.get("text", part.get("json"))) for part in value["content"])
            results.append(Message("tool", text, tool_call_id=value["toolUseId"]))
        elif key == "reasoningContent" and (words := _path(value, "reasoningText", "text")):
            thought.append(words)
        else:
            raise ValueError(f"a content block with {', '.join(block) or 'no key'} cannot be used")
    spoken = [_message(turn.role, parts, calls, thought)] if parts or calls or thought or not results else []
    return results + spoken


def _medium(key: str, value: Any) -> Part:
    """An image or a video that lies on S3."""
    url = str(_path(value, "source", "s3Location", "uri"))
    said, owner = _path(value, "format"), _path(value, "source", "s3Location", "bucketOwner") or UNSET
    form = said if said is not None and said != told_format(url) else UNSET
    if key == "video":
        return VideoPart(VideoUrl(url, bucket_owner=owner, format=form))
    return ImagePart(ImageUrl(url, bucket_owner=owner, format=form))


def _message(role: str, parts: list[Part], calls: list[ToolCall], thought: Iterable[str]) -> Message:
    one = parts[0] if len(parts) == 1 else None
    content = one.text if isinstance(one, TextPart) else parts or None
    return Message(cast("Any", role), content, tool_calls=calls or UNSET, reasoning_content="\n".join(thought) or UNSET)


def _path(value: Any, *keys: str) -> str | None:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def _from_converse(row: Any) -> Chat:
    messages = [message for turn in row.messages for message in converse_message(turn)]
    system = "\n".join(part.text for part in row.system) if row.system is not UNSET else ""
    tools: Any = UNSET
    if row.toolConfig is not UNSET:
        tools = [converse_tool(tool) for tool in row.toolConfig.get("tools", ())]
    return Chat(opened(system, messages), tools)


def converse_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as OpenAI describes it, from Converse's description."""
    spec = tool["toolSpec"]
    function = {"name": spec["name"], "description": spec.get("description", "")}
    return {"type": "function", "function": {**function, "parameters": spec["inputSchema"]["json"]}}


# --- Claude's messages


class ClaudeTurn(Foreign):
    """One turn; content is a text or typed blocks."""

    role: Literal["user", "assistant"]
    content: str | list[dict[str, Any]]


def _from_claude(row: Any) -> Chat:
    messages = [message for turn in row.messages for message in _claude_messages(turn)]
    tools: Any = UNSET
    if row.tools is not UNSET:
        tools = [
            {"type": "function", "function": {
                "name": tool["name"], "description": tool.get("description", ""), "parameters": tool["input_schema"],
            }}
            for tool in row.tools
        ]  # fmt: skip
    return Chat(opened(row.system, messages), tools)


def _claude_messages(turn: ClaudeTurn) -> list[Message]:
    if isinstance(turn.content, str):
        return [Message(turn.role, turn.content)]
    parts: list[Part] = []
    calls: list[ToolCall] = []
    results: list[Message] = []
    thought: list[str] = []
    for block in turn.content:
        sort = block.get("type")
        if sort == "text":
            parts.append(TextPart(block["text"]))
        elif sort == "thinking":
            thought.append(block["thinking"])
        elif sort == "tool_use":
            calls.append(ToolCall(block["id"], Function(block["name"], compact(block["input"]))))
        elif sort == "tool_result":
            results.append(Message("tool", _claude_text(block.get("content", "")), tool_call_id=block["tool_use_id"]))
        elif sort == "image":
            source = block["source"]
            url = source.get("url") or f"data:{source['media_type']};base64,{source['data']}"
            parts.append(ImagePart(ImageUrl(url)))
        else:
            raise ValueError(f"a content block of type {sort!r} cannot be used")
    spoken = [_message(turn.role, parts, calls, thought)] if parts or calls or thought or not results else []
    return results + spoken


def _claude_text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


# --- how to tell them apart


def _blocks(row: Mapping[str, Any]) -> Iterable[Any]:
    messages = row["messages"] if isinstance(row["messages"], list) else ()
    for message in messages:
        if isinstance(message, dict) and isinstance(message.get("content"), list):
            yield from message["content"]


def is_converse(row: Mapping[str, Any]) -> bool:
    """Converse's blocks have no ``type``."""
    return "schemaVersion" in row or any(isinstance(block, dict) and "type" not in block for block in _blocks(row))


def _is_claude(row: Mapping[str, Any]) -> bool:
    own = {"tool_use", "tool_result", "thinking", "image"}
    return isinstance(row.get("system"), str) or any(
        isinstance(block, dict) and block.get("type") in own for block in _blocks(row)
    )


CONVERSE = {"schemaVersion": Any, "system": list[ConverseText] | UnsetType, "toolConfig": dict[str, Any] | UnsetType}
_WITH_TOOLS = {**SYSTEM, "tools": list[dict[str, Any]] | UnsetType}
CHAT_KINDS: tuple[Kind, ...] = (
    Kind("converse", {"messages": list[Converse]}, CONVERSE, _from_converse, tell=is_converse),
    Kind("claude", {"messages": list[ClaudeTurn]}, _WITH_TOOLS, _from_claude, tell=_is_claude),
    Kind("chat", {"messages": list[Message]}, TOOLS, canonical=Chat),
    Kind("dialog", {"dialog": list[Message]}, {}, lambda row: Chat(row.dialog)),
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


def item(messages: list[Message], **fields: Any) -> Item:
    """A question for a grader, with the fields that are there."""
    return Item(messages, {key: value for key, value in fields.items() if value is not UNSET})
