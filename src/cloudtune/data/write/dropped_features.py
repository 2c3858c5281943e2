"""Features of records beyond plain questions and answers, and their removal.

A format lists the features that it supports. Others would be lost: they are counted in each row, and dropped only with
the user's permission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from cloudtune.data.records import Chat, ImagePart, Item, Message, Preference, Rated, Record, TextPart, VideoPart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.data.records import ImageUrl, Part, VideoUrl

FEATURES: dict[str, str] = {
    "system": "system messages",
    "turns": "multiple turns",
    "tools": "tools, tool calls and their results",
    "images": "images in messages",
    "videos": "videos in messages",
    "bucket_owners": "the bucket owners of images and videos",
    "media_formats": "image and video formats that their addresses do not show",
    "parts": "several text parts in one message",
    "weights": "weights of assistant messages",
    "thoughts": "reasoning before the answer",
    "names": "participant names",
    "fields": "reference data for the grader",
    "tool_settings": "settings of tools other than name, description and parameters",
    "parallel_tool_calls": "whether several tools may be called at once",
    "tool_errors": "tool results marked as errors",
    "tool_images": "images or videos in tool results",
    "image_details": "the detail level of images",
    "later_system": "system messages after the first message",
    "repeated_roles": "consecutive messages with the same role",
    "unanswered": "no answer (the teacher model answers them)",
}
ALL = frozenset(FEATURES)
_AnyRecord = TypeVar("_AnyRecord", bound=Record)


def features(record: Record) -> set[str]:
    """Which features the record has."""
    if isinstance(record, Chat):
        found = _of_messages(record.messages)
        many = _questions(record.messages) > 1
        if record.messages and record.messages[-1].role != "assistant":
            found.add("unanswered")
    elif isinstance(record, Preference):
        found = _of_messages(record.messages) | _of_messages(record.chosen) | _of_messages(record.rejected)
        many = _questions(record.messages) > 1 or _questions(record.chosen) + _questions(record.rejected) > 0
    elif isinstance(record, Rated):
        found = _of_messages(record.messages) | _of_messages(record.completion)
        many = _questions(record.messages) > 1 or _questions(record.completion) > 0
    elif isinstance(record, Item):
        found = _of_messages(record.messages)
        many = _questions(record.messages) > 1
        if record.fields:
            found.add("fields")
        if "tools" in record.fields:
            found.add("tools")
    else:
        return set()
    if many:
        found.add("turns")
    if (tools := getattr(record, "tools", UNSET)) is not UNSET:
        found.add("tools")
        if any(tool.function.keys() - _TOOL_KEYS for tool in tools):
            found.add("tool_settings")
    if getattr(record, "parallel_tool_calls", UNSET) is not UNSET:
        found.add("parallel_tool_calls")
    return found


def _questions(messages: list[Message]) -> int:
    return sum([message.role == "user" for message in messages])


def _of_messages(messages: list[Message]) -> set[str]:
    found: set[str] = set()
    before = ""
    for i, message in enumerate(messages):
        if message.role == "system":
            found.add("later_system" if i else "system")
        if message.role == before != "tool":
            found.add("repeated_roles")
        before = message.role
        if message.is_error is not UNSET:
            found.add("tool_errors")
        if message.role == "tool" or message.tool_calls or message.tool_call_id:
            found.add("tools")
        if message.weight is not UNSET:
            found.add("weights")
        if message.reasoning_content is not UNSET:
            found.add("thoughts")
        if message.name is not UNSET:
            found.add("names")
        if type(message.content) is list:
            of_parts = _of_parts(message.content)
            found |= of_parts
            if message.role == "tool" and of_parts & {"images", "videos"}:
                found.add("tool_images")
    return found


def _of_parts(parts: list[Part]) -> set[str]:
    found: set[str] = set()
    words = 0
    for part in parts:
        if isinstance(part, TextPart):
            words += 1
            continue
        found.add("images" if isinstance(part, ImagePart) else "videos")
        found |= {feature for feature, field in _ADDRESS.items() if getattr(_address(part), field, UNSET) is not UNSET}
    return found | {"parts"} if words > 1 else found


_TOOL_KEYS = frozenset({"name", "description", "parameters"})


def without(record: _AnyRecord, lost: set[str] | frozenset[str]) -> _AnyRecord:
    """The record without those features. Raises ValueError if nothing to train on is left."""
    changes: dict[str, object] = {}
    for name in ("messages", "chosen", "rejected", "completion"):
        if name in record.__struct_fields__:
            messages = getattr(record, name)
            learnt = name != "messages" or (isinstance(record, Chat) and _is_answered(messages))
            if learnt and "weights" in lost:
                messages = _up_to_the_target(messages, name)
            kept = _kept(messages, lost)
            if "turns" in lost:
                kept = _last_turns(kept)
            if not kept or "unanswered" in lost or (learnt and kept[-1].role != "assistant"):
                raise ValueError(f"{name}: no training content is left without {', '.join(sorted(lost))}")
            changes[name] = kept
    if "tools" in lost and "tools" in record.__struct_fields__:
        changes["tools"] = UNSET
    elif "tool_settings" in lost:
        changes["tools"] = [
            replace(tool, function={key: value for key, value in tool.function.items() if key in _TOOL_KEYS})
            for tool in record.tools  # type: ignore[attr-defined]
        ]
    if "parallel_tool_calls" in lost:
        changes["parallel_tool_calls"] = UNSET
    if "fields" in lost and "fields" in record.__struct_fields__:
        changes["fields"] = {}
    plain = replace(record, **changes)
    if left := features(plain) & lost or features(plain) - features(record):
        raise ValueError(f"messages: {', '.join(sorted(left))} cannot be taken out of this row")
    return plain


def _is_answered(messages: list[Message]) -> bool:
    return bool(messages) and messages[-1].role == "assistant"


def _up_to_the_target(messages: list[Message], name: str) -> list[Message]:
    """The messages up to the last trained one: without weights, the last one is the target."""
    last = max((i for i, one in enumerate(messages) if one.role == "assistant" and one.weight != 0), default=-1)
    if last < 0:
        raise ValueError(f"{name}: no assistant message is learned")
    return messages[: last + 1]


def _kept(messages: Sequence[Message], lost: set[str] | frozenset[str]) -> list[Message]:
    kept: list[Message] = []
    for i, message in enumerate(messages):
        if message.role == "system" and ("later_system" if i else "system") in lost:
            continue
        if "tools" in lost:
            called = message.tool_calls and (not message.content or _role(messages, i + 1) == "tool")
            if message.role == "tool" or called:
                continue
        plain = _plainer(message, lost)
        if kept and kept[-1].role == plain.role and "repeated_roles" in lost:
            kept[-1] = _joined(kept[-1], plain)
        else:
            kept.append(plain)
    return kept


def _joined(one: Message, other: Message) -> Message:
    """Two messages of one role as one. Raises ValueError if they are more than texts."""
    if one != Message(one.role, one.text) or other != Message(other.role, other.text):
        raise ValueError(f"messages: consecutive {one.role} messages can only be joined if they are plain text")
    return Message(one.role, f"{one.text}\n\n{other.text}")


def _role(messages: Sequence[Message], i: int) -> str:
    return messages[i].role if i < len(messages) else ""


_FIELDS = {
    "weights": ("weight",), "thoughts": ("reasoning_content",), "names": ("name",),
    "tools": ("tool_calls", "tool_call_id"), "tool_errors": ("is_error",),
}  # fmt: skip


def _plainer(message: Message, lost: set[str] | frozenset[str]) -> Message:
    changes: dict[str, object] = {}
    for feature, fields in _FIELDS.items():
        if feature in lost:
            changes |= dict.fromkeys(fields, UNSET)
    if isinstance(message.content, list) and lost & _ADDRESS.keys():
        message = replace(message, content=[_shorter(part, lost) for part in message.content])
    gone = lost | {"images", "videos"} if message.role == "tool" and "tool_images" in lost else lost
    if isinstance(message.content, list) and gone & {"images", "videos", "parts"}:
        changes["content"] = _fewer_parts(message.content, gone)
    return replace(message, **changes) if changes else message


_ADDRESS = {"bucket_owners": "bucket_owner", "media_formats": "format", "image_details": "detail"}
"""Features that are fields of an image's or a video's URL."""


def _address(part: ImagePart | VideoPart) -> ImageUrl | VideoUrl:
    return part.image_url if isinstance(part, ImagePart) else part.video_url


def _shorter(part: Part, lost: set[str] | frozenset[str]) -> Part:
    if isinstance(part, TextPart):
        return part
    address = _address(part)
    gone = {_ADDRESS[name] for name in lost & _ADDRESS.keys()} & {*address.__struct_fields__}
    plain = replace(address, **dict.fromkeys(gone, UNSET))
    return replace(part, **{"image_url" if isinstance(part, ImagePart) else "video_url": plain})


def _last_turns(messages: list[Message]) -> list[Message]:
    """The system prompt, the last user turn and the turns after it."""
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=0)
    return [message for i, message in enumerate(messages) if message.role == "system" or i >= last]


def _fewer_parts(content: list[Part], lost: set[str] | frozenset[str]) -> str | list[Part]:
    words = [part.text for part in content if isinstance(part, TextPart)]
    if not words:
        raise ValueError("messages: a turn contains only images or videos")
    joined: list[Part] = [TextPart("\n".join(words))] if "parts" in lost else [TextPart(text) for text in words]
    gone = tuple(sort for name, sort in (("images", ImagePart), ("videos", VideoPart)) if name in lost)
    joined += [part for part in content if not isinstance(part, (TextPart, *gone))]
    return joined[0].text if len(joined) == 1 and isinstance(joined[0], TextPart) else joined
