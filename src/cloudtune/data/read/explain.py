"""Explains why a row could not be decoded, with the location."""

from __future__ import annotations

import difflib
import heapq
import re
import shlex
from typing import TYPE_CHECKING, Any

from cloudtune.data.read.kinds_other import KINDS, recognise
from cloudtune.data.read.size_limits import SHOWN_CHARS
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cloudtune.data.read.kinds import Kind

COMMON = ("chat", "prompt_completion", "instruction", "text", "preference", "sharegpt")
_SHOWN = 8
_MESSAGE_KEYS = ({"role", "content"}, {"from", "value"})


def not_an_object(value: object) -> Problem:
    """A row that is JSON, but not an object."""
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    what = names.get(type(value), "a number")
    return Problem(code="not_an_object", message=f"a row must be a JSON object, not {what}", fix="write {...}")


def mixed(other: Kind, kind: Kind) -> Problem:
    """A row of another kind than the file's."""
    return Problem(
        code="mixed_kinds", message=f"this row is {other.name}, but the file or setting requires {kind.name}",
        fix="put each kind in a separate file",
    )  # fmt: skip


def mapped_twice(names: Mapping[str, str | None]) -> Problem | None:
    """The problem of two columns of a row that are mapped to the same name."""
    seen: dict[str, str] = {}
    for key, name in names.items():
        if name is not None and seen.setdefault(name, key) != key:
            return Problem(
                code="duplicate_key", message=f"the columns {seen[name]!r} and {key!r} are both mapped to {name}",
                field=key, fix="map one of them",
            )  # fmt: skip
    return None


def keys(
    row: Mapping[str, Any], kind: Kind | None, unmapped: set[str], suggest: Callable[[str], bool] = lambda _: True
) -> Problem:
    """Why these keys do not make a row of the kind, or of any kind. ``unmapped``: mapped columns that do not exist.

    ``suggest`` decides whether to search for similar names for a problem of that code.
    """
    present = frozenset(row)
    shown = ", ".join(_few(present)) or "none"
    other = recognise(row)
    if (
        kind is not None
        and other is not None
        and other is not kind
        and not other.required.keys() < kind.required.keys()
    ):
        return mixed(other, kind)
    fix: str | None
    if kind is None and any(pair <= present for pair in _MESSAGE_KEYS):
        fix = 'it is one message of a conversation: write a whole conversation on each line, {"messages": [...]}'
    elif unmapped:
        fix = f"columns maps {', '.join(_few(unmapped))}, which does not exist"
    elif suggest("unknown_keys" if kind is None else "missing_key"):
        fix = _rename(row, kind) or (None if kind else _as_rows(row))
    else:
        fix = None
    if kind is None:
        wanted = "; ".join(" + ".join(KINDS[name].required) for name in COMMON)
        return Problem(
            code="unknown_keys", message=f"unknown kind of row; its keys are: {shown}",
            fix=fix or f"expected {wanted}; rename other keys with columns, or build rows with a template",
        )  # fmt: skip
    missing = [name for name in kind.required if name not in present]
    return Problem(
        code="missing_key", message=f"a {kind.name} row requires {', '.join(missing)}; this row has {shown}",
        field=missing[0] if missing else None, fix=fix or "add the key, or remove the row",
    )  # fmt: skip


_ANSWERS = re.compile(
    r"answers?|response|output|completion|reply|target|solution|respuesta|salida|antwort|r[e\u00e9]ponse|risposta|resposta",
    re.IGNORECASE,
)
"""Names of columns that hold answers."""


def _as_rows(row: Mapping[str, Any]) -> str | None:
    """Columns of texts in some language: most likely questions, what belongs to them, and answers."""
    names = [key for key, value in row.items() if isinstance(value, str)]
    if not 2 <= len(names) <= _SHOWN or any(len(name) > SHOWN_CHARS for name in names):
        return None
    answer = next((name for name in names if _ANSWERS.fullmatch(name)), names[-1] if len(row) == 2 else None)
    if answer is None or any(answer in KINDS[name].required for name in COMMON):
        return None
    requested = [name for name in names if name != answer]
    if len(requested) == 1:
        return (
            f"if they are prompt and completion: columns: {{{requested[0]}: prompt, {answer}: completion}} "
            f"(--map {shlex.quote(f'{requested[0]}=prompt')} --map {shlex.quote(f'{answer}=completion')})"
        )
    if any(set(name) & set("{}\\") for name in names):
        return None
    prompt = "\\n\\n".join(f"{{{name}}}" for name in requested)
    return (
        f"build rows with a template: --template {shlex.quote(f'prompt={prompt}')} "
        f"--template {shlex.quote(f'completion={{{answer}}}')}"
    )


def _rename(row: Mapping[str, Any], kind: Kind | None) -> str | None:
    """Mappings of columns to the similar names of a kind, if the row is complete with them and loses no text."""
    for one in [kind] if kind else [KINDS[name] for name in COMMON]:
        pairs: dict[str, str] = {}
        for key in _few(set(row).difference(one.keys)):
            left = [name for name in one.keys if name not in row and name not in pairs.values()]
            if near := difflib.get_close_matches(key, left, n=1):
                pairs[key] = near[0]
        named = {pairs.get(key, key): value for key, value in row.items()}
        lost = [key for key, value in named.items() if key not in one.keys and isinstance(value, str)]
        if pairs and one.required.keys() <= named.keys() and not lost and one.matches(named):
            options = " ".join(f"--map {shlex.quote(f'{key}={close}')}" for key, close in pairs.items())
            return f"map them: columns: {{{', '.join(f'{key}: {close}' for key, close in pairs.items())}}} ({options})"
    return None


def headerless(names: Iterable[str]) -> Problem | None:
    """The problem of a table whose first line seems to be a row of data, not the names of the columns."""
    cells = list(names)
    if not any(_DATA.search(cell) or len(cell) > _LONGEST_NAME or len(cell.split()) > _MOST_WORDS for cell in cells):
        return None
    line = {1: "text", 2: "prompt,completion"}.get(len(cells))
    fix = f"insert a line with the {len(cells)} column names before it" + (f", such as {line}" if line else "")
    shown = ", ".join(cell[:SHOWN_CHARS] for cell in cells[:_SHOWN])
    return Problem(
        code="no_header",
        message=f"the first line seems to be a row, not column names: {shown}",
        fix=fix,
    )


_DATA = re.compile(r"[?\u00bf!\u00a1]|[.:]\s*$|^[\d\s.,/%-]+$|://")
"""Characters of data cells that names of columns do not have."""
_LONGEST_NAME, _MOST_WORDS = 60, 5


def _few(names: Iterable[str]) -> list[str]:
    """The first names, truncated for display: a row may have very many and very long ones."""
    return [name[:SHOWN_CHARS] for name in heapq.nsmallest(_SHOWN, names)]
