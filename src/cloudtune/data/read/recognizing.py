"""Recognizes a file's format from its first bytes; the name decides only if the content is ambiguous."""

from __future__ import annotations

import codecs
import csv
import json
import re
from typing import IO, TYPE_CHECKING, NamedTuple

from cloudtune.data.read.kinds_other import recognise
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

BINARY = {b"PAR1": "parquet", b"ARROW1\0\0": "arrow", b"\xff\xff\xff\xff": "arrow"}
"""The first bytes of the binary formats that are read."""
DELIMITERS = (",", ";", "\t", "|")
_UNPACK = "unpack it, and specify the files in it"
_EXPORT = "export its rows as JSONL or CSV"
_OTHER = (
    (b"\x1f\x8b", "a file that is compressed twice", "decompress it once"),
    (b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (b"PK\x05\x06", "an empty ZIP archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"%PDF-", "a PDF document", "extract its text, and write it as JSONL or text"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (.xls or .doc)", "save it as .xlsx or CSV"),
    (b"SQLite format 3\0", "an SQLite database", _EXPORT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _EXPORT),
    (b"\x93NUMPY", "a NumPy array", _EXPORT),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"ORC", "an ORC file", _EXPORT),
    (b"\x89PNG\r\n\x1a\n", "an image", "specify the file that lists the images"),
    (b"\xff\xd8\xff", "an image", "specify the file that lists the images"),
)
"""First bytes, name and fix of unsupported files. ``xlsx`` is a ZIP archive with a workbook."""
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")
"""Bytes that text does not have."""
_PICKLE = re.compile(rb"\x80[\x02-\x05](?:\x95|[\x28\x5d\x63\x7d])")
_TAR_AT = 257
_JSON = re.compile(r'(?:\[\s*)?\{\s*(?:"(?:[^"\\\n]|\\.)*"\s*:|\})')
_PAGE = re.compile(r"<!doctype\s+html|<html[\s>]|<head[\s>]|<\?xml\s", re.IGNORECASE)
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_LINES = 20
_LONG_LINE = 10_000
"""A longer first line may be truncated, and is not a header."""
_SHOWN = 60


class Content(NamedTuple):
    """How a file is read."""

    format: str
    delimiter: str = ","


def encoding_of(head: bytes) -> str | None:
    """The encoding of a text file that is not UTF-8 but can be recognized: UTF-16 or UTF-32."""
    if head.startswith(b"\xff\xff\xff\xff"):
        return None
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name
    some = head[:64]
    if len(some) >= 4 and len(some) % 2 == 0:
        even, odd = some[::2].count(0), some[1::2].count(0)
        half = len(some) // 2
        if not even and odd > half * 0.9:
            return "utf-16-le"
        if not odd and even > half * 0.9:
            return "utf-16-be"
    return None


class Transcoded:
    """A text stream of another encoding, as UTF-8."""

    def __init__(self, head: bytes, stream: IO[bytes], encoding: str) -> None:
        self._head, self._stream = head, stream
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def read(self, size: int) -> bytes:
        """Read about so many bytes. Raises UnicodeError for bytes that are not of the encoding."""
        while data := self._head or self._stream.read(size):
            self._head = b""
            if text := self._decoder.decode(data):
                return text.encode()
        return self._decoder.decode(b"", final=True).encode()


def content_of(
    head: bytes, by_name: str | None, wanted: str, columns: Mapping[str, str], delimiter: str | None = None
) -> Content | Problem:
    """How to read the file with these first bytes, or why it cannot be read.

    ``by_name`` is the format that the name suggests. A ``wanted`` format other than ``auto`` is kept for text files.
    """
    auto = wanted == "auto"
    found = _binary(head)
    if isinstance(found, Problem):
        return found
    if found is not None:
        if auto or found == wanted:
            return Content(found)
        return Problem(code="other_format", message=f"this is a {found} file, not {wanted}",
                       fix=f"set format: {found} (--format {found}), or leave the format out")  # fmt: skip
    chosen = by_name if auto else wanted
    start = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if problem := _not_data(start, head, chosen if not auto else None):
        return problem
    if auto and _JSON.match(start) and chosen not in {"jsonl", "json"}:
        chosen = "json"
    if delimiter is not None and auto and chosen not in {"jsonl", "json"}:
        chosen = "csv"
    if chosen in {"csv", "tsv"}:
        return Content("csv", delimiter or find_delimiter(start, "\t" if chosen == "tsv" else ",", columns))
    if chosen in {"jsonl", "json"}:
        return _json(start, chosen, columns) if auto else Content(chosen)
    if auto and chosen in {None, "text"} and (known := _table(start, columns)):
        return known
    if chosen is None:
        if start[:1] in ("{", "["):
            return Content("json")
        return Problem(code="unknown_format", message="unknown format: neither the name nor the content identifies it",
                       fix="set format: jsonl, json, csv, tsv, parquet, arrow, xlsx or text")  # fmt: skip
    return Content(chosen)


