"""Time-dependent changes to the store: ended jobs get their results, and scaling policies change the number of copies.

State changes only here and by write requests. The server settles the store before it executes a request, so that reads
depend on the records and on the time, and not on earlier reads. With the ``train`` engine it also settles once a
second, because such jobs run without requests.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from cloudtune.errors import CloudtuneError
from cloudtune_emulator.aws.buckets import NoSuch
from cloudtune_emulator.bedrock import imports, register_model
from cloudtune_emulator.bedrock import jobs as bedrock_jobs
from cloudtune_emulator.http import ApiError
from cloudtune_emulator.openai import jobs as openai_jobs
from cloudtune_emulator.sagemaker import capacity
from cloudtune_emulator.sagemaker import jobs as sagemaker_jobs

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.store import Ended, Stored

_LOG = logging.getLogger(__name__)


def settle(context: EmulatorContext, now: float) -> None:
    """Record everything that has ended by now, in the order of the ends."""
    store = context.store
    with store.alone():
        store.keep_time(now)
        found = [(end, stored) for stored in store.unsettled() if (end := _ended(context, stored, now)) is not None]
        for end, stored in sorted(found, key=lambda pair: pair[0].at):
            _record(context, end, stored)
        capacity.settle(context, now)


class Ticker:
    """Settles periodically in its own thread, until it is stopped."""

    def __init__(self, context: EmulatorContext, every_s: float = 1.0) -> None:
        self._context = context
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloudtune-emulator-settlement", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                settle(self._context, self._context.clock.now())
            except Exception:  # noqa: BLE001 - logged, and retried in a second
                _LOG.exception("the store could not be settled")

    def close(self) -> None:
        """Stop after the current settlement."""
        self._stopped.set()
        self._thread.join()


def _ended(context: EmulatorContext, stored: Stored, now: float) -> Ended | None:
    match stored.kind, stored.api:
        case "job", "bedrock":
            return bedrock_jobs.ended(context, stored.document, now)
        case "job", _:
            return openai_jobs.ended(context, stored.document, now)
        case imports.JOB, _:
            return imports.ended(context, stored.document, now)
        case "training_job", _:
            return sagemaker_jobs.ended(context, stored.document, now)
    return register_model.ended(context, stored.document, now)


def _record(context: EmulatorContext, end: Ended, stored: Stored) -> None:
    with context.store.transaction():
        try:
            end.record()
        except (ApiError, CloudtuneError, NoSuch) as error:  # a bucket or a group was deleted meanwhile
            _LOG.warning("%s %s cannot leave all of its results: %s", stored.kind, stored.document["id"], error)
        stored.document["settled"] = True
        context.store.save(stored.kind, stored.api, stored.document)
