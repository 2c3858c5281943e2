"""Cells of tables with more than text: JSON text, or Arrow's structs with a null for each missing key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.read.dialects import OPAQUE, without_nulls
from cloudtune.data.read.json_syntax import NestedError, syntax
from cloudtune.data.records import compact
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from cloudtune.data.read.kinds import Kind


def unnested(key: str, cell: Any, kind: Kind, *, is_cell: bool) -> Any:
    """The value under that key for a row of that kind. ``is_cell``: it comes from a table."""
    wanted = kind.required.get(key, kind.optional.get(key, Any))
    if isinstance(cell, list | dict):
        return cell if wanted is Any or key in OPAQUE else without_nulls(cell, () if is_cell else OPAQUE)
    if isinstance(cell, bytes):
        cell = decoded(cell, key)
    types = getattr(wanted, "__args__", (wanted,))
    if is_cell and cell is not None and type(cell) not in types and str in types:
        cell = compact(cell)
    if wanted in (str, Any) or not isinstance(cell, str) or cell[:1] not in ("[", "{"):
        return cell
    is_text = str in types  # a string can be JSON too: only messages are distinguished
    if is_text and not is_cell:
        return cell
    data = cell.encode(errors="surrogatepass")
    problem = syntax(data)
    value = msgspec.json.decode(data) if problem is None else None
    if is_text:
        return value if _are_turns(value) else cell
    if problem is not None:
        raise NestedError(msgspec.structs.replace(problem, field=key))
    return without_nulls(value, OPAQUE)


def decoded(cell: bytes, key: str) -> str:
    """The text of a binary cell. Raises NestedError."""
    try:
        return cell.decode()
    except UnicodeDecodeError as error:
        raise NestedError(
            Problem(code="invalid_utf8", message="this cell holds bytes that are not UTF-8 text", field=key,
                    fix="store it as text")
        ) from error  # fmt: skip


def _are_turns(value: Any) -> bool:
    """Whether a JSON value is messages, or one message, and not an answer that happens to be JSON."""
    if isinstance(value, dict):
        return {"role", "content"} <= value.keys() or {"from", "value"} <= value.keys()
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
