"""The dialects of conversations, pairs and ratings: each is read as the same canonical record, by every reader."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloudtune.data.dataset import Dataset
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.blocks import Block
from cloudtune.data.read.causes import UNEXPECTED_ERRORS
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.kinds import Kind, row_type
from cloudtune.data.read.kinds_other import RATINGS, kind_named
from cloudtune.data.read.reading import read
from cloudtune.data.read.tables import Table
from cloudtune.data.records import Chat, Item, canonical
from cloudtune.data.report import check, convert
from cloudtune.spec import Source

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]
S, U, A = ({"role": role, "content": role[0].upper()} for role in ("system", "user", "assistant"))
B = A | {"content": "B"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
FLAT = TOOL["function"]


def call(number: int = 0, id: str | None = None, arguments: str = '{"a":1}') -> Row:  # noqa: A002 - the key's name
    function = {"name": "f", "arguments": arguments}
    return {"id": id or f"call_{number}", "function": function, "type": "function"}


CALLED: Row = {"messages": [
    U, {"role": "assistant", "tool_calls": [call()]}, {"role": "tool", "content": "R", "tool_call_id": "call_0"}, A,
]}  # fmt: skip
WITH_TOOLS = CALLED | {"tools": [TOOL]}
HUMAN, GPT = {"from": "human", "value": "U"}, {"from": "gpt", "value": "A"}
FC = [HUMAN, {"from": "function_call", "value": '{"name":"f","arguments":{"a":1}}'},
      {"from": "observation", "value": "R"}, GPT]  # fmt: skip
IMAGE = {"type": "image_url", "image_url": {"url": "a.png"}}
SEEN = {"messages": [{"role": "user", "content": [IMAGE, {"type": "text", "text": "U"}]}, A]}
TALK = {"messages": [U, A]}
LONG = {"messages": [S, U, A, U, B]}
PAIR = {"messages": [U], "chosen": [A], "rejected": [B]}
PLACEHOLDER = U | {"content": [{"type": "image"}, {"type": "text", "text": "U"}]}
SEEN_PAIR = PAIR | {"messages": SEEN["messages"][:1]}
KTO = {"messages": [U], "completion": [A], "label": True}

# Rows, and the canonical record that they stand for.
READ: list[tuple[str, Row, Row]] = [
    ("chat", TALK, TALK),
    ("system column", {"system": "S", "messages": [U, A]}, {"messages": [S, U, A]}),
    ("system blocks", {"system": [{"type": "text", "text": "S"}], "messages": [U, A]}, {"messages": [S, U, A]}),
    ("nulls", {"messages": [U | {"name": None}, A | {"tool_calls": None, "weight": None, "refusal": None,
                                                     "audio": None, "annotations": []}], "tools": None}, TALK),
    ("one text part", {"messages": [U, A | {"content": [{"type": "text", "text": "A"}]}]}, TALK),
    ("value parts", {"messages": [U | {"content": [{"type": "text", "value": "U"}], "loss_weight": 0.0},
                                  A | {"content": [{"type": "text", "value": "A"}], "loss_weight": 1.0}]},
     {"messages": [U, A | {"weight": 1}]}),
    ("loss", {"messages": [U, A | {"loss": False}, U, B | {"loss": True}]},
     {"messages": [U, A | {"weight": 0}, U, B | {"weight": 1}]}),
    ("train", {"messages": [U | {"train": False}, A | {"train": True}]}, {"messages": [U, A | {"weight": 1}]}),
    ("reasoning", {"messages": [U, A | {"reasoning": "T"}]}, {"messages": [U, A | {"reasoning_content": "T"}]}),
    ("thinking", {"messages": [U, A | {"thinking": "T"}]}, {"messages": [U, A | {"reasoning_content": "T"}]}),
    ("sharegpt", {"conversations": [{"from": "system", "value": "S"}, HUMAN, GPT]}, {"messages": [S, U, A]}),
    ("sharegpt of other names", {"conversations": [HUMAN | {"from": "user"}, GPT | {"from": "chatgpt"}]}, TALK),
    ("sharegpt weights", {"conversations": [HUMAN | {"weight": None}, GPT | {"weight": 1}]},
     {"messages": [U, A | {"weight": 1}]}),
    ("sharegpt tools", {"conversations": FC, "tools": json.dumps([FLAT])}, WITH_TOOLS),
    ("sharegpt system", {"system": "S", "conversations": [HUMAN, GPT], "tools": ""}, {"messages": [S, U, A]}),
    ("role in conversations", {"conversations": [U, A]}, TALK),
    ("from in messages", {"messages": [HUMAN, GPT]}, TALK),
    ("pairs of turns", {"conversation": [{"human": "U", "assistant": "A"}, {"human": "U", "assistant": "B"}],
                        "system": "S"}, LONG),
    ("tool_call turns", {"messages": [U, {"role": "tool_call", "content": '{"name":"f","arguments":{"a":1}}'},
                                      {"role": "tool_response", "content": "R"}, A], "tools": json.dumps([TOOL])},
     WITH_TOOLS),
    ("two tool_call turns", {"messages": [
        U, {"role": "tool_call", "content": '{"name":"f","arguments":{"a":1}}'},
        {"role": "tool_call", "content": '{"name":"f","arguments":{"a":2}}'},
        {"role": "tool_response", "content": "R"}, {"role": "tool_response", "content": "R2"}, A]},
     {"messages": [U, {"role": "assistant", "tool_calls": [call(), call(1, arguments='{"a":2}')]},
                   {"role": "tool", "content": "R", "tool_call_id": "call_0"},
                   {"role": "tool", "content": "R2", "tool_call_id": "call_1"}, A]}),
    ("functions", {"messages": [U, {"role": "assistant", "content": None,
                                    "function_call": {"name": "f", "arguments": '{"a":1}'}},
                                {"role": "function", "name": "f", "content": "R"}, A], "functions": [FLAT]},
     WITH_TOOLS),
    ("null functions", {"messages": [U, A | {"function_call": None}], "functions": None}, TALK),
    ("arguments as an object", {"messages": [
        U, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "R"}, A]}, CALLED),
    ("flat calls", {"messages": [U, {"role": "assistant", "content": "", "tool_calls": [
        {"name": "f", "arguments": {"a": 1}, "id": "call_0"}]}, {"role": "tool", "content": "R",
                                                                 "tool_call_id": "call_0"}, A]},
     CALLED),
    ("call and result parts as JSON", {"messages": [
        U, {"role": "assistant", "tool_calls": json.dumps([call()])},
        {"role": "tool", "content": {"n": 1}, "tool_call_id": "call_0"}, A]},
     {"messages": [U, CALLED["messages"][1], CALLED["messages"][2] | {"content": '{"n":1}'}, A]}),
    ("flat tools", {"messages": [U, A], "tools": [FLAT]}, TALK | {"tools": [TOOL]}),
    ("tools with input_schema", {"messages": [U, A], "tools": [{"name": "f", "input_schema": FLAT["parameters"]}]},
     TALK | {"tools": [TOOL]}),
    ("tools as texts", {"messages": [U, A], "tools": [json.dumps(TOOL)]}, TALK | {"tools": [TOOL]}),
    ("no tools", {"messages": [U, A | {"tool_calls": []}], "tools": []}, TALK),
    ("messages as a text", {"messages": json.dumps([U, A])}, TALK),
    ("alpaca", {"instruction": "U", "input": "", "output": "A"}, TALK),
    ("alpaca input", {"instruction": "U", "input": "more", "output": "A"},
     {"messages": [U | {"content": "U\n\nmore"}, A]}),
    ("alpaca history", {"instruction": "U", "input": None, "output": "B", "system": "S", "history": [["U", "A"]]},
     LONG),
    ("empty history", {"instruction": "U", "output": "A", "history": []}, TALK),
    ("response", {"instruction": "U", "context": "", "response": "A"}, TALK),
    ("query", {"query": "U", "response": "A"}, TALK),
    ("query history", {"system": "S", "query": "U", "response": "B", "history": [["U", "A"]]}, LONG),
    ("prompt", {"prompt": "U", "completion": "A"}, TALK),
    ("prompt turns", {"prompt": [U], "completion": [A]}, TALK),
    ("prompt history", {"prompt": "U", "completion": "B", "history": [["U", "A"]], "system": "S"}, LONG),
    ("images in messages", {"messages": [U | {"content": "<image>U"}, A], "images": ["a.png"]}, SEEN),
    ("images without a tag", {"messages": [U, A], "images": ["a.png"]}, SEEN),
    ("images as objects", {"messages": [U | {"content": "<image>U"}, A], "images": [{"path": "a.png", "bytes": None}]},
     SEEN),
    ("image parts without address", {"messages": [U | {"content": [{"type": "image"}, {"type": "text", "text": "U"}]},
                                                  A], "images": ["a.png"]}, SEEN),
    ("image parts", {"messages": [U | {"content": [{"type": "image", "image": "a.png"},
                                                   {"type": "text", "text": "U"}]}, A]}, SEEN),
    ("llava", {"image": "a.png", "conversations": [HUMAN | {"value": "<image>U"}, GPT]}, SEEN),
    ("alpaca images", {"instruction": "<image>U", "output": "A", "images": ["a.png"]}, SEEN),
    ("query images", {"query": "<image>U", "response": "A", "images": ["a.png"]}, SEEN),
    ("videos", {"messages": [U | {"content": "<video>U"}, A], "videos": ["a.mp4"]},
     {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "a.mp4"}},
                                                {"type": "text", "text": "U"}]}, A]}),
    ("no images", {"messages": [U | {"content": "a <image> tag"}, A], "images": []},
     {"messages": [U | {"content": "a <image> tag"}, A]}),
    ("pair", {"prompt": "U", "chosen": "A", "rejected": "B"}, PAIR),
    ("pair with tools", {"prompt": [U], "chosen": [A], "rejected": [B], "tools": [TOOL]}, PAIR | {"tools": [TOOL]}),
    ("ultrafeedback", {"prompt": "U", "chosen": [U, A], "rejected": [U, B]}, PAIR),
    ("ultrafeedback with messages", {"prompt": "U", "prompt_id": "x", "messages": [U, A], "chosen": [U, A],
                                     "rejected": [U, B], "score_chosen": 7.5, "score_rejected": 6}, PAIR),
    ("whole conversations", {"chosen": [S, U, A], "rejected": [S, U, B]}, PAIR | {"messages": [S, U]}),
    ("orca", {"system": "S", "question": "U", "chosen": "A", "rejected": "B"}, PAIR | {"messages": [S, U]}),
    ("argilla", {"system": "", "input": "U", "chosen": "A", "rejected": "B", "rating": [9, 7], "status": "x"}, PAIR),
    ("argilla responses", {"instruction": "U", "chosen_response": "A", "rejected_response": "B"}, PAIR),
    ("alpaca pair", {"instruction": "U", "input": "", "chosen": "A", "rejected": "B"}, PAIR),
    ("sharegpt pair", {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT | {"value": "B"}}, PAIR),
    ("rejected response", {"messages": [U, A], "rejected_response": "B"}, PAIR),
    ("rejected messages", {"messages": [U, A], "rejected_messages": [U, B]}, PAIR),
    ("chosen messages", {"chosen_messages": [U, A], "rejected_messages": [U, B]}, PAIR),
    ("query pair", {"query": "U", "response": "A", "rejected_response": "B", "system": "S"},
     PAIR | {"messages": [S, U]}),
    ("sharegpt pair with images", {"conversations": [PLACEHOLDER], "chosen": GPT, "rejected": GPT | {"value": "B"},
                                   "images": ["a.png"]}, SEEN_PAIR),
    ("messages pair with images", {"messages": [PLACEHOLDER], "chosen": "A", "rejected": "B", "images": ["a.png"]},
     SEEN_PAIR),
    ("rated", {"prompt": "U", "completion": "A", "label": True}, KTO),
    ("rated messages", {"messages": [U, A], "label": True}, KTO),
    ("rated with 0 and 1", {"messages": [U, A], "label": 0}, KTO | {"label": False}),
    ("rated sharegpt", {"conversations": [HUMAN, GPT], "kto_tag": False}, KTO | {"label": False}),
    ("rated alpaca", {"instruction": "U", "input": "", "output": "A", "kto_tag": True}, KTO),
    ("rated query", {"query": "U", "response": "A", "label": "true"}, KTO),
    ("rated with system", {"system": "S", "messages": [U, A], "label": True}, KTO | {"messages": [S, U]}),
    ("rated with 1.0", {"messages": [U, A], "label": 1.0}, KTO),
    ("rated completion", {"messages": [U], "completion": [A], "label": 0.0}, KTO | {"label": False}),
    ("no rating", {"messages": [U, A], "label": None}, TALK),
]  # fmt: skip
NAMES = [name for name, *_ in READ]


def records_of(path: Path) -> list[Row]:
    return [json.loads(canonical(record)) for record in Dataset.read(path)]


@pytest.mark.parametrize(("row", "record"), [case[1:] for case in READ], ids=NAMES)
def test_a_dialect_is_read_by_every_reader(tmp_path: Path, row: Row, record: Row) -> None:
    """Tables hold lists and objects as JSON texts, or as they are with a null for each missing key."""
    cells = {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in row.items()}
    for values in (cells, {**row, "answer": None, "system": row.get("system"), "tools": row.get("tools")}):
        batch = FileRows("-", {}, None, Faults()).of_table(Table([1], [values]))
        assert batch is not None
        assert [json.loads(canonical(one)) for one in batch.records] == [record]
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (tmp_path / "a.json").write_text(json.dumps([row], indent=1))
    with (tmp_path / "a.csv").open("w", newline="") as out:
        csv.writer(out).writerows(
            [row, [json.dumps(cell) if isinstance(cell, bool) else cell for cell in cells.values()]]
        )
    for name in ("a.jsonl", "a.json", "a.csv"):
        assert records_of(tmp_path / name) == [record], name


def test_nested_columns_are_read_from_parquet(tmp_path: Path) -> None:
    """Arrow gives every struct all keys of its column, null where a row has none."""
    rows = [{"messages": [U, A], "system": None, "tools": None}, {"system": "S", "messages": [U, A]}, WITH_TOOLS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert records_of(tmp_path / "a.parquet") == [TALK, {"messages": [S, U, A]}, WITH_TOOLS]


def test_null_is_kept_where_it_is_part_of_a_value(tmp_path: Path) -> None:
    """In a schema, in arguments, in what a grader needs, and in an answer that is JSON."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"default": None, "enum": [None, 1]}}}
    called = WITH_TOOLS | {"tools": [tool]}
    called["messages"] = [*called["messages"][:1], {"role": "assistant", "tool_calls": [call(arguments='{"a":null}')]},
                          *called["messages"][2:]]  # fmt: skip
    item = {"messages": [U], "fields": {"reference_answer": {"a": None}}}
    rows = [
        (called | {"parallel_tool_calls": None}, called),
        ({"messages": [U | {"name": None}], "reference_answer": {"a": None}}, item),
        ({"instruction": "U", "output": {"a": None}}, {"messages": [U, A | {"content": '{"a":null}'}]}),
    ]
    for row, record in rows:
        (tmp_path / "a.jsonl").write_text(json.dumps(row))
        assert records_of(tmp_path / "a.jsonl") == [record]


