"""Reads a YAML, JSON or TOML file into plain values with line numbers.

Problems of the file itself (missing, empty, a folder, not UTF-8, a syntax error) are raised immediately. Duplicate
keys are collected, to be reported with other problems. This module does not interpret the values.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cloudtune.document.formats import parse_json, parse_toml, parse_yaml
from cloudtune.document.parsed import Parsed, Path_, SyntaxFault
from cloudtune.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

STDIN = "-"
LARGEST_BYTES = 256 * 1024
"""YAML is read at about 200 KiB a second."""
_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Control characters, except tab and line ends, and halves of surrogate pairs."""
_DATA_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet", ".txt", ".gz", ".ndjson")


@dataclass(frozen=True)
class Document:
    """The values of a file, with their locations."""

    file: str
    """The name as the user gave it, for messages."""
    folder: Path
    """The base folder of relative paths."""
    values: dict[str, Any]
    lines: Mapping[Path_, int] = field(default_factory=dict)
    duplicates: tuple[Problem, ...] = ()

    def line(self, path: Path_) -> int | None:
        """Return the line of the value, or of the nearest enclosing value with a line."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def read_document(path: str | Path, *, error: type[InputError], what: str) -> Document:
    """Read a file; ``-`` is the standard input. ``what`` names its purpose in messages, e.g. ``a job spec``."""
    label = "<stdin>" if str(path) == STDIN else str(path)

    def fail(code: str, message: str, fix: str | None = None, line: int | None = None) -> NoReturn:
        raise error([Problem(code=code, message=message, file=label, line=line, fix=fix)])

    raw = _read(path, fail)
    folder = Path.cwd() if label == "<stdin>" else Path(path).expanduser().absolute().parent
    return parse_document(raw, label, folder, error=error, what=what)


def parse_document(raw: bytes, label: str, folder: Path, *, error: type[InputError], what: str) -> Document:
    """Parse the content of a file. ``label`` is its name in messages, ``folder`` the base of relative paths."""

    def fail(code: str, message: str, fix: str | None = None, line: int | None = None) -> NoReturn:
        raise error([Problem(code=code, message=message, file=label, line=line, fix=fix)])

    text = _decoded(raw, what, fail)
    if not text.strip():
        fail("empty", f"the file is empty; expected {what}", "create one with `cloudtune init`")
    try:
        parsed = _parser(label, text)(text)
    except SyntaxFault as fault:
        fail("syntax", str(fault), fault.fix, fault.line)
    except RecursionError:
        fail("too_deep", "it is nested too deeply")
    values = parsed.values
    if values is None:
        fail("empty", f"the file contains only comments; expected {what}", "create one with `cloudtune init`")
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else "a single value"
        fail(
            "not_a_mapping",
            f"the file contains {kind}, but {what} is a mapping",
            "start with a line such as `model: ...`",
        )
    duplicates = tuple(_duplicate(label, *found) for found in parsed.duplicates)
    document = Document(label, folder, values, parsed.lines, duplicates)
    if problems := [_problem(document, *found) for found in _unusable(values)]:
        raise error([*duplicates, *problems])
    return document


def parse_value(text: str) -> Any:
    """One value as YAML writes it: ``2e-4`` is a number, ``no`` a word. Raises SyntaxFault."""
    return parse_yaml(text).values


def dotted(path: Path_) -> str:
    """Return the path in dotted form."""
    return ".".join(str(part) for part in path)


def as_yaml(values: Mapping[str, Any]) -> str:
    """Return the values as YAML, in their order."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 100
    out = io.StringIO()
    yaml.dump(values, out)
    return out.getvalue()


def _read(path: str | Path, fail: Callable[..., NoReturn]) -> bytes:
    try:
        if str(path) == STDIN:
            return sys.stdin.buffer.read(LARGEST_BYTES + 1)
        with open(Path(path).expanduser(), "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                os.set_blocking(file.fileno(), True)
            return file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        fail("no_file", "no such file", "check the path, or create one with `cloudtune init`")
    except IsADirectoryError:
        fail("directory", "this is a folder, not a file", "specify a file in it")
    except PermissionError:
        fail("no_permission", "no permission to read it", "check the file's owner and permissions")
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, or the home folder of an unknown user
        fail("unreadable", f"cannot read the file: {getattr(error, 'strerror', None) or error}")


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for a pipe's writer; a pipe without one reads as empty."""
    return os.open(path, flags | os.O_NONBLOCK)


def _decoded(raw: bytes, what: str, fail: Callable[..., NoReturn]) -> str:
    if len(raw) > LARGEST_BYTES:
        fail("too_large", f"it is larger than {LARGEST_BYTES // 1024} KiB, which is too large for {what}",
             "if this is a data file, reference it in a spec under `data.train`")  # fmt: skip
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        fail("not_utf8", f"byte 0x{raw[error.start]:02x} is not UTF-8 text", "save the file as UTF-8", line)


def _parser(label: str, text: str) -> Callable[[str], Parsed]:
    suffix = Path(label).suffix.lower()
    if suffix in _DATA_SUFFIXES:
        raise SyntaxFault("this looks like a data file; expected YAML, JSON or TOML",
                          fix="reference it in a spec: `data: {train: ...}`; see `cloudtune init`")  # fmt: skip
    if suffix == ".toml":
        return parse_toml
    if suffix == ".json" or (suffix not in (".yaml", ".yml") and text.lstrip()[:1] == "{"):
        return parse_json
    return parse_yaml


def _unusable(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, str, str]]:
    """Yield strings and numbers that no field accepts: path, problem and fix."""
    if isinstance(value, dict):
        for key, item in value.items():
            if found := _UNUSABLE.search(key):
                yield path, f"the key {key!r} contains the character U+{ord(found[0]):04X}", "remove it"
            else:
                yield from _unusable(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _unusable(item, (*path, number))
    elif isinstance(value, str):
        if found := _UNUSABLE.search(value):
            yield path, f"the text contains the character U+{ord(found[0]):04X}", "remove it"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield path, "the number does not fit in 64 bits", "use a smaller number"


def _problem(document: Document, path: Path_, message: str, fix: str) -> Problem:
    return Problem(code="unusable", message=message, file=document.file, line=document.line(path), field=dotted(path),
                   fix=fix)  # fmt: skip


def _duplicate(label: str, path: Path_, line: int, first: int) -> Problem:
    return Problem(
        code="duplicate_key", message=f"duplicate key, first defined in line {first}", file=label,
        line=line, field=dotted(path), fix="keep one of the two",
    )  # fmt: skip
