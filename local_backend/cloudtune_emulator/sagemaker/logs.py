"""The jobs' logs in CloudWatch: moto stores them, and lines are added as time passes.

Group ``/aws/sagemaker/TrainingJobs``, streams ``<job>/algo-<n>-<time>``
(docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html, seen 2026-11-21). moto refuses lines from the future
and the distant past. This clock can differ, so timestamps are moved into the accepted range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.sagemaker.create_job import KIND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune_emulator.context import EmulatorContext

GROUP = "/aws/sagemaker/TrainingJobs"


def restore(context: EmulatorContext) -> None:
    """Write the logs of ended jobs again: moto loses them when the server stops."""
    for job in context.store.all(KIND):
        if job["settled"]:
            write(context, job, context.sagemaker.seen(context, job, context.clock.now()).lines)


def write(context: EmulatorContext, job: dict[str, Any], lines: Sequence[tuple[float, str]]) -> None:
    """Add the lines that are missing in a job's log."""
    if not lines:
        return
    from moto.core.utils import utcnow
    from moto.logs.models import LogEvent

    with context.store.alone():
        store = context.aws.backend("logs", job["region"] or "us-east-1")
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
