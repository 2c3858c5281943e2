"""Rows in the format of Anthropic's Messages API, for training Claude models on Bedrock.

docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html, seen 2026-11-21.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from msgspec import UNSET, UnsetType

from cloudtune.data.conversation_rules import arguments_not_an_object, not_alternating, turns_of, unmatched_calls
from cloudtune.data.read.dialects import read_tools, typed
from cloudtune.data.read.kinds import Kind
from cloudtune.data.read.kinds_chat import ASIDE, ITEM_KEYS, Foreign, blocks_of, one_text, opened, spoken, system_text
from cloudtune.data.records import Chat, Function, ImagePart, ImageUrl, Message, TextPart, ToolCall, compact
from cloudtune.data.row_rules import RowRule, Source
from cloudtune.data.write.dropped_features import ALL
from cloudtune.data.write.formats import Format
from cloudtune.data.write.row_template import CANONICAL
from cloudtune.data.write.turns import Json, object_of, split_system

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
    messages = [
        message for i, turn in enumerate(row.messages) for message in _claude_messages(turn, f"messages[{i}].content")
    ]
    return Chat(
        opened(system_text(row.system), messages), UNSET if row.tools is UNSET else read_tools(row.tools, "tools")
    )


_BLOCK_KEYS = {
    "text": {"text", "citations"}, "thinking": {"thinking", "signature"}, "tool_use": {"id", "name", "input"},
    "tool_result": {"tool_use_id", "content", "is_error"}, "image": {"source"},
}  # fmt: skip
"""The keys of each type of block. Citations and signatures are the service's own metadata: they are not trained on."""


def _claude_messages(turn: ClaudeTurn, place: str) -> list[Message]:
    if isinstance(turn.content, str):
        return [Message(turn.role, turn.content)]
    parts: list[Part] = []
    calls: list[ToolCall] = []
    results: list[Message] = []
    thought: list[str] = []
    for i, block in enumerate(turn.content):
        where = f"{place}[{i}]"
        sort = _checked(block, where)
        if sort == "thinking":
            thought.append(block["thinking"])
        elif sort == "tool_use":
            calls.append(ToolCall(block["id"], Function(block["name"], compact(block["input"]))))
        elif sort == "tool_result":
            results.append(_result(block, where))
        else:
            parts.append(_part(block, where))
    return results + spoken(turn.role, parts, calls, thought, results)


def _checked(block: dict[str, Any], where: str) -> str:
    """The block's type. Raises ValueError for a type or a key that cannot be used, or a key that is missing."""
    sort = block.get("type")
    known = _BLOCK_KEYS.get(sort) if isinstance(sort, str) else None
    if known is None or sort is None:
        raise ValueError(f"{where}.type: a content block of type {sort!r} cannot be used")
    if unknown := sorted(block.keys() - known - {"type", "cache_control"}):
        raise ValueError(f"{where}.{unknown[0]}: unknown key {unknown[0]!r}")
    if missing := sorted(known - block.keys() - {"citations", "signature", "content", "is_error"}):
        raise ValueError(f"{where}: the key {missing[0]!r} is missing")
    return str(sort)


def _part(block: dict[str, Any], where: str) -> Part:
    if block["type"] == "text":
        return TextPart(typed(block["text"], str, f"{where}.text"))
    source = typed(block["source"], dict[str, str], f"{where}.source")
    url = source.get("url") or f"data:{source.get('media_type')};base64,{source.get('data')}"
    if not source.get("url") and not (source.get("media_type") and source.get("data")):
        raise ValueError(f"{where}.source: expected url, or media_type and data")
    return ImagePart(ImageUrl(url))


def _result(block: dict[str, Any], where: str) -> Message:
    """A tool's result: a text, or texts and images."""
    content = block.get("content", "")
    if isinstance(content, list):
        for i, part in enumerate(content):
            if _checked(part, f"{where}.content[{i}]") not in {"text", "image"}:
                raise ValueError(f"{where}.content[{i}].type: a result holds text and images")
        content = one_text([_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)])
    error = block.get("is_error") or UNSET
    return Message("tool", content, tool_call_id=block["tool_use_id"], is_error=error)


_OTHERS = ITEM_KEYS | ASIDE - {"system", "tools"} | {"label", "kto_tag", "rejected_response", "fields"}
"""Keys of rows of other kinds that also have a system prompt beside their messages."""


def _is_claude(row: Mapping[str, Any]) -> bool:
    if not row.keys().isdisjoint(_OTHERS):
        return False
    own = ("tool_use", "tool_result", "thinking", "image")  # not a set: a type can be any value
    if any(isinstance(block, dict) and block.get("type") in own and "value" not in block for block in blocks_of(row)):
        return all(
            not isinstance(block, dict) or block.get("type") != "image" or "source" in block for block in blocks_of(row)
        )
    turns = row["messages"] if isinstance(row["messages"], list) else ()
    plain = all(
        isinstance(turn, dict) and turn.keys() <= {"role", "content"} and turn.get("role") in ("user", "assistant")
        for turn in turns
    )
    return plain and isinstance(row.get("system"), str | list)


