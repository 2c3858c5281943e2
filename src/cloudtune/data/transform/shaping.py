"""Transforms a stream of records: filter, balance, mix and shuffle. All are seeded and repeatable."""

from __future__ import annotations

import math
import random
import tempfile
from collections import Counter
from contextlib import ExitStack
from hashlib import blake2b
from itertools import islice
from typing import IO, TYPE_CHECKING, TypeVar

import msgspec

from cloudtune.data.records import Chat, Labelled, Picture, Rated, Record, canonical
from cloudtune.data.transform.mixing import Pile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_T = TypeVar("_T")
_SPAN = 1 << 64
_BATCH = 256
SHUFFLE_BYTES = 64 << 20


def digest(record: Record, seed: int = 0) -> int:
    """64 bits of the record's content and a seed."""
    return int.from_bytes(blake2b(canonical(record), digest_size=8, key=b"%d" % seed).digest(), "big")


def label_of(record: Record) -> str:
    """The record's label, or its last answer."""
    if isinstance(record, Labelled | Picture | Rated):
        return str(record.label)
    return record.messages[-1].text if isinstance(record, Chat) and record.messages else ""


def question_of(record: Record) -> str:
    """The record's prompt: records with the same prompt belong together."""
    if isinstance(record, Chat):
        return msgspec.json.encode(record.messages[:-1]).decode()
    messages = getattr(record, "messages", None)
    return msgspec.json.encode(messages).decode() if messages is not None else canonical(record).decode()


def some(records: Iterable[_T], count: int) -> Iterator[list[_T]]:
    """Lists of at most ``count`` items."""
    stream = iter(records)
    while batch := list(islice(stream, count)):
        yield batch


def distinct(records: Iterable[Record], near: float | None = None) -> Iterator[Record]:
    """Remove duplicates: keep the first of equal records, or of those with the similarity ``near`` (0 to 1)."""
    seen: set[int] = set()
    if near is None:
        for record in records:
            if (one := digest(record)) not in seen:
                seen.add(one)
                yield record
        return
    from cloudtune.data.transform.near import NearDuplicates

    known = NearDuplicates(near)
    for batch in some(records, _BATCH):
        for record, like in zip(batch, known.add(batch), strict=True):
            if like is None:
                yield record


def sampled(records: Iterable[Record], share: float, seed: int) -> Iterator[Record]:
    """About that share of the records, chosen by content: a larger share contains the smaller one."""
    return (record for record in records if is_sampled(record, share, seed))


def is_sampled(record: Record, share: float, seed: int) -> bool:
    """Whether the record is in a sample of that share."""
    return digest(record, seed) < share * _SPAN


def balanced(
    read: Callable[[], Iterable[Record]], seed: int, label: Callable[[Record], str] = label_of, most: int | None = None
) -> Iterator[Record]:
    """Return at most ``most`` records per label (default: the rarest label's count), by content. Reads twice."""
    places: dict[str, list[int]] = {}
    for record in read():
        places.setdefault(label(record), []).append(digest(record, seed))
    keep = min((len(found) for found in places.values()), default=0) if most is None else most
    limits = {name: sorted(found)[min(keep, len(found)) - 1] for name, found in places.items()}
    left = Counter({name: min(keep, len(found)) for name, found in places.items()})
    for record in read():
        name = label(record)
        if digest(record, seed) <= limits[name] and left[name] > 0:
            left[name] -= 1
            yield record


def mixed(first: Iterable[Record], others: Sequence[tuple[Iterable[Record], float]], seed: int) -> Iterator[Record]:
    """The first stream with rows of others behind its own, by weight, as ``data.mix`` in a spec puts them."""
    kinds: dict[bytes, type[Record]] = {}
    piles = [Pile(weight, seed) for _, weight in others]
    try:
        for pile, (records, _) in zip(piles, others, strict=True):
            for record in records:
                name = type(record).__name__.encode()
                kinds[name] = type(record)
                pile.add(canonical(record), name)
        for record in first:
            yield record
            for pile in piles:
                for line, name in pile.due():
                    yield msgspec.json.decode(line, type=kinds[name])
    finally:
        for pile in piles:
            pile.close()


def shuffled(records: Iterable[Record], seed: int, *, memory: int = SHUFFLE_BYTES) -> Iterator[Record]:
    """The records in another order, every one equally likely, in bounded memory."""
    kinds: dict[bytes, type[Record]] = {}
    piles = Piles(seed, memory)
    for record in records:
        name = type(record).__name__.encode()
        kinds[name] = type(record)
        piles.add(b"%s %s" % (name, canonical(record)))
    for one in piles.dealt():
        name, line = one.split(b" ", 1)
        yield msgspec.json.decode(line, type=kinds[name])


class Piles:
    """Lines to shuffle: in memory, or distributed at random to files on disk, each of which is shuffled."""

    def __init__(self, seed: int, memory: int = SHUFFLE_BYTES) -> None:
        self._chooser = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._memory = memory
        self._held: list[bytes] = []
        self._size = 0
        self._files: list[IO[bytes]] = []

    def add(self, line: bytes) -> None:
        """Keep a line, without its end."""
        if self._files:
            self._deal(line)
            return
        self._held.append(line)
        self._size += len(line)
        if self._size > self._memory:
            # Enough files for data 256 times as large as the memory; larger data have larger files.
            self._files = [tempfile.TemporaryFile(buffering=1 << 14) for _ in range(256)]  # noqa: SIM115 - see dealt
            for one in self._held:
                self._deal(one)
            self._held.clear()

    def _deal(self, line: bytes) -> None:
        self._files[self._chooser.randrange(len(self._files))].write(line + b"\n")

    def dealt(self) -> Iterator[bytes]:
        """All lines in their new order; only once."""
        self._chooser.shuffle(self._held)
        yield from self._held
        with ExitStack() as stack:
            for file in self._files:
                stack.enter_context(file)
            for file in self._files:
                file.seek(0)
                lines = file.read().split(b"\n")
                file.close()
                lines.pop()
                self._chooser.shuffle(lines)
                yield from lines


def thresholds(labels: dict[str, list[int]], share: float) -> dict[str, int]:
    """For each label, the hash threshold for that share of its records (at least one if there are two)."""
    found = {}
    for name, hashes in labels.items():
        hashes.sort()
        take = math.floor(len(hashes) * share + 0.5)
        take = min(max(take, 1), len(hashes) - 1) if len(hashes) > 1 else 0
        found[name] = hashes[take] if take else 0
    return found
