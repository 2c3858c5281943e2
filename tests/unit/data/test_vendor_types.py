"""What is written, held against the vendors' own types where their packages bring them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from tests.property_tests import examples
from tests.unit.data.test_formats import EXAMPLES, RECORDS, TOOL, chats, decode

from cloudtune.data.records import (
    Chat,
    ImagePart,
    ImageUrl,
    Item,
    Message,
    Preference,
    TextPart,
    Tool,
    VideoPart,
    VideoUrl,
    canonical,
)
from cloudtune.data.write.dropped_features import features
from cloudtune.data.write.formats import LossError
from cloudtune.data.write.formats_table import find_format, format_names

TOOLS = [Tool("function", TOOL["function"])]
FORMATS = {name: find_format(name) for name in format_names()}

SETTINGS = settings(max_examples=examples(12), deadline=None)


def written(name: str, record: Chat) -> dict[str, Any]:
    form = FORMATS[name]
    lost = frozenset(features(record) - form.carries)
    return json.loads(form.line(record, canonical(record), lost))  # type: ignore[no-any-return]


@SETTINGS
@given(record=chats())
def test_openai_rows_are_messages_of_its_own_types(record: Chat) -> None:
    types = pytest.importorskip("openai.types.chat")
    from pydantic import TypeAdapter

    row = written("openai", record)
    messages = TypeAdapter(list[types.ChatCompletionMessageParam])
    dumped = messages.dump_python(messages.validate_python(row["messages"]))  # dumping reads the lazy parts too
    weights = [message.pop("weight", None) for message in row["messages"]]  # fine-tuning's own key
    assert set(weights) <= {None, 0, 1}
    assert json.loads(json.dumps(dumped, default=list)) == row["messages"]
    tools = TypeAdapter(list[types.ChatCompletionToolParam])
    tools.dump_python(tools.validate_python(row.get("tools", [])))


@SETTINGS
@given(record=chats())
def test_bedrock_rows_are_requests_of_its_converse_api(record: Chat) -> None:
    session = pytest.importorskip("botocore.session").get_session()
    from botocore.validate import ParamValidator

    if "images" in features(record) or "videos" in features(record):
        with contextlib.suppress(ValueError):  # such that lie elsewhere than on S3, or beside each other
            assert not [f for m in written("bedrock-converse", record)["messages"] if (f := blocks_fault(m["content"]))]
        return
    row = written("bedrock-converse", record)
    assert row.pop("schemaVersion") == "bedrock-conversation-2024"
    shape = session.get_service_model("bedrock-runtime").operation_model("Converse").input_shape
    report = ParamValidator().validate({"modelId": "m", **row}, shape)
    assert not report.has_errors(), report.generate_report()
    assert set(row) <= {"messages", "system"}


@SETTINGS
@given(record=RECORDS["preference"], tools=st.booleans())
def test_openai_preference_rows_are_messages_of_its_own_types(record: Preference, tools: bool) -> None:
    types = pytest.importorskip("openai.types.chat")
    from pydantic import TypeAdapter

    record = Preference(record.messages, record.chosen, record.rejected, TOOLS if tools else UNSET, tools or UNSET)
    row = json.loads(FORMATS["openai-preference"].line(record, canonical(record)))
    assert set(row) == {"input", "preferred_output", "non_preferred_output"}
    assert set(row["input"]) == ({"messages", "tools", "parallel_tool_calls"} if tools else {"messages"})
    messages = TypeAdapter(list[types.ChatCompletionMessageParam])
    for turns in (row["input"]["messages"], row["preferred_output"], row["non_preferred_output"]):
        assert messages.dump_python(messages.validate_python(turns)) == turns


@SETTINGS
@given(record=RECORDS["item"])
def test_openai_items_are_messages_of_its_own_types(record: Item) -> None:
    types = pytest.importorskip("openai.types.chat")
    from pydantic import TypeAdapter

    row = json.loads(FORMATS["openai-rft"].line(record, canonical(record)))
    messages = TypeAdapter(list[types.ChatCompletionMessageParam])
    assert messages.dump_python(messages.validate_python(row["messages"])) == row["messages"]
    assert row["messages"][-1]["role"] == "user"


def blocks_fault(blocks: list[dict[str, Any]]) -> str:
    """What botocore has against blocks of a message's content."""
    session = pytest.importorskip("botocore.session").get_session()
    from botocore.validate import ParamValidator

    shape = session.get_service_model("bedrock-runtime").shape_for("ContentBlocks")
    return ParamValidator().validate(blocks, shape).generate_report()  # type: ignore[no-any-return]


