"""Collects problems: all are counted, and the first ones of each code are stored."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import structs

from cloudtune.errors import DataError, Problem, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT = 50
MAX_UNUSED_KEYS = 100
"""Keys of one file that are named as unused."""
_MOST_CHARS = 500
"""Limit of a problem's message, and of its fix: they quote the data."""


class Faults:
    """The problems of the data in one pass. Not thread-safe."""

    def __init__(self, keep: int = KEPT) -> None:
        self._keep = keep
        self._kept: dict[Severity, list[Problem]] = {"error": [], "warning": [], "info": []}
        self._unused: dict[str | None, set[str | None]] = {}
        self._counts: Counter[tuple[Severity, str]] = Counter()
        self._listed: Counter[tuple[Severity, str]] = Counter()

    def add(self, problem: Problem) -> None:
        """Count the problem, and store it if its code has few enough."""
        if problem.code == "unused_key":
            self._once(problem)
            return
        self._counts[problem.severity, problem.code] += 1
        self._keep_if_room(problem)

    def error(self, code: str, message: str, *, file: str | None = None, line: int | None = None,
              row: int | None = None, field: str | None = None, fix: str | None = None) -> None:  # fmt: skip
        """Add an error."""
        self.add(Problem(code=code, message=message, file=file, line=line, row=row, field=field, fix=fix))

    def warn(self, code: str, message: str, *, file: str | None = None, line: int | None = None,
             field: str | None = None, fix: str | None = None) -> None:  # fmt: skip
        """Add a warning."""
        self.add(Problem(code=code, message=message, severity="warning", file=file, line=line, field=field, fix=fix))

    def absorb(self, problems: Iterable[Problem], counts: Iterable[tuple[str, str, int]]) -> None:
        """Merge the problems and counts of another pass."""
        for severity, code, count in counts:
            self._counts[severity, code] += count  # type: ignore[index]
        for problem in problems:
            if problem.code == "unused_key":
                self._counts[problem.severity, problem.code] -= 1  # counted again if it is new
                self._once(problem)
            else:
                self._keep_if_room(problem)

    def _once(self, problem: Problem) -> None:
        """Report an unused key of a file once, for its first row, and only the first of many such keys."""
        named = self._unused.setdefault(problem.file, set())
        if problem.field in named or len(named) > MAX_UNUSED_KEYS:
            return
        named.add(problem.field)
        if len(named) > MAX_UNUSED_KEYS:
            message = f"more than {MAX_UNUSED_KEYS} keys are not used; the rest are not listed"
            problem = structs.replace(problem, message=message, line=None, row=None, field=None)
        self._counts[problem.severity, problem.code] += 1
        self._keep_if_room(problem)

    def _keep_if_room(self, problem: Problem) -> None:
        sort = (problem.severity, problem.code)
        if self._listed[sort] < self._keep:
            self._listed[sort] += 1
            self._kept[problem.severity].append(_shortened(problem))

    def kept(self, severity: Severity) -> list[Problem]:
        """The stored problems."""
        return self._kept[severity]

    @property
    def counts(self) -> dict[tuple[Severity, str], int]:
        """The counts by severity and code, including problems that are not stored."""
        return {key: count for key, count in self._counts.items() if count}

    def total(self, severity: Severity) -> int:
        """The number of problems of that severity."""
        return sum(n for (sev, _), n in self._counts.items() if sev == severity)

    def listed(self, severity: Severity) -> tuple[Problem, ...]:
        """The stored problems by file and line, and one more with the number of the others."""
        kept, total = _in_order(self._kept[severity]), self.total(severity)
        if total <= len(kept):
            return tuple(kept)
        by_code = ", ".join(f"{code} {n}" for (sev, code), n in self._counts.most_common() if sev == severity)
        rest = Problem(
            code="more_problems", severity=severity, message=f"and {total - len(kept)} more; totals: {by_code}"
        )
        return (*kept, rest)

    def raise_errors(self) -> None:
        """Raise DataError if there is any error, with the warnings after the errors."""
        if self.total("error"):
            raise DataError((*self.listed("error"), *self.listed("warning")))


def _shortened(problem: Problem) -> Problem:
    """The problem with its quotes truncated."""
    parts = {name: getattr(problem, name) for name in ("message", "field", "fix")}
    long = {name: f"{text[:_MOST_CHARS]}..." for name, text in parts.items() if text and len(text) > _MOST_CHARS}
    return structs.replace(problem, **long) if long else problem


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Sort key: the order of files and lines, with problems without a line last."""
    files: dict[str | None, int] = {}
    for problem in problems:
        files.setdefault(problem.file, len(files) if problem.file is not None else 1 << 30)
    return sorted(problems, key=lambda problem: (files[problem.file], problem.line or problem.row or 1 << 62))
