"""The state that an API uses: settings, clock, store, engine and faults."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudtune_emulator import job_timeline

if TYPE_CHECKING:
    from cloudtune_emulator.aws.moto_app import MotoApp
    from cloudtune_emulator.clock import EmulatorClock
    from cloudtune_emulator.engines import Engine
    from cloudtune_emulator.faults import Faults
    from cloudtune_emulator.job_timeline import JobStatus
    from cloudtune_emulator.sagemaker.engines import Trainer
    from cloudtune_emulator.settings import Settings
    from cloudtune_emulator.store import Store


@dataclass(frozen=True)
class EmulatorContext:
    """The state of one emulator. Thread-safe."""

    settings: Settings
    clock: EmulatorClock
    store: Store
    engine: Engine
    faults: Faults
    aws: MotoApp
    sagemaker: Trainer
    """The engine of SageMaker's training jobs."""

    def status(self, job: dict[str, Any], now: float) -> JobStatus:
        """A job's state for a request: ``succeeded`` only once its results are recorded.

        A run may end between the settlement before a request and the request's own read.
        """
        seen = self.engine.status(job, now)
        return seen if job["settled"] or seen.word != "succeeded" else job_timeline.before_success(seen)

    def stamp(self, moment: float) -> int:
        """A time as the vendor reports it: whole seconds, offset by a ``clock_skew`` fault."""
        return int(moment + self.faults.skew())

    @staticmethod
    def opens(given: str, wanted: str) -> bool:
        """Whether two keys are the same, in constant time. An empty key never matches."""
        return bool(wanted) and hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
