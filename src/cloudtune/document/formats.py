"""The three formats that `document` reads: values, their lines, and duplicate keys.

YAML is version 1.2: ``2e-4`` is a number, ``no`` is a string, and tags that create objects are rejected. Python's
parsers read JSON and TOML; a second pass over the text finds the lines.
"""

from __future__ import annotations

import bisect
import json
import re
import tomllib
from datetime import date, datetime, time
from typing import Any

from cloudtune.document.parsed import DEEPEST, Parsed, Path_, SyntaxFault

MOST_VALUES = 10_000
"""Maximum values in one document, counting each use of an alias. A few nested aliases can create billions."""
MOST_DUPLICATES = 100
"""Maximum duplicate keys that are reported."""


# -- YAML ----------------------------------------------------------------------------------------------------------


def parse_yaml(text: str) -> Parsed:
    """Read one YAML 1.2 document. Raises SyntaxFault."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent, NodeEvent
    from ruamel.yaml.parser import Parser
    from ruamel.yaml.reader import ReaderError

    class LimitedParser(Parser):
        """Stops at the limits before the whole document is parsed, which can take minutes."""

        events = depth = 0

        def get_event(self) -> Any:
            event = super().get_event()
            self.events += isinstance(event, NodeEvent)
            self.depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            _check_limits(self.events, self.depth, event.start_mark.line + 1)
            return event

    yaml = YAML(typ="safe", pure=True)
    yaml.Parser = LimitedParser
    yaml.composer.warn_double_anchors = False  # YAML 1.2 allows reusing an anchor
    try:
        node = yaml.compose(text)
    except MarkedYAMLError as error:
        raise _yaml_fault(error) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SyntaxFault(f"the character U+{ord(text[error.position]):04X} is not allowed", line=line) from error
    except YAMLError as error:
        raise SyntaxFault(str(error)) from error
    reader = _YamlReader(yaml.constructor)
    return Parsed(reader.value(node, (), ()) if node is not None else None, reader.lines, reader.duplicates)


def _yaml_fault(error: Any) -> SyntaxFault:
    mark, begun = error.problem_mark or error.context_mark, error.context_mark
    message = str(error.problem or error.context)
    fix = None
    if r"'\t'" in message:
        message, fix = "a tab is used for indentation", "indent with spaces"
    elif "mapping values are not allowed" in message:
        fix = "quote values that contain a colon, and check the indentation"
    elif "another document" in message:
        message, fix = "a second document starts here (`---`)", "keep one document per file"
    elif "cannot start any token" in message:
        fix = "quote the value"
    if begun is not None and mark is not None and begun.line != mark.line and error.context:
        message += f", {error.context} that starts in line {begun.line + 1}"
    place = f"column {mark.column + 1}: " if mark is not None else ""
    return SyntaxFault(f"not valid YAML: {place}{message}", line=mark.line + 1 if mark is not None else None, fix=fix)


class _YamlReader:
    """Converts YAML nodes to values."""

    def __init__(self, constructor: Any) -> None:
        self._constructor = constructor
        self._nodes = 0
        self.lines: dict[Path_, int] = {}
        self.duplicates: list[tuple[Path_, int, int]] = []

    def value(self, node: Any, path: Path_, inside: tuple[int, ...]) -> Any:
        self._nodes += 1
        if id(node) in inside:
            raise SyntaxFault("an alias refers to itself", line=_line(node), fix="write the value itself")
        _check_limits(self._nodes, len(path), _line(node))
        self.lines.setdefault(path, _line(node))
        tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if tag == "map":
            return self._mapping(node, path, (*inside, id(node)))
        if tag == "seq":
            within = (*inside, id(node))
            return [self.value(item, (*path, number), within) for number, item in enumerate(node.value)]
        return self._scalar(node, tag)

    def _mapping(self, node: Any, path: Path_, inside: tuple[int, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if str(key_node.tag).endswith(":merge"):
                merged |= self._merged(value_node, path, inside)
                continue
            if not isinstance(key_node.value, str):
                raise SyntaxFault("a key must be a string", line=_line(key_node))
            key = key_node.value
            place = (*path, key)
            if key in found:
                self.duplicates.append((place, _line(key_node), self.lines[place]))
            self.lines[place] = _line(key_node)
            found[key] = self.value(value_node, place, inside)
        return merged | found

    def _merged(self, node: Any, path: Path_, inside: tuple[int, ...]) -> dict[str, Any]:
        """Return the values of ``<<:``: a mapping, or a list of mappings of which the first wins."""
        value = self.value(node, (*path, "<<"), inside)
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            raise SyntaxFault("`<<` requires a mapping", line=_line(node))
        return {key: item for part in reversed(parts) for key, item in part.items()}

    def _scalar(self, node: Any, tag: str) -> Any:
        try:
            match tag:
                case "null":
                    return None
                case "bool":
                    return self._constructor.construct_yaml_bool(node)
                case "int":
                    return self._constructor.construct_yaml_int(node)
                case "float":
                    return self._constructor.construct_yaml_float(node)
                case "str" | "timestamp" | "value":
                    return node.value
        except ValueError as error:
            raise SyntaxFault(f"invalid value {node.value!r}: {error}", line=_line(node)) from error
        raise SyntaxFault(f"the tag {node.tag} is not allowed", line=_line(node), fix="write the plain value")


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


# -- limits --------------------------------------------------------------------------------------------------------


def _check_size(values: Any) -> None:
    """Reject documents with too many values or levels. Recursion is safe afterwards."""
    count = 0
    waiting = [(values, 1)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        _check_limits(count, depth)
        if isinstance(value, dict | list):
            waiting.extend((item, depth + 1) for item in (value.values() if isinstance(value, dict) else value))


def _check_limits(count: int, depth: int, line: int | None = None) -> None:
    if depth > DEEPEST:
        raise _too_deep(line)
    if count > MOST_VALUES:
        fix = "use a pattern such as `rows/*.jsonl` for many files"
        raise SyntaxFault(f"it contains more than {MOST_VALUES:,} values", line=line, fix=fix)


def _too_deep(line: int | None) -> SyntaxFault:
    return SyntaxFault(f"it is nested more than {DEEPEST} levels deep", line=line, fix="use fewer levels")


# -- JSON ----------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]|[^\s{}\[\],:"]+', re.DOTALL)


def parse_json(text: str) -> Parsed:
    """Read JSON. Raises SyntaxFault."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"not valid JSON: column {error.colno}: {error.msg}"
        raise SyntaxFault(message, line=error.lineno) from error
    except ValueError as error:  # an integer with more digits than Python converts
        raise SyntaxFault(f"not valid JSON: {error}") from error
    _check_size(values)
    return _json_lines(text, Parsed(values, {}))


