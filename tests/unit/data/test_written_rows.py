"""What is written is built from the checked record: no other column, no raw value, no duplicate key."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.data.dataset import Dataset
from cloudtune.data.report import check, convert
from cloudtune.data.write.formats_table import find_format, format_names
from cloudtune.spec import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
CHAT = {"messages": [Q, A]}
QB, AB = {"role": "user", "content": [{"text": "Q"}]}, {"role": "assistant", "content": [{"text": "A"}]}
ROWS: dict[str, dict[str, Any]] = {
    "chat": CHAT,
    "prompt_completion": {"prompt": "Q", "completion": "A"},
    "instruction": {"instruction": "Q", "input": "", "output": "A"},
    "instruction_response": {"instruction": "Q", "context": "", "response": "A"},
    "sharegpt": {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
    "preference": {"prompt": "Q", "chosen": "A", "rejected": "B"},
    "rated": {"prompt": "Q", "completion": "A", "label": True},
    "pair": {"source": "Q", "target": "A"},
    "converse": {"schemaVersion": "bedrock-conversation-2024", "messages": [QB, AB]},
    "claude": {"system": "S", "messages": [Q, A]},
    "dialog": {"dialog": [Q, A]},
    "input_text": {"input": "A"},
    "openai_preference": {"input": {"messages": [Q]}, "preferred_output": [A],
                          "non_preferred_output": [{"role": "assistant", "content": "B"}]},
    "nova_preference": {"schemaVersion": "bedrock-conversation-2024", "messages": [QB, {
        "role": "assistant", "candidates": [{"content": [{"text": "A"}], "preferenceLabel": "preferred"},
                                            {"content": [{"text": "B"}], "preferenceLabel": "non-preferred"}]}]},
}  # fmt: skip
"""A row of each kind that some format is read as."""
OWN = {name: own for name in format_names() if (own := find_format(name).own) in ROWS}
EXTRA = {"note": "SECRET", "mail": "SECRET@example.com"}


def written(path: Path, to: str, **source: Any) -> list[Any]:
    """The rows that a conversion writes."""
    out = path.with_name("out.jsonl")
    report = convert(Source(path=str(path), **source), to=to, out=out, workers=0)
    assert report.ok, report.problems
    return [json.loads(line) for line in out.read_text(encoding="utf-8-sig").splitlines()]


@pytest.mark.parametrize("name", OWN)
def test_unused_columns_are_not_written(name: str, tmp_path: Path) -> None:
    row = ROWS[OWN[name]]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (row, {**EXTRA, **row}, {**row, **EXTRA})))
    clean = tmp_path / "clean.jsonl"
    clean.write_text((json.dumps(row) + "\n") * 3)
    kind = OWN[name] if name == "bedrock-text" else "auto"
    assert written(path, name, kind=kind) == written(clean, name, kind=kind)


@pytest.mark.parametrize("name", OWN)
def test_mapped_columns_are_written_by_the_formats_names(name: str, tmp_path: Path) -> None:
    row = ROWS[OWN[name]]
    mapped = next(key for key in row if key not in {"schemaVersion", "system"})
    path, plain = tmp_path / "rows.jsonl", tmp_path / "plain.jsonl"
    plain.write_text(json.dumps(row) + "\n")
    kind = OWN[name]
    expected = written(plain, name, kind=kind)
    for other in ({}, {mapped: "DRAFT"}):  # the second has the format's own key too, with another value
        path.write_text(json.dumps({**other, **{"mine" if key == mapped else key: row[key] for key in row}}) + "\n")
        assert written(path, name, kind=kind, columns={"mine": mapped}) == expected


def _csv(path: Path, row: dict[str, str], delimiter: str = ",") -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row), delimiter=delimiter)
        writer.writeheader()
        writer.writerow(row)


def _parquet(path: Path, row: dict[str, str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist([row]), path)


def _feather(path: Path, row: dict[str, str]) -> None:
    import pyarrow as pa
    from pyarrow import feather

    feather.write_feather(pa.Table.from_pylist([row]), path)


WRITERS: dict[str, Callable[[Path, dict[str, str]], object]] = {
    "a.jsonl": lambda path, row: path.write_text(json.dumps(row)),
    "a.json": lambda path, row: path.write_text(json.dumps([row])),
    "a.csv": _csv,
    "a.tsv": lambda path, row: _csv(path, row, "\t"),
    "a.parquet": _parquet,
    "a.feather": _feather,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_reader_writes_only_what_it_checked(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path, {"prompt": "DRAFT", "question": "Q", "completion": "A", **EXTRA})
    assert written(path, "openai", columns={"question": "prompt"}) == [CHAT]
    Dataset.read(str(path), columns={"question": "prompt"}).write(tmp_path / "out.jsonl", "prompt-completion")
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"prompt":"Q","completion":"A"}\n'


# --- duplicate keys


def objects(value: Any, place: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every JSON object in the value that has keys, with its place."""
    if isinstance(value, dict):
        inner = [one for key, item in value.items() for one in objects(item, f"{place}.{key}".lstrip("."))]
        return [(place, value), *inner] if value else inner
    if isinstance(value, list):
        return [one for i, item in enumerate(value) for one in objects(item, f"{place}[{i}]")]
    return []


