"""Rules of a format or a vendor for rows and datasets: what is refused, and the source.

Rules are in the vendors' modules. A format lists those of its shape (`Format.rules`), a back end those of its models
(`cloudtune.optional.RowRules`). Checks run them, and ``cloudtune data rules`` prints them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloudtune.errors import Problem, Severity

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cloudtune.data.records import Record

Finding = tuple[str, str]
"""The field that breaks a rule, and how it breaks it."""


class Source(NamedTuple):
    """Where a rule is documented."""

    url: str
    seen: str
    """The date on which the page was read."""


class RowRule(NamedTuple):
    """A rule for each row."""

    code: str
    text: str
    """The rule in one sentence."""
    source: Source
    example: str
    """The part of a row that breaks the rule."""
    fix: str
    find: Callable[[Record], Iterable[Finding]]
    quick: re.Pattern[bytes] | None = None
    """Matches every canonical line that breaks the rule. Without it, conversations of plain text cannot break it."""
    severity: Severity = "error"

    def problems(self, record: Record) -> Iterator[Problem]:
        """Where the record breaks the rule."""
        for field, message in self.find(record):
            yield Problem(code=self.code, severity=self.severity, field=field, message=message, fix=self.fix)


class DataFacts(NamedTuple):
    """What a dataset contains."""

    rows: Mapping[str, int]
    """Split -> number of rows."""
    features: Mapping[str, int]
    """Feature (see ``dropped_features.FEATURES``) -> number of rows that have it."""


class DataRule(NamedTuple):
    """A rule for the dataset as a whole."""

    code: str
    text: str
    source: Source
    example: str
    fix: str
    find: Callable[[DataFacts], Iterable[Finding]]
    severity: Severity = "error"

    def problems(self, facts: DataFacts) -> Iterator[Problem]:
        """How the dataset breaks the rule."""
        for field, message in self.find(facts):
            yield Problem(code=self.code, severity=self.severity, field=field, message=message, fix=self.fix)


VendorRule = RowRule | DataRule
