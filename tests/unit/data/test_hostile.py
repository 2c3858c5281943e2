"""Files made to hurt: each gives one clear error with its place, soon and in little memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property_tests import examples
from tests.unit.data.test_fuzz import CONTENT, KEYS, NAMES, VALUES

from cloudtune.data.report import CheckReport, check, convert
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from pathlib import Path

GOOD = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}'


def errors(report: CheckReport) -> list[tuple[str, int | None]]:
    """Code and place of each."""
    return [(problem.code, problem.line or problem.row) for problem in report.problems if problem.severity == "error"]


# --- what a row may hold


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("row", "code"),
    [
        ('{"messages":' + "[" * 100_000 + "]" * 100_000 + "}", "too_deep"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "too_deep"),
        (GOOD[:-1] + ',"tools":' + "[" * 5_000 + "]" * 5_000 + "}", "too_deep"),
        (GOOD.replace('"a"', '"\\ud83d"'), "lone_surrogate"),
        (GOOD.replace('"a"', '"\\udc00\\ud800"'), "lone_surrogate"),
        (GOOD.replace('"a"', '"a\x00b"'), "invalid_json"),
        ("\x00" * 64, "invalid_json"),
        (GOOD + "\x00", "invalid_json"),
        (GOOD.replace('"a"', "1" * 5_000), "number_range"),
        ('{"messages":' + "9" * 5_000 + "}", "number_range"),
        (GOOD.replace('"a"', "-Infinity"), "not_json_number"),
        (GOOD + GOOD, "invalid_json"),
        (GOOD.replace('"a"', '"' + "\\" * 99_999), "invalid_json"),
        ("{" + ",".join(f'"k{i}":0' for i in range(50_000)) + "}", "missing_key"),
    ],
    ids=["deep", "deep objects", "deep tools", "surrogate", "swapped surrogates", "NUL in a text", "NULs", "NUL behind",
         "digits", "long number", "infinity", "two in a line", "backslashes", "many keys"],
)  # fmt: skip
def test_a_row_that_is_made_to_hurt(tmp_path: Path, row: str, code: str, workers: int) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n{row}\n{GOOD}\n", encoding="utf-8")
    started = time.process_time()
    report = check(str(path), workers=workers)
    assert time.process_time() - started < 10
    assert errors(report) == [(code, 2)]
    assert report.rows == 2
    for problem in report.problems:
        assert len(str(problem)) < 1000, "a problem is told in a few words, whatever the row holds"


def test_a_nul_byte_as_json_may_write_it_is_a_control_character(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD.replace('"a"', '"\\u0000"') + "\n" + GOOD.replace('"a"', '"\\b"'))
    found = [problem for problem in check(str(path)).problems if problem.code == "control_character"]
    assert [(problem.line, problem.severity, problem.field) for problem in found] == [
        (1, "warning", "messages[0].content"), (2, "warning", "messages[0].content"),
    ]  # fmt: skip


# --- packed files


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_bomb_ends_soon_and_in_little_memory(
    tmp_path: Path, suffix: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudtune.data.read.blocks.MAX_ROW_BYTES", 1 << 20)
    monkeypatch.setattr("cloudtune.data.read.blocks.MAX_SKIP_BYTES", 8 << 20)
    content = f"{GOOD}\n".encode() + b" " + b"0" * (96 << 20)
    path = tmp_path / f"bomb.jsonl.{suffix}"
    path.write_bytes(packed(content, suffix))
    assert path.stat().st_size < 1 << 20
    report = check(str(path), workers=workers)
    assert errors(report) == [("row_too_long", 2)]
    assert report.rows == 1


def packed(content: bytes, suffix: str) -> bytes:
    if suffix == "gz":
        return gzip.compress(content, 1)
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.compress(content, codec="zstd", asbytes=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_packed_file_that_is_broken_or_something_else(tmp_path: Path, suffix: str) -> None:
    code = {"gz": "broken_gzip", "zst": "broken_zstd"}[suffix]
    content = "\n".join([GOOD.replace('"a"', f'"{i} {i * i}"') for i in range(20_000)]).encode()
    whole = packed(content, suffix)
    path = tmp_path / f"rows.jsonl.{suffix}"
    cases = [b"hello", whole[: len(whole) // 2], whole[:5]]
    if suffix == "gz":  # a zstd frame need not have a checksum
        cases.append(whole[:-6] + b"\0" * 6)
    for bad in cases:
        path.write_bytes(bad)
        report = check(str(path), workers=0)
        assert [problem.code for problem in report.problems if problem.severity == "error"] == [code]
        assert report.problems[0].file == str(path)


# --- tables


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (b'prompt,completion\na,b\n"c,d\n' + b"e,f\n" * 50_000, "broken_csv", 3),
        (b'prompt,completion\na,b\n"c"d"e",f\n', "broken_csv", 3),
        (b"prompt,completion\na,b\nc,\x00d\n", None, None),
        (b"prompt,completion\na,b\nc," + b"d" * (2 << 20) + b"\n", None, None),
        (b"\x00\x01\x02\x03" * 1000, "empty_file", None),
        (b"," * 100_000 + b"\na,b\n", "bad_header", 1),
    ],
    ids=["open quote", "quotes within", "NUL", "long field", "binary", "commas"],
)
def test_a_table_with_broken_quotes_or_worse(
    tmp_path: Path, content: bytes, code: str | None, line: int | None
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    found = errors(check(str(path), workers=0))
    if code is None:  # odd, but every field can be read
        assert found == []
    else:
        assert found == [(code, line)]


def test_parquet_and_arrow_with_a_wrong_schema_or_garbage(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    tables = {
        "nested too little": ({"messages": ["a", "b"]}, "invalid_json"),
        "numbers": ({"messages": [1, 2]}, "wrong_type"),
        "wrong struct": ({"messages": [[{"who": "a"}], [{"who": "b"}]]}, "unknown_keys"),
        "binary": ({"text": [b"\xff\xfe", b"ok"]}, "invalid_utf8"),
        "other columns": ({"x": [1, 2]}, "unknown_keys"),
        "null": ({"messages": [None, chat]}, "wrong_type"),
    }
    found = {}
    for name, (columns, _) in tables.items():
        for suffix, write in (("parquet", parquet.write_table), ("arrow", feather.write_feather)):
            path = tmp_path / f"rows.{suffix}"
            write(pyarrow.table(columns), str(path))
            report = check(str(path), workers=0)
            assert not report.ok, name
            assert report.problems[0].file == str(path)
            found[name, suffix] = report.problems[0].code
    for suffix in ("parquet", "arrow"):
        good = tmp_path / f"good.{suffix}"
        table = pyarrow.table({"messages": [chat] * 5000})
        parquet.write_table(table, good) if suffix == "parquet" else feather.write_feather(table, str(good))
        whole = good.read_bytes()
        for bad in (
            whole[:-100],
            whole[100:],
            whole[:200] + b"\xff" * 200 + whole[400:],
            b"ARROW1\0\0" + b"\xff" * 500,
        ):
            path = tmp_path / f"rows.{suffix}"
            path.write_bytes(bad)
            report = check(str(path), workers=0)
            assert report.rows in {0, 5000}
            assert report.ok == bool(report.rows)


# --- lines without an end


def limited(code: str, megabytes: int) -> subprocess.CompletedProcess[str]:
    """Run in a process that may not have more memory than that."""
    head = f"import resource\nresource.setrlimit(resource.RLIMIT_AS, ({megabytes << 20}, {megabytes << 20}))\n"
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code)], capture_output=True, text=True, check=False
    )


SPARSE = """
    import json, sys
    from cloudtune.data.report import check
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.txt"):
        path = {folder!r} + "/" + name
        with open(path, "wb") as out:
            out.write({{"rows.jsonl": b'{good}\\n{{"messages":"', "rows.json": b'[{good},\\n{{"messages":"',
                        "rows.csv": b'prompt,completion\\na,b\\n"', "rows.txt": b"a\\n"}}[name])
            out.truncate({size})
        report = check(path, workers=0)
        print(json.dumps([[p.code, p.line, str(p)] for p in report.problems if p.severity == "error"]))
