"""Filters, cleans and redacts rows while they are read. Each row keeps its location in its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloudtune.data.transform.cleaning import normalised, redacted
from cloudtune.data.transform.shaping import is_sampled

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.data.places import Batch
    from cloudtune.data.records import Record


class Changes(NamedTuple):
    """The changes to each row, in this order."""

    conditions: tuple[Callable[[Record], bool], ...] = ()
    """Only rows that fulfil all of them are kept."""
    sample: float | None = None
    """Only about this share of the rows is kept, chosen by content."""
    seed: int = 0
    normalise: bool = False
    redact: bool = False

    def __bool__(self) -> bool:
        return bool(self.conditions or self.sample is not None or self.normalise or self.redact)

    def keeps(self, record: Record) -> bool:
        """Whether the row stays."""
        if not all(holds(record) for holds in self.conditions):
            return False
        return self.sample is None or is_sampled(record, self.sample, self.seed)

    def change(self, record: Record) -> Record:
        """Return the changed row."""
        if self.normalise:
            record = normalised(record)
        return redacted(record) if self.redact else record

    def batch(self, batch: Batch) -> Batch:
        """The rows that stay, changed, with their places."""
        kept = [(line, one) for line, one in zip(batch.lines, batch.records, strict=True) if self.keeps(one)]
        return batch._replace(lines=[line for line, _ in kept], records=[self.change(one) for _, one in kept])
