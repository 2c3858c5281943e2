"""The rows that a back end accepts: a format for each method, limits, and the back end's own rules.

Each back end provides a `Target` through `cloudtune.optional.DataRules`.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple

from cloudtune.errors import DataError, Problem
from cloudtune.optional import DataRules, RowRules
from cloudtune.registry import backend_class, backend_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.catalog import Catalog
    from cloudtune.data.row_rules import VendorRule

_FIGURES = {"rows.min": "min_rows", "rows.max": "max_rows", "file.bytes.max": "max_bytes",
            "upload.bytes.max": "max_bytes", "row.tokens.max": "max_tokens"}  # fmt: skip
"""Limit of a catalog -> the field of a `Target`; of two for one field, the last one applies."""


class Target(NamedTuple):
    """The rows that one back end accepts."""

    name: str
    formats: dict[str, str]
    """Method -> the format of its uploaded rows."""
    min_rows: int = 1
    max_rows: int | None = None
    together: bool = False
    """Training and validation rows count together against the numbers of rows."""
    max_bytes: int | None = None
    """Of one file."""
    max_tokens: int | None = None
    """Of one row."""
    rules_of: tuple[str, str | None, str | None] | None = None
    """Back end, model and method of the row rules that apply (see `row_rules`); None = no own rules."""
    tokenizer: str | None = None
    """The model's exact token counter, if it is installed: see ``tokens.counter_of``."""
    row_check: tuple[str, str] | None = None
    """A name in ``plugins.ROW_CHECKS`` and its argument: it checks every row."""
    cited: dict[str, str] = {}
    """Field -> the source of its value, as text."""

    def words(self, field: str) -> str:
        """The source of a field's value, in brackets; empty if unknown."""
        return f" ({self.cited[field]})" if field in self.cited else ""

    def format_for(self, method: str) -> str:
        """The format for a method. Raises DataError if it is not offered."""
        if method in self.formats:
            return self.formats[method]
        problem = Problem(
            code="method", field="method", message=f"{self.name} has no format for {method}",
            fix=f"it supports {', '.join(self.formats)}",
        )  # fmt: skip
        raise DataError([problem])

    def with_limits(self, catalog: Catalog, model: str | None, method: str | None) -> Target:
        """The target with the catalog's dated and cited limits for that model and method instead of its own."""
        changes: dict[str, int] = {}
        cited: dict[str, str] = {}
        for name, field in _FIGURES.items():
            limit = catalog.limit(name, model or "", method or "")
            if limit is not None and (not limit.methods or method):
                changes[field] = int(limit.value)
                cited[field] = catalog.cite(limit.source)
        return self._replace(**changes, cited=cited)  # type: ignore[arg-type]


def find_target(backend: str, model: str | None = None, method: str | None = None) -> Target:
    """The back end's rows for that model. Raises DataError for one without rules, BackendNotInstalled."""
    known = backend_names()
    name = backend if backend in known else backend.replace("-", "_")
    target = known_target(name, model, method) if name in known else None
    if target is not None:
        return target
    near = difflib.get_close_matches(name, known, n=1) if name not in known else []
    fix = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
    message = f"no data rules for {backend!r}"
    raise DataError([Problem(code="unknown_target", field="for", message=message, fix=fix)])


def known_target(backend: str, model: str | None, method: str | None) -> Target | None:
    """The rows of the back end with that name; None if it has no rules. Raises BackendNotInstalled."""
    cls = backend_class(backend)
    return cls.target_for(model, method) if issubclass(cls, DataRules) else None


def row_rules(rules_of: tuple[str, str | None, str | None] | None) -> Sequence[VendorRule]:
    """The rules of that back end for that model and method. Raises BackendNotInstalled."""
    if rules_of is None:
        return ()
    backend, model, method = rules_of
    cls = backend_class(backend)
    return cls.row_rules(model, method) if issubclass(cls, RowRules) else ()