@pytest.mark.parametrize("makes", ["messages", "chosen", "completion"])
def test_the_kind_is_decided_row_by_row(tmp_path: Path, makes: str) -> None:
    """In whatever order rows of several dialects stand, each is read as if it stood alone."""
    cases = [
        (row, record) for _, row, record in READ
        if makes in record and (makes != "messages" or not {"chosen", "label"} & record.keys())
    ]  # fmt: skip
    for number, order in enumerate((cases, cases[::-1], [case for case in cases for _ in range(20)])):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("\n".join(json.dumps(row) for row, _ in order))
        assert records_of(path) == [record for _, record in order]


def test_rows_of_two_kinds_are_refused_with_their_line(tmp_path: Path) -> None:
    rows = [{"messages": [U, A]}, {"messages": [U, A], "label": True}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (problem,) = [one for one in check(str(tmp_path / "a.jsonl"), workers=0).problems if one.severity == "error"]
    assert (problem.code, problem.line) == ("mixed_kinds", 2)


def test_conversations_are_tasks_where_a_grader_scores_them(tmp_path: Path) -> None:
    rows = [{"messages": [U], "target": 3, "tools": [TOOL]}, {"messages": [U], "numbers": [1, None]}]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    for workers in (0, 1):
        report = check(str(path), method="rft", workers=workers)
        assert report.ok, report.problems
        assert report.kinds == {"item": 2}
    convert(str(path), to="openai-rft", out=tmp_path / "out.jsonl", workers=0)
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()] == rows


