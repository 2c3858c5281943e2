"""Rows of the Converse API, on which Amazon's Nova and Meta's Llama models are trained: conversations and pairs.

Bedrock and SageMaker use them. docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html and
docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html, seen 2026-11-21.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msgspec import UNSET, UnsetType

from cloudtune.data.conversation_rules import not_alternating, turns_of
from cloudtune.data.read.dialects import typed
from cloudtune.data.read.kinds import Kind
from cloudtune.data.read.kinds_chat import Foreign, blocks_of, one_text, opened, spoken
from cloudtune.data.records import (
    Chat,
    Function,
    ImagePart,
    ImageUrl,
    Message,
    Preference,
    TextPart,
    Tool,
    ToolCall,
    VideoPart,
    VideoUrl,
    compact,
)
from cloudtune.data.row_rules import RowRule, Source
from cloudtune.data.write.formats import Format
from cloudtune.data.write.row_template import Weave
from cloudtune.data.write.turns import TALK, Json, split_system

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.data.records import Part, Record
    from cloudtune.data.row_rules import Finding

# -- reading


_SUFFIXES = {"jpg": "jpeg", "3gp": "three_gp"}
"""Extensions that differ from the API's name of the format."""


def _format_of(url: str) -> str:
    """The format, from the extension of a URL."""
    suffix = url.rpartition("/")[2].rpartition(".")[2].lower()
    return _SUFFIXES.get(suffix, suffix)


def format_of(at: ImageUrl | VideoUrl) -> str:
    """The format of an image or a video."""
    return _format_of(at.url) if at.format is UNSET else at.format


class ConverseText(Foreign):
    """``{"text": "..."}``."""

    text: str


class Converse(Foreign):
    """One turn; each block of its content holds one of these keys."""

    role: Literal["user", "assistant"]
    content: list[dict[str, Any]]


def _converse_messages(turn: Converse, place: str) -> list[Message]:
    """The messages of one Converse turn. Each tool result becomes a separate message."""
    parts: list[Part] = []
    calls: list[ToolCall] = []
    results: list[Message] = []
    thought: list[str] = []
    for i, block in enumerate(turn.content):
        where = f"{place}.content[{i}]"
        key, value = next(iter(block.items()), ("", None))
        if (part := _said(block, where)) is not None:
            parts.append(part)
        elif key == "toolUse" and len(block) == 1:
            use = typed(value, _ToolUse, where)
            calls.append(ToolCall(use.toolUseId, Function(use.name, compact(use.input))))
        elif key == "toolResult" and len(block) == 1:
            results.append(_result(typed(value, _ToolResult, where), where))
        elif key == "reasoningContent" and len(block) == 1 and (words := _path(value, "reasoningText", "text")):
            thought.append(words)
        else:
            raise ValueError(f"{where}: a content block with {', '.join(block) or 'no key'} cannot be used")
    return results + spoken(turn.role, parts, calls, thought, results)


def _said(block: dict[str, Any], where: str) -> Part | None:
    """The block's text, image or video; None for another block."""
    key, value = next(iter(block.items()), ("", None))
    if key == "text" and isinstance(value, str) and len(block) == 1:
        return TextPart(value)
    if key in ("image", "video") and len(block) == 1:
        return _medium(key, value, f"{where}.{key}")
    return None


class _ToolUse(Foreign):
    toolUseId: str  # noqa: N815 - the vendor's key
    name: str
    input: Any


class _ToolResult(Foreign):
    toolUseId: str  # noqa: N815 - the vendor's key
    content: list[dict[str, Any]]
    status: Literal["success", "error"] | UnsetType = UNSET


def _result(result: _ToolResult, where: str) -> Message:
    """A tool's result: texts, JSON values, images and videos."""
    parts: list[Part] = []
    for i, block in enumerate(result.content):
        said = TextPart(compact(block["json"])) if block.keys() == {"json"} else _said(block, f"{where}.content[{i}]")
        if said is None:
            raise ValueError(f"{where}.content[{i}]: a result with {', '.join(block) or 'no key'} cannot be used")
        parts.append(said)
    error: Any = True if result.status == "error" else UNSET
    return Message("tool", one_text(parts), tool_call_id=result.toolUseId, is_error=error)


def _medium(key: str, value: Any, where: str) -> Part:
    """An image or a video, on S3 or in the row itself."""
    url, said = _path(value, "source", "s3Location", "uri"), _path(value, "format")
    if url is None and (content := _path(value, "source", "bytes")) is not None:
        url = f"data:{key}/{said};base64,{content}"
        said = None
    if url is None:
        raise ValueError(f"{where}: expected source.s3Location.uri or source.bytes")
    owner = _path(value, "source", "s3Location", "bucketOwner") or UNSET
    form = said if said is not None and said != _format_of(url) else UNSET
    if key == "video":
        return VideoPart(VideoUrl(url, bucket_owner=owner, format=form))
    return ImagePart(ImageUrl(url, bucket_owner=owner, format=form))


