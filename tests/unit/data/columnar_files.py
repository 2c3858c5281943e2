"""Good and hostile Parquet, Feather, Arrow stream and Excel files."""

from __future__ import annotations

import io
import itertools
import zipfile
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.unit.data.mutants import CHAT, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = len(CHAT)
CODECS = {"parquet": (None, "snappy", "gzip", "zstd", "brotli", "lz4"), "feather": (None, "lz4", "zstd")}
_ENCODINGS = ("PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY")


def columns() -> dict[str, Any]:
    """A column of each type, by name."""
    import pyarrow as pa

    texts = [f"n{i % 3}" for i in range(COUNT)]
    numbers = list(range(COUNT))
    struct = pa.array([{"a": i, "b": [str(i)]} for i in numbers])
    union = pa.UnionArray.from_dense(
        pa.array([0, 1] * (COUNT // 2), pa.int8()), pa.array([i // 2 for i in numbers], pa.int32()),
        [pa.array(numbers), pa.array(texts)],
    )  # fmt: skip
    ends = pa.array([5, COUNT], pa.int32())
    return {
        "note": pa.array(texts).dictionary_encode(),
        "large": pa.array(texts, pa.large_string()),
        "view": pa.array(["a text that is longer than twelve bytes", *texts[1:]], pa.string_view()),
        "bytes": pa.array([b"\xff"] * COUNT),
        "fixed": pa.array([b"abcd"] * COUNT, pa.binary(4)),
        "int": pa.array([None, *numbers[1:]], pa.int8()),
        "float": pa.array([float("nan"), *numbers[1:]], pa.float32()),
        "half": pa.array(numbers, pa.float32()).cast(pa.float16()),
        "bool": pa.array([i % 2 == 0 for i in numbers]),
        "decimal": pa.array([Decimal(i) for i in numbers], pa.decimal128(38, 10)),
        "date": pa.array(numbers, pa.int32()).cast(pa.date32()),
        "time": pa.array(numbers, pa.int64()).cast(pa.time64("us")),
        "when": pa.array(numbers, pa.timestamp("us", "UTC")),
        "took": pa.array(numbers, pa.duration("s")),
        "months": pa.array([(1, 2, 3)] * COUNT, pa.month_day_nano_interval()),
        "struct": struct,
        "map": pa.array([[("k", str(i))] for i in numbers], pa.map_(pa.string(), pa.string())),
        "lists": pa.array([[i] * (i % 3) for i in numbers], pa.large_list(pa.int32())),
        "pairs": pa.array([[i, i] for i in numbers], pa.list_(pa.int16(), 2)),
        "list view": pa.array([[i] for i in numbers], pa.list_view(pa.int32())),
        "nulls": pa.nulls(COUNT),
        "union": union,
        "runs": pa.RunEndEncodedArray.from_arrays(ends, pa.array(["a", "b"])),
        "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * COUNT, pa.binary(16))),
        "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}"] * COUNT)),
        "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1] * COUNT, pa.int8())),
    }


