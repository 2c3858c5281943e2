"""Cells of tables that hold more than a text: JSON written out, or Arrow's structs with a null for each missing key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.read import explain
from cloudtune.data.read.dialects import OPAQUE, without_nulls

if TYPE_CHECKING:
    from cloudtune.data.read.kinds import Kind
    from cloudtune.errors import Problem


class NestedError(Exception):
    """A cell is not the JSON that it should be."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def unnested(key: str, cell: Any, kind: Kind, *, is_cell: bool) -> Any:
    """The value under that key for a row of that kind. ``is_cell``: it comes from a table."""
    wanted = kind.required.get(key, kind.optional.get(key, Any))
    if isinstance(cell, list | dict):
        return cell if wanted is Any or key in OPAQUE else without_nulls(cell, () if is_cell else OPAQUE)
    if wanted in (str, Any) or not isinstance(cell, str) or cell[:1] not in ("[", "{"):
        return cell
    is_text = str in getattr(wanted, "__args__", ())  # a string can be JSON too: only messages are distinguished
    if is_text and not is_cell:
        return cell
    data = cell.encode(errors="surrogatepass")
    problem = explain.syntax(data)
    value = msgspec.json.decode(data) if problem is None else None
    if is_text:
        return value if _are_turns(value) else cell
    if problem is not None:
        raise NestedError(msgspec.structs.replace(problem, field=key))
    return without_nulls(value, OPAQUE)


def _are_turns(value: Any) -> bool:
    """Whether a JSON value is messages, or one message, and not an answer that happens to be JSON."""
    if isinstance(value, dict):
        return {"role", "content"} <= value.keys() or {"from", "value"} <= value.keys()
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
