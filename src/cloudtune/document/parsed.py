"""What the parsers of the formats return, and the error that they raise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DEEPEST = 50
"""Levels of lists and tables in one document."""

Path_ = tuple[str | int, ...]
"""The path of a value: keys and indexes from the top."""


@dataclass
class Parsed:
    """What a parser of one format brings."""

    values: Any
    lines: dict[Path_, int]
    duplicates: list[tuple[Path_, int, int]] = field(default_factory=list)
    """Path, the line of the second mention, the line of the first."""


class SyntaxFault(Exception):
    """A file that does not match its format."""

    def __init__(self, message: str, *, line: int | None = None, fix: str | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.fix = fix
