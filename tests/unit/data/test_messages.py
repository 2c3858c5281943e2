"""The messages about a bad row: plain terms, the correct location, and a fix that works."""

from __future__ import annotations

import json
import re
import shlex
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.data.test_private_fields import FULL
from tests.unit.data.test_written_rows import NESTED

from cloudtune.data.places import Located
from cloudtune.data.problem_list import Faults
from cloudtune.data.read import wrong_values
from cloudtune.data.read.blocks import Block
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.kinds import row_type
from cloudtune.data.read.kinds_other import all_kinds, recognise
from cloudtune.data.read.reading import read
from cloudtune.data.report import check
from cloudtune.data.write.formats_table import format_names
from cloudtune.spec import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudtune.errors import Problem

PYTHON = re.compile(
    r"indices must be|object is not|has no attribute|subscriptable|unpack|NoneType|'(?:str|int|dict|list|float|bool)'|"
    r"`\w+`|KeyError|TypeError|unhashable|argument of type|Traceback|takes \d|<class|[Ee]xpecting |object at 0x|"
    r"codec can't|line \d+ column|_csv|msgspec|pyarrow|\bNone\b|\bTrue\b|\bFalse\b"
)
"""Words of Python and its libraries."""
MORE: list[dict[str, Any]] = [
    {"messages": [
        {"role": "user", "content": [{"text": "Q"}, {"image": {
            "format": "png", "source": {"s3Location": {"uri": "s3://b/k.png"}}}}]},
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "f", "input": {}}},
                                          {"reasoningContent": {"reasoningText": {"text": "r"}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "1"}, {"json": {}}]}}]},
        {"role": "assistant", "content": [{"text": "A"}]}], "system": [{"text": "S"}],
     "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}]}},
    {"system": "S", "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": "image", "source": {
            "type": "base64", "media_type": "image/png", "data": "AA=="}}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"},
                                          {"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t",
                                      "content": [{"type": "text", "text": "1"}]}]},
        {"role": "assistant", "content": "A"}], "tools": [{"name": "f", "input_schema": {}}]},
    *({"messages": row["messages"]} for row in FULL.values() if "messages" in row),
]  # fmt: skip
WRONG: list[Any] = [None, "x", "", 5, True, [], {}, ["x"], [None], {"x": 1}, [{"x": 1}]]


def changed(value: Any) -> Iterator[Any]:
    """The value with each of its parts replaced by something else, or left out."""
    yield from WRONG
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {other: value[other] for other in value if other != key}
            yield {f"{other}s" if other == key else other: value[other] for other in value}
            for new in changed(inner):
                yield {**value, key: new}
    if isinstance(value, list):
        for i, inner in enumerate(value):
            yield value[:i] + value[i + 1 :]
            for new in changed(inner):
                yield [*value[:i], new, *value[i + 1 :]]


def problems(row: Any, kind: str = "auto") -> list[Problem]:
    """What is wrong with one row, read as a block of a file and written in every format."""
    from cloudtune.data.checks.scanning import Scanner
    from cloudtune.data.scanned import Task

    faults = Faults()
    how = None if kind == "auto" else row_type(next(one for one in all_kinds() if one.name == kind), {})
    rows = FileRows("-", {}, how, faults)
    batch = rows.of_block(Block(json.dumps(row).encode(), 1, lines=1))
    found = faults.kept("error") + faults.kept("warning")
    for form in FORMATS if batch.records else ():
        found += Scanner(Task(format=form, words=False)).scan(batch, "train").problems
    return found


FORMATS = format_names()


def look(number: int, step: int) -> None:
    """Check the row of that number with each ``step``-th of its changes."""
    row = (NESTED + MORE)[number]
    kind = recognise(row)
    assert kind is not None
    for new in islice(changed(row), number % step, None, step):
        for wanted in ("auto", kind.name):
            for problem in problems(new, wanted):
                assert not PYTHON.search(problem.message), (new, str(problem))
                assert problem.message.strip()
                assert problem.fix


@pytest.mark.parametrize("number", range(len(NESTED + MORE)))
def test_no_row_crashes_or_is_explained_in_python_words(number: int) -> None:
    look(number, 17)


@pytest.mark.parametrize("number", range(len(NESTED + MORE)))
def test_no_change_of_a_row_breaks_its_recognition(number: int) -> None:
    for new in changed((NESTED + MORE)[number]):
        if isinstance(new, dict):
            recognise(new)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(len(NESTED + MORE)))
def test_no_change_of_a_row_crashes(number: int) -> None:
    look(number, 1)


# --- causes and remedies


GOOD = '{"prompt": "a", "completion": "b"}'