def _path(value: Any, *keys: str) -> str | None:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def _from_converse(row: Any) -> Chat:
    messages = [
        message for i, turn in enumerate(row.messages) for message in _converse_messages(turn, f"messages[{i}]")
    ]
    system = "\n".join(part.text for part in row.system) if row.system is not UNSET else ""
    config = {} if row.toolConfig is UNSET else row.toolConfig
    if unknown := sorted(config.keys() - {"tools", "toolChoice"}):
        raise ValueError(f"toolConfig.{unknown[0]}: unknown key {unknown[0]!r}")
    tools = [
        _converse_tool(tool, f"toolConfig.tools[{i}]")
        for i, tool in enumerate(typed(config.get("tools", []), list[Any], "toolConfig.tools"))
    ]
    return Chat(opened(system, messages), tools or UNSET)


def _converse_tool(tool: Any, where: str) -> Tool:
    """A tool in OpenAI's format, from Converse's format."""
    spec = tool.get("toolSpec") if isinstance(tool, dict) else None
    schema = spec.get("inputSchema") if isinstance(spec, dict) else None
    parameters = schema.get("json") if isinstance(schema, dict) else None
    if spec is None or not isinstance(spec.get("name"), str) or not isinstance(parameters, dict):
        raise ValueError(f'{where}: a tool must be {{"toolSpec": {{"name": ..., "inputSchema": {{"json": ...}}}}}}')
    function = {key: spec[key] for key in ("name", "description") if key in spec}
    return Tool("function", {**function, "parameters": parameters})


class Candidate(Foreign):
    """One of the answers of a Nova preference row."""

    content: list[dict[str, Any]]
    preferenceLabel: Literal["preferred", "non-preferred"]  # noqa: N815 - the vendor's key


class NovaTurn(Foreign):
    """A turn of a Nova preference row; the last one has candidates."""

    role: Literal["user", "assistant"]
    content: list[dict[str, Any]] | UnsetType = UNSET
    candidates: list[Candidate] | UnsetType = UNSET


def _from_nova_preference(row: Any) -> Preference:
    if not row.messages:
        raise ValueError("messages: there are no messages")
    *before, last = row.messages
    by_label = {one.preferenceLabel: one.content for one in last.candidates or ()}
    if len(by_label) != 2 or len(last.candidates) != 2:
        raise ValueError("messages: the last turn needs two candidates, one preferred and one non-preferred")
    prompt_messages = [
        message for i, turn in enumerate(before)
        for message in _converse_messages(Converse(turn.role, turn.content or []), f"messages[{i}]")
    ]  # fmt: skip
    system = "\n".join(part.text for part in row.system) if row.system is not UNSET else ""
    better, worse = (
        _converse_messages(Converse("assistant", by_label[label]), f"messages[{len(before)}].candidates")
        for label in ("preferred", "non-preferred")
    )
    return Preference(opened(system, prompt_messages), better, worse)


def _has_candidates(row: Mapping[str, Any]) -> bool:
    last = row["messages"][-1] if isinstance(row["messages"], list) and row["messages"] else None
    return isinstance(last, dict) and "candidates" in last


def _is_converse(row: Mapping[str, Any]) -> bool:
    """Converse's blocks have no ``type``."""
    return "schemaVersion" in row or any(isinstance(block, dict) and "type" not in block for block in blocks_of(row))


# -- writing


def _blocks(message: Message) -> list[Json]:
    """Bedrock's content: reasoning, text, and images and videos on S3."""
    blocks: list[Json] = []
    if message.reasoning_content is not UNSET:
        blocks.append({"reasoningContent": {"reasoningText": {"text": message.reasoning_content}}})
    if not isinstance(message.content, list):
        return [*blocks, {"text": message.content}]
    for part in message.content:
        if isinstance(part, TextPart):
            blocks.append({"text": part.text})
        elif isinstance(part, ImagePart):
            blocks.append({"image": _on_s3(part.image_url)})
        else:
            blocks.append({"video": _on_s3(part.video_url)})
    return blocks


# docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html, seen 2026-11-21. Converse itself
# accepts more video formats; tuning does not.
IMAGES, VIDEOS = ("png", "jpeg", "gif", "webp"), ("mov", "mkv", "mp4", "webm")


def _on_s3(at: ImageUrl | VideoUrl) -> Json:
    place = {"uri": at.url} if at.bucket_owner is UNSET else {"uri": at.url, "bucketOwner": at.bucket_owner}
    return {"format": format_of(at), "source": {"s3Location": place}}


def _converse(system: str, turns: list[Json]) -> Json:
    row: Json = {"schemaVersion": "bedrock-conversation-2024"}
    if system:
        row["system"] = [{"text": system}]
    return {**row, "messages": turns}


