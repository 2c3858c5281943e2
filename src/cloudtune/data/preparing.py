"""``prepare`` counts, checks, splits and fingerprints the data in one pass."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cloudtune.backend import DataReport, SplitInfo
from cloudtune.data.check import faults_of
from cloudtune.data.faults import Faults
from cloudtune.data.reading import read
from cloudtune.data.records import Chat, canonical, kind_of
from cloudtune.data.split import shares

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.data.places import Batch
    from cloudtune.data.records import Record
    from cloudtune.spec import Data, Source

_PAIRS = ("preference",)
_GRADED = ("item",)
KINDS_FOR: dict[str, tuple[str, ...]] = {
    "sft": ("chat", "text"), "cpt": ("text", "chat"), "dpo": _PAIRS, "ipo": _PAIRS, "orpo": _PAIRS, "simpo": _PAIRS,
    "reward": _PAIRS, "kto": ("rated",), "grpo": _GRADED, "rloo": _GRADED, "rft": _GRADED, "distill": ("chat", "item"),
    "classification": ("text_label",), "token_classification": ("tags",), "question_answering": ("question",),
    "seq2seq": ("pair", "chat"), "image_classification": ("image_label",), "speech_recognition": ("speech",),
}  # fmt: skip
"""The kinds of records that each method can learn from."""
FEW_ROWS = 100
SPLITS = ("train", "validation", "test")


class _Count:
    """What is learnt of one side while it goes by."""

    def __init__(self) -> None:
        self.rows = self.bytes = self.longest = 0
        self.hash = hashlib.sha256()
        self.kinds: set[str] = set()

    def add(self, record: Record, line: bytes) -> None:
        self.rows += 1
        self.bytes += len(line)
        self.kinds.add(kind_of(record))
        length = _chars(record) if type(record) is Chat else len(line)
        self.longest = max(self.longest, length)
        self.hash.update(line)

    def info(self) -> SplitInfo:
        kind = self.kinds.copy().pop() if len(self.kinds) == 1 else "mixed"
        return SplitInfo(rows=self.rows, bytes=self.bytes, sha256=self.hash.hexdigest(), kind=kind,
                         longest_chars=self.longest)  # fmt: skip


def _chars(record: Chat) -> int:
    return sum([len(m.content) if type(m.content) is str else len(m.text) for m in record.messages])


def sources(data: Data) -> dict[str, Source]:
    """The sources that the spec names, by the split that their rows belong to (or are taken from)."""
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    return {split: source for split, source in named.items() if source is not None and not isinstance(source, float)}


def placed(data: Data, method: str, faults: Faults) -> Iterator[tuple[str, Batch, int, Record, bytes]]:
    """Every good record: its split, batch and place, itself, and its canonical line; bad ones are reported."""
    cut = shares(data)
    for origin, source in sources(data).items():
        for batch in read(source, faults):
            for line, record in zip(batch.lines, batch.records, strict=True):
                if found := faults_of(record, method=method):
                    for fault in found:
                        faults.add(batch.locate(fault, line))
                    continue
                written = canonical(record)
                side = cut.side(written) if origin == "train" else origin
                yield side, batch, line, record, written + b"\n"


def prepare(data: Data, *, method: str = "sft") -> DataReport:
    """Read, check, split and fingerprint the data in one streaming pass. Raises DataError with every fault found."""
    faults = Faults()
    counts = {split: _Count() for split in SPLITS if split == "train" or getattr(data, split) is not None}
    for split, _, _, record, line in placed(data, method, faults):
        counts[split].add(record, line)
    _whole(data, counts, method, faults)
    faults.raise_errors()
    infos = {split: count.info() for split, count in counts.items()}
    whole = hashlib.sha256()
    for split, info in infos.items():
        whole.update(f"{split} {info.sha256}\n".encode())
    return DataReport(splits=infos, fingerprint=whole.hexdigest(), problems=faults.listed("warning"))


def _whole(data: Data, counts: dict[str, _Count], method: str, faults: Faults) -> None:
    """What is wrong with the sides as wholes."""
    if faults.total("error"):
        return
    rows = sum(count.rows for count in counts.values())
    for split, count in counts.items():
        if not count.rows:
            share = getattr(data, split)
            what = f"of {rows} rows, none falls into {split}"
            fix = "hold out a smaller share, or give more rows"
            if isinstance(share, float):
                fix = f"give more rows, a larger share than {share}, or a file of its own"
            faults.error("empty_split", what, field=f"data.{split}", fix=fix)
    kinds = {kind for count in counts.values() for kind in count.kinds}
    if len(kinds) > 1:
        each = ", ".join(f"{split} is {'/'.join(sorted(count.kinds))}" for split, count in counts.items())
        faults.error("mixed_kinds", each, field="data", fix="use one kind of rows in all splits")
    fit = KINDS_FOR.get(method)
    if fit and (wrong := sorted(kinds.difference(fit))):
        what = f"{method} learns from {' or '.join(fit)}, these rows are {', '.join(wrong)}"
        faults.error("kind_not_for_method", what,
                     field="data.train", fix="give other rows, or another method")  # fmt: skip
    if 0 < counts["train"].rows < FEW_ROWS:
        faults.warn("few_rows", f"{counts['train'].rows} rows to learn from", field="data.train",
                    fix=f"{FEW_ROWS} at least are advised, 1,000 to 10,000 are good")  # fmt: skip