def error_of(path: Path, content: str, **more: Any) -> Problem:
    """The first error of a file with that content."""
    path.write_text(content, encoding="utf-8")
    report = check(Source(path=str(path), **more), workers=0)
    return next(problem for problem in report.problems if problem.severity == "error")


@pytest.mark.parametrize(("row", "cause", "place"), [
    (f"{GOOD},", "a comma follows the row", len(GOOD) + 1), (f"{GOOD} {GOOD}", "something follows the row", 36),
    ('{"prompt": "a", "completion": "b",}', "a comma precedes }", 35),
    ("{'prompt': 'a', 'completion': 'b'}", "' is not a JSON quote", 2),
    ('{"prompt": \u201ca\u201d, "completion": "b"}', "\u201c is not a JSON quote", 12),
    ('{"prompt": "a", "completion": None}', "None is not JSON", 31),
    ('{"prompt": True, "completion": "b"}', "True is not JSON", 12),
    (f"{GOOD} // note", "something follows the row", 36), ('{"prompt": "a", // note', "JSON has no comments", 17),
    ('{"prompt": "a\tb", "completion": "b"}', "a string contains the control character '\\t'", 14),
    (r'{"prompt": "a\d", "completion": "b"}', r"'\\d' is not a JSON escape", 14),
    ('{"prompt": "a", "completion": "b', "a string has no closing quote", 31),
    ('{"prompt": "a", "completion": "b"', "the row ends too early", 34),
    ('{"prompt": "a", "completion": NaN}', "NaN is not valid JSON", None),
    ('{"prompt" "a", "completion": "b"}', "expecting ':' delimiter", 11),
])  # fmt: skip
@pytest.mark.parametrize("first", [True, False])
def test_the_cause_and_its_place_are_named(
    row: str, cause: str, place: int | None, first: bool, tmp_path: Path
) -> None:
    content = f"{row}\n{GOOD}\n{GOOD}\n" if first else f"{GOOD}\n{row}\n{GOOD}\n"
    problem = error_of(tmp_path / "rows.jsonl", content)
    assert (problem.line, cause in problem.message) == (1 if first else 2, True), problem
    assert place is None or f"at character {place} " in problem.message
    assert check(str(tmp_path / "rows.jsonl"), workers=0).rows == 2


MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "text": "a"}, {"role": "user", "value": "a"}, {"from": "user", "content": "a"},
    {"speaker": "user", "content": "a"}, {"role": "user", "conten": "a"}, {"role": "human", "content": "a"},
    {"role": "usr", "content": "a"}, {"role": "User", "content": "a"}, {"role": "assistent", "content": "a"},
]  # fmt: skip

DIALECTS = [{"role": "user", "value": "a"}, {"from": "user", "content": "a"}, {"role": "human", "content": "a"}]
"""Those that are read as they are."""


def is_read(path: Path, turns: list[dict[str, Any]]) -> bool:
    """Whether messages in a known dialect are read without a correction, each with its text."""
    path.write_text(json.dumps({"messages": turns}))
    batches = read(Source(path=str(path)), Faults())
    texts = [message.text for batch in batches for record in batch.records for message in record.messages]  # type: ignore[attr-defined]
    return texts == ["a", "b"]


def followed(message: dict[str, Any], problem: Problem) -> dict[str, Any]:
    """The message after the remedy was applied by its words."""
    fix = str(problem.fix)
    if found := re.fullmatch(r"rename (\w+) to (\w+)", fix):
        return {found.group(2) if key == found.group(1) else key: message[key] for key in message}
    if found := re.fullmatch(r"use (\w+)", fix):
        return message | {"role": found.group(1)}
    raise AssertionError(fix)


@pytest.mark.parametrize("number", range(len(MESSAGES)))
def test_the_remedy_of_a_message_repairs_it_and_keeps_its_text(number: int, tmp_path: Path) -> None:
    message = MESSAGES[number]
    other = {"role": "user" if message.get("role") == "assistent" else "assistant", "content": "b"}
    place = message.get("role") == "assistent"
    path = tmp_path / "rows.jsonl"
    turns = [other, message] if place else [message, other]
    if message in DIALECTS:
        assert is_read(path, turns)
        return
    problem = error_of(path, json.dumps({"messages": turns}))
    fixed = followed(message, problem)
    assert "a" in fixed.values()
    path.write_text(json.dumps({"messages": [other, fixed] if place else [fixed, other]}))
    assert check(str(path), workers=0).ok