def _json_lines(text: str, parsed: Parsed) -> Parsed:
    """Scan the tokens of valid JSON to find the line of each key and item."""
    starts = [match.end() for match in re.finditer("\n", text)]
    holders: list[tuple[str, Path_]] = []  # the open brackets, each with the path of its value
    here: Path_ = ()
    count = 0
    counts: list[int] = []
    wants_key = False
    twice: set[Path_] = set()
    for match in _TOKEN.finditer(text):
        mark, line = match.group(), bisect.bisect_right(starts, match.start()) + 1
        if wants_key and mark[0] == '"':
            here = (*holders[-1][1], json.loads(mark))
            known = here in parsed.lines and not any(here[:end] in twice for end in range(1, len(here) + 1))
            if known and len(twice) < MOST_DUPLICATES:
                twice.add(here)
                parsed.duplicates.append((here, line, parsed.lines[here]))
            parsed.lines[here], wants_key = line, False
            continue
        if mark in "]}":
            holders.pop()
            count = counts.pop()
            wants_key = False
            continue
        if mark == ",":
            wants_key = holders[-1][0] == "{"
            count += 1
            continue
        if holders and holders[-1][0] == "[":
            here = (*holders[-1][1], count)
        parsed.lines.setdefault(here, line)
        if mark in "{[":
            holders.append((mark, here))
            counts.append(count)
            count, wants_key = 0, mark == "{"
    return parsed


# -- TOML ----------------------------------------------------------------------------------------------------------

_TOML_PLACE = re.compile(r"(.*) \(at line (\d+), column (\d+)\)", re.DOTALL)
_TOML_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_TOML_PATH = rf"{_TOML_KEY}(?:\s*\.\s*{_TOML_KEY})*"
_TOML_DEEP = re.compile(
    rf"^[ \t]*(?:\[[ \t]*){{0,2}}{_TOML_KEY}(?:[ \t]*\.[ \t]*{_TOML_KEY}){{{DEEPEST}}}", re.MULTILINE
)
_TOML_TABLE = re.compile(rf"\s*\[(\[?)\s*({_TOML_PATH})\s*\]\]?")
_TOML_ENTRY = re.compile(rf"\s*({_TOML_PATH})\s*=\s*(.*)")


def parse_toml(text: str) -> Parsed:
    """Read TOML. Raises SyntaxFault."""
    if found := _TOML_DEEP.search(text):  # tomllib reads such a key in quadratic time
        raise _too_deep(text.count("\n", 0, found.start()) + 1)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_PLACE.fullmatch(str(error))
        if not found:  # at the end of the document
            raise SyntaxFault(f"not valid TOML: {error}", line=len(text.splitlines())) from error
        message = f"not valid TOML: column {found[3]}: {found[1]}"
        raise SyntaxFault(message, line=int(found[2])) from error
    except ValueError as error:  # an integer with more digits than Python converts
        raise SyntaxFault(f"not valid TOML: {error}") from error
    _check_size(values)
    return Parsed(_plain(values), _toml_lines(text))


def _toml_lines(text: str) -> dict[Path_, int]:
    """Return the line of each table and of each key that starts a line, which is good enough for messages."""
    lines: dict[Path_, int] = {}
    table: Path_ = ()
    tables: dict[Path_, int] = {}
    closing = ""
    for number, line in enumerate(text.splitlines(), 1):
        if closing:
            closing = "" if closing in line else closing
            continue
        if found := _TOML_TABLE.match(line):
            table = _toml_path(found[2])
            if found[1]:
                tables[table] = tables.get(table, -1) + 1
                table = (*table, tables[table])
        elif found := _TOML_ENTRY.match(line):
            path = (*table, *_toml_path(found[1]))
            lines.setdefault(path, number)
            closing = next((mark for mark in ('"""', "'''") if found[2].count(mark) % 2), "")
            continue
        else:
            continue
        lines.setdefault(table, number)
    return lines


def _toml_path(text: str) -> Path_:
    return tuple(key.strip("\"'") for key in re.findall(_TOML_KEY, text))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime | date | time) else value