def doubled(row: Any, number: int) -> tuple[str, str]:
    """The row as JSON with the first key of its object of that number written twice, and that key's place."""
    copy = json.loads(json.dumps(row))
    place, target = objects(copy)[number]
    key = next(iter(target))
    first = target.pop(key)
    rest = dict(target)
    target.clear()
    target.update({"\0": first, key: first, **rest})
    return json.dumps(copy).replace(json.dumps("\0"), json.dumps(key), 1), f"{place}.{key}".lstrip(".")


CALL = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function",
        "function": {"name": "f", "arguments": "{}"}}]}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
WITH_TOOLS = {"messages": [Q, CALL, {"role": "tool", "tool_call_id": "c", "content": "1"}, A], "tools": TOOLS}
NESTED = [*ROWS.values(), WITH_TOOLS, {"messages": [Q], "reference_answer": {"a": {"b": 1}}},
          {"text": "a", "label": "x"}, {"tokens": ["a"], "tags": [1]}]  # fmt: skip


@pytest.mark.parametrize("row", NESTED, ids=lambda row: next(iter(row)))
def test_duplicate_keys_are_errors_at_any_depth(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(row)
    assert not check(_file(path, good), workers=0).counts.get("duplicate_key")
    for number in range(len(objects(row))):
        bad, field = doubled(row, number)
        for content in (f"{bad}\n{good}\n", f"{good}\n{bad}\n"):
            report = check(_file(path, content), workers=0)
            (problem,) = (one for one in report.problems if one.code == "duplicate_key")
            assert (problem.field, problem.line) == (field, 1 + content.startswith(good))
            assert not report.ok
        array = check(_file(tmp_path / "rows.json", f"[{good},\n{bad}]"), workers=0)
        assert array.counts["duplicate_key"] == 1


def _file(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


def test_escapes_do_not_hide_a_duplicate_key(tmp_path: Path) -> None:
    bad = r'{"prompt": "a \u003a b", "completion": "1", "completion": "2"}'
    report = check(_file(tmp_path / "rows.jsonl", bad), workers=0)
    assert report.counts["duplicate_key"] == 1
    good = r'{"prompt": "a \u003a b", "completion": "1 \u003a"}'
    assert check(_file(tmp_path / "rows.jsonl", good), workers=0).ok


def test_duplicate_keys_of_unused_columns_are_errors(tmp_path: Path) -> None:
    rows = [json.dumps(CHAT), '{"id": 1, "id": 2, ' + json.dumps(CHAT)[1:]]
    assert check(_file(tmp_path / "rows.jsonl", "\n".join(rows)), workers=0).counts["duplicate_key"] == 1


def test_duplicate_keys_are_found_with_templates(tmp_path: Path) -> None:
    path = _file(tmp_path / "rows.jsonl", '{"a": "1", "a": "2", "b": "3"}')
    source = Source(path=path, template={"prompt": "{a}", "completion": "{b}"})
    assert check(source, workers=0).counts["duplicate_key"] == 1


def test_duplicate_keys_are_found_in_json_cells(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    _csv(path, {"messages": '[{"role":"user","content":"a","content":"b"},{"role":"assistant","content":"c"}]'})
    (problem,) = (one for one in check(str(path), workers=0).problems if one.severity == "error")
    assert (problem.code, problem.line) == ("duplicate_key", 2)


TWICE = '{"name":"a","name":"b","arguments":{}}'


@pytest.mark.parametrize(("row", "field"), [
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": TWICE}]},
     "conversations[1].value"),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": f"[{TWICE}]"}]},
     "messages[1].tool_calls"),
    ({"prompt": "q", "completion": "a", "tools": f"[{TWICE}]"}, "tools"),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1, "a": 2}'}}]}]},
     "messages[1].tool_calls[0].function.arguments"),
])  # fmt: skip
def test_duplicate_keys_are_errors_in_json_texts(row: dict[str, Any], field: str, tmp_path: Path) -> None:
    (problem,) = (one for one in check(_file(tmp_path / "rows.jsonl", json.dumps(row)), workers=0).problems
                  if one.severity == "error")  # fmt: skip
    assert (problem.code, problem.field) == ("duplicate_key", field)


@pytest.mark.parametrize("name", WRITERS)
def test_two_columns_cannot_have_one_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path, {"a": "1", "b": "2", "completion": "3"})
    report = check(Source(path=str(path), columns={"a": "prompt", "b": "prompt"}), workers=0)
    (problem,) = (one for one in report.problems if one.severity == "error")
    assert problem.code == "duplicate_key"
    assert "'a' and 'b'" in problem.message
