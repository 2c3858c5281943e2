"""What is said of a bad row: in a person's words, with the true place, and a remedy that works when it is followed."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.data.test_private_fields import FULL
from tests.unit.data.test_written_rows import NESTED

from cloudtune.data.problem_list import Faults
from cloudtune.data.read.blocks import Block
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.kinds import row_type
from cloudtune.data.read.kinds_other import all_kinds, recognise
from cloudtune.data.write.formats_table import format_names

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.mark.soak
@pytest.mark.parametrize("number", range(len(NESTED + MORE)))
def test_no_change_of_a_row_crashes(number: int) -> None:
    look(number, 1)
