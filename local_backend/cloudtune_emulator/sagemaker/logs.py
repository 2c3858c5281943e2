"""The jobs' logs in CloudWatch: kept by moto, and brought up to the moment whenever somebody asks for a log.

Group ``/aws/sagemaker/TrainingJobs``, streams ``<job>/algo-<n>-<time>``
(docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html, seen 2026-11-21). moto refuses lines from the future
and the far past, and this clock may stand anywhere: lines are put beside its door.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.sagemaker import naming
from cloudtune_emulator.sagemaker.create_job import KIND

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Call

GROUP = "/aws/sagemaker/TrainingJobs"


def bring_up(context: EmulatorContext, call: Call) -> None:
    """Write what the jobs of the call's region have logged until now."""
    for job in context.store.all(KIND, naming.shelf(call)):
        lines = context.sagemaker.seen(context, job, call.now).lines
        if lines:
            _write(context, call, job, lines)


def _write(context: EmulatorContext, call: Call, job: dict[str, Any], lines: tuple[tuple[float, str], ...]) -> None:
    from moto.core.utils import utcnow
    from moto.logs.models import LogEvent

    with context.store.alone():
        store = context.aws.backend("logs", call.region or "us-east-1")
        if GROUP not in store.groups:
            store.create_log_group(GROUP, {})
        group = store.groups[GROUP]
        name = f"{job['id']}/algo-1-{int(job['created'])}"
        if name not in group.streams:
            store.create_log_stream(GROUP, name)
        stream = group.streams[name]
        for at, text in lines[len(stream.events) :]:
            moment = int((at + context.faults.skew()) * 1000)
            event = LogEvent(moment, {"timestamp": moment, "message": text})
            stream.events.append(event)
            stream.last_ingestion_time = utcnow()
