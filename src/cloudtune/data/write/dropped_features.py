"""What a record holds beyond plain questions and answers, and how a record looks without it.

A format names the features that it carries. What a record has and the format does not carry would be lost: that is
counted row by row, and goes only with the user's leave.
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
    else:
        return set()
    if many:
        found.add("turns")
    if any(getattr(record, name, UNSET) is not UNSET for name in ("tools", "parallel_tool_calls")):
        found.add("tools")
    return found


def _questions(messages: list[Message]) -> int:
    return sum([message.role == "user" for message in messages])


def _of_messages(messages: list[Message]) -> set[str]:
    found: set[str] = set()
    for message in messages:
        if message.role == "system":
            found.add("system")
        if message.role == "tool" or message.tool_calls or message.tool_call_id:
            found.add("tools")
        if message.weight is not UNSET:
            found.add("weights")
        if message.reasoning_content is not UNSET:
            found.add("thoughts")
        if message.name is not UNSET:
            found.add("names")
        if type(message.content) is list:
            found |= _of_parts(message.content)
    return found


def _of_parts(parts: list[Part]) -> set[str]:
    found: set[str] = set()
    words = 0
    for part in parts:
        if isinstance(part, TextPart):
            words += 1
            continue
        found.add("images" if isinstance(part, ImagePart) else "videos")
        found |= {feature for feature, field in _ADDRESS.items() if getattr(_address(part), field) is not UNSET}
    return found | {"parts"} if words > 1 else found


def without(record: _AnyRecord, lost: set[str] | frozenset[str]) -> _AnyRecord:
    """The record without those features. Raises ValueError if nothing to learn would be left."""
    changes: dict[str, object] = {}
    for name in ("messages", "chosen", "rejected", "completion"):
        if name in record.__struct_fields__:
            kept = _kept(getattr(record, name), lost)
            if "turns" in lost:
                kept = _last_turns(kept)
            learnt = name != "messages" or (isinstance(record, Chat) and _is_answered(record.messages))
            if not kept or "unanswered" in lost or (learnt and kept[-1].role != "assistant"):
                raise ValueError(f"{name}: no training content is left without {', '.join(sorted(lost))}")
            changes[name] = kept
    for name in ("tools", "parallel_tool_calls"):
        if "tools" in lost and name in record.__struct_fields__:
            changes[name] = UNSET
    if "fields" in lost and "fields" in record.__struct_fields__:
        changes["fields"] = {}
    return replace(record, **changes)


def _is_answered(messages: list[Message]) -> bool:
    return bool(messages) and messages[-1].role == "assistant"


def _kept(messages: Sequence[Message], lost: set[str] | frozenset[str]) -> list[Message]:
    kept: list[Message] = []
    for i, message in enumerate(messages):
        if message.role == "system" and "system" in lost:
            continue
        if "tools" in lost:
            called = message.tool_calls and (not message.content or _role(messages, i + 1) == "tool")
            if message.role == "tool" or called:
                continue
        kept.append(_plainer(message, lost))
    return kept


def _role(messages: Sequence[Message], i: int) -> str:
    return messages[i].role if i < len(messages) else ""


_FIELDS = {
    "weights": ("weight",), "thoughts": ("reasoning_content",), "names": ("name",),
    "tools": ("tool_calls", "tool_call_id"),
}  # fmt: skip


def _plainer(message: Message, lost: set[str] | frozenset[str]) -> Message:
    changes: dict[str, object] = {}
    for feature, fields in _FIELDS.items():
        if feature in lost:
            changes |= dict.fromkeys(fields, UNSET)
    if isinstance(message.content, list) and lost & _ADDRESS.keys():
        message = replace(message, content=[_shorter(part, lost) for part in message.content])
    if isinstance(message.content, list) and lost & {"images", "videos", "parts"}:
        changes["content"] = _fewer_parts(message.content, lost)
    return replace(message, **changes) if changes else message


_ADDRESS = {"bucket_owners": "bucket_owner", "media_formats": "format"}
"""Features that are fields of an image's or a video's address."""


def _address(part: ImagePart | VideoPart) -> ImageUrl | VideoUrl:
    return part.image_url if isinstance(part, ImagePart) else part.video_url


def _shorter(part: Part, lost: set[str] | frozenset[str]) -> Part:
    if isinstance(part, TextPart):
        return part
    plain = replace(_address(part), **dict.fromkeys([_ADDRESS[name] for name in lost & _ADDRESS.keys()], UNSET))
    return replace(part, **{"image_url" if isinstance(part, ImagePart) else "video_url": plain})


def _last_turns(messages: list[Message]) -> list[Message]:
    """The system's words, the last question and what follows it."""
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
