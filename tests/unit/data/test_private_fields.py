"""Private data is found and redacted in every text that would be written, in any field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.unit.data.test_written_rows import NESTED

from cloudtune.data import records
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.reading import read
from cloudtune.data.record_texts import texts
from cloudtune.data.records import Record, canonical
from cloudtune.data.report import check, convert
from cloudtune.data.rules import PRIVATE
from cloudtune.data.transform.changing import Changes
from cloudtune.data.transform.cleaning import normalised, redacted
from cloudtune.spec import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLANTS = {
    "secret": "sk-proj-" + "Ab3" * 10, "email": "ana@example.org", "card_number": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
}  # fmt: skip
TALK = {"role": "user", "name": "n", "content": [
    {"type": "text", "text": "t"},
    {"type": "image_url", "image_url": {"url": "u", "detail": "d", "bucket_owner": "o", "format": "f"}},
    {"type": "video_url", "video_url": {"url": "u", "bucket_owner": "o", "format": "f"}},
]}  # fmt: skip
CALL = {"role": "assistant", "reasoning_content": "r", "weight": 1, "tool_calls": [
    {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": ["x"]}'}}]}  # fmt: skip
RESULT = {"role": "tool", "tool_call_id": "c", "content": "x", "is_error": True}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d",
          "parameters": {"type": "object", "properties": {"p": {"enum": ["x"]}}}}}]  # fmt: skip
MESSAGES = [TALK, CALL, RESULT]
FULL: dict[type[Record], dict[str, Any]] = {
    records.Chat: {"messages": MESSAGES, "tools": TOOLS, "parallel_tool_calls": True},
    records.Text: {"text": "t"},
    records.Preference: {"messages": MESSAGES, "chosen": [CALL], "rejected": [TALK], "tools": TOOLS,
                         "parallel_tool_calls": True},
    records.Rated: {"messages": MESSAGES, "completion": [CALL], "label": True, "tools": TOOLS,
                    "parallel_tool_calls": True},
    records.Item: {"messages": MESSAGES, "fields": {"answer": {"a": ["x", {"b": "y"}]}}},
    records.Labelled: {"text": "t", "label": "l"},
    records.Tagged: {"tokens": ["t", "u"], "tags": ["a", "b"]},
    records.Question: {"question": "q", "context": "c", "answers": {"text": ["a"], "answer_start": [0]}},
    records.Pair: {"source": "s", "target": "t"},
    records.Contrastive: {"anchor": "s", "positive": "t", "negatives": ["n"]},
    records.Similarity: {"sentence1": "s", "sentence2": "t", "score": 0.5},
    records.Picture: {"image": "i", "label": "l"},
    records.Speech: {"audio": "a", "transcript": "t"},
}  # fmt: skip
"""A record of each sort with every field."""


def structs(value: Any) -> Iterator[msgspec.Struct]:
    if isinstance(value, msgspec.Struct):
        yield value
        value = [getattr(value, name) for name in value.__struct_fields__]
    for one in value if isinstance(value, list) else ():
        yield from structs(one)


def subclasses(cls: type[Any]) -> set[type[Any]]:
    return {cls} | {one for sub in cls.__subclasses__() for one in subclasses(sub)}


def test_the_samples_have_every_field_of_every_record() -> None:
    found = {
        (type(one), name)
        for cls, row in FULL.items()
        for one in structs(msgspec.convert(row, cls))
        for name in one.__struct_fields__
        if getattr(one, name) is not msgspec.UNSET
    }
    known = {one for one in subclasses(Record) if one.__module__ == records.__name__}
    known |= {records.ToolCall, records.Tool}
    assert found == {(cls, name) for cls in known for name in cls.__struct_fields__}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every string in a JSON value."""
    if isinstance(value, str):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def planted(row: Any, path: tuple[Any, ...], text: str) -> Any:
    """The row with a text added to the string at that path; inside, where that is JSON."""
    row = json.loads(json.dumps(row))
    target = row
    for key in path[:-1]:
        target = target[key]
    old = target[path[-1]]
    target[path[-1]] = old.replace("x", text) if old.startswith("{") else f"{old} {text}"
    return row


def plants(row: Any, text: str) -> list[Any]:
    """The row once for each string that is not a word of the schema, with the text in that string."""
    return [planted(row, path, text) for path in leaves(row) if path[-1] not in {"role", "type", "preferenceLabel"}]


@pytest.mark.parametrize("code", PLANTS)
@pytest.mark.parametrize("cls", FULL, ids=lambda cls: cls.__name__)
def test_private_data_is_found_and_covered_in_every_field(cls: type[Record], code: str) -> None:
    for row in plants(FULL[cls], PLANTS[code]):
        record = msgspec.convert(row, cls)
        line = canonical(record)
        rules = [rule for rule in PRIVATE if rule.code == code and rule.seen_in(line)]
        found = [problem for rule in rules for problem in rule.problems(record)]
        assert len(found) == 1
        assert PLANTS[code] not in str(found[0])
        clean = redacted(record)
        assert PLANTS[code].encode() not in canonical(clean)
        assert msgspec.json.decode(canonical(clean), type=cls) == clean


