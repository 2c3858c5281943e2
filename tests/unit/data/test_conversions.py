"""Rows of every dialect, changed in ways that mean nothing, through every format: the same record, or a named loss."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tests.unit.data.test_dialects import READ
from tests.unit.data.test_features import FORMATS, compare
from tests.unit.data.test_formats import READ_AS

from cloudtune.data.problem_list import Faults
from cloudtune.data.read.blocks import Block
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.dialects import OPAQUE
from cloudtune.data.read.kinds import row_type
from cloudtune.data.read.kinds_other import kind_named
from cloudtune.data.records import Record, canonical, kind_of

Row = dict[str, Any]


def changed(row: Row, chooser: random.Random) -> tuple[Row, dict[str, str], set[str]]:
    """The row with nulls, other keys' order, renamed and unknown columns; the mapping; the keys that are not used."""
    renamed = {f"la {key}\\n": key for key in row if chooser.random() < 0.3}
    names = {own: theirs for theirs, own in renamed.items()}
    unknown = {f"note {i}": chooser.choice([None, 1, "x", [1], {"role": "user"}]) for i in range(chooser.randint(0, 2))}
    unknown |= {key: "another column" for key in renamed.values() if chooser.random() < 0.3}
    mixed = [(names.get(key, key), with_nulls(value, chooser)) for key, value in row.items()] + [*unknown.items()]
    chooser.shuffle(mixed)
    return dict(mixed), renamed, {key for key, value in unknown.items() if value is not None}


def with_nulls(value: Any, chooser: random.Random) -> Any:
    """The value with a null here and there under keys that its objects may have."""
    if isinstance(value, list):
        return [with_nulls(one, chooser) for one in value]
    if not isinstance(value, dict):
        return value
    more = {key: None for key in ("weight", "name", "refusal", "tool_calls", "index") if key not in value}
    items = [(key, one if key in OPAQUE else with_nulls(one, chooser)) for key, one in value.items()]
    items += [(key, one) for key, one in more.items() if chooser.random() < 0.2]
    chooser.shuffle(items)
    return dict(items)


def read_as(row: Row, columns: dict[str, str]) -> tuple[list[Record], Faults]:
    faults = Faults()
    return FileRows("-", columns, None, faults).of_block(Block(json.dumps(row).encode(), 1, lines=1)).records, faults


def convert_everywhere(seed: int) -> None:
    """Every dialect's row, changed by the seed, through every format that takes its kind, and read again."""
    chooser = random.Random(seed)
    for name, row, expected in READ:
        given, columns, unused = changed(row, chooser)
        (record,), faults = read_as(given, columns)
        assert json.loads(canonical(record)) == expected, (name, given)
        assert {problem.field for problem in faults.listed("warning")} >= unused - {"id"}, (name, given)
        for one, form in FORMATS.items():
            if not form.kinds or kind_of(record) in form.kinds:
                compare(one, record)
                again(one, record)


def again(name: str, record: Record) -> None:
    """What a format gives is read as its own kind even where the kind is not named, and is written again unchanged."""
    form = FORMATS[name]
    try:
        line = form.line(record, canonical(record))
    except ValueError:
        return
    named = FileRows("-", {}, row_type(kind_named(READ_AS[name]), {}) if READ_AS[name] else None, Faults())
    for rows in (named, FileRows("-", {}, None, Faults())):
        (back,) = rows.of_block(Block(line, 1, lines=1)).records
        if kind_of(back) == kind_of(record):
            assert form.line(back, canonical(back)) == line


def test_meaningless_changes_change_no_record() -> None:
    convert_everywhere(1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 202))
def test_meaningless_changes_change_no_record_at_length(seed: int) -> None:
    convert_everywhere(seed)
