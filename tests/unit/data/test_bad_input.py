"""Every way that we know in which a file of data can be wrong: one clear problem each, with its place."""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.data import prepare
from cloudtune.errors import DataError, Problem
from cloudtune.spec import Data

if TYPE_CHECKING:
    from pathlib import Path

GOOD = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}'


def chat(*turns: tuple[str, str], **more: Any) -> str:
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns], **more})


def problems(path: Path | str, method: str = "sft", **source: Any) -> tuple[Problem, ...]:
    """The errors; warnings stand behind them."""
    with pytest.raises(DataError) as caught:
        prepare(Data.model_validate({"train": {"path": str(path), **source}}), method=method)
    assert caught.value.exit_code == 2
    for problem in caught.value.problems:
        assert problem.fix or problem.code == "more_problems", problem
    return tuple(problem for problem in caught.value.problems if problem.severity == "error")


def only(path: Path | str, **source: Any) -> Problem:
    found = problems(path, **source)
    assert len(found) == 1, found
    return found[0]


U, A = ("user", "hi"), ("assistant", "ho")
ROWS = {  # name: (the row on line 2, code, field)
    "invalid json": ('{"messages": [}', "invalid_json", None),
    "cut off": (GOOD[:-4], "invalid_json", None),
    "not a number": ('{"messages":[{"role":"user","content":NaN}]}', "not_json_number", None),
    "lone surrogate": (GOOD.replace('"a"', '"\\ud800"'), "lone_surrogate", None),
    "deep": ("[" * 100_000, "too_deep", None),
    "an array": ("[1, 2]", "not_an_object", None),
    "a number": ("5", "not_an_object", None),
    "wrong keys": ('{"mesages": []}', "missing_key", "messages"),
    "another kind": ('{"text": "a"}', "mixed_kinds", None),
    "unknown role": (chat(("usr", "a"), A), "unknown_role", "messages[0].role"),
    "content of a wrong type": ('{"messages":[{"role":"user","content":5}]}', "wrong_type", "messages[0].content"),
    "no content": ('{"messages":[{"role":"user"}]}', "missing_key", "messages[0]"),
    "messages of a wrong type": ('{"messages":"hello"}', "wrong_type", "messages"),
    "unknown key in a turn": (GOOD.replace('"a"', '"a","cntent":"b"'), "unknown_key", "messages[0]"),
    "no messages": ('{"messages":[]}', "no_messages", "messages"),
    "empty answer": (chat(U, ("assistant", "")), "blank", "messages[1].content"),
    "blank question": (chat(("user", " \n\t"), A), "blank", "messages[0].content"),
    "last turn is the user's": (chat(U, A, U), "last_not_assistant", "messages[2].role"),
    "a result before any call": (chat(U, ("tool", "r"), A), "role_order", "messages[1].role"),
    "a result as the first turn": (chat(("tool", "r"), A), "role_order", "messages[0].role"),
    "weight of a user": (
        '{"messages":[{"role":"user","content":"a","weight":1},{"role":"assistant","content":"b"}]}',
        "weight_role", "messages[0].weight",
    ),
    "weight out of range": (
        '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":2}]}',
        "wrong_type", "messages[1].weight",
    ),
    "nothing to learn": (
        '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":0}]}',
        "nothing_to_learn", "messages",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("blank_line", [False, True])
def test_a_bad_row_is_told_with_its_line_and_field(tmp_path: Path, name: str, blank_line: bool) -> None:
    row, code, field = ROWS[name]
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n{chr(10) if blank_line else ''}{row}\n{GOOD}\n", encoding="utf-8")
    found = problems(path)
    assert (found[0].code, found[0].field) == (code, field)
    assert {problem.line for problem in found} == {3 if blank_line else 2}
    assert found[0].file == str(path)


def test_every_fault_of_a_file_is_told_at_once_and_the_rest_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([GOOD, *("{" for _ in range(70)), chat(U, U, ("assistant", ""))]))
    *listed, rest = problems(path)
    assert [problem.line for problem in listed] == [*range(2, 52), 72], "of each code the first fifty"
    assert rest.code == "more_problems"
    assert rest.message.startswith("and 20 more")
    assert "invalid_json 70" in rest.message
    path.write_text(f"{GOOD}\n{chat(U, U, ('assistant', ''))}")
    assert [problem.code for problem in problems(path)] == ["blank"]


def test_no_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(GOOD)
    problem = only(tmp_path / "row.jsonl")
    assert problem.code == "no_file"
    assert "rows.jsonl" in (problem.fix or "")
    assert only(tmp_path / "nowhere" / "x.jsonl").code == "no_file"
    assert only(tmp_path / "*.csv").code == "no_file"


@pytest.mark.parametrize("content", [b"", b"\n \n\n", b"\xef\xbb\xbf", b"[]", b" [ ]\n"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_empty_files(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    assert only(path).code == "empty_file"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.parquet"])
def test_empty_tables(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    assert only(path).code == "empty_file"
    if name != "a.parquet":
        path.write_text({"a.txt": "\n\n", "a.csv": "prompt,completion\n", "a.tsv": "prompt\tcompletion\n"}[name])
        assert only(path).code == "empty_file"


def test_a_folder(tmp_path: Path) -> None:
    assert only(tmp_path).code == "is_directory"


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD)
    path.chmod(0)
    was = os.geteuid()
    try:
        if was == 0:  # root may read anything: be nobody for a moment
            os.seteuid(65534)
        assert only(path).code == "no_permission"
    finally:
        os.seteuid(was)


def test_invalid_utf8_and_utf16(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(f"{GOOD}\n".encode() + GOOD.replace("a", "ñ").encode("latin-1"))
    problem = problems(path)[0]
    assert (problem.code, problem.line) == ("invalid_utf8", 2)
    assert "0xf1" in problem.message
    path.write_bytes(GOOD.encode("utf-16") + b"\x00\xd8\x00\xd8")
    assert only(path).code == "invalid_encoding"
    table = tmp_path / "rows.csv"
    table.write_bytes("prompt,completion\na,b\nñ,d\n".encode("latin-1"))
    problem = only(table)
    assert (problem.code, problem.line) == ("invalid_utf8", 3)


def test_a_broken_gzip(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress("\n".join([GOOD] * 1000).encode())
    for bad in (whole[:-20], b"no gzip at all", whole[:200] + b"\0\0\0\0" + whole[204:]):
        path.write_bytes(bad)
        assert only(path).code == "broken_gzip"


def test_arrays_with_broken_ends(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for content, line in {
        f"[{GOOD},\n{GOOD}": 2,
        f"[{GOOD},\n{GOOD[:-3]}": 2,
        f"[{GOOD}\n{GOOD}]": 2,
        f"[{GOOD}\n,,\n{GOOD}]": 2,
        f"[{GOOD}]\n{GOOD}": 2,
        f"[{GOOD},\n\n{{\n'a': 1}}]": 3,
        f"[\n{GOOD},\n5]": 3,
    }.items():
        path.write_text(content)
        found = problems(path)
        assert found[0].line == line, (content, found)
        assert found[0].code in {"invalid_json", "not_an_object"}


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        ('prompt,completion\na,b\n"c,d\n', "broken_csv", 3),
        ('prompt,completion\na,b\n"c"x,d\n', "broken_csv", 3),
        ("prompt,completion\na,b\nc\n", "wrong_columns", 3),
        ('prompt,completion\n"a\nb",c\nd,e,f\n', "wrong_columns", 4),
        ("prompt,prompt\na,b\n", "bad_header", 1),
        ("prompt,\na,b\n", "bad_header", 1),
        ("frage,antwort\na,b\nc,d\n", "unknown_keys", 1),
        ("prompt,completion\na,b\nc,\n", "blank", 3),
        ('messages\n"[{}"\n', "invalid_json", 2),
        ('messages\n"[{""role"":""bot"",""content"":""a""}]"\n', "unknown_role", 2),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, code: str, line: int) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    problem = only(path)
    assert (problem.code, problem.line) == (code, line), problem


def test_bad_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 this is no parquet PAR1")
    assert only(path).code == "broken_parquet"
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": [3, 4]}), path)
    assert only(path).code == "unknown_keys"
    parquet.write_table(pyarrow.table({"prompt": [[1], [2]], "completion": ["a", "b"]}), path)
    found = problems(path)
    assert [(p.code, p.row, p.line, p.field) for p in found] == [
        ("wrong_type", 1, None, "prompt[0]"), ("wrong_type", 2, None, "prompt[0]"),
    ]  # fmt: skip


def test_a_row_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudtune.data.read.blocks.MAX_ROW_BYTES", 3 << 20)
    long = GOOD.replace('"a"', f'"{"x" * (5 << 20)}"')
    for name, content in {"rows.jsonl": f"{GOOD}\n{long}\n{{\n", "rows.json": f"[{GOOD},\n{long}]"}.items():
        path = tmp_path / name
        path.write_text(content)
        found = problems(path)
        assert (found[0].code, found[0].line) == ("row_too_long", 2)
    assert len(found) == 1
    path = tmp_path / "rows.jsonl"
    assert [p.line for p in problems(path)] == [2, 3]


def test_a_wanted_kind_and_wrong_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "a", "answer": "b"}\n')
    assert "question: instruction" not in (only(path).fix or "")
    assert only(path, kind="chat").code == "missing_key"
    problem = only(path, columns={"frage": "prompt", "answer": "completion"})
    assert "frage" in (problem.fix or "")
    assert only(tmp_path / "rows.jsonl", kind="text").code == "missing_key"


def test_an_unknown_format(tmp_path: Path) -> None:
    path = tmp_path / "rows.dat"
    path.write_text("hello")
    assert only(path).code == "unknown_format"


def test_empty_sides_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD)
    for share in (0.01, 0.99):
        with pytest.raises(DataError) as caught:
            prepare(Data.model_validate({"train": str(path), "validation": share}))
        assert caught.value.problems[0].code == "empty_split"


def test_sides_of_different_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(GOOD)
    (tmp_path / "b.jsonl").write_text('{"text": "a"}')
    with pytest.raises(DataError) as caught:
        prepare(Data.model_validate({"train": str(tmp_path / "a.jsonl"), "validation": str(tmp_path / "b.jsonl")}))
    assert caught.value.problems[0].code == "mixed_kinds"