COLUMNS: list[dict[str, str]] = [
    {"question": "Q1", "context": "C1", "answer": "A1"}, {"pregunta": "Q1", "respuesta": "A1"},
    {"respuesta": "A1", "pregunta": "Q1"}, {"the question": "Q1", "the answer": "A1"},
    {"promt": "Q1", "completion": "A1"},
    {"Prompt": "Q1", "Completion": "A1"}, {"instructions": "Q1", "output": "A1"}, {"it's": "Q1", "$HOME": "A1"},
    {"tema": "T1", "pregunta": "Q1", "respuesta": "A1"}, {"a=b": "Q1", "c": "A1"},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(COLUMNS)))
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_the_remedy_for_unknown_columns_keeps_every_text(
    number: int, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudtune.cli.main import main

    row, path, out = COLUMNS[number], tmp_path / name, tmp_path / "out.jsonl"
    content = json.dumps(row)
    if name.endswith(".csv"):
        content = f"{','.join(row)}\n{','.join(row.values())}\n"
    problem = error_of(path, content)
    options = re.search(r"--(?:map|template) .*?(?=\)?$)", str(problem.fix))
    assert options is not None, problem
    command = [
        "cloudtune",
        "data",
        "convert",
        str(path),
        "--to",
        "openai",
        "-o",
        str(out),
        *shlex.split(options.group()),
    ]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main())
    assert not ended.value.code, capsys.readouterr()
    (written,) = map(json.loads, out.read_text().splitlines())
    requested, answered = (message["content"] for message in written["messages"])
    assert answered == "A1"
    assert all(text in requested for text in row.values() if text != "A1")


@pytest.mark.parametrize("row", [{"role": "user", "content": "a"}, {"from": "human", "value": "a"}])
def test_a_message_is_not_taken_for_a_row(row: dict[str, str], tmp_path: Path) -> None:
    for content in (json.dumps(row), json.dumps([row, row]) + "\n" + json.dumps([row])):
        problem = error_of(tmp_path / "rows.jsonl", content)
        assert "messages" in str(problem.fix)
        assert "--map" not in str(problem.fix)


def test_fields_have_the_names_of_the_file(tmp_path: Path) -> None:
    content = json.dumps({"turnos": [{"role": "usuario", "content": "a"}], "otro": 1})
    problem = error_of(tmp_path / "rows.jsonl", content, columns={"otro": "tools", "turnos": "messages"})
    assert problem.field == "turnos[0].role"


def test_half_a_pair_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    problem = error_of(tmp_path / "rows.jsonl", json.dumps({"prompt": "q", "chosen": "a"}))
    assert "chosen + rejected" in str(problem.fix)
    assert "--map" not in str(problem.fix)


TEXT, BLOCKS = "a", [{"text": "a"}]
CANDIDATES = [
    {"content": BLOCKS, "preferenceLabel": "preferred"},
    {"content": BLOCKS, "preferenceLabel": "non-preferred"},
]


@pytest.mark.parametrize("content", [TEXT, BLOCKS])
@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_remedy_does_not_name_what_was_just_refused(content: Any, role: str, tmp_path: Path) -> None:
    turns: list[dict[str, Any]] = [{"role": role, "content": content}, {"role": "user", "content": content}]
    kinds = ["claude"] if content == TEXT else ["converse", "nova_preference"]
    for kind in kinds:
        last = [{"role": "assistant", "candidates": CANDIDATES}] if kind == "nova_preference" else []
        problem = error_of(tmp_path / "rows.jsonl", json.dumps({"messages": turns + last}), kind=kind)
        assert problem.field == "messages[0].role"
        assert f"use {role}" not in str(problem.fix)
        assert ("the row's key 'system'" in str(problem.fix)) == (role == "system")


def test_values_of_the_wrong_type_are_named_in_json_words(tmp_path: Path) -> None:
    for value, words in {
        "5": "a number",
        "null": "null",
        "true": "true or false",
        "[1]": "an object",
        '[{"role": "user", "content": {}}]': "an object",
    }.items():
        problem = error_of(tmp_path / "rows.jsonl", f'{{"prompt": {value}, "completion": "b"}}')
        assert words in problem.message
        assert "`" not in problem.message


def test_a_writer_that_fails_names_line_and_field() -> None:
    tools = [{"name": "f", "parameters": {}}, {"name": "g"}]
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": tools}

    def write(chat: Any) -> list[Any]:
        return [tool.function["parameters"] for tool in chat.tools]

    record = next(iter(FileRows("-", {}, None, Faults()).of_block(Block(json.dumps(row).encode(), 1, lines=1)).records))
    with pytest.raises((KeyError, ValueError)) as failed:
        write(record)
    problem = wrong_values.conversion(failed.value, record, write)
    located = Located("rows.jsonl", [7]).locate(problem, 0)
    assert str(located).startswith("rows.jsonl:7: tools[1]")