def _to_converse(chat: Chat) -> Json:
    system, messages = split_system(chat.messages)
    return _converse(system, [{"role": message.role, "content": _blocks(message)} for message in messages])


def _to_nova_preference(row: Preference) -> Json:
    if len(row.chosen) != 1 or len(row.rejected) != 1:
        raise ValueError("chosen: Nova accepts one turn per answer")
    system, messages = split_system(row.messages)
    turns: list[Json] = [{"role": message.role, "content": _blocks(message)} for message in messages]
    candidates = [
        {"content": _blocks(row.chosen[0]), "preferenceLabel": "preferred"},
        {"content": _blocks(row.rejected[0]), "preferenceLabel": "non-preferred"},
    ]
    return _converse(system, [*turns, {"role": "assistant", "candidates": candidates}])


_HEAD = b'{"schemaVersion":"bedrock-conversation-2024",'
_ASKS, _SAYS = (b'{"role":"%s","content":[{"text":' % role for role in (b"user", b"assistant"))
_WEAVE = Weave(
    _HEAD + b'"system":[{"text":', _HEAD + b'"messages":[' + _ASKS, b'}],"messages":[' + _ASKS, b"}]}," + _ASKS,
    b"}]}," + _SAYS, b"}]}]}\n",
)  # fmt: skip
_GUIDE = Source("https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html", "2026-11-21")


class Media(NamedTuple):
    """An image or a video of a row."""

    field: str
    role: str
    kind: Literal["image", "video"]
    at: ImageUrl | VideoUrl


def media_of(record: Record) -> Iterator[Media]:
    """Return each image and video of a row."""
    for field, message in turns_of(record):
        for i, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if isinstance(part, ImagePart):
                yield Media(f"{field}.content[{i}]", message.role, "image", part.image_url)
            elif isinstance(part, VideoPart):
                yield Media(f"{field}.content[{i}]", message.role, "video", part.video_url)


def _media_roles(record: Record) -> Iterator[Finding]:
    for media in media_of(record):
        if media.role != "user":
            yield media.field, f"the turn of {media.role} has an image or video"


def _media_addresses(record: Record) -> Iterator[Finding]:
    for field, _, kind, at in media_of(record):
        known = IMAGES if kind == "image" else VIDEOS
        if not re.match(r"s3://[^/]+/.", at.url):
            yield field, f"{at.url[:60]!r} is not an address on S3"
        elif format_of(at) not in known:
            yield field, f"the format of the {kind} {at.url[-60:]!r} is not one of {', '.join(known)}"


RULES = (
    RowRule(
        "role_order", "Turns of user and assistant alternate, after at most one system prompt; the user is first.",
        _GUIDE,
        '[{"role": "user", ...}, {"role": "user", ...}]', "join the turns, or add the one that is missing",
        not_alternating,
    ),
    RowRule(
        "media_role", "Only user turns have images and videos.", _GUIDE,
        '{"role": "assistant", "content": [{"image": ...}]}', "move it into a user turn", _media_roles,
    ),
    RowRule(
        "media_address", f"Images are {', '.join(IMAGES)} files and videos {', '.join(VIDEOS)} files, on S3.", _GUIDE,
        '{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}',
        "upload the file to S3 and use s3://bucket/name.png", _media_addresses,
    ),
)  # fmt: skip
_CARRIED = TALK | {"images", "videos", "parts", "bucket_owners", "media_formats"}
CONVERSE = Format(
    "bedrock-converse", "Bedrock's conversations (Nova 1, Llama 3.2 and 3.3)", frozenset({"chat"}),
    _CARRIED | {"unanswered"}, _to_converse, weave=_WEAVE, own="converse", rules=RULES,
)  # fmt: skip
NOVA_2 = CONVERSE._replace(
    name="bedrock-nova-2", summary="Bedrock's conversations with reasoning (Nova 2)",
    carries=CONVERSE.carries | {"thoughts"},
)  # fmt: skip
NOVA_PREFERENCE = Format(
    "nova-preference", "Nova's pairs of candidates", frozenset({"preference"}), _CARRIED, _to_nova_preference,
    own="nova_preference", rules=RULES,
)  # fmt: skip

_SYSTEM = {"schemaVersion": Any, "system": list[ConverseText] | UnsetType}
NOVA_PREFERENCE_ROWS = Kind(
    "nova_preference",
    {"messages": list[NovaTurn]},
    _SYSTEM,
    _from_nova_preference,
    tell=_has_candidates,
    makes=Preference,
    free_form=True,
)
CONVERSE_ROWS = Kind(
    "converse", {"messages": list[Converse]}, _SYSTEM | {"toolConfig": dict[str, Any] | UnsetType}, _from_converse,
    tell=_is_converse, free_form=True,
)  # fmt: skip
