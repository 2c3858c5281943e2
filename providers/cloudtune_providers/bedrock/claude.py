"""Rows of Anthropic's Messages API, on which Claude models are trained on Bedrock.

docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html, seen 2026-11-21.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from cloudtune.data.conversation_rules import arguments_not_an_object, not_alternating, turns_of, unmatched_calls
from cloudtune.data.read.kinds import Kind
from cloudtune.data.read.kinds_chat import GRADER_KEYS, SYSTEM, Foreign, blocks_of, opened, spoken
from cloudtune.data.records import Chat, Function, ImagePart, ImageUrl, Message, TextPart, ToolCall, compact
from cloudtune.data.row_rules import RowRule, Source
from cloudtune.data.write.dropped_features import ALL
from cloudtune.data.write.formats import Format
from cloudtune.data.write.row_template import CANONICAL
from cloudtune.data.write.turns import Json, split_system

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.data.records import Part, Record
    from cloudtune.data.row_rules import Finding

# -- reading


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
            what = f"of type {sort!r}" if isinstance(sort, str) else "without a type"
            raise ValueError(f"a content block {what} cannot be used")
    return results + spoken(turn.role, parts, calls, thought, results)


def _claude_text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def _is_claude(row: Mapping[str, Any]) -> bool:
    if not row.keys().isdisjoint(GRADER_KEYS):
        return False  # an item for graders, with a system prompt of its own
    own = ("tool_use", "tool_result", "thinking", "image")  # not a set: a type may be anything
    return isinstance(row.get("system"), str) or any(
        isinstance(block, dict) and block.get("type") in own for block in blocks_of(row)
    )


# -- writing


def _to_claude(chat: Chat) -> Json:
    system, messages = split_system(chat.messages)
    turns: list[Json] = []
    for message in messages:
        blocks = _claude_blocks(message)
        if message.role == "tool" and turns and turns[-1]["role"] == "user" and _holds_results(turns[-1]):
            turns[-1]["content"] += blocks
        else:
            plain = isinstance(message.content, str) and message.role != "tool" and len(blocks) == 1
            role = "user" if message.role == "tool" else message.role
            turns.append({"role": role, "content": message.content if plain else blocks})
    row: Json = {"system": system} if system else {}
    row["messages"] = turns
    if chat.tools is not UNSET:
        row["tools"] = [
            {"name": tool["function"]["name"], "description": tool["function"].get("description", ""),
             "input_schema": tool["function"].get("parameters", {"type": "object"})}
            for tool in chat.tools
        ]  # fmt: skip
    return row


def _holds_results(turn: Json) -> bool:
    return isinstance(turn["content"], list) and turn["content"][0].get("type") == "tool_result"


def _claude_blocks(message: Message) -> list[Json]:
    if message.role == "tool":
        if not message.tool_call_id:
            raise ValueError("messages: a tool message requires tool_call_id")
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.text}]
    blocks: list[Json] = []
    if message.reasoning_content:
        blocks.append({"type": "thinking", "thinking": message.reasoning_content})
    content = [TextPart(message.content)] if isinstance(message.content, str) else message.content or []
    for part in content:
        if isinstance(part, ImagePart):
            blocks.append({"type": "image", "source": _claude_source(part.image_url.url)})
        elif isinstance(part, TextPart) and (part.text or not message.tool_calls):
            blocks.append({"type": "text", "text": part.text})
    for call in message.tool_calls or ():
        try:
            given = msgspec.json.decode(call.function.arguments)
        except msgspec.DecodeError as error:
            raise ValueError("messages: the arguments of a tool call are not valid JSON") from error
        blocks.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": given})
    return blocks


def _claude_source(url: str) -> Json:
    if url.startswith("data:") and ";base64," in url:
        media, data = url[5:].split(";base64,", 1)
        return {"type": "base64", "media_type": media, "data": data}
    return {"type": "url", "url": url}


_MESSAGES = Source("https://platform.claude.com/docs/en/api/messages", "2026-11-29")
_TOOLS = Source("https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview", "2026-11-29")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_IMAGES = {"image/jpeg", "image/png", "image/gif", "image/webp"}


def _names(record: Record) -> Iterator[Finding]:
    for field, message in turns_of(record):
        for i, call in enumerate(message.tool_calls or ()):
            if not _NAME.fullmatch(call.function.name):
                yield f"{field}.tool_calls[{i}].function.name", f"{call.function.name[:80]!r} is not such a name"
            if call.id and not _ID.fullmatch(call.id):
                yield f"{field}.tool_calls[{i}].id", f"{call.id[:80]!r} is not such an id"


def _images(record: Record) -> Iterator[Finding]:
    for field, message in turns_of(record):
        for i, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if not isinstance(part, ImagePart):
                continue
            url, place = part.image_url.url, f"{field}.content[{i}].image_url.url"
            media = url[5:].partition(";base64,")
            if message.role != "user":
                yield place, f"the turn of {message.role} has an image"
            elif url.startswith("data:") and (not media[1] or media[0].lower() not in _IMAGES):
                yield place, f"{url[:40]!r} is not a base64 JPEG, PNG, GIF or WEBP"
            elif not re.match("(?:data:|https://)", url):
                yield place, f"{url[:60]!r} is neither an https URL nor a data URL"


RULES = (
    RowRule(
        "role_order", "Turns of user and assistant alternate, after at most one system prompt; the user is first.",
        _MESSAGES, '[{"role": "user", ...}, {"role": "user", ...}]', "join the turns, or add the one that is missing",
        not_alternating,
    ),
    RowRule(
        "tool_pairing", "Each tool call has its result in the next turn, except in the last turn; each result names "
        "such a call.", _TOOLS, '{"type": "tool_result", "tool_use_id": "other", ...}',
        "give each call an id, and each result the id of its call", unmatched_calls,
    ),
    RowRule(
        "tool_arguments", "The input of a tool call is a JSON object.", _TOOLS,
        '{"type": "tool_use", "input": "city=Lima"}', "write it as a JSON object", arguments_not_an_object,
    ),
    RowRule(
        "tool_name", "Names and ids of tool calls have letters a-z and A-Z, digits, underscores and dashes; names have "
        "at most 64.", _TOOLS, '{"type": "tool_use", "name": "local time"}', "rename it", _names,
    ),
    RowRule(
        "image_role", "Images are JPEG, PNG, GIF or WEBP in user turns, as https URL or base64.", _MESSAGES,
        '{"role": "assistant", "content": [{"type": "image", ...}]}', "move or convert the image", _images,
    ),
)  # fmt: skip
_ROW, _USER = b'{"messages":[', b'{"role":"user","content":'
_WEAVE = CANONICAL._replace(first_system=b'{"system":', after_system=b"," + _ROW[1:] + _USER)
CLAUDE = Format(
    "claude", "Claude's messages", frozenset({"chat"}),
    ALL - {"weights", "names", "videos", "bucket_owners", "media_formats", "unanswered"}, _to_claude, weave=_WEAVE,
    own="claude", rules=RULES,
)  # fmt: skip

CLAUDE_ROWS = Kind(
    "claude", {"messages": list[ClaudeTurn]}, {**SYSTEM, "tools": list[dict[str, Any]] | UnsetType}, _from_claude,
    tell=_is_claude, free_form=True,
)  # fmt: skip
