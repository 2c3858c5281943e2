"""Untrusted paths, keys and sizes: each gives one clear error, in linear time."""

from __future__ import annotations

import glob
import gzip
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.property_tests import examples
from tests.unit.data import columnar_files

from cloudtune.catalog.reading import read as read_catalog
from cloudtune.cli.generate import read_prompts
from cloudtune.clock import SystemClock
from cloudtune.config.trust import read_project_file
from cloudtune.data.checks.check_cache import Verdicts
from cloudtune.data.checks.preparing import prepare
from cloudtune.data.checks.tokens import TokenCounter
from cloudtune.data.dataset import Dataset
from cloudtune.data.encoding import encode
from cloudtune.data.problem_list import MAX_UNUSED_KEYS
from cloudtune.data.read import arrow, decoding, kinds, plain_blocks
from cloudtune.data.read.path_patterns import matching_files
from cloudtune.data.read.remote import _pattern
from cloudtune.data.report import check, convert, source_data
from cloudtune.document.document import read_document
from cloudtune.errors import CloudtuneError, DataError, InputError
from cloudtune.files.archives import extract_tar
from cloudtune.ledger.check import check_ledger
from cloudtune.ledger.ledger import Ledger
from cloudtune.spec import Data
from cloudtune_emulator.base_models import read as read_base_models
from cloudtune_emulator.openai.training_rows import RowFault, check_images
from cloudtune_trainer.submit.model_facts import find_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
ROW = json.dumps(GOOD).encode()


def codes(paths: str | tuple[str, ...], workers: int = 0) -> list[str]:
    """Of the errors."""
    return [one.code for one in check(paths, workers=workers).problems if one.severity == "error"]


# --- files that are no files


