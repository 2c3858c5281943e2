"""A file is what it contains: it is read whatever its name is, or named in one message with the remedy."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cloudtune.data.problem_list import Faults
from cloudtune.data.read.decoding import FileRows
from cloudtune.data.read.reading import read
from cloudtune.data.read.tables import Table
from cloudtune.data.records import canonical
from cloudtune.data.report import check, convert
from cloudtune.spec import Data, Source

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"prompt": f"¿Qué es {i}?", "completion": f"Es \u201c{i}\u201d;\tsí, y | más"} for i in range(30)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ARRAY = json.dumps(ROWS, ensure_ascii=False)
INDENTED = json.dumps(ROWS, ensure_ascii=False, indent=2)


def table(delimiter: str, rows: list[dict[str, str]] = ROWS, names: str | None = None) -> str:
    import csv

    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    text = out.getvalue()
    return names + text[text.index("\r") :] if names else text


def arrow(form: str) -> bytes:
    import pyarrow as pa
    from pyarrow import feather, ipc, parquet

    data, out = pa.Table.from_pylist(ROWS), io.BytesIO()
    if form == "parquet":
        parquet.write_table(data, out)
    elif form == "feather":
        feather.write_feather(data, out)
    else:
        with ipc.new_stream(out, data.schema) as stream:
            stream.write_table(data)
    return out.getvalue()


def zstd(content: bytes) -> bytes:
    import pyarrow as pa

    return pa.compress(content, codec="zstd", asbytes=True)  # type: ignore[no-any-return]


SHEET = (
    '<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{}'
)
MAIN = "http://schemas.openxmlformats.org"


def xlsx(*sheets: list[list[Any]]) -> bytes:
    """A workbook with these worksheets."""
    from xml.sax.saxutils import escape

    def cell(value: Any) -> str:
        if isinstance(value, str) and value.startswith("date:"):
            return f'<c s="1"><v>{value[5:]}</v></c>'
        if isinstance(value, bool):
            return f'<c t="b"><v>{int(value)}</v></c>'
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        return "<c/>" if value is None else f"<c><v>{value}</v></c>"

    numbers = range(1, len(sheets) + 1)
    listed = "".join(f'<sheet name="S{n}" sheetId="{n}" r:id="r{n}"/>' for n in numbers)
    targets = "".join(
        f'<Relationship Id="r{n}" Type="{MAIN}/officeDocument/2006/relationships/worksheet" '
        f'Target="worksheets/s{n}.xml"/>'
        for n in numbers
    )
    types = "".join(
        f'<Override PartName="/xl/worksheets/s{n}.xml" ContentType="application/vnd.openxmlformats-officedocument'
        '.spreadsheetml.worksheet+xml"/>'
        for n in numbers
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        office = "application/vnd.openxmlformats-officedocument.spreadsheetml"
        archive.writestr(
            "[Content_Types].xml", f'<Types xmlns="{MAIN}/package/2006/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{office}.sheet.main+xml"/>{types}</Types>',
        )  # fmt: skip
        archive.writestr(
            "_rels/.rels", f'<Relationships xmlns="{MAIN}/package/2006/relationships"><Relationship Id="r" '
            f'Type="{MAIN}/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/>'
            "</Relationships>",
        )  # fmt: skip
        archive.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{MAIN}/spreadsheetml/2006/main" xmlns:r="{MAIN}/officeDocument/2006/'
            f'relationships"><sheets>{listed}</sheets></workbook>',
        )  # fmt: skip
        archive.writestr(
            "xl/styles.xml", f'<styleSheet xmlns="{MAIN}/spreadsheetml/2006/main"><cellXfs count="2"><xf numFmtId="0"/>'
            '<xf numFmtId="22"/></cellXfs></styleSheet>',
        )  # fmt: skip
        archive.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{MAIN}/package/2006/relationships">{targets}'
            f'<Relationship Id="s" Type="{MAIN}/officeDocument/2006/relationships/styles" Target="styles.xml"/>'
            "</Relationships>",
        )  # fmt: skip
        for number, rows in zip(numbers, sheets, strict=True):
            body = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
            archive.writestr(f"xl/worksheets/s{number}.xml", SHEET.format(body) + "</sheetData></worksheet>")
    return out.getvalue()


WORKBOOK = xlsx([["prompt", "completion"], *([row["prompt"], row["completion"]] for row in ROWS)])
READ: dict[str, bytes] = {
    "rows.txt": LINES.encode(), "rows.md": LINES.encode(), "rows.csv": LINES.encode(), "rows.tsv": LINES.encode(),
    "rows.parquet": LINES.encode(), "rows": LINES.encode(), "rows.gz": LINES.encode(), "rows.jsonl.gz": LINES.encode(),
    "array.txt": ARRAY.encode(), "array.csv": ARRAY.encode(), "array.jsonl": ARRAY.encode(),
    "array.md": INDENTED.encode(), "indented.jsonl": INDENTED.encode(),
    "objects.txt": "\n".join(json.dumps(row, indent=1, ensure_ascii=False) for row in ROWS).encode(),
    "gzip.jsonl": gzip.compress(LINES.encode()), "gzip.csv": gzip.compress(table(",").encode()),
    "gzip.txt": gzip.compress(LINES.encode()), "rows.jsonl.bz2": bz2.compress(LINES.encode()),
    "bzip2.jsonl": bz2.compress(LINES.encode()), "rows.csv.xz": lzma.compress(table(";").encode()),
    "xz.json": lzma.compress(ARRAY.encode()), "utf16.jsonl": LINES.encode("utf-16"),
    "utf16.csv": table(";").encode("utf-16"), "utf16-be.json": ARRAY.encode("utf-16-be"),
    "utf16-le.jsonl": LINES.encode("utf-16-le"), "utf32.jsonl": LINES.encode("utf-32"),
    "utf16.jsonl.gz": gzip.compress(LINES.encode("utf-16")), "utf16.txt": table("\t").encode("utf-16"),
    "bom.jsonl": LINES.encode("utf-8-sig"), "bom.csv": table(";").encode("utf-8-sig"),
    "bom.txt": LINES.encode("utf-8-sig"),
    "comma.csv": table(",").encode(), "semicolon.csv": table(";").encode(), "tab.csv": table("\t").encode(),
    "bar.csv": table("|").encode(), "comma.tsv": table(",").encode(), "semicolon.tsv": table(";").encode(),
    "comma.txt": table(",").encode(), "semicolon.jsonl": table(";").encode(), "tab.json": table("\t").encode(),
    "comma": table(",").encode(), "sep.csv": b"sep=;\r\n" + table(";").encode(),
    "sep-bar.csv": b"sep=|\r\n" + table("|").encode(),
}  # fmt: skip
"""Name -> content, all of the same rows."""
WITH_PYARROW: dict[str, Any] = {
    "parquet.jsonl": lambda: arrow("parquet"), "parquet.csv": lambda: arrow("parquet"),
    "feather.parquet": lambda: arrow("feather"), "stream.json": lambda: arrow("stream"),
    "parquet.gz": lambda: gzip.compress(arrow("parquet")), "zstd.jsonl": lambda: zstd(LINES.encode()),
    "zstd.csv": lambda: zstd(table(";").encode()),
}  # fmt: skip
EXPECTED = [{"messages": [{"role": "user", "content": row["prompt"]},
                          {"role": "assistant", "content": row["completion"]}]} for row in ROWS]  # fmt: skip


def records(path: Path, **more: Any) -> list[Any]:
    faults = Faults()
    found = [
        json.loads(canonical(one)) for batch in read(Source(path=str(path), **more), faults) for one in batch.records
    ]
    assert not faults.kept("error"), faults.kept("error")
    return found


@pytest.mark.parametrize("name", [*READ, *WITH_PYARROW])
def test_a_file_under_any_name_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(READ[name] if name in READ else WITH_PYARROW[name]())
    assert records(path) == EXPECTED


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.csv", "rows.jsonl", "rows", "rows.xlsx.gz"])
def test_a_workbook_is_read(name: str, tmp_path: Path) -> None:
    pytest.importorskip("python_calamine")
    (tmp_path / name).write_bytes(gzip.compress(WORKBOOK) if name.endswith(".gz") else WORKBOOK)
    assert records(tmp_path / name) == EXPECTED


def test_cells_of_a_workbook_are_texts(tmp_path: Path) -> None:
    pytest.importorskip("python_calamine")
    path = tmp_path / "rows.xlsx"
    rows = [["prompt", "completion"], ["a", 5], [None, None], ["b", 2.5], ["c", True], ["d", "date:45292.5"]]
    path.write_bytes(xlsx(rows))
    assert [row["messages"][1]["content"] for row in records(path)] == ["5", "2.5", "true", "2024-01-01T12:00:00"]
    path.write_bytes(xlsx([["prompt", "completion"], ["a", "b"], [None, None], ["c", None]]))
    (problem,) = (one for one in check(str(path), workers=0).problems if one.severity == "error")
    assert (problem.code, problem.row) == ("blank", 4)


@pytest.mark.parametrize(("sheets", "code"), [
    (([["prompt", "completion"], ["a", "b"]], [["x"], ["y"]]), "several_sheets"),
    (([["prompt", None], ["a", "b"]],), "bad_header"), (([["prompt", "prompt"], ["a", "b"]],), "bad_header"),
    (([["¿Capital?", "Lima"], ["a", "b"]],), "no_header"), (([["prompt", "completion"]],), "empty_file"),
    (([],), "bad_header"),
])  # fmt: skip
def test_a_workbook_that_cannot_be_read(sheets: tuple[Any, ...], code: str, tmp_path: Path) -> None:
    pytest.importorskip("python_calamine")
    (tmp_path / "rows.xlsx").write_bytes(xlsx(*sheets))
    assert only(tmp_path / "rows.xlsx").code == code


def only(path: Path, **more: Any) -> Any:
    """The only error of a file."""
    report = check(Source(path=str(path), **more), workers=0)
    (problem,) = (one for one in report.problems if one.severity == "error")
    assert not report.ok
    assert problem.file == str(path)
    return problem


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("rows.jsonl", LINES)
    return out.getvalue()


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("rows.jsonl"))
    return out.getvalue()


def _sqlite(path: Path) -> bytes:
    with sqlite3.connect(path) as database:
        database.execute("create table t (a)")
    database.close()
    return path.read_bytes()


LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 132\n".encode()
NAMED: dict[bytes, tuple[str, str]] = {
    LFS: ("git_lfs_pointer", "git lfs pull"),
    b"../../.git/annex/objects/Xf/k0/MD5E-s132--ab.jsonl/MD5E-s132--ab.jsonl": ("git_annex_pointer", "git annex get"),
    b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n": ("other_format", "download"),
    b"\n  <html lang=en><body>404</body></html>\n": ("other_format", "download"),
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>': ("other_format", "download"),
    _zip(): ("other_format", "unpack"),
    _tar(): ("other_format", "unpack"),
    gzip.compress(_tar()): ("other_format", "unpack"),
    gzip.compress(gzip.compress(LINES.encode())): ("other_format", "decompress"),
    b"%PDF-1.7\n%\xe2\xe3\n": ("other_format", "JSONL"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500): ("other_format", ".xlsx"),
    b"ORC\x0a\x03\x00\x00\x00": ("other_format", "JSONL"),
    pickle.dumps(ROWS): ("other_format", "JSONL"),
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR": ("other_format", "images"),
    table(",").encode("cp1252"): ("invalid_utf8", "iconv"),
    LINES.encode("latin-1", "replace"): ("invalid_utf8", "iconv"),
}


@pytest.mark.parametrize("number", range(len(NAMED)))
def test_what_is_no_data_is_named_once_with_its_remedy(number: int, tmp_path: Path) -> None:
    content, (code, remedy) = list(NAMED.items())[number]
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows.xlsx", "rows.txt", "rows"):
        (tmp_path / name).write_bytes(content)
        faults = Faults()
        assert [*read(Source(path=str(tmp_path / name)), faults)] == []
        (problem,) = faults.kept("error")
        assert (problem.code, remedy in str(problem.fix)) == (code, True), problem
        assert problem.file == str(tmp_path / name)


def test_databases_are_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(_sqlite(tmp_path / "a.db"))
    assert "SQLite" in only(tmp_path / "rows.jsonl").message


@pytest.mark.parametrize("content", [
    "hello\nworld\n", "# Rows\n\n- one\n", "key: value\nother: value\n", "a,b,c\n1,2,3\n", "rows = [1, 2]\n",
])  # fmt: skip
def test_a_file_without_json_is_named_once(content: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    problem = only(tmp_path / "rows.jsonl")
    assert (problem.code, problem.line) == ("invalid_json", 1)
    assert content.split("\n", maxsplit=1)[0] in problem.message


def test_a_given_format_is_kept_for_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.md"
    path.write_text(LINES)
    assert records(path, format="text")[0]["text"].startswith('{"prompt"')
    path.write_text("<html>\n<p>a</p>\n")
    assert records(path, format="text") == [{"text": "<html>\n<p>a</p>"}]
    path.write_bytes(arrow("parquet"))
    problem = only(path, format="jsonl")
    assert problem.fix.startswith("set format: parquet (--format parquet)")
    assert records(path, format="parquet") == EXPECTED


@pytest.mark.parametrize("text", [
    "{name} is a template\nof words\n", "[1] A note.\n\n[2] Another.\n", "One, two; three.\nFour, five; six.\n",
    "ORC is a language.\n", "PAR1 is a word.\n", "Obj.\n", "PK\n",
    "He said: \"prompt, completion\".\n", "<p>A paragraph.</p>\n", "version 2\n",
])  # fmt: skip
def test_text_stays_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text(text)
    assert all(set(row) == {"text"} for row in records(tmp_path / "rows.txt"))


@pytest.mark.parametrize("name", ["ORCID", "PAR1", "ORC"])
def test_a_column_can_start_like_a_binary_format(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{name},prompt,completion\n1,a,b\n")
    assert [row["messages"][0]["content"] for row in records(path)] == ["a"]


def test_the_delimiter_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for one in "~:^\t;|,":
        path.write_text(table(one))
        assert records(path, delimiter=one) == EXPECTED
    text = tmp_path / "rows.txt"
    text.write_text(table("~"))
    assert records(text, delimiter="~") == EXPECTED
    other = {"pregunta": "prompt", "respuesta": "completion"}
    path.write_text(table(";", names="pregunta;respuesta"))
    assert records(path, columns=other) == EXPECTED
    data = Data.model_validate({"train": {"path": str(path), "delimiter": ";", "columns": other}, "validation": 0.3})
    assert convert(data, to="openai", out=tmp_path / "out.jsonl", workers=0).ok


def test_a_remote_file_is_recognized_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudtune.data.read import remote

    contents = {"s3://b/rows.txt": gzip.compress(LINES.encode()), "s3://b/rows.jsonl": arrow("parquet")}

    class Store:
        def get(self, uri: str) -> remote.RemoteFile | None:
            return remote.RemoteFile(uri, len(contents[uri]), "1")

        def open(self, file: remote.RemoteFile, start: int) -> io.BytesIO:
            return io.BytesIO(contents[file.uri][start:])

    monkeypatch.setattr(remote, "store_of", lambda _: Store())
    for uri in contents:
        batches = read(Source(path=uri), Faults())
        assert [json.loads(canonical(one)) for batch in batches for one in batch.records] == EXPECTED


@pytest.mark.parametrize("name", ["bom.jsonl", "gzip.jsonl", "semicolon.csv", "parquet.jsonl"])
def test_standard_input_is_recognized_by_its_content(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = READ[name] if name in READ else WITH_PYARROW[name]()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
    batches = read(Source(path="-"), Faults())
    assert [json.loads(canonical(one)) for batch in batches for one in batch.records] == EXPECTED


@pytest.mark.parametrize(("content", "is_header"), [
    ("¿Capital del Perú?;Lima\n¿Río?;Amazonas\n", False), ("What is 2+2?,4\nWhat is 3+3?,6\n", False),
    ("Hola a todos los que han venido hoy,adiós\na,b\n", False), ("pregunta,respuesta\na,b\n", True),
    ("La capital es Lima.\nEl río es largo.\n", False), ("q,q?\na,b\n", False), ("¿a?,¿a?\nb,c\n", False),
    ("frage\ta\n1\t2\n", True), ("https://x.example/a,b\nc,d\n", False), ("12,5\n13,6\n", False),
])  # fmt: skip
def test_a_table_without_a_header_is_named(content: str, is_header: bool, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    problem = only(path)
    assert problem.line == 1
    assert (problem.code != "no_header") == is_header
    if not is_header and content.count("\n") == 2 and "prompt,completion" in problem.fix:
        separator = next(one for one in ";\t," if one in content)
        path.write_text(f"prompt{separator}completion\n{content}")
        assert len(records(path)) == 2


CELLS: dict[Any, str | None] = {
    dt.datetime(2024, 1, 1): "2024-01-01T00:00:00",  # noqa: DTZ001 - a cell without a time zone
    dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC): "2024-01-01T12:00:00Z",
    dt.date(2024, 1, 2): "2024-01-02", dt.time(1, 2, 3): "01:02:03", Decimal("1.50"): "1.50", 5: "5", 2.5: "2.5",
    True: "true", b"caf\xc3\xa9": "caf\u00e9", "": None,
}  # fmt: skip
"""Cell -> its text; None for a cell that is empty."""


@pytest.mark.parametrize("names", [("prompt", "completion"), ("instruction", "output"), ("source", "target")])
def test_typed_cells_are_read_as_text(names: tuple[str, str]) -> None:
    for cell, expected in CELLS.items():
        faults = Faults()
        (row,) = msgspec.msgpack.decode(msgspec.msgpack.encode([{names[0]: "q", names[1]: cell}]))
        batch = FileRows("-", {}, None, faults).of_table(Table([1], [row], by_row=True))
        assert batch is not None
        text = [canonical(one).decode() for one in batch.records]
        assert '\\"' not in str(text)
        if expected is not None:
            assert json.dumps(expected, ensure_ascii=False) in text[0]


def test_typed_cells_of_a_file_are_written_as_text(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = {f"c{i}": pa.array([cell]) for i, cell in enumerate(CELLS)}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    template = {"prompt": "q{c0}", "completion": "|".join(f"{{{name}}}" for name in columns)}
    (row,) = records(tmp_path / "t.parquet", template=template)
    assert row["messages"][1]["content"] == "|".join(text or "" for text in CELLS.values())


def test_nan_in_a_table_is_a_missing_value(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path, nan = tmp_path / "t.parquet", float("nan")
    rows = [{"instruction": "Q", "output": "A", "images": nan, "n": nan} for _ in range(2)]
    repeated = pa.array([nan, nan]).dictionary_encode()
    parquet.write_table(pa.Table.from_pylist(rows).append_column("input", repeated), path)
    talk = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    assert records(path) == [talk, talk]
    assert records(path, template={"prompt": "{n}Q", "completion": "A"}) == [talk, talk]
    parquet.write_table(pa.Table.from_pylist([{"instruction": "Q", "output": value} for value in (1.5, nan)]), path)
    problem = only(path)
    assert (problem.row, problem.field) == (2, "output")
    assert "null" in problem.message


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"prompt": ["q"], "completion": [b"\xff\xfe"]}), tmp_path / "a.parquet")
    for more in ({}, {"template": {"prompt": "{prompt}", "completion": "{completion}"}}):
        problem = only(tmp_path / "a.parquet", **more)
        assert (problem.code, problem.row, problem.field) == ("invalid_utf8", 1, "completion")
