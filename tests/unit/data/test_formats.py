"""Vendors' formats: read, written, and read again without loss wherever the loss report says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from tests.property_tests import examples

from cloudtune.data import _conversations, encode, prepare
from cloudtune.data.checks.record_checks import faults_of, is_plain
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.blocks import Block
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.kinds import row_type
from cloudtune.data.read.kinds_other import kind_named
from cloudtune.data.read.plain import PlainRows
from cloudtune.data.records import (
    Chat,
    Function,
    ImagePart,
    ImageUrl,
    Item,
    Message,
    Pair,
    Preference,
    Rated,
    Text,
    TextPart,
    Tool,
    ToolCall,
    VideoPart,
    VideoUrl,
    canonical,
    canonical_lines,
    kind_of,
)
from cloudtune.data.write.dropped_features import ALL, features, without
from cloudtune.data.write.formats import LossError
from cloudtune.data.write.formats_table import find_format, format_names
from cloudtune.errors import DataError
from cloudtune.spec import Data

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.data.records import Record

FORMATS = {name: find_format(name) for name in format_names()}

Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
S = {"role": "system", "content": "S"}
QB, AB = {"role": "user", "content": [{"text": "Q"}]}, {"role": "assistant", "content": [{"text": "A"}]}
IMAGE = {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k.png", "bucketOwner": "111122223333"}}}}
VIDEO = {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://b/k.mp4"}}}}
CLIP = {"video": {"format": "mkv", "source": {"s3Location": {"uri": "s3://b/clip", "bucketOwner": "111122223333"}}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
# A vendor's own example line, the format that writes it, and the canonical row that it stands for.
EXAMPLES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"messages": [S, Q, A]}, "openai", {"messages": [S, Q, A]}),
    ({"input": {"messages": [Q]}, "preferred_output": [A], "non_preferred_output": [Q | {"role": "assistant"}]},
     "openai-preference", {"messages": [Q], "chosen": [A], "rejected": [Q | {"role": "assistant"}]}),
    ({"messages": [Q], "answer": "x", "any": [1]}, "openai-rft",
     {"messages": [Q], "fields": {"answer": "x", "any": [1]}}),
    ({"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "S"}], "messages": [QB, AB]},
     "bedrock-converse", {"messages": [S, Q, A]}),
    ({"schemaVersion": "bedrock-conversation-2024", "messages": [
        {"role": "user", "content": [{"text": "Q"}, IMAGE]}, AB]}, "bedrock-converse",
     {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}, {
         "type": "image_url", "image_url": {"url": "s3://b/k.png", "bucket_owner": "111122223333"}}]}, A]}),
    ({"schemaVersion": "bedrock-conversation-2024", "messages": [
        {"role": "user", "content": [{"text": "Q"}, VIDEO]}, AB]}, "bedrock-converse",
     {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}, {
         "type": "video_url", "video_url": {"url": "s3://b/k.mp4"}}]}, A]}),
    ({"schemaVersion": "bedrock-conversation-2024", "messages": [{"role": "user", "content": [CLIP]}, AB]},
     "bedrock-converse", {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {
         "url": "s3://b/clip", "bucket_owner": "111122223333", "format": "mkv"}}]}, A]}),
    ({"schemaVersion": "bedrock-conversation-2024", "messages": [QB, {"role": "assistant", "content": [
        {"reasoningContent": {"reasoningText": {"text": "R"}}}, {"text": "A"}]}]}, "bedrock-nova-2",
     {"messages": [Q, {"role": "assistant", "content": "A", "reasoning_content": "R"}]}),
    ({"input": {"messages": [Q], "tools": [TOOL], "parallel_tool_calls": True}, "preferred_output": [A],
      "non_preferred_output": [A | {"content": "A-"}]}, "openai-preference",
     {"messages": [Q], "chosen": [A], "rejected": [A | {"content": "A-"}], "tools": [TOOL],
      "parallel_tool_calls": True}),
    ({"prompt": "Q", "completion": "A"}, "bedrock-prompt", {"messages": [Q, A]}),
    ({"system": "S", "messages": [Q, A]}, "claude", {"messages": [S, Q, A]}),
    ({"input": "free text"}, "bedrock-text", {"text": "free text"}),
    ({"messages": [Q], "reference_answer": {"n": 1}, "any_extra": 2}, "bedrock-rft",
     {"messages": [Q], "fields": {"reference_answer": {"n": 1}, "any_extra": 2}}),
    ({"messages": [S, Q, A]}, "sagemaker-messages", {"messages": [S, Q, A]}),
    ({"system": "S", "prompt": "Q", "completion": "A"}, "sagemaker-prompt", {"messages": [S, Q, A]}),
    ({"prompt": "Q", "chosen": "A+", "rejected": "A-"}, "sagemaker-preference",
     {"messages": [Q], "chosen": [A | {"content": "A+"}], "rejected": [A | {"content": "A-"}]}),
    ({"schemaVersion": "bedrock-conversation-2024", "messages": [QB, {"role": "assistant", "candidates": [
        {"content": [{"text": "A+"}], "preferenceLabel": "preferred"},
        {"content": [{"text": "A-"}], "preferenceLabel": "non-preferred"}]}]}, "nova-preference",
     {"messages": [Q], "chosen": [A | {"content": "A+"}], "rejected": [A | {"content": "A-"}]}),
    ({"data_source": "x", "ability": "math", "prompt": [Q], "reward_model": {"style": "rule", "ground_truth": "72"}},
     "sagemaker-rlvr", {"messages": [Q], "fields": {"reward_model": {"style": "rule", "ground_truth": "72"},
                                                    "data_source": "x", "ability": "math"}}),
    ({"dialog": [S, Q, A]}, "jumpstart-chat", {"messages": [S, Q, A]}),
    ({"instruction": "Q", "context": "", "response": "A"}, "jumpstart-instruction", {"messages": [Q, A]}),
    ({"instruction": "Q", "input": "", "output": "A"}, "alpaca", {"messages": [Q, A]}),
    ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, "sharegpt",
     {"messages": [Q, A]}),
    ({"prompt": "Q", "completion": "A", "label": False}, "kto",
     {"messages": [Q], "completion": [A], "label": False}),
]  # fmt: skip


def decode(rows: list[dict[str, Any]] | bytes, kind: str | None = None) -> list[Record]:
    data = rows if isinstance(rows, bytes) else b"\n".join(json.dumps(row).encode() for row in rows)
    faults = Faults()
    reader = FileRows("-", {}, row_type(kind_named(kind), {}) if kind else None, faults)
    found = reader.of_block(Block(data, 1)).records
    assert not faults.listed("error"), faults.listed("error")
    return found


@pytest.mark.parametrize(("row", "name", "expected"), EXAMPLES, ids=[name for _, name, _ in EXAMPLES])
def test_a_vendors_own_line_is_read_and_written(row: dict[str, Any], name: str, expected: dict[str, Any]) -> None:
    (record,) = decode([row])
    assert json.loads(canonical(record)) == expected
    assert not faults_of(record, method="sft")
    assert not features(record) - FORMATS[name].carries
    assert json.loads(FORMATS[name].line(record, canonical(record))) == row
    assert decode([expected]) == [record]  # the canonical row reads back as itself


# The kind to read each format as, where more than one kind could be meant.
READ_AS = {
    "cloudtune": None, "openai": "chat", "azure-openai": "chat", "openai-preference": "openai_preference",
    "openai-rft": "item", "bedrock-converse": "converse", "bedrock-nova-2": "converse",
    "bedrock-prompt": "prompt_completion", "bedrock-rft": "item",
    "bedrock-text": "input_text", "nova-preference": "nova_preference", "claude": "claude",
    "azure-openai-preference": "openai_preference", "azure-openai-rft": "item",
    "sagemaker-messages": "chat", "sagemaker-prompt": "prompt_completion", "sagemaker-preference": "preference",
    "sagemaker-rlvr": "reward", "jumpstart-chat": "dialog", "jumpstart-instruction": "instruction_response",
    "prompt-completion": "prompt_completion", "alpaca": "instruction", "sharegpt": "sharegpt",
    "preference": "preference", "kto": "rated", "pair": "pair",
}  # fmt: skip
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda text: not text.isspace())
owners = st.sampled_from(["111122223333", UNSET])
images = st.builds(ImageUrl, st.sampled_from(["https://x/y.jpg", "data:image/png;base64,AA=="])) | st.builds(
    ImageUrl, st.just("s3://b/k.png"), bucket_owner=owners, format=st.sampled_from(["gif", UNSET])
)
videos = st.builds(VideoUrl, st.sampled_from(["s3://b/k.mp4", "https://x/y.mov"]), bucket_owner=owners) | st.builds(
    VideoUrl, st.just("s3://b/k"), bucket_owner=owners, format=st.sampled_from(["webm", "mkv"])
)
media = st.builds(ImagePart, images) | st.builds(VideoPart, videos)
parts = st.lists(st.one_of(st.builds(TextPart, words), media), min_size=2, max_size=3).filter(
    lambda found: any(isinstance(part, TextPart) for part in found)
)
arguments = st.dictionaries(words, st.integers(), max_size=2).map(
    lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False)
)


@st.composite
def chats(draw: Any) -> Chat:
    messages = [Message("system", draw(words))] if draw(st.booleans()) else []
    rich = draw(st.booleans())
    called = False
    for i in range(draw(st.integers(1, 3))):
        messages.append(Message("user", draw(st.one_of(words, parts) if rich else words)))
        if rich and draw(st.booleans()):
            called = True
            call = ToolCall(f"call{i}", Function("f", draw(arguments)))
            messages.append(Message("assistant", draw(st.one_of(words, st.none())), tool_calls=[call]))
            messages.append(Message("tool", draw(words), tool_call_id=f"call{i}"))
        answer = Message("assistant", draw(words))
        if rich and draw(st.booleans()):
            answer.weight = 1
        if rich and draw(st.booleans()):
            answer.reasoning_content = draw(words)
        messages.append(answer)
    return Chat(messages, tools=[Tool("function", TOOL["function"])]) if called else Chat(messages)


def one(role: str) -> Any:
    return words.map(lambda text: [Message(role, text)])  # type: ignore[arg-type]


RECORDS: dict[str, Any] = {
    "chat": chats(),
    "text": st.builds(Text, words),
    "preference": st.builds(Preference, one("user"), one("assistant"), one("assistant")).filter(
        lambda p: p.chosen != p.rejected
    ),
    "rated": st.builds(Rated, one("user"), one("assistant"), st.booleans()),
    "pair": st.builds(Pair, words, words),
    "item": st.builds(Item, one("user"), st.fixed_dictionaries({"reference_answer": words})),
}


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=examples(15), deadline=None)
@given(data=st.data())
def test_what_the_loss_report_calls_lossless_comes_back_equal(name: str, data: Any) -> None:
    form = FORMATS[name]
    record = data.draw(RECORDS[data.draw(st.sampled_from(sorted(form.kinds or RECORDS)))])
    assert not faults_of(record, method="sft")
    line = canonical(record)
    lost = features(record) - form.carries
    if lost:
        with pytest.raises(LossError) as caught:
            form.line(record, line)
        assert caught.value.lost == lost
        if lost & {"images", "videos"}:
            return
        record = without(record, lost)
        assert not features(record) & lost
        assert not faults_of(record, method="sft")
    try:
        written = form.line(record, canonical(record))
    except ValueError as error:  # images and videos elsewhere than on S3, or too many of them: tested below
        if "Bedrock accepts" in str(error) and features(record) & {"images", "videos"}:
            return
        raise
    if name == "sagemaker-rlvr":
        (back,) = decode(written, READ_AS[name])
        assert back.fields["reward_model"]["ground_truth"] == record.fields["reference_answer"]
        return
    if name == "pair" and isinstance(record, Chat):
        (back,) = decode(written, "pair")  # a record of its own, which is a conversation again where one is wanted
        assert FORMATS["openai"].line(back, written) == canonical(record)
        return
    assert decode(written, READ_AS[name]) == [record]


# What a format adds of its own to every record, and so does another format that carries such fields.
ADDED = {"sagemaker-rlvr", "bedrock-rft"}


def through(name: str, record: Record) -> Record | None:
    """The record written in the format and read again; None where the loss report, or a fault, says that it may not."""
    form = FORMATS[name]
    if form.kinds and kind_of(record) not in form.kinds and not (type(record) is Pair and "chat" in form.kinds):
        return None
    if features(record) - form.carries:
        return None
    try:
        line = form.line(record, canonical(record))
    except ValueError:
        return None
    (back,) = decode(line, READ_AS[name])
    return back


NAMES = sorted(FORMATS)
PARTNERS = {
    one: [
        other for other in NAMES[place + 1 :] + NAMES[:place]
        if not (one_kinds := FORMATS[one].kinds) or not (others := FORMATS[other].kinds) or one_kinds & others
    ]
    for place, one in enumerate(NAMES)
}  # fmt: skip
# `make test` tries each format with the next three in the alphabet that hold the same kinds, `make soak` all pairs.
PAIRS = [
    pytest.param(one, other, marks=[pytest.mark.soak] if place > 2 else [])
    for one, others in PARTNERS.items() for place, other in enumerate(others)
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), PAIRS)
@settings(
    max_examples=examples(6), deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(data=st.data())
def test_there_and_back_again_where_nothing_is_lost(one: str, other: str, data: Any) -> None:
    kinds = FORMATS[one].kinds & FORMATS[other].kinds or FORMATS[one].kinds or FORMATS[other].kinds or set(RECORDS)
    record = through(one, data.draw(RECORDS[data.draw(st.sampled_from(sorted(kinds)))]))
    there = None if record is None else through(other, record)
    if record is None or there is None:
        return  # not said to be lossless
    back = through(one, there)
    assert back is not None
    if {one, other} & ADDED:  # the reference is the same under another name
        assert isinstance(back, Item)
        assert isinstance(record, Item)
        assert (back.messages, reference(back)) == (record.messages, reference(record))
    else:
        assert meant(back) == meant(record)


def meant(record: Record) -> Record:
    """A pair is a conversation of one question."""
    if isinstance(record, Pair):
        return Chat([Message("user", record.source), Message("assistant", record.target)])
    return record


def test_fields_that_rlvr_does_not_know_go_into_its_extra_info() -> None:
    record = Item([Message("user", "Q")], {"answer": "x", "level": 3, "ability": "math", "extra_info": {"a": 1}})
    (back,) = decode(FORMATS["sagemaker-rlvr"].line(record, b""), "reward")
    assert isinstance(back, Item)
    assert back.fields == {
        "reward_model": {"style": "rule", "ground_truth": "x"}, "ability": "math", "data_source": "cloudtune",
        "extra_info": {"a": 1, "level": 3},
    }  # fmt: skip
    with pytest.raises(ValueError, match="extra_info"):
        FORMATS["sagemaker-rlvr"].line(Item(record.messages, record.fields | {"extra_info": "a"}), b"")


def reference(item: Item) -> Any:
    fields = item.fields
    return fields["reward_model"]["ground_truth"] if "reward_model" in fields else fields["reference_answer"]


def test_every_format_names_known_features_and_kinds() -> None:
    for form in FORMATS.values():
        assert form.carries <= ALL
        assert form.kinds <= {"chat", "text", "preference", "rated", "item", "pair"}
    assert set(READ_AS) == set(FORMATS)


def write(tmp: Path, rows: list[dict[str, Any]]) -> Data:
    path = tmp / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Data.model_validate({"train": str(path)})


def test_a_loss_is_told_row_by_row_and_needs_leave(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    tooled = [Q, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "r", "tool_call_id": "1"}, A]
    data = write(
        tmp_path, [{"messages": [Q, A]}, {"messages": tooled}, {"messages": [S, Q, A, Q, A | {"weight": 0}, Q, A]}]
    )
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError) as caught:
        encode(data, split="train", format="bedrock-converse", to=out)
    assert [(p.code, p.line, p.field) for p in caught.value.problems] == [("loss", 2, "tools"), ("loss", 3, "weights")]
    assert not out.exists()
    done = encode(data, split="train", format="bedrock-converse", to=out, allow_dropped={"tools", "weights"})
    rows = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert done.rows == 3
    assert rows[1] == {"schemaVersion": "bedrock-conversation-2024", "messages": [QB, AB]}
    done = encode(data, split="train", format="alpaca", to=out, allow_dropped={"tools", "weights", "turns", "system"})
    assert [json.loads(line)["output"] for line in out.read_bytes().splitlines()] == ["A", "A", "A"]


def test_azure_gets_its_byte_order_mark_and_reads_back(tmp_path: Path) -> None:
    data = write(tmp_path, [{"prompt": "ñ", "completion": "b"}])
    done = encode(data, split="train", format="azure-openai", to=tmp_path / "out.jsonl")
    content = done.path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf{")
    assert done.bytes == len(content)
    again = prepare(Data.model_validate({"train": str(done.path)}))
    assert again.fingerprint == prepare(data).fingerprint


def test_a_method_refuses_rows_that_it_cannot_learn_from(tmp_path: Path) -> None:
    pairs = write(tmp_path, [{"prompt": "Q", "chosen": "a", "rejected": "b"}])
    assert prepare(pairs, method="dpo").splits["train"].kind == "preference"
    with pytest.raises(DataError) as caught:
        prepare(pairs)
    assert caught.value.problems[0].code == "kind_not_for_method"


def test_bedrock_takes_images_by_their_address_on_s3() -> None:
    def chat(url: str) -> Chat:
        content = [TextPart("what?"), ImagePart(ImageUrl(url))]
        return Chat([Message("user", content), Message("assistant", "a cat")])

    form = FORMATS["bedrock-converse"]
    record = chat("s3://b/k.jpg")
    written = form.line(record, b"")
    assert json.loads(written)["messages"][0]["content"][1] == {
        "image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://b/k.jpg"}}}
    }
    assert decode(written) == [record]


def test_an_image_keeps_the_format_that_its_address_does_not_tell() -> None:
    place = {"s3Location": {"uri": "s3://b/photo"}}
    row = {"schemaVersion": "x", "messages": [
        {"role": "user", "content": [{"image": {"format": "webp", "source": place}}]}, AB]}  # fmt: skip
    (record,) = decode([row])
    assert features(record) == {"images", "media_formats"}
    assert json.loads(FORMATS["bedrock-converse"].line(record, canonical(record)))["messages"] == row["messages"]
    plain = without(record, {"media_formats"})
    assert features(plain) == {"images"}


def test_questions_alone_are_for_distillation(tmp_path: Path) -> None:
    """With and without answers, in any of the shapes, as far as a method asks a teacher."""
    shapes = [[{"prompt": "P", "system": "S"}], [{"messages": [S, Q]}],
              [{"schemaVersion": "x", "system": [{"text": "S"}], "messages": [QB]}],
              [{"prompt": "P"}, {"prompt": "Q", "completion": "A"}],
              [{"messages": [Q]}, {"messages": [Q, A, Q]}]]  # fmt: skip
    for rows in shapes:
        data = write(tmp_path, rows)
        report = prepare(data, method="distill")
        assert report.splits["train"].rows == len(rows)
        assert {problem.field for problem in report.problems if problem.code == "feature"} == {"unanswered"}
        assert not {problem.code for problem in report.problems} & {"conflict", "imbalance"}
        with pytest.raises(DataError) as caught:
            prepare(data)
        assert caught.value.problems[0].code == "last_not_assistant"
        out = encode(data, split="train", format="bedrock-converse", to=tmp_path / "out.jsonl", method="distill")
        written = [json.loads(line) for line in out.path.read_bytes().splitlines()]
        assert all(row["schemaVersion"] == "bedrock-conversation-2024" for row in written)
        assert (
            prepare(Data.model_validate({"train": str(out.path)}), method="distill").fingerprint == report.fingerprint
        )
        assert [decode([row]) for row in written]
        with pytest.raises(DataError, match="unanswered"):
            encode(data, split="train", format="alpaca", to=tmp_path / "alpaca.jsonl", method="distill")
    with pytest.raises(DataError) as caught:
        prepare(write(tmp_path, [{"messages": [S]}]), method="distill")
    assert caught.value.problems[0].code == "last_not_assistant"


def test_questions_that_begin_alike_do_not_contradict_each_other(tmp_path: Path) -> None:
    rows = [{"messages": [Q, A, {"role": "user", "content": str(n)}]} for n in range(200)]
    assert {problem.code for problem in prepare(write(tmp_path, rows), method="distill").problems} == {"feature"}


QUICK = sorted(name for name, form in FORMATS.items() if form.weave is not None)


@pytest.mark.parametrize("name", QUICK)
@settings(max_examples=examples(20), deadline=None)
@given(records=st.lists(chats().filter(is_plain), min_size=1, max_size=5))
def test_the_quick_way_writes_the_same_bytes_as_the_slow_one(name: str, records: list[Chat]) -> None:
    form = FORMATS[name]
    slow = b"".join(form.line(record, canonical(record)) + b"\n" for record in records)
    assert form.weave is not None
    assert PlainRows(canonical_lines(records)).woven(form.weave) == slow
    assert _conversations.rows(canonical_lines(records), 0, form.weave)[4] == slow


NASTY = ['"},{"role":"', '","content":"', '"}]}', '{"messages":[', '"', "\\", '\\"', "\\\\"]


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("text", NASTY)
def test_the_quick_way_is_not_fooled_by_json_inside_texts(name: str, text: str) -> None:
    records = [
        Chat([Message("system", text), Message("user", f"a{text}"), Message("assistant", f"{text}b")]),
        Chat([Message("user", text * 2), Message("assistant", text)]),
    ]
    form = FORMATS[name]
    slow = b"".join(form.line(record, canonical(record)) + b"\n" for record in records)
    assert form.weave is not None
    assert PlainRows(canonical_lines(records)).woven(form.weave) == slow
    assert _conversations.rows(canonical_lines(records), 0, form.weave)[4] == slow