def written(kind: str, table: Any, number: int = 0) -> bytes:
    """The table as a file. ``number`` chooses among the options of the writer."""
    import pyarrow as pa
    from pyarrow import ipc, parquet

    out = io.BytesIO()
    block = 5 if table.num_rows == COUNT else max(1, table.num_rows)
    if kind == "parquet":
        options: dict[str, Any] = {"use_dictionary": True} if number % 2 else {"use_dictionary": False}
        if not number % 2 and pa.types.is_string(table.schema.types[-1]):
            options["column_encoding"] = {table.column_names[-1]: _ENCODINGS[number // 2 % len(_ENCODINGS)]}
        parquet.write_table(
            table, out, compression=CODECS[kind][number % 6], data_page_version=("1.0", "2.0")[number // 2 % 2],
            write_page_index=number % 3 == 0, write_page_checksum=number % 5 == 0,
            row_group_size=(block, 1 << 20)[number % 2], **options,
        )  # fmt: skip
    else:
        arrow = ipc.IpcWriteOptions(
            compression=CODECS["feather"][number % 3], emit_dictionary_deltas=True, allow_64bit=True
        )
        with (ipc.new_file if kind == "feather" else ipc.new_stream)(out, table.schema, options=arrow) as writer:
            writer.write_table(table, max_chunksize=block)
    return out.getvalue()


def good_files(kind: str) -> list[bytes]:
    """One file for each type of column, and, for Parquet, for each way to write it."""
    import pyarrow as pa

    if kind == "xlsx":
        return [workbook([["prompt", "completion"], *([row["prompt"], row["completion"]] for row in WORDS)])]
    made = []
    chat, texts = pa.Table.from_pylist(CHAT), [[f"text {i}" for i in range(COUNT)]]
    for number, (name, column) in enumerate(columns().items()):
        for table in (chat.append_column(name, column), chat.append_column("plain", texts)):
            try:
                made.append(written(kind, table, number))
            except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
                continue  # this format has no such type
    return made


def hostile_files(kind: str) -> Iterator[tuple[str, bytes]]:
    """Files that are valid for the writer, or nearly so, and hurt a careless reader."""
    if kind == "xlsx":
        yield from _hostile_workbooks()
        return
    import pyarrow as pa

    invalid = () if kind == "parquet" else _invalid_arrays()  # its writer crashes on them
    for name, table in itertools.chain(_hostile_tables(), invalid):
        try:
            yield name, written(kind, table)
        except (pa.ArrowException, OSError, OverflowError):
            continue
    if kind != "parquet":  # which stores something for each value
        yield from expanding_files(kind)


def _hostile_tables() -> Iterator[tuple[str, Any]]:
    import pyarrow as pa

    text = pa.table({"text": ["a", "b"]})
    for number, value in enumerate([b"{", b"[" * 100_000, b"\xff\x00", b'{"index_columns": [[]], "columns": 1}']):
        for key in (b"pandas", b"huggingface", b"ARROW:schema", b"\x1b[2J"):
            yield f"metadata {key!r} {number}", text.replace_schema_metadata({key: value})
    pickled = b"cos\nsystem\n(S'touch /tmp/pwned_by_arrow'\ntR."
    for name in (b"arrow.py_extension_type", b"arrow.fixed_shape_tensor", b"arrow.uuid", b"arrow.json",
                 b"arrow.opaque", b"arrow.bool8", b"arrow.variable_shape_tensor", b"pandas.period",
                 b"datasets.features.Array2D"):  # fmt: skip
        metadata = {b"ARROW:extension:name": name, b"ARROW:extension:metadata": pickled}
        field = pa.field("text", pa.string(), metadata=metadata)
        yield f"extension {name!r}", text.cast(pa.schema([field]))
    for depth in (70, 500):
        for wrap in (pa.list_, lambda inner: pa.struct([("a", inner)])):
            kind = pa.string()
            for _ in range(depth):
                kind = wrap(kind)
            yield f"depth {depth}", pa.table({"text": pa.nulls(2, kind)})
    yield "columns", pa.table({f"c{i}": ["a"] for i in range(10_500)})
    for column in ("\x1b]0;x\x07", "", "a\0b", "\u202e", "a" * 1_000_000):
        yield f"column {column[:9]!r}", pa.table({column: ["a"]})
    yield "twice in a struct", pa.table({"text": pa.StructArray.from_arrays([["a"], ["b"]], ["x", "x"])})
    yield "runs", pa.table({"text": pa.array(["a"] * 300_000).dictionary_encode()})
    yield "one long text", pa.table({"text": ["a" * 70_000_000]})
    yield "zeros", pa.table({"text": pa.nulls(1 << 18, pa.list_(pa.string()))})
    yield "empty lists", pa.table({"text": pa.array([[]] * 300_000, pa.list_(pa.string()))})


def _invalid_arrays() -> Iterator[tuple[str, Any]]:
    """Columns whose buffers contradict each other, which pyarrow makes only from memory that changes later."""
    import struct

    import pyarrow as pa

    def made(kind: Any, count: int, numbers: str, *values: int, data: Any = (), children: Any = ()) -> Any:
        size = struct.calcsize(f"<{numbers}")
        memory = bytearray(size)
        array = pa.Array.from_buffers(kind, count, [None, pa.py_buffer(memory), *data], children=list(children))
        table = pa.table({"text": array})
        memory[:] = struct.pack(f"<{numbers}", *values)
        return table

    text, few = pa.py_buffer(b"some text"), pa.array([1] * 9, pa.int8())
    for offsets in ((0, 3, 1 << 30), (5, 1, 2), (-9, 0, 9), (0, -1, 9)):
        yield f"offsets {offsets}", made(pa.string(), 2, "3i", *offsets, data=[text])
        yield f"list offsets {offsets}", made(pa.list_(pa.int8()), 2, "3i", *offsets, children=[few])
    yield "not UTF-8", made(pa.string(), 2, "3i", 0, 3, 6, data=[pa.py_buffer(b"\xff\xfe\xfd\xed\xa0\x80")])
    for index in (9, -1, 1 << 30, -(1 << 31)):
        memory = bytearray(8)
        indices = pa.Array.from_buffers(pa.int32(), 2, [None, pa.py_buffer(memory)])
        table = pa.table({"text": pa.DictionaryArray.from_arrays(indices, ["a"])})
        memory[4:] = struct.pack("<i", index)
        yield f"index {index}", table
    for value in (1 << 62, -(1 << 62)):
        for kind in (pa.timestamp("s"), pa.duration("s"), pa.date64()):
            yield f"{kind} {value}", made(kind, 1, "q", value)


def expanding_files(kind: str) -> Iterator[tuple[str, bytes]]:
    """Small Feather files or Arrow streams of much content."""
    import pyarrow as pa

    shared = pa.DictionaryArray.from_arrays(pa.array([1], pa.int8()), ["a" * 20_000_000, "b"])
    tables = {f"{1 << i} nulls": {"text": pa.Array.from_buffers(pa.null(), 1 << i, [None])} for i in (20, 40, 62)} | {
        "lists of nulls": {"text": pa.FixedSizeListArray.from_arrays(pa.nulls(64 << 20), 1 << 20)},
        "columns of nulls": {f"c{i}": pa.nulls(3000) for i in range(9000)},
        "a large dictionary in each batch": {"text": pa.chunked_array([shared] * 9)},
    }
    for name, table in tables.items():
        yield name, written(kind, pa.table(table), CODECS["feather"].index("zstd"))


def workbook(rows: list[list[str]]) -> bytes:
    """A workbook with one worksheet of such rows."""
    cells = "".join(
        f'<row r="{number}">' + "".join(f'<c r="{"AB"[at]}{number}" t="s"><v>{2 * number - 2 + at}</v></c>'
                                        for at in range(2)) + "</row>"
        for number in range(1, len(rows) + 1)
    )  # fmt: skip
    texts = "".join(f"<si><t>{value}</t></si>" for row in rows for value in row)
    return _zipped(f'<dimension ref="A1:B{len(rows)}"/><sheetData>{cells}</sheetData>', texts)


def _zipped(sheet: str, texts: str, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    schemas = "http://schemas.openxmlformats.org"
    main = f'xmlns="{schemas}/spreadsheetml/2006/main"'
    office, package = f"{schemas}/officeDocument/2006/relationships", f'xmlns="{schemas}/package/2006/relationships"'
    parts = {
        "_rels/.rels": f'<Relationships {package}><Relationship Id="r" Type="{office}/officeDocument" '
                       'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {main} xmlns:r="{office}"><sheets><sheet name="S" sheetId="1" r:id="r1"/>'
                           "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships {package}><Relationship Id="r1" Type="{office}/worksheet" '
                                      'Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/sharedStrings.xml": f"<sst {main}>{texts}</sst>",
        "xl/worksheets/sheet1.xml": f"<worksheet {main}>{sheet}</worksheet>",
    }  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def sheet(*cells: tuple[str, str], more: str = "") -> bytes:
    """A workbook whose worksheet has cells at these places, each with the index of its text."""
    inside = "".join(f'<c r="{place}" t="s"><v>{value}</v></c>' for place, value in cells)
    return _zipped(f"{more}<sheetData><row>{inside}</row></sheetData>", "<si><t>prompt</t></si>")


def _hostile_workbooks() -> Iterator[tuple[str, bytes]]:
    for corner in ("J1000000", "XFD1048576"):
        yield f"far corner {corner}", sheet(("A1", "0"), (corner, "0"))
    yield "beyond the corner", sheet(("A1", "0"), ("ZZZZZZ99999999999", "0"))
    yield "large dimension", sheet(("A1", "0"), more='<dimension ref="A1:XFD1048576"/>')
    yield "wrong dimension", sheet(("A1", "0"), more='<dimension ref="B9:A1"/>')
    for index in ("99", "-1", "1e99", "18446744073709551616", ""):
        yield f"text {index}", sheet(("A1", index))
    entities = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 9)) + "]>"  # fmt: skip
    yield "entities", _zipped('<sheetData><row><c r="A1" t="s"><v>0</v></c></row></sheetData>',
                              f"{entities}<si><t>&a8;</t></si>")  # fmt: skip
    yield "deep", _zipped("<a>" * 200_000, "")
    row = '<row><c r="A1" t="inlineStr"><is><t>prompt</t></is></c></row>'
    bomb = _zipped(f"<sheetData>{row}</sheetData>" + " " * 200_000_000, "")
    yield "bomb", bomb
    yield "bomb of a false size", bomb.replace((200_000_000 >> 16).to_bytes(2, "little"), b"\0\0")
