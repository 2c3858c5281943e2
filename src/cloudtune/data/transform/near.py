"""Near-duplicate rows: MinHash over runs of three words, and a comparison of the likely candidates only."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudtune.data.media.addressing import FIELDS
from cloudtune.data.rules import texts
from cloudtune.errors import DataError, Problem
from cloudtune.install_command import install_command

if TYPE_CHECKING:
    from cloudtune.data.records import Record

_WORD = re.compile(r"\w+")
_RUN = 3
_PERMUTATIONS = 128
_BANDS = 16
_SEED = 42


class NearDuplicates:
    """Stores rows (about 1.5 kB each) and finds those that resemble an earlier one."""

    def __init__(self, threshold: float = 0.8) -> None:
        try:
            import rensa
        except ImportError as error:
            fix = install_command("data")
            message = "finding near-duplicates requires the rensa package"
            raise DataError([Problem(code="not_installed", message=message, fix=fix)]) from error
        self.threshold = threshold
        self._make: Any = rensa.RMinHash.from_token_sets
        self._index: Any = rensa.RMinHashLSH(threshold, _PERMUTATIONS, _BANDS)
        self._known: list[Any] = []

    def add(self, records: list[Record]) -> list[int | None]:
        """Add rows; returns for each the index of an earlier one that it resembles, or None.

        Raises DataError for rows that name files: similar paths are not similar files.
        """
        if records and type(records[0]) in FIELDS:
            message, fix = "near-duplicates are found in texts, and these rows name files", "leave out --near"
            raise DataError([Problem(code="not_text", message=message, fix=fix)])
        found: list[int | None] = []
        for sketch in self._make([runs(record) for record in records], _PERMUTATIONS, _SEED):
            found.append(self._like(sketch))
            self._index.insert(len(self._known), sketch)
            self._known.append(sketch)
        return found

    def _like(self, sketch: Any) -> int | None:
        for candidate in sorted(self._index.query(sketch)):
            if sketch.jaccard(self._known[candidate]) >= self.threshold:
                return int(candidate)
        return None


def runs(record: Record) -> list[str]:
    """Runs of words, without case and punctuation."""
    words = _WORD.findall(" ".join([words for _, _, words in texts(record)]).casefold())
    return [" ".join(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)] or words or [""]