def _binary(head: bytes) -> str | Problem | None:
    """The binary format, or the problem of one that is not read; None for text."""
    for magic, name in BINARY.items():
        if _starts(head, magic):
            return name
    if head.startswith(b"PK\x03\x04") and b"xl/" in head:
        return "xlsx"
    for magic, what, fix in _OTHER:
        if _starts(head, magic):
            return Problem(code="other_format", message=f"this is {what}", fix=fix)
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return Problem(code="other_format", message="this is a tar archive", fix=_UNPACK)
    if _PICKLE.match(head):
        return Problem(code="other_format", message="this is a Python pickle", fix=_EXPORT)
    return None


def _starts(head: bytes, magic: bytes) -> bool:
    """Whether these are the first bytes of that format. Text can start with letters such as ``ORC`` too."""
    return head.startswith(magic) and (not magic.isalnum() or _CONTROL.search(head) is not None)


def _not_data(start: str, head: bytes, wanted: str | None) -> Problem | None:
    """The content of a text file without data."""
    if start.startswith(("version https://git-lfs.github.com/spec/", "version https://hawser.github.com/spec/")):
        return Problem(code="git_lfs_pointer", message="this is a Git LFS pointer, not the file itself",
                       fix="download the file with: git lfs pull")  # fmt: skip
    if re.match(r"(?:\.\./)*(?:\.git)?/annex/objects/\S+\s*\Z", start):
        return Problem(code="git_annex_pointer", message="this is a git-annex pointer, not the file itself",
                       fix="download the file with: git annex get")  # fmt: skip
    if wanted != "text" and (page := _PAGE.match(start)):
        what = "XML" if page.group().startswith("<?") else "an HTML page"
        return Problem(code="other_format", message=f"this is {what}, such as an error or login page, not data",
                       fix="download the data again; to train on the markup itself, set format: text")  # fmt: skip
    return _other_encoding(head)


def _other_encoding(head: bytes) -> Problem | None:
    """Several lines are not UTF-8, and none has a character of several bytes that is."""
    bad: tuple[int, int] | None = None
    count = 0
    for number, line in enumerate(head.split(b"\n")[:-1], 1):
        try:
            if not line.isascii() and line.decode() and number > 1:
                return None
        except UnicodeDecodeError as error:
            bad = bad or (number, line[error.start])
            count += 1
    if bad is None or count < 2:
        return None
    return Problem(
        code="invalid_utf8", line=bad[0], message=f"this file is not UTF-8 (byte {bad[1]:#04x}); it may be in another "
        "encoding, such as Windows-1252 or Latin-1", fix="convert it: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW_FILE",
    )  # fmt: skip


def _json(start: str, chosen: str, columns: Mapping[str, str]) -> Content | Problem:
    """JSON, unless no line of the start looks like it."""
    lines = [line.strip() for line in start.split("\n")[:_LINES] if line.strip()]
    if not lines or len(lines[0]) > _LONG_LINE or any(line[0] in '{["' or _is_json(line) for line in lines):
        return Content(chosen)
    if known := _table(start, columns):
        return known
    fix = "write one JSON object per line, or set the file's format, e.g. format: csv (--format csv)"
    return Problem(code="invalid_json", line=1, message=f"this is not JSON; it starts with {_shown(lines[0])}", fix=fix)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _table(start: str, columns: Mapping[str, str]) -> Content | None:
    """A table whose first line has the columns of a known kind of row."""
    first = _first_line(start)
    for delimiter in DELIMITERS:
        names = _cells(first, delimiter)
        if len(names) > 1 and _known(names, columns) and start.count("\n"):
            return Content("csv", delimiter)
    return None


def find_delimiter(start: str, default: str, columns: Mapping[str, str]) -> str:
    """What separates the cells of a table, from its first line."""
    first = _first_line(start)
    if found := re.fullmatch(r"sep=(.)", first):
        return found.group(1)
    counts = {one: _cells(first, one) for one in dict.fromkeys((default, *DELIMITERS))}
    known = [one for one, names in counts.items() if _known(names, columns)]
    if known:
        return known[0]
    if len(counts[default]) > 1:
        return default
    return max(counts, key=lambda one: len(counts[one]))


def _known(names: list[str], columns: Mapping[str, str]) -> bool:
    return recognise({columns.get(name, name): "" for name in names}) is not None


def _first_line(start: str) -> str:
    return start.split("\n", 1)[0].rstrip("\r")


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _shown(text: str) -> str:
    return repr(text[:_SHOWN] + ("..." if len(text) > _SHOWN else ""))
