"""All that an API works on: settings, time, the store, the engine and what is wrong today."""

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
    """One emulated vendor's world; safe to use from several threads."""

    settings: Settings
    clock: EmulatorClock
    store: Store
    engine: Engine
    faults: Faults
    aws: MotoApp
    sagemaker: Trainer
    """What moves SageMaker's training jobs."""

    def status(self, job: dict[str, Any], now: float) -> JobStatus:
        """A job of the engine, as a request sees it: it has succeeded once its results are recorded, not before.

        A run may end between the settlement that precedes a request and the request's own look at it.
        """
        seen = self.engine.status(job, now)
        return seen if job["settled"] or seen.word != "succeeded" else job_timeline.before_success(seen)

    def stamp(self, moment: float) -> int:
        """A moment as the vendor tells it: whole seconds, by a clock that may be wrong."""
        return int(moment + self.faults.skew())

    @staticmethod
    def opens(given: str, wanted: str) -> bool:
        """Whether two keys are the same, in constant time. An empty key opens nothing."""
        return bool(wanted) and hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