@pytest.mark.parametrize("row", NESTED, ids=lambda row: next(iter(row)))
def test_no_row_of_any_kind_hides_private_data(row: dict[str, Any], tmp_path: Path) -> None:
    secret = PLANTS["secret"]
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    kind = "converse" if "schemaVersion" in row and "candidates" not in str(row) else "auto"
    for one in plants(row, secret):
        path.write_text(json.dumps(one))
        source = Source(path=str(path), kind="nova_preference" if "candidates" in str(row) else kind)
        would_write = secret in str([batch.records for batch in read(source, Faults())])
        report = check(source, private=True, workers=0)
        assert report.counts.get("secret", 0) == would_write
        convert(source, to="cloudtune", out=out, workers=0, change=Changes(redact=True).batch)
        assert not out.exists() or secret not in out.read_text()


def of_arguments(text: str) -> records.Chat:
    call = records.ToolCall("c", records.Function("f", text))
    return records.Chat([records.Message("user", "q"), records.Message("assistant", None, tool_calls=[call])])


@pytest.mark.parametrize("text", [
    r'{"a": "line\nana@example.org"}', r'{"a": "ana\u0040example.org"}', '{"ana@example.org": 1}',
    '{"a": {"b": [{"c": "ana@example.org"}]}}', '{"a": "x", "a": "ana@example.org"}',
    '{"a": "ana@example.org", "a": "x"}', r'{"a": "ana\u0040example.org", "a": "x"}',
    '["ana@example.org"]', '{"a": "ana@example.org"',
])  # fmt: skip
def test_arguments_are_redacted_and_stay_json(text: str) -> None:
    record = of_arguments(text)
    (rule,) = (rule for rule in PRIVATE if rule.code == "email")
    assert rule.seen_in(canonical(record))
    assert [problem.field for problem in rule.problems(record)] == ["messages[1].tool_calls[0].function.arguments"]
    clean = redacted(record).messages[1].tool_calls[0].function.arguments
    assert "example.org" not in clean
    assert "[EMAIL]" in clean
    if text.endswith(("}", "]")):
        json.loads(clean)


def test_card_numbers_that_are_numbers_are_covered() -> None:
    item = records.Item([records.Message("user", "q")], {"answer": {"card": 4111111111111111, "id": 4111111111111112}})
    assert redacted(item).fields == {"answer": {"card": "[CARD_NUMBER]", "id": 4111111111111112}}
    call = redacted(of_arguments('{"card": 4111111111111111}')).messages[1].tool_calls[0]
    assert json.loads(call.function.arguments) == {"card": "[CARD_NUMBER]"}


def test_redacted_keys_stay_apart() -> None:
    item = records.Item([records.Message("user", "q")], {"answer": {"a@x.org": 1, "b@x.org": 2, "[EMAIL]": 3}})
    assert sorted(redacted(item).fields["answer"].values()) == [1, 2, 3]


def test_image_data_is_not_taken_for_private_data() -> None:
    url = "data:image/png;base64,AKIA" + "A1" * 8 + "4111111111111111ABSK" + "a" * 44
    picture = records.Picture(url, "cat")
    assert not [problem for rule in PRIVATE for problem in rule.problems(picture)]
    assert redacted(picture) == picture


def test_normalising_changes_words_only() -> None:
    text, spaced = "a\u0301  b", "\u00e1 b"
    call = of_arguments('{"code": "if x:\\n        y"}').messages[1]
    said = records.Message("assistant", text, reasoning_content=text)
    chat = records.Chat([records.Message("user", text), said, call], [{"name": "a  b"}])
    clean = normalised(chat)
    assert [clean.messages[0].content, clean.messages[1].content, clean.messages[1].reasoning_content] == [spaced] * 3
    assert (clean.messages[2], clean.tools) == (call, chat.tools)
    question = records.Question("q", "a  b", records.Answers(["b"], [3]))
    assert normalised(question) == question
    assert normalised(records.Picture("a  b.png", "l  m")) == records.Picture("a  b.png", "l m")


def test_every_text_has_its_place() -> None:
    chat = msgspec.convert(FULL[records.Chat], records.Chat)
    found = {field: (role, text) for field, role, text in texts(chat)}
    assert found["messages[0].content[0].text"] == ("user", "t")
    assert found["messages[1].reasoning_content"] == ("assistant", "r")
    assert found["tools[0].function.description"] == ("tools", "d")