@SETTINGS
@given(record=RECORDS["preference"])
def test_novas_candidates_are_contents_of_bedrocks_converse_api(record: Preference) -> None:
    row = json.loads(FORMATS["nova-preference"].line(record, canonical(record)))
    *before, last = row["messages"]
    assert [one["preferenceLabel"] for one in last["candidates"]] == ["preferred", "non-preferred"]
    for turn in (*before, *last["candidates"]):
        assert not blocks_fault(turn["content"])
    assert blocks_fault([{"words": "a"}])


def test_bedrocks_images_are_contents_of_its_converse_api() -> None:
    for owner in (UNSET, "111122223333"):
        image = ImagePart(ImageUrl("s3://b/k.png", bucket_owner=owner))
        record = Chat([Message("user", [TextPart("what?"), image]), Message("assistant", "a cat")])
        row = json.loads(FORMATS["bedrock-converse"].line(record, canonical(record)))
        assert not blocks_fault(row["messages"][0]["content"])
        with pytest.raises(LossError) if owner else contextlib.nullcontext():
            FORMATS["openai"].line(record, canonical(record))
    assert "bucket_owner" not in json.dumps(written("openai", record))


def test_openais_preference_row_has_messages_of_its_own_types() -> None:
    types = pytest.importorskip("openai.types.chat")
    from pydantic import TypeAdapter

    row = next(row for row, name, _ in EXAMPLES if name == "openai-preference")
    (record,) = decode([row])
    made = json.loads(FORMATS["openai-preference"].line(record, canonical(record)))
    messages = TypeAdapter(list[types.ChatCompletionMessageParam])
    for turns in (made["input"]["messages"], made["preferred_output"], made["non_preferred_output"]):
        assert messages.dump_python(messages.validate_python(turns)) == turns


def test_bedrocks_videos_are_contents_of_its_converse_api() -> None:
    for address, form in (("s3://b/k.mp4", "mp4"), ("s3://b/k.MOV", "mov"), ("s3://b/clip", "webm")):
        reported = UNSET if "." in address else form
        video = VideoPart(VideoUrl(address, bucket_owner="111122223333", format=reported))
        record = Chat([Message("user", [TextPart("what?"), video]), Message("assistant", "a cat")])
        row = json.loads(FORMATS["bedrock-converse"].line(record, canonical(record)))
        blocks = row["messages"][0]["content"]
        place = {"uri": address, "bucketOwner": "111122223333"}
        assert blocks[1] == {"video": {"format": form, "source": {"s3Location": place}}}
        assert not blocks_fault(blocks)
        assert decode([row]) == [record]
        for name, other in FORMATS.items():  # nobody else carries one, and each says so
            if "chat" in other.kinds and name not in ("bedrock-converse", "bedrock-nova-2"):
                with pytest.raises(LossError) as lost:
                    other.line(record, canonical(record))
                assert {"videos", "bucket_owners"} <= lost.value.lost, name


def test_converse_knows_every_sort_of_image_and_video_that_tuning_takes() -> None:
    model = pytest.importorskip("botocore.session").get_session().get_service_model("bedrock-runtime")
    from cloudtune_providers.aws.converse import IMAGES, VIDEOS

    assert set(IMAGES) == set(model.shape_for("ImageFormat").enum)
    assert set(VIDEOS) < set(model.shape_for("VideoFormat").enum)