# Rows that say what no canonical record can hold, the field and a part of the message.
REFUSED: list[tuple[str, Row, str, str]] = [
    ("null output", {"instruction": "U", "output": None}, "output", "null"),
    ("null response", {"instruction": "U", "response": None}, "response", "null"),
    ("null answer to a query", {"query": "U", "response": None}, "response", "null"),
    ("null question", {"query": None, "response": "A"}, "query", "null"),
    ("null chosen", {"prompt": "U", "chosen": None, "rejected": "B"}, "chosen", "null"),
    ("custom tools", {"messages": [U, A], "tools": [{"type": "custom", "custom": {"name": "f"}}]},
     "tools[0]", "function"),
    ("tools of another shape", {"messages": [U, A], "tools": [TOOL, {"f": 1}]}, "tools[1]", "function"),
    ("tools that are no JSON", {"messages": [U, A], "tools": "f(x)"}, "tools", "JSON"),
    ("a call that is no JSON", {"conversations": [HUMAN, FC[1] | {"value": "f(1)"}, *FC[2:]]},
     "conversations[1].value", "JSON"),
    ("a call without a name", {"conversations": [HUMAN, FC[1] | {"value": "{}"}, *FC[2:]]},
     "conversations[1].value", "name"),
    ("an unknown role", {"conversations": [HUMAN, GPT | {"from": "narrator"}]}, "conversations[1].from", "narrator"),
    ("an unknown key", {"messages": [U, A | {"mood": "good"}]}, "messages[1]", "mood"),
    ("a text of another type", {"conversations": [HUMAN, GPT | {"value": 7}]}, "conversations[1].value", "a number"),
    ("a weight between 0 and 1", {"messages": [U, A | {"loss_weight": 0.5}]}, "messages[1].loss_weight", "0 or 1"),
    ("more images than tags", {"messages": [U | {"content": "<image>"}, A], "images": ["a", "b"]},
     "images", "2 images"),
    ("images that are bytes", {"messages": [U, A], "images": [{"bytes": "AA"}]}, "images", "addresses"),
    ("audio", {"messages": [U, A], "audios": ["a.wav"]}, "audios", "audio"),
    ("audio parts", {"messages": [U | {"content": [{"type": "audio", "audio": "a.wav"}]}, A]},
     "messages[0].content[0]", "audio"),
    ("history of another shape", {"instruction": "U", "output": "A", "history": [["U"]]}, "history[0]", "answer"),
    ("another question than both sides", {"prompt": "X", "chosen": [U, A], "rejected": [U, B]}, "prompt", "start"),
    ("no question", {"chosen": "A", "rejected": "B"}, "prompt", "missing"),
    ("sides without a shared turn", {"chosen": [U, A], "rejected": [S, B]}, "chosen", "same turns"),
    ("roles of two dialects", {"messages": [U, GPT | {"role": "assistant"}]}, "messages[1]", "both from and role"),
    ("texts of two dialects", {"messages": [U, A | {"value": "B"}]}, "messages[1]", "both value and content"),
    ("reasoning twice", {"messages": [U, A | {"thinking": "T", "reasoning": "R"}]}, "messages[1]",
     "both reasoning and thinking"),
    ("reasoning in a key and a part", {"messages": [U, A | {"reasoning_content": "T", "content": [
        {"type": "reasoning", "value": "R"}, {"type": "text", "text": "A"}]}]},
     "messages[1]", "both reasoning_content"),
    ("a part with two texts", {"messages": [U, A | {"content": [{"type": "text", "text": "A", "value": "B"}]}]},
     "messages[1].content[0]", "both text and value"),
    ("reasoning with two texts", {"messages": [U, A | {"content": [
        {"type": "thinking", "thinking": "A", "value": "B"}]}]}, "messages[1].content[0]", "both value and thinking"),
    ("a part with more keys", {"messages": [U, A | {"content": [{"type": "text", "value": "A", "note": "B"}]}]},
     "messages[1].content[0]", "'note'"),
    ("a call part with more keys", {"messages": [U, A | {"content": [
        {"type": "tool_call", "value": {"name": "f", "arguments": {}}, "note": "B"}]}]}, "messages[1].content[0]",
     "'note'"),
    ("an image with two addresses", {"messages": [U | {"content": [{"type": "image", "url": "a", "path": "b"}]}, A]},
     "messages[0].content[0]", "both url and path"),
    ("a call with arguments twice", {"messages": [U, A | {"tool_calls": [
        {"name": "f", "arguments": {}, "parameters": {"a": 1}}]}]}, "messages[1].tool_calls[0]",
     "both arguments and parameters"),
    ("a call in two forms", {"messages": [U, A | {"tool_calls": [
        {"function": {"name": "f", "arguments": {}}, "arguments": {"a": 1}}]}]}, "messages[1].tool_calls[0]",
     "both function and arguments"),
    ("a function with an id", {"messages": [U, A | {"tool_calls": [
        {"function": {"name": "f", "arguments": {}, "id": "c"}}]}]}, "messages[1].tool_calls[0]", "'id'"),
    ("tools and functions", {"messages": [U, A], "tools": [TOOL], "functions": [FLAT]}, "tools", "both"),
    ("a tool with two schemas", {"messages": [U, A], "tools": [{**FLAT, "input_schema": {}}]}, "tools[0]",
     "both input_schema and parameters"),
    ("image and images", {"messages": [U, A], "image": "a.png", "images": ["b.png"]}, "images",
     "both images and image"),
    ("system of another type", {"system": 7, "messages": [U, A]}, "system", "text"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "field", "part"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_be_carried_is_refused(tmp_path: Path, row: Row, field: str, part: str) -> None:
    good = {"conversations": [HUMAN, GPT]}
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [row, good] if "chosen" not in row else [row])))
    found = [one for one in check(str(tmp_path / "a.jsonl"), workers=0).problems if one.severity == "error"]
    assert (found[0].line, found[0].field) == (1, field), found
    assert part in found[0].message


