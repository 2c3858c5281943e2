"""The queue: jobs get a slot in the order in which they were submitted, across processes.

Files under ``ROOT/.queue`` and nothing else: ``counter`` (the last number given out), ``waiting/POOL/NUMBER-SLUG`` (one
empty file for each queued job), ``slots/POOL-N`` (a lock, held while a job runs). All locks are flock locks: the kernel
releases those of a killed process. A queued job without a worker blocks no other job, because its run's lock is free.
Standard library only: the worker imports it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, NamedTuple

from cloudtune_trainer.folder import sync_directory
from cloudtune_trainer.locks import is_held, take_lock
from cloudtune_trainer.private_files import opener, private_folder
from cloudtune_trainer.worker.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = ".queue"


class Place(NamedTuple):
    """A job's position in the queue."""

    number: int
    slug: str

    @property
    def file(self) -> str:
        """The name of its entry; names sort like numbers."""
        return f"{self.number:012d}-{self.slug}"

    @classmethod
    def read(cls, name: str) -> Place | None:
        """Return the position in an entry's name."""
        number, dash, slug = name.partition("-")
        return cls(int(number), slug) if dash and number.isdigit() else None


class Queue:
    """The queue of one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / FOLDER

    @contextlib.contextmanager
    def next_number(self) -> Iterator[int]:
        """Assign the next number. No other process gets one inside the block: publish the job there and join the queue.

        A job with a later number therefore always sees the earlier jobs in the queue.
        """
        private_folder(self.folder)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            number = self._last() + 1
            self._write_last(number)
            yield number
        finally:
            os.close(handle)

    def _last(self) -> int:
        try:
            return int((self.folder / "counter").read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0
        except ValueError:  # damaged: continue above every number seen so far
            return max((place.number for pool in self._pools() for place in self.waiting(pool)), default=0) + 1_000_000

    def _write_last(self, number: int) -> None:
        aside = self.folder / ".counter"
        with open(aside, "w", encoding="ascii", opener=opener) as file:
            file.write(str(number))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.folder / "counter")
        sync_directory(self.folder)

    def _pools(self) -> list[str]:
        line = self.folder / "waiting"
        return [entry.name for entry in line.iterdir()] if line.is_dir() else []

    def join(self, pool: str, place: Place) -> None:
        """Join the queue at the job's number."""
        line = self.folder / "waiting" / pool
        private_folder(line)
        (line / place.file).touch(mode=0o600)

    def leave(self, pool: str, place: Place) -> None:
        """Leave the queue."""
        (self.folder / "waiting" / pool / place.file).unlink(missing_ok=True)

    def waiting(self, pool: str) -> list[Place]:
        """All queued jobs, first come first, including those without a worker."""
        try:
            names = os.listdir(self.folder / "waiting" / pool)
        except FileNotFoundError:
            return []
        return sorted(place for name in names if (place := Place.read(name)))

    def holds_up(self, pool: str, place: Place) -> bool:
        """Return whether that job is queued and has a waiting worker."""
        entry = self.folder / "waiting" / pool / place.file
        return entry.exists() and is_held(Run(self.root / place.slug).lock)

    def next_ahead(self, pool: str, place: Place) -> Place | None:
        """The queued job directly before that one; None for the head of the queue."""
        for other in reversed(self.waiting(pool)):
            if other.number < place.number and self.holds_up(pool, other):
                return other
        return None

    def take_slots(self, pool: str, count: int, wanted: int, held: dict[int, int]) -> bool:
        """Add free slots to those held (number -> descriptor that holds it until closed). Return whether they suffice.

        Only the head of the queue takes slots, so it can hold some while it waits for more.
        """
        slots = self.folder / "slots"
        private_folder(slots)
        for number in range(count):
            if len(held) >= wanted:
                break
            if number not in held and (handle := take_lock(slots / f"{pool}-{number}", patience=0)) is not None:
                held[number] = handle
        return len(held) >= wanted