"""


def lines_without_end(folder: Path, size: int, megabytes: int) -> None:
    """The file is sparse: one line of NUL bytes, inside a text where there is one."""
    done = limited(SPARSE.format(folder=str(folder), size=size, good=GOOD), megabytes)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 4
    for problems in found:
        ((code, line, _),) = problems
        assert code in {"row_too_long", "broken_csv"}
        assert line in {2, 3}


def test_a_line_of_a_hundred_megabytes(tmp_path: Path) -> None:
    lines_without_end(tmp_path, 100 << 20, 900)


@pytest.mark.soak
def test_a_line_of_two_gigabytes(tmp_path: Path) -> None:
    lines_without_end(tmp_path, 2 << 30, 900)


# --- anything at all

TO = st.sampled_from(["openai", "bedrock-converse", "claude", "kto", "sagemaker-rlvr", "preference", "pair"])


@settings(max_examples=examples(30), deadline=None)
@given(name=st.sampled_from(NAMES), content=CONTENT, to=TO)
def test_any_bytes_converted(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes, to: str) -> None:
    anything(tmp_path_factory.mktemp("fuzz") / name, content, to)


@pytest.mark.soak
@settings(max_examples=30_000, deadline=None)
@given(name=st.sampled_from(NAMES), content=CONTENT, to=TO)
def test_any_bytes_converted_at_length(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes, to: str
) -> None:
    anything(folder(tmp_path_factory) / name, content, to)


@pytest.mark.soak
@settings(max_examples=20_000, deadline=None)
@given(rows=st.lists(st.dictionaries(KEYS, VALUES, max_size=5), min_size=1, max_size=4), to=TO)
def test_any_json_converted_at_length(tmp_path_factory: pytest.TempPathFactory, rows: list[object], to: str) -> None:
    lines = [json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass") for row in rows]
    anything(folder(tmp_path_factory) / "rows.jsonl", b"\n".join(lines), to)


def folder(factory: pytest.TempPathFactory) -> Path:
    """One for all examples of a run."""
    found = factory.getbasetemp() / "fuzz"
    found.mkdir(exist_ok=True)
    return found


def anything(path: Path, content: bytes, to: str) -> None:
    path.write_bytes(content)
    out = path.with_name("out.jsonl")
    out.unlink(missing_ok=True)
    report = convert(str(path), to=to, out=out, private=True, workers=0)
    assert report.ok == out.exists()
    assert report.rows or not report.ok
    for problem in report.problems:
        assert isinstance(problem, Problem)
        assert problem.severity != "error" or problem.fix
        str(problem)
    assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")] == []
