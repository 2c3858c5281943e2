"""Cells of tables that hold more than a text: JSON written out, or Arrow's structs with a null for each missing key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data.read.json_syntax import syntax
from cloudtune.data.records import compact
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from cloudtune.data.read.kinds import RowType


class NestedError(Exception):
    """A cell is not the JSON that it should be."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def unnested(key: str, cell: Any, how: RowType) -> Any:
    """The cell's value for a row of that type."""
    ours = how.columns.get(key, key)
    wanted = how.kind.required.get(ours, how.kind.optional.get(ours, Any))
    if isinstance(cell, list | dict):
        return cell if wanted is Any else _without_nulls(cell)
    if isinstance(cell, bytes):
        cell = decoded(cell, key)
    kinds = getattr(wanted, "__args__", (wanted,))
    if cell is not None and type(cell) not in kinds and str in kinds:
        cell = None if cell != cell else compact(cell)  # noqa: PLR0124 - NaN, which stands for a missing value
    if wanted in (str, Any) or not isinstance(cell, str) or cell[:1] not in ("[", "{"):
        return cell
    data = cell.encode(errors="surrogatepass")
    problem = syntax(data)
    value = msgspec.json.decode(data) if problem is None else None
    if str in kinds:  # a string can be JSON too: only messages are distinguished
        return value if isinstance(value, list) and value and all(isinstance(one, dict) for one in value) else cell
    if problem is not None:
        raise NestedError(msgspec.structs.replace(problem, field=key))
    return value


def decoded(cell: bytes, key: str) -> str:
    """The text of a binary cell. Raises NestedError."""
    try:
        return cell.decode()
    except UnicodeDecodeError as error:
        raise NestedError(
            Problem(code="invalid_utf8", message="this cell holds bytes that are not UTF-8 text", field=key,
                    fix="store it as text")
        ) from error  # fmt: skip


def _without_nulls(cell: Any) -> Any:
    if isinstance(cell, dict):
        return {key: _without_nulls(value) for key, value in cell.items() if value is not None}
    return [_without_nulls(one) for one in cell] if isinstance(cell, list) else cell
