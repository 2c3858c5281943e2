"""The ``train`` engine: runs shipped programs in containers, and trains the hub's models with the local back end.

Jobs with their own program run it (``containers``). JumpStart's scripts and serverless recipes belong to AWS and are
not available: their rows and hyperparameters become a job of the local back end, on the local model used in place of
the hub's. Models are served from S3: from the archive, or the folder, that an endpoint's model names.
"""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.sagemaker import hubjobs
from cloudtune_emulator.sagemaker.containers import Containers
from cloudtune_emulator.sagemaker.servers import Servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.engines import Sampling, Spoken
    from cloudtune_emulator.sagemaker.job_timeline import Seen
    from cloudtune_emulator.store import Store

_PATIENCE_S = 20.0


class TrainTrainer:
    """See the module and `Trainer`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.folder / "sagemaker"
        self._containers = Containers(self._folder / "jobs")
        self._starting = ThreadPoolExecutor(1, thread_name_prefix="cloudtune-emulator-container")
        self._servers = Servers(self._folder / "models", store, self._containers)
        self._lock = threading.Lock()
        self._begun: set[str] = set()

    def begin(self, context: EmulatorContext, job: dict[str, Any]) -> None:
        """See `Trainer.begin`."""
        if hubjobs.is_hubs(job):
            hubjobs.begin(context, job)
        else:
            self._start(context, job)

    def _start(self, context: EmulatorContext, job: dict[str, Any]) -> None:
        """Start the job once per server process. A restarted server starts jobs that had not begun."""
        key = str(self._containers.folder(job))  # after a deletion, another job can have the same name and ARN
        with self._lock:
            if key in self._begun:
                return
            self._begun.add(key)
        self._starting.submit(self._containers.start, context, job)

    def seen(self, context: EmulatorContext, job: dict[str, Any], now: float) -> Seen:
        """See `Trainer.seen`."""
        return hubjobs.seen(context, job, now) if hubjobs.is_hubs(job) else self._containers.seen(job, now)

    def advance(self, context: EmulatorContext, job: dict[str, Any]) -> None:
        """See `Trainer.advance`: copies checkpoints to S3, and fails a job whose process died."""
        if hubjobs.is_hubs(job):
            return
        if not self._containers.is_begun(job):
            self._start(context, job)
        self._containers.fail_if_lost(job)
        self._containers.keep_checkpoints(context, job)

    def stop(self, context: EmulatorContext, job: dict[str, Any], now: float) -> None:
        """See `Trainer.stop`."""
        job["acts"].append([now, "stop"])
        if hubjobs.is_hubs(job):
            hubjobs.stop(context, job, now)
        else:
            self._containers.stop(job)

    def artefact(self, context: EmulatorContext, job: dict[str, Any]) -> bytes | None:
        """See `Trainer.artefact`."""
        if hubjobs.is_hubs(job):
            return hubjobs.artefact(context, job)
        self._containers.keep_checkpoints(context, job)
        return self._containers.artefact(job)

    # -- inference ---------------------------------------------------------------------------------------------------

    def serve(self, context: EmulatorContext, model: Mapping[str, Any], body: dict[str, Any]) -> Iterator[bytes] | None:
        """See `Trainer.serve`: the trainer's own server responds, as in the container. Raises ModelError."""
        return self._servers.parts(context, model, body)

    def answer(
        self, context: EmulatorContext, model: Mapping[str, Any], messages: Sequence[Any], sampling: Sampling
    ) -> Spoken:
        """See `Trainer.answer`: never called, since the container itself serves."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the jobs of a persistent store running; stop the others."""
        self._starting.shutdown(wait=True, cancel_futures=True)
        if self._store.is_kept:
            return
        self._containers.close()
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and self._containers.is_busy():
            time.sleep(0.1)
        shutil.rmtree(self._folder, ignore_errors=True)
