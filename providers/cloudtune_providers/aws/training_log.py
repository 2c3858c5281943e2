"""A training job's log in CloudWatch: its lines as events, and the figures in them, read on from a cursor.

Streams are called ``<job>/algo-1-<time>``, one for each instance, in the group ``/aws/sagemaker/TrainingJobs``
(docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html, seen 2026-11-21). A cursor is the time of the last
line told and how many lines of that very time were told, so that only what is newer is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from cloudtune.errors import JobNotFound, PermissionDenied
from cloudtune.state import Event, Metric
from cloudtune_providers.aws.training_answers import transitions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune_providers.aws.clients import Clients

GROUP = "/aws/sagemaker/TrainingJobs"
_CURSOR = re.compile(r"t(\d+)(?:\.l(\d+)\.(\d+))?")


class Figures(NamedTuple):
    """What one line of a log says. ``step`` None: the line does not tell, and reports are counted instead."""

    values: dict[str, float]
    step: int | None = None
    split: Literal["train", "validation", "test"] = "train"
    epoch: float | None = None


LineReader = Callable[[str], Figures | None]
"""Takes a line of the log apart; None where it holds no figures."""


class Line(NamedTuple):
    """A line of the log. ``number`` counts the lines of the same millisecond, from 1."""

    at_ms: int
    number: int
    text: str

    @property
    def time(self) -> datetime:
        """When it was written."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)


class TrainingLog:
    """Reads the logs of one account and region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def lines_of(self, job: Mapping[str, Any], since_ms: int, skip: int) -> Iterator[Line]:
        """A job's lines: a name may have been another job's before, which was deleted."""
        made = job.get("CreationTime")
        begun = int(made.timestamp() * 1000) if isinstance(made, datetime) else 0
        return self.lines(str(job["TrainingJobName"]), max(since_ms, begun), skip)

    def lines(self, name: str, since_ms: int = 0, skip: int = 0) -> Iterator[Line]:
        """Lines from that time on, less the first ``skip`` of that very millisecond. A job that never ran has none."""
        last, number = -1, 0
        try:
            for entry in sorted(self._entries(name, since_ms), key=lambda one: int(one["timestamp"])):
                at = int(entry["timestamp"])
                number = number + 1 if at == last else 1
                last = at
                if at == since_ms and number <= skip:
                    continue
                yield Line(at, number, str(entry["message"]).rstrip("\n"))
        except JobNotFound:  # no instance of any job, or of this one, has written yet
            return

    def _entries(self, name: str, since_ms: int) -> Iterator[Mapping[str, Any]]:
        more: dict[str, str] = {}
        while True:
            with self._clients.asking(f"log of {name}"):
                page = self._clients.client("logs").filter_log_events(
                    logGroupName=GROUP, logStreamNamePrefix=f"{name}/", startTime=since_ms, **more
                )
            # Not every stand-in for CloudWatch heeds the prefix.
            yield from (entry for entry in page.get("events", ()) if entry["logStreamName"].startswith(f"{name}/"))
            if not page.get("nextToken"):
                return
            more = {"nextToken": page["nextToken"]}

    def metrics(self, job: Mapping[str, Any], after: str | None, read: LineReader) -> list[Metric]:
        """The figures of its log, or where that may not be read the last ones that the service keeps itself.

        A cursor is the line's, and the count of reports until then.
        """
        since, skip, count = _metric_cursor(after)
        found = []
        try:
            for line in self.lines_of(job, since, skip):
                if (told := read(line.text)) is None:
                    continue
                count += told.split == "train" and told.step is None
                found.append(
                    Metric(
                        cursor=f"{line.at_ms}.{line.number}.{count}",
                        step=count if told.step is None else told.step,
                        values=told.values,
                        split=told.split,
                        epoch=told.epoch,
                        time=line.time,
                    )
                )
        except PermissionDenied:
            if after is None:
                return _final(job)
            raise
        return found


def _metric_cursor(after: str | None) -> tuple[int, int, int]:
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", after or "")
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def _final(job: Mapping[str, Any]) -> list[Metric]:
    """FinalMetricDataList: the last value of each figure, which is all that the service itself keeps."""
    kept = {str(entry["MetricName"]): float(entry["Value"]) for entry in job.get("FinalMetricDataList") or ()}
    return [Metric(cursor="final", step=0, values=kept)] if kept else []


def merged(job: Mapping[str, Any], log: TrainingLog, after: str | None) -> list[Event]:
    """Transitions and lines in order of time, after that cursor, each with a cursor that counts both.

    A line that reaches CloudWatch later than one with a later time has been told is told only from the start.
    """
    place = _CURSOR.fullmatch(after or "")
    told, since, skip = (int(place[1]), int(place[2] or 0), int(place[3] or 0)) if place else (0, 0, 0)
    changes: list[Event | Line] = list(transitions(job)[told:])
    lines = log.lines_of(job, since, skip)
    mark = f".l{since}.{skip}" if since or skip else ""
    found = []
    for entry in sorted([*changes, *lines], key=lambda one: (one.time, isinstance(one, Line))):
        if isinstance(entry, Line):
            mark = f".l{entry.at_ms}.{entry.number}"
            found.append(Event(cursor=f"t{told}{mark}", time=entry.time, message=entry.text, type="log"))
        else:
            told += 1
            found.append(msgspec.structs.replace(entry, cursor=f"t{told}{mark}"))
    return found
