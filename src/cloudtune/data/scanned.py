"""The instructions for scanning a batch of records, and the results: plain values that can be sent to a process."""

from __future__ import annotations

from typing import Literal

import msgspec

from cloudtune.data.split import Shares
from cloudtune.errors import Problem
from cloudtune.methods import DEFAULT_METHOD, LabelProblem

MAX_CLASSES = 1000
"""Different labels of a classifier. Where there are more, another column was meant."""
MEDIA_KINDS = frozenset({"image_label", "speech", "audio_label"})
"""Kinds of rows that name a file."""
MAX_LABELS = 100
"""Different short answers. Where there are more, they are not labels."""


class Task(msgspec.Struct, frozen=True):
    """What to do with every batch."""

    method: str = DEFAULT_METHOD
    shares: Shares = Shares(0.0, 0.0, 0)
    target: str = ""
    """The name of the target, for messages."""
    rules_of: tuple[str, str | None, str | None] | None = None
    """Back end, model and method whose row rules apply."""
    format: str | None = None
    allow_dropped: frozenset[str] = frozenset()
    private: bool = False
    """Look for secrets and personal data too."""
    tokenizer: str | None = None
    """A folder with tokenizer.json: count tokens exactly."""
    max_tokens: int | None = None
    """Token limit of one record."""
    longer: Literal["count", "error", "warning"] = "count"
    """``count`` counts every record's tokens; the others only report records over ``max_tokens``."""
    row_check: tuple[str, str] | None = None
    """See `Target`."""
    words: bool = True
    """Look for template tokens, control characters and broken text."""
    items: bool = False
    """Conversations are tasks for a grader: their other keys are its fields."""
    media: bool = False
    """Check the files that rows name, and name them by their content."""
    media_folder: str | None = None
    """Copy them into this folder."""
    problem: LabelProblem | None = None
    """Check that the labels of texts fit this problem."""

    @property
    def only_converts(self) -> bool:
        """Whether the rows are written in a format for no target. They need not be a whole training set."""
        return self.format is not None and not self.target


class Side(msgspec.Struct):
    """The records of one side of a batch, as bytes."""

    rows: int = 0
    longest: int = 0
    """Characters of the longest record."""
    canonical: bytes = b""
    written: bytes | None = None
    """In the format; None if it is the canonical one."""
    places: bytes = b""
    """Which of the batch's records these are, 4 bytes each, where the batch has several sides."""
    classes: set[str] = set()
    """The labels or ratings of these records, for methods that learn them."""


class Scanned(msgspec.Struct):
    """The results of one batch."""

    file: str
    by_row: bool
    origin: str
    sides: dict[str, Side]
    problems: list[Problem]
    kinds: dict[str, int]
    first: int
    """Line of the first valid record."""
    numbers: bytes | None
    """Lines of the good records, 8 bytes each; None if they follow one another."""
    hashes: bytes
    """Of the good records' lines, 8 bytes each."""
    prompts: bytes
    """Of what comes before their last answers; 0 = no prompt."""
    sizes: bytes
    """Bytes of each canonical line, 4 bytes each."""
    labels: dict[str, int] | None
    """The count of each short answer; None if this and earlier batches have more than MAX_LABELS of them."""
    features: dict[str, int]
    """How many records have tools, images, weights, ... (see ``losses``)."""
    lost: dict[str, int] = {}
    """Of how many records the format does not carry each feature, where that is allowed."""
    tokens: bytes = b""
    """Of each good record, 4 bytes each, where they were counted."""
