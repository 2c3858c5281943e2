"""Every feature of a record in every format: carried exactly, or reported."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec import UNSET
from tests.unit.data.test_formats import READ_AS, decode, meant

from cloudtune.data.checks.record_checks import faults_of
from cloudtune.data.records import (
    Chat,
    Function,
    ImagePart,
    ImageUrl,
    Item,
    Message,
    Preference,
    Rated,
    TextPart,
    Tool,
    ToolCall,
    VideoPart,
    VideoUrl,
    canonical,
)
from cloudtune.data.write.dropped_features import FEATURES, features, without
from cloudtune.data.write.formats import LossError
from cloudtune.data.write.formats_table import find_format, format_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.records import Record

FORMATS = {name: find_format(name) for name in format_names()}
U, A = Message("user", "Q"), Message("assistant", "A")
OWNER = "1" * 12
IMAGE, VIDEO = ImagePart(ImageUrl("s3://b/k.png")), VideoPart(VideoUrl("s3://b/k.mp4"))
CALL = Message("assistant", tool_calls=[ToolCall("c1", Function("f", '{"a":1}'))])
RESULT = Message("tool", "R", tool_call_id="c1")
TOOL = {"name": "f", "description": "d", "parameters": {"type": "object"}}

# What each feature looks like: the messages of a prompt, the answer to it, and what a record has beside them.
SAMPLES: dict[str, tuple[list[Message], list[Message], dict[str, Any]]] = {
    "system": ([Message("system", "S"), U], [A], {}),
    "turns": ([U, A, U], [Message("assistant", "B")], {}),
    "tools": ([U, CALL, RESULT], [A], {"tools": [Tool("function", TOOL)]}),
    "images": ([Message("user", [TextPart("Q"), IMAGE])], [A], {}),
    "videos": ([Message("user", [TextPart("Q"), VIDEO])], [A], {}),
    "bucket_owners": ([Message("user", [VideoPart(VideoUrl("s3://b/k", bucket_owner=OWNER, format="mkv"))])], [A], {}),
    "media_formats": ([Message("user", [ImagePart(ImageUrl("s3://b/k", bucket_owner=OWNER, format="gif"))])], [A], {}),
    "parts": ([Message("user", [TextPart("P"), TextPart("Q")])], [A], {}),
    "weights": ([U, Message("assistant", "-", weight=0), U], [Message("assistant", "A", weight=1)], {}),
    "thoughts": ([U], [Message("assistant", "A", reasoning_content="T")], {}),
    "names": ([Message("user", "Q", name="ana")], [A], {}),
    "fields": ([U], [], {"fields": {"reference_answer": "A", "level": {"n": None}}}),
    "unanswered": ([U], [], {}),
    "tool_settings": ([U, CALL, RESULT], [A], {"tools": [Tool("function", {**TOOL, "strict": True})]}),
    "parallel_tool_calls": (
        [U, CALL, RESULT], [A], {"tools": [Tool("function", TOOL)], "parallel_tool_calls": False},
    ),
    "tool_errors": (
        [U, CALL, msgspec.structs.replace(RESULT, is_error=True)], [A], {"tools": [Tool("function", TOOL)]},
    ),
    "tool_images": (
        [U, CALL, msgspec.structs.replace(RESULT, content=[IMAGE])], [A], {"tools": [Tool("function", TOOL)]},
    ),
    "image_details": ([Message("user", [ImagePart(ImageUrl("s3://b/k.png", detail="low"))])], [A], {}),
    "later_system": ([U, A, Message("system", "S"), U], [A], {}),
    "repeated_roles": ([U, Message("user", "R")], [A], {}),
}  # fmt: skip


REFUSED = re.compile(r"[a-z_.\[\]0-9]+: \S")
"""A message that names the field that cannot be written."""


def records_of(feature: str) -> Iterator[tuple[str, Record]]:
    """The records of every kind that can have the feature."""
    requested, answer, beside = SAMPLES[feature]
    if feature == "fields":
        yield "item", Item(requested, **beside)
        return
    yield "chat", Chat([*requested, *answer], **beside)
    if feature == "unanswered":
        return
    yield "preference", Preference(requested, answer, [Message("assistant", "B-")], **beside)
    yield "rated", Rated(requested, answer, label=True, **beside)
    if feature not in {"thoughts", "tools", "tool_settings", "parallel_tool_calls", "tool_errors", "tool_images"}:
        yield "item", Item(requested, {"reference_answer": "A"})


def test_every_feature_has_a_sample() -> None:
    assert SAMPLES.keys() == FEATURES.keys()
    for name in SAMPLES:
        for _, record in records_of(name):
            assert name in features(record)


def test_every_field_of_a_record_is_a_feature() -> None:
    """A field that no sample sets could be dropped without notice."""
    plain = {Message: {"role", "content"}, Chat: {"messages"}, TextPart: {"text"}, Function: {"name", "arguments"},
             Preference: {"messages", "chosen", "rejected"}, Rated: {"messages", "completion", "label"},
             Item: {"messages"}, ImageUrl: {"url"}, VideoUrl: {"url"}, ToolCall: {"id", "function", "type"},
             ImagePart: {"image_url"}, VideoPart: {"video_url"}, Tool: {"type", "function"}}  # fmt: skip
    set_by_samples: dict[type, set[str]] = {struct: set() for struct in plain}

    def look(value: Any) -> None:
        if isinstance(value, list):
            for one in value:
                look(one)
        elif isinstance(value, msgspec.Struct):
            for field in value.__struct_fields__:
                if (one := getattr(value, field)) not in (UNSET, None, {}):
                    set_by_samples[type(value)].add(field)
                    look(one)

    for feature in SAMPLES:
        for _, record in records_of(feature):
            look(record)
    for struct, fields in set_by_samples.items():
        assert fields == {*struct.__struct_fields__}, struct


@pytest.mark.parametrize("feature", SAMPLES)
def test_a_feature_is_carried_or_reported(feature: str) -> None:
    for kind, record in records_of(feature):
        for name, form in FORMATS.items():
            if not form.kinds or kind in form.kinds:
                compare(name, record)


def compare(name: str, record: Record) -> None:
    """The record comes back as it was from the format, or what it loses is named."""
    form = FORMATS[name]
    lost = features(record) - form.carries
    line = canonical(record)
    if lost:
        with pytest.raises(LossError) as caught:
            form.line(record, line)
        assert caught.value.lost == lost, name
        allowed_loss(name, record, lost)
        return
    try:
        written = form.line(record, line)
    except ValueError as error:  # the format has it, but not this very value
        assert REFUSED.match(str(error)), (name, error)  # noqa: PT017
        return
    (back,) = decode(written, READ_AS[name])
    if name == "sagemaker-rlvr":  # it has its own keys for the reference
        assert isinstance(back, Item)
        assert isinstance(record, Item)
        back.fields = record.fields
    assert meant(back) == record, name


def allowed_loss(name: str, record: Record, lost: set[str]) -> None:
    """Without the feature, nothing else changes, or the row is refused."""
    try:
        plain = without(record, lost)
    except ValueError as error:
        assert REFUSED.match(str(error)), (name, error)  # noqa: PT017
        return
    assert not features(plain) & lost
    assert not faults_of(plain, method="sft")
    assert FORMATS[name].line(record, canonical(record), frozenset(lost)) == FORMATS[name].line(plain, canonical(plain))


def test_what_is_not_learned_does_not_become_the_target() -> None:
    chat = Chat([U, Message("assistant", "good"), U, Message("assistant", "bad", weight=0)])
    for name in ("alpaca", "prompt-completion", "pair", "jumpstart-chat", "bedrock-converse", "claude"):
        written = FORMATS[name].line(chat, canonical(chat), frozenset({"weights", "turns"}))
        assert b"good" in written
        assert b"bad" not in written
    with pytest.raises(ValueError, match="learned"):
        without(Chat([U, Message("assistant", "bad", weight=0)]), {"weights"})


@pytest.mark.parametrize(("lost", "kept"), [("images", VideoPart), ("videos", ImagePart)])
def test_only_the_dropped_media_are_removed(lost: str, kept: type) -> None:
    parts = [TextPart("Q"), ImagePart(ImageUrl("https://x/a.png")), VideoPart(VideoUrl("s3://b/a.mp4"))]
    content = without(Chat([Message("user", parts), A]), {lost}).messages[0].content
    assert [type(part) for part in content] == [TextPart, kept]


def test_results_and_words_after_them_are_one_turn_for_claude() -> None:
    chat = Chat([U, CALL, RESULT, Message("user", "go on"), A], tools=[Tool("function", TOOL)])
    written = msgspec.json.decode(FORMATS["claude"].line(chat, canonical(chat)))
    assert [turn["role"] for turn in written["messages"]] == ["user", "assistant", "user", "assistant"]
    assert [block["type"] for block in written["messages"][2]["content"]] == ["tool_result", "text"]
    assert decode([written], "claude") == [chat]
