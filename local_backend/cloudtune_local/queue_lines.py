"""The number of jobs ahead of each queued job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cloudtune_trainer.worker import devices
from cloudtune_trainer.worker.queue import Queue

if TYPE_CHECKING:
    from cloudtune.state import JobRef
    from cloudtune_trainer.worker.run import RunStatus


class QueueLines:
    """Number of jobs ahead of each queued job, computed once per call."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], list[int]] = {}

    def ahead(self, ref: JobRef, run_status: RunStatus) -> int | None:
        """The number of jobs before that one; None if it is not queued."""
        if run_status.state != "queued":
            return None
        key = (ref.scope, str(run_status.job.get("pool", devices.CPU)))
        if key not in self._numbers:
            self._numbers[key] = [place.number for place in Queue(Path(key[0])).waiting(key[1])]
        return sum(number < int(run_status.job.get("number", 0)) for number in self._numbers[key])