@pytest.mark.parametrize("key", RATINGS)
@pytest.mark.parametrize("value", [None, "good", "", 5, 2, 0.5, float("nan"), [True]])
def test_a_value_that_is_no_rating_is_refused(key: str, value: object) -> None:
    row = {"messages": [U, A], key: value}
    faults = Faults()
    rows = FileRows("-", {}, row_type(kind_named(f"rated_{key}"), {}), faults, is_fixed=True)
    batch = rows.of_table(Table([1], [row]))
    assert batch is not None
    assert batch.records == []
    (problem,) = faults.kept("error")
    assert problem.field == key
    if not isinstance(value, float) or value == value:  # JSON has no NaN
        assert rows.of_block(Block(json.dumps(row).encode(), 1, lines=1)).records == []
        assert faults.total("error") == 2


def test_fields_of_a_task_have_their_mapped_names(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = {"messages": [U], "solution": 1, "answer": 2, "note": None}
    path.write_text("".join(json.dumps(one) + "\n" for one in (row, {**row, "more": 3}, row)))
    faults = Faults()
    batches = read(Source(path=str(path), columns={"solution": "answer"}), faults)
    fields = [record.fields for batch in batches for record in batch.records if isinstance(record, Item)]
    assert fields == [{"answer": 1, "note": None}, {"answer": 1, "more": 3, "note": None}, {"answer": 1, "note": None}]
    assert [problem.field for problem in faults.kept("warning")] == ["answer"]


def test_a_mapped_rating_makes_a_rated_row(tmp_path: Path) -> None:
    """A value that is no rating, in a row before, does not make its column an unused one."""
    path = tmp_path / "a.jsonl"
    rows = [{"messages": [U, A], "good": value} for value in ("unknown", True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    faults = Faults()
    found = [*read(Source(path=str(path), columns={"good": "label"}), faults)]
    assert sum(len(batch.records) for batch in found) == 1
    assert [(problem.code, problem.line) for problem in faults.kept("error")] == [("mixed_kinds", 2)]


@pytest.mark.parametrize("cls", UNEXPECTED_ERRORS)
def test_every_unexpected_error_is_a_fault_of_its_row(cls: type[Exception]) -> None:
    def fail(row: Row) -> Chat:
        raise cls("x")

    faults = Faults()
    rows = FileRows("-", {}, row_type(Kind("odd", {"odd": str}, record=fail, read=fail), {}), faults, is_fixed=True)
    assert rows.of_block(Block(b'{"odd":"a"}', 1, lines=1)).records == []
    assert [problem.line for problem in faults.kept("error")] == [1]