# -- writing


def _to_claude(chat: Chat) -> Json:
    system, messages = split_system(chat.messages)
    turns: list[Json] = []
    for i, message in enumerate(messages, len(chat.messages) - len(messages)):
        blocks = _claude_blocks(message, f"messages[{i}]")
        if message.role in ("tool", "user") and turns and _holds_results(turns[-1]):
            turns[-1]["content"] += blocks  # results, and the user's text after them, are one turn
        else:
            plain = isinstance(message.content, str) and message.role != "tool" and blocks == _said(message)
            role = "user" if message.role == "tool" else message.role
            turns.append({"role": role, "content": message.content if plain else blocks})
    row: Json = {"system": system} if system else {}
    row["messages"] = turns
    if chat.tools is not UNSET:
        row["tools"] = [
            {**{key: tool.function[key] for key in ("name", "description") if key in tool.function},
             "input_schema": tool.function.get("parameters", {"type": "object"})}
            for tool in chat.tools
        ]  # fmt: skip
    return row


def _holds_results(turn: Json) -> bool:
    return isinstance(turn["content"], list) and turn["content"][-1].get("type") == "tool_result"


def _claude_blocks(message: Message, place: str) -> list[Json]:
    said = _said(message)
    if message.role == "tool":
        if not message.tool_call_id:
            raise ValueError(f"{place}.tool_call_id: a tool message requires tool_call_id")
        result = {"type": "tool_result", "tool_use_id": message.tool_call_id,
                  "content": message.content if isinstance(message.content, str) else said}  # fmt: skip
        return [result if message.is_error is UNSET else {**result, "is_error": True}]
    blocks: list[Json] = []
    if message.reasoning_content:
        blocks.append({"type": "thinking", "thinking": message.reasoning_content})
    blocks += [block for block in said if block.get("text") != "" or not message.tool_calls]
    for i, call in enumerate(message.tool_calls or ()):
        given = object_of(call.function.arguments, f"{place}.tool_calls[{i}].function.arguments")
        blocks.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": given})
    return blocks


def _said(message: Message) -> list[Json]:
    """Blocks of the texts and images."""
    content = [TextPart(message.content)] if isinstance(message.content, str) else message.content or []
    return [
        {"type": "image", "source": _claude_source(part.image_url.url)}
        if isinstance(part, ImagePart)
        else {"type": "text", "text": part.text}
        for part in content
        if isinstance(part, ImagePart | TextPart)
    ]


def _claude_source(url: str) -> Json:
    if url.startswith("data:") and ";base64," in url:
        media, data = url[5:].split(";base64,", 1)
        return {"type": "base64", "media_type": media, "data": data}
    return {"type": "url", "url": url}


_MESSAGES = Source("https://platform.claude.com/docs/en/api/messages", "2026-11-29")
_TOOLS = Source("https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview", "2026-11-29")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME_FAULT = "{!r} is not 1 to 64 of the characters a-z A-Z 0-9 _ -"
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_IMAGES = {"image/jpeg", "image/png", "image/gif", "image/webp"}


def _names(record: Record) -> Iterator[Finding]:
    tools = record.tools if isinstance(record, Chat) and record.tools is not UNSET else []
    for i, tool in enumerate(tools):
        if not _NAME.fullmatch(tool.function["name"]):
            yield (
                f"tools[{i}].function.name",
                f"{tool.function['name'][:80]!r} is not 1 to 64 of the characters a-z A-Z 0-9 _ -",
            )
    for field, message in turns_of(record):
        for i, call in enumerate(message.tool_calls or ()):
            if not _NAME.fullmatch(call.function.name):
                yield (
                    f"{field}.tool_calls[{i}].function.name",
                    f"{call.function.name[:80]!r} is not 1 to 64 of the characters a-z A-Z 0-9 _ -",
                )
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
        "tool_name", "Names of tools and ids of calls have letters a-z and A-Z, digits, underscores and dashes; names "
        "have at most 64.", _TOOLS, '{"type": "tool_use", "name": "local time"}', "rename it", _names,
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
    ALL - {
        "weights", "names", "videos", "bucket_owners", "media_formats", "unanswered", "image_details", "tool_settings",
        "parallel_tool_calls", "later_system", "repeated_roles",
    }, _to_claude, weave=_WEAVE,
    own="claude", rules=RULES,
)  # fmt: skip

CLAUDE_ROWS = Kind(
    "claude", {"messages": list[ClaudeTurn]},
    {"system": str | list[dict[str, Any]] | None | UnsetType, "tools": list[dict[str, Any]] | UnsetType}, _from_claude,
    tell=_is_claude, free_form=True,
)  # fmt: skip