@pytest.fixture
def specials(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Paths of everything that is not a regular file."""
    fifo, place = tmp_path / "fifo.jsonl", tmp_path / "socket.jsonl"
    os.mkfifo(fifo)
    (tmp_path / "link.jsonl").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        yield {
            "fifo": str(fifo), "socket": str(place), "link": str(tmp_path / "link.jsonl"), "device": "/dev/zero",
            "nul": "a\0b.jsonl", "surrogate": "a\ud800.jsonl",
        }  # fmt: skip


READS: dict[str, Callable[[str, Path], object]] = {
    "check": lambda path, _: check(path).problems[0].code == "x" or _refused(check(path).ok),
    "convert": lambda path, to: _refused(convert(path, to="openai", out=to / "out").ok),
    "near": lambda path, _: _refused(check(path, near=0.5).ok),
    "mix": lambda path, to: _refused(check(_with_mix(path, to)).ok),
    "validation": lambda path, to: _refused(check(source_data(_good(to), validation=path)).ok),
    "prepare": lambda path, _: prepare(source_data(path)),
    "verdicts": lambda path, to: Verdicts(to / "verdicts").prepare(source_data(path)),
    "dataset": lambda path, _: Dataset.read(path).count(),
    "parquet": lambda path, _: Dataset.read(path, format="parquet").count(),
    "arrow": lambda path, _: Dataset.read(path, format="arrow").count(),
    "csv": lambda path, _: Dataset.read(path, format="csv").count(),
    "document": lambda path, _: read_document(path, error=InputError, what="a spec"),
    "prompts": lambda path, _: read_prompts(Path(path)),
    "tokenizer": lambda path, _: TokenCounter(path),
    "tokenizer of a folder": lambda path, to: TokenCounter(_folder(to, "tokenizer.json", path)),
    "catalog": lambda path, _: read_catalog(Path(path)),
    "base models of the emulator": lambda path, to: read_base_models(Path(path), to),
    "model": lambda path, _: find_model(path),
    "gguf": lambda path, to: find_model(str(_link(to / "model.gguf", path))),
    "description": lambda path, to: find_model(str(_link(to / "model.json", path))),
    "weights": lambda path, to: find_model(_folder(to, "model.safetensors", path)),
    "config.json": lambda path, to: find_model(_folder(to, "config.json", path)),
    "chat template": lambda path, to: find_model(_folder(to, "chat_template.jinja", path)),
    "revision": lambda path, _: find_model("acme/model", revision=path),
    "archive": lambda path, to: extract_tar(Path(path), to / "extracted"),
    "ledger": lambda path, _: Ledger.open(path, SystemClock()).attempts(),
    "ledger check": lambda path, _: check_ledger(Ledger.open(path, SystemClock())),
    "project file": lambda path, _: read_project_file(Path(path)),
}


def _link(place: Path, path: str) -> Path:
    """A link to the path. No link leads to a path that no file can have: the path itself is meant then."""
    try:
        place.symlink_to(path)
    except ValueError:
        return Path(path)
    return place


def _folder(to: Path, name: str, path: str) -> str:
    """A model folder one of whose files is the path."""
    folder = to / "model"
    folder.mkdir()
    for other in {"config.json", "model.safetensors", "tokenizer.json"} - {name}:
        (folder / other).write_bytes(_EMPTY_WEIGHTS if other == "model.safetensors" else b"{}")
    if _link(folder / name, path) != folder / name:
        raise InputError([])
    return str(folder)


_EMPTY_WEIGHTS = (2).to_bytes(8, "little") + b"{}"


def _refused(ok: bool) -> None:
    if not ok:
        raise InputError([])


def _good(folder: Path) -> str:
    path = folder / "good.jsonl"
    path.write_bytes(ROW)
    return str(path)


def _with_mix(path: str, folder: Path) -> Data:
    return Data.model_validate({"train": _good(folder), "mix": {"path": path, "weight": 1}})


@pytest.mark.parametrize("kind", ["fifo", "socket", "link", "device", "nul", "surrogate"])
@pytest.mark.parametrize("reader", READS)
def test_only_regular_files_are_read(reader: str, kind: str, specials: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(CloudtuneError):
        READS[reader](specials[kind], tmp_path)


@pytest.mark.parametrize("command", ["check", "convert", "profile", "preview", "stats", "split", "dedupe", "balance"])
def test_no_command_waits_for_a_fifo(command: str, specials: dict[str, str], tmp_path: Path) -> None:
    from click.testing import CliRunner

    from cloudtune.cli.main import cli

    more = {"convert": ["--to", "openai", "-o", str(tmp_path / "o")], "profile": ["-o", str(tmp_path / "o")],
            "split": ["-o", str(tmp_path)], "dedupe": ["-o", str(tmp_path / "o")],
            "balance": ["-o", str(tmp_path / "o")]}  # fmt: skip
    result = CliRunner().invoke(cli, ["data", command, specials["fifo"], *more.get(command, [])])
    assert result.exit_code == 2, result.output
    assert "named pipe" in result.output or command in {"profile", "stats"}  # these show the report in their own way


def _convert(rows: Path, out: Path) -> object:
    return convert(str(rows), to="openai", out=out, workers=0)


def _encode(rows: Path, out: Path) -> object:
    return encode(Data(train=str(rows)), split="train", format="openai", to=out)


def _write(rows: Path, out: Path) -> object:
    return Dataset.read(str(rows)).write(out)


@pytest.mark.parametrize("write", [_convert, _encode, _write])
def test_only_regular_files_are_replaced(write: Callable[[Path, Path], object], tmp_path: Path) -> None:
    rows, fifo, link = tmp_path / "rows.jsonl", tmp_path / "fifo", tmp_path / "link"
    rows.write_bytes(ROW)
    os.mkfifo(fifo)
    link.symlink_to(fifo)
    for out in (fifo, link, tmp_path):
        with pytest.raises(DataError, match=f"{out} exists and is not a regular file"):
            write(rows, out)
    assert fifo.is_fifo()
    assert link.is_symlink()
    write(rows, tmp_path / "new" / "out.jsonl")
    assert (tmp_path / "new" / "out.jsonl").is_file()


def test_links_to_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(_good(tmp_path))
    assert codes(str(tmp_path / "link.jsonl")) == []


@pytest.mark.parametrize("pattern", ["[z-a]*.jsonl", "a[", "*" * 200 + "x.jsonl", "**/" * 30 + "x", "[!]*", "a[\0]"])
def test_odd_patterns_are_reported(pattern: str, tmp_path: Path) -> None:
    assert codes(str(tmp_path / pattern)) in (["no_file"], ["bad_path"])


@pytest.mark.parametrize(
    "pattern", ["*.x", "**/*.x", "**/**/a*/*", "*/**/b/**/?.x", "[ab]/b/*", "**/.h/*", "**/b/**", "*/../a/./*.x"]
)
def test_patterns_match_the_files_that_glob_matches(pattern: str, tmp_path: Path) -> None:
    for name in ("1.x", "a/2.x", "a/b/3.x", "a/b/.4.x", "b/b/5.x", ".h/6.x", "a/.h/7.x", "a/b/c/8.x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {Path(os.path.normpath(name)) for name in glob.glob(f"{tmp_path}/{pattern}", recursive=True)}
    assert [Path(os.path.normpath(path)) for path in matching_files(f"{tmp_path}/{pattern}").files] == sorted(
        path for path in found if path.is_file()
    )


def test_each_folder_is_visited_once() -> None:
    """Folders in folders, and links that form a loop, have ever more ways to match a pattern."""
    with tempfile.TemporaryDirectory() as top:  # pytest's own folders have long names
        deep = Path(top, *["a"] * 40)
        deep.mkdir(parents=True)
        (deep / "x.jsonl").touch()
        for name in ("b", "c"):
            Path(top, name).symlink_to(top)
        for pattern in ("**/a/" * 6, "**/", "**/*/" * 6, "*/" * 40 + "**/"):
            assert len(matching_files(f"{top}/{pattern}*.jsonl").files) <= 1


def test_links_below_a_pattern_are_named_and_links_in_it_followed(tmp_path: Path) -> None:
    rows, store = tmp_path / "rows", tmp_path / "store"
    for folder in (rows / "own", store / "deep"):
        folder.mkdir(parents=True)
        (folder / "x.jsonl").write_bytes(ROW)
    (rows / "linked").symlink_to(store)
    (rows / "again").symlink_to(rows / "own")
    found = check(f"{rows}/**/*.jsonl", workers=0)
    assert found.rows == 1
    assert [(one.code, one.file) for one in found.problems if one.code == "link_not_followed"] == [
        ("link_not_followed", str(rows / "linked"))
    ]
    for pattern in ("linked/**/*.jsonl", "*/deep/*.jsonl", "linked/deep/*.jsonl", "**/linked/deep/*.jsonl"):
        found = check(f"{rows}/{pattern}", workers=0)
        assert found.rows == 1, pattern
        assert "link_not_followed" not in [one.code for one in found.problems], pattern


def test_the_name_of_a_folder_with_two_names_is_always_the_same(tmp_path: Path) -> None:
    (tmp_path / "m" / "sub").mkdir(parents=True)
    (tmp_path / "m" / "sub" / "x.jsonl").write_bytes(ROW)
    for name in "abyz":
        (tmp_path / name).symlink_to(tmp_path / "m" / "sub")
    assert matching_files(f"{tmp_path}/*/**/*.jsonl").files == [tmp_path / "a" / "x.jsonl"]


def test_patterns_of_objects_are_matched_in_linear_time() -> None:
    folders = "s3://b/" + "a/" * 400
    assert not _pattern("s3://b/" + "**/a/" * 30 + "b").fullmatch(folders)
    assert _pattern("s3://b/" + "**/a/" * 30 + "**/*").fullmatch(folders)
    assert not _pattern("s3://b/***/c").fullmatch("s3://b/a/b/c")
    name = "s3://b/" + "a" * 1000
    assert not _pattern("s3://b/" + "*a" * 60 + "b").fullmatch(name)
    assert _pattern("s3://b/" + "*a" * 60).fullmatch(name)
    assert _pattern("s3://b/[z-a]*").fullmatch(name) is None


IN_QUADRATIC_TIME: dict[str, dict[str, Any]] = {
    "a data URL of spaces": {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,a" + " " * 1_000_000 + "!"}}]},
        {"role": "assistant", "content": "b"}]},
    "beginnings of web tokens": {"prompt": "a", "completion": "eyJ-" * 250_000},
    "an open string in arguments": {"messages": [{"role": "user", "content": "a"}, {
        "role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {
            "name": "f", "arguments": "[]" * 200 + '\\"' * 500_000}}]}]},
}  # fmt: skip


@pytest.mark.parametrize("row", IN_QUADRATIC_TIME.values(), ids=IN_QUADRATIC_TIME)
def test_long_texts_are_checked_in_linear_time(row: dict[str, object], tmp_path: Path) -> None:
    """A row of a megabyte takes milliseconds, not minutes."""
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert check(str(tmp_path / "rows.jsonl"), target="openai", private=True, workers=0).rows == 1


def test_the_emulator_checks_data_urls_in_linear_time() -> None:
    row = IN_QUADRATIC_TIME["a data URL of spaces"]
    with pytest.raises(RowFault, match="base64"):
        check_images(row["messages"], allowed=True)


@pytest.mark.parametrize(
    "state",
    ["{", "[]", '{"_data_files": 1}', '{"_data_files": [{"filename": 1}]}', '{"_data_files": [{"filename": "../x"}]}',
     '{"_data_files": [{"filename": "/etc/passwd"}]}', '{"_data_files": [{"filename": "a\\u0000"}]}', "[" * 100_000],
)  # fmt: skip
def test_the_index_of_a_saved_dataset_is_checked(state: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(state)
    assert codes(str(tmp_path)) == ["bad_index"]


# --- keys


@pytest.mark.parametrize("compiled", [True, False])
def test_a_row_may_have_any_unknown_key(compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(plain_blocks, "compiled", lambda: None)

    @settings(max_examples=examples(15), deadline=None)
    @given(key=st.text(max_size=5), columns=st.booleans())
    @example('a"b', False)
    @example("a\\", False)
    @example("\x00", True)
    @example('"', True)
    @example("<prompt>", True)
    def any_key(key: str, columns: bool) -> None:
        path = tmp_path / "rows.jsonl"
        row = {key: "a", "completion": "b"} if columns else {**GOOD, key: 1}
        path.write_bytes((json.dumps(row) + "\n").encode() * 3 + (b"" if columns else ROW))
        mapped = {key: "prompt"} if columns and key else {}
        report = check(Data.model_validate({"train": {"path": str(path), "columns": mapped}}))
        if not columns and key not in {"messages", "tools", "parallel_tool_calls"}:
            assert report.rows == 4 or not report.ok  # the key may make it a row of another kind
            assert report.counts.get("unused_key", 0) == 1 or not report.ok
        if mapped and key != "completion":
            assert report.rows == 3

    any_key()


@pytest.mark.parametrize("workers", [0, 2])
def test_many_unused_keys_take_linear_time(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**GOOD, f"k{i}": i}) + "\n" for i in range(3000)))
    made: list[int] = []
    real = kinds.row_type
    monkeypatch.setattr(decoding, "row_type", lambda *args: made.append(len(args[-1])) or real(*args))
    report = check(str(path), workers=workers)
    assert report.rows == 3000
    assert report.counts["unused_key"] == MAX_UNUSED_KEYS + 1
    assert sum(made) <= (kinds.MAX_EXTRA + 2) ** 2, "the fields of all types that were made"


def test_fields_of_graded_rows_do_not_depend_on_their_order(tmp_path: Path) -> None:
    rows = [{"messages": GOOD["messages"][:1], "answer": "b", **{f"k{i}": i for i in order}}
            for order in (range(50), reversed(range(50)))]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    report = check(str(path))
    assert report.duplicates == 1
    assert report.ok


# --- sizes


def test_an_array_of_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b"[" + b"[]" * 200_000)
    report = check(str(path), workers=0)
    assert report.counts["invalid_json"] < 1100
    monkeypatch.setattr("cloudtune.data.read.decoding.MAX_BAD_ROWS", 500)
    monkeypatch.setattr("cloudtune.data.read.blocks.PART_BYTES", 4096)
    path.write_bytes(b"[" + b'{"a":1},' * 4_000 + ROW + b"]")
    found = [check(str(path), workers=workers) for workers in (0, 2)]
    assert found[0].counts == found[1].counts
    assert found[0].counts["too_many_bad_rows"] == 1
    assert found[0].counts["unknown_keys"] < 4_000


@pytest.mark.parametrize("suffix", ["json.gz", "jsonl.gz", "csv.gz", "txt.gz", "json.zst"])
def test_a_bomb_is_told_by_its_ratio(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudtune.data.read.opening.FREE_BYTES", 1 << 20)
    monkeypatch.setattr("cloudtune.data.read.opening.MAX_RATIO", 50)
    line = b'"%b","b"\n' % (b"a" * 73) if suffix == "csv.gz" else ROW + (b"," if suffix.startswith("json.") else b"\n")
    head = {"csv.gz": b"prompt,completion\n"}.get(suffix, b"[" if suffix.startswith("json.") else b"")
    content = head + line * (20_000 if suffix == "csv.gz" else 40_000)
    path = tmp_path / f"rows.{suffix}"
    if suffix.endswith("zst"):
        pyarrow = pytest.importorskip("pyarrow")
        path.write_bytes(pyarrow.compress(content, codec="zstd", asbytes=True))
    else:
        path.write_bytes(gzip.compress(content))
    assert codes(str(path)) == ["decompressed_too_large"]


# --- Parquet, Arrow and Excel


@pytest.mark.parametrize("kind", ["feather", "stream"])
def test_small_arrow_files_with_much_content_are_refused(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "rows.arrow"
    for name, content in columnar_files.expanding_files(kind):
        path.write_bytes(content)
        assert (name, codes(str(path))) == (name, ["decompressed_too_large"])


def test_a_cell_far_from_the_others_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("python_calamine")
    path = tmp_path / "rows.xlsx"
    path.write_bytes(columnar_files.sheet(("A1", "0"), ("J1000000", "0")))
    assert codes(str(path)) == ["decompressed_too_large"]


def test_parquet_rows_need_some_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "rows.parquet"
    path.write_bytes(columnar_files.written("parquet", pyarrow.Table.from_pylist([GOOD] * 2000), 1))
    assert check(str(path)).rows == 2000
    monkeypatch.setattr("cloudtune.data.read.size_limits.FREE_ROWS", 100)
    assert codes(str(path)) == ["decompressed_too_large"]


def test_a_crash_of_the_reader_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    paths = [str(tmp_path / f"{i}.parquet") for i in range(2)]
    for path in paths:
        parquet.write_table(pyarrow.Table.from_pylist([GOOD] * 3), path)
    started = []

    def crashing() -> subprocess.Popen[bytes]:
        code = "import os, sys; sys.stdin.buffer.read(1); os.kill(os.getpid(), 11)"
        started.append(subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1))
        return started[-1]

    with monkeypatch.context() as patch:
        patch.setattr(arrow, "_started", crashing)
        report = check(tuple(paths))
    assert [(one.code, one.file) for one in report.problems if one.severity == "error"] == [
        ("broken_parquet", path) for path in paths
    ]
    assert "SIGSEGV" in report.problems[0].message
    assert all(one.returncode is not None for one in started), "no process is left"
    assert check(tuple(paths)).rows == 6


def odd_tables() -> dict[str, object]:
    import pyarrow as pa

    nothing = pa.ListArray.from_arrays([0, 1 << 30], pa.nulls(1 << 30))
    return {
        "twice": pa.table([["a"], ["b"]], ["text", "text"]),
        "nulls": pa.table([nothing, ["a"]], ["tags", "text"]),
        "zone": pa.table([pa.array([1], pa.timestamp("us", "No/Where")), ["a"]], ["label", "text"]),
        "late": pa.table([pa.array([1 << 62], pa.timestamp("s")), ["a"]], ["label", "text"]),
        "run": pa.table([pa.RunEndEncodedArray.from_arrays([1 << 30], ["a"])], ["text"]),
        "none": pa.table({}),
    }


@pytest.mark.parametrize("name", ["twice", "nulls", "zone", "late", "run", "none"])
def test_odd_columns_are_reported(name: str, tmp_path: Path) -> None:
    ipc = pytest.importorskip("pyarrow.ipc")
    table = odd_tables()[name]
    path = tmp_path / "rows.arrow"
    with ipc.new_file(str(path), table.schema) as out:
        out.write_table(table)
    assert len(codes(str(path))) == 1
