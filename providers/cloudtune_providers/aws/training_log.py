"""A training job's log in CloudWatch: its lines as events, and the metrics in them, from a cursor.

Each instance writes a stream called ``<job>/algo-<n>-<time>`` in the group ``/aws/sagemaker/TrainingJobs``
(docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html, seen 2026-11-21). A stream grows at its end, but one
can reach CloudWatch later than another, so a cursor has the position of each stream. (A replaced instance has written
lines before its replacement does.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from cloudtune.errors import JobNotFound, PermissionDenied
from cloudtune.state import Event, Metric
from cloudtune_providers.aws.training_responses import transitions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune_providers.aws.clients import Clients

GROUP = "/aws/sagemaker/TrainingJobs"
_STREAM = r"\|([^|@]+)@(\d+)\.(\d+)"
_CURSOR = re.compile(rf"t?(\d+)((?:{_STREAM})*)")


class Figures(NamedTuple):
    """The metrics of one log line. ``step`` None: the line has no step, and reports are counted instead."""

    values: dict[str, float]
    step: int | None = None
    split: Literal["train", "validation", "test"] = "train"
    epoch: float | None = None


LineReader = Callable[[str], Figures | None]
"""Parses a line of the log; None if it has no metrics."""


class Line(NamedTuple):
    """A line of the log. ``number`` counts the lines of the same millisecond in its stream, from 1."""

    stream: str
    """The stream's name, after the job's."""
    at_ms: int
    number: int
    text: str

    @property
    def time(self) -> datetime:
        """The time of writing."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)


class Place(NamedTuple):
    """The position in a job's log: the number of transitions or reports, and the last line of each stream."""

    events_seen: int = 0
    streams: Mapping[str, tuple[int, int]] = {}
    """Millisecond and number of the line."""

    @classmethod
    def of(cls, cursor: str | None) -> Place:
        """The position of a cursor; the start for an empty one."""
        found = _CURSOR.fullmatch(cursor or "")
        if found is None:
            return cls()
        streams = {name: (int(at), int(number)) for name, at, number in re.findall(_STREAM, found[2])}
        return cls(int(found[1]), streams)

    def after(self, line: Line | None, *, counted: int = 0) -> Place:
        """The position after a line, or after a report without a line."""
        streams = self.streams if line is None else {**self.streams, line.stream: (line.at_ms, line.number)}
        return Place(self.events_seen + counted, streams)

    @property
    def cursor(self) -> str:
        """The cursor's text."""
        return f"t{self.events_seen}" + "".join(f"|{name}@{at}.{number}" for name, (at, number) in self.streams.items())


class TrainingLog:
    """Reads the logs of one account and region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def lines(self, job: Mapping[str, Any], streams: Mapping[str, tuple[int, int]]) -> list[Line]:
        """A job's lines after those positions, in order of time. A job that never ran has none.

        Takes one request for each instance, and one more for each replacement of an instance.
        """
        made = job.get("CreationTime")
        # Another job, since deleted, may have had the same name.
        begun = int(made.timestamp() * 1000) if isinstance(made, datetime) else 0
        found: list[Line] = []
        for prefix in _prefixes(job):
            positions = {name: place for name, place in streams.items() if name.startswith(prefix)}
            found += self._instance(str(job["TrainingJobName"]), prefix, positions, begun)
        return sorted(found, key=lambda line: line.at_ms)

    def _instance(self, job: str, prefix: str, positions: Mapping[str, tuple[int, int]], begun: int) -> Iterator[Line]:
        """The new lines of the streams with that prefix."""
        newest = max(positions, key=lambda name: positions[name], default=None)
        since = begun if newest is None else positions[newest][0]
        entries: dict[str, list[Mapping[str, Any]]] = {}
        for entry in self._entries(job, since, logStreamNamePrefix=f"{job}/{prefix}"):
            # Some emulations of CloudWatch ignore the prefix.
            if entry["logStreamName"].startswith(f"{job}/{prefix}"):
                entries.setdefault(entry["logStreamName"].removeprefix(f"{job}/"), []).append(entry)
        for name in {**positions, **entries}:
            at, number = positions.get(name, (begun, 0))
            if at < since:  # lines of other streams that are older than the newest one were not requested yet
                entries[name] = list(self._entries(job, at, logStreamNames=[f"{job}/{name}"]))
            yield from _numbered(name, entries.get(name, ()), at, number)

    def _entries(self, job: str, since_ms: int, **which: Any) -> Iterator[Mapping[str, Any]]:
        more: dict[str, str] = {}
        while True:
            try:
                with self._clients.asking(f"log of {job}"):
                    page = self._clients.client("logs").filter_log_events(
                        logGroupName=GROUP, startTime=since_ms, **which, **more
                    )
            except JobNotFound:  # no instance of this job, or of any job, has written yet
                return
            yield from page.get("events", ())
            if not page.get("nextToken"):
                return
            more = {"nextToken": page["nextToken"]}

    def metrics(self, job: Mapping[str, Any], after: str | None, read: LineReader) -> list[Metric]:
        """Return the metrics in its log, or the service's final metrics if the log is not accessible.

        A cursor has the position in the lines, and the number of reports.
        """
        place, found = Place.of(after), []
        try:
            for line in self.lines(job, place.streams):
                figures = read(line.text)
                place = place.after(
                    line, counted=figures is not None and figures.split == "train" and figures.step is None
                )
                if figures is None:
                    continue
                step = place.events_seen if figures.step is None else figures.step
                found.append(
                    Metric(
                        cursor=place.cursor, step=step, values=figures.values, split=figures.split, epoch=figures.epoch,
                        time=line.time,
                    )
                )  # fmt: skip
        except PermissionDenied:
            if after is None:
                return _final(job)
            raise
        return found


def _prefixes(job: Mapping[str, Any]) -> list[str]:
    """Return the stream name prefix of each instance, or a common prefix if their number is unknown."""
    resources = job.get("ResourceConfig") or {}
    groups = resources.get("InstanceGroups") or [resources]
    count = sum(int(group.get("InstanceCount") or 0) for group in groups)
    return [f"algo-{number}-" for number in range(1, count + 1)] or [""]


def _numbered(name: str, entries: Iterable[Mapping[str, Any]], since_ms: int, skip: int) -> Iterator[Line]:
    """Lines from that time on, without the first ``skip`` of that millisecond."""
    last, number = -1, 0
    for entry in sorted(entries, key=lambda one: int(one["timestamp"])):
        at = int(entry["timestamp"])
        number = number + 1 if at == last else 1
        last = at
        if at > since_ms or (at == since_ms and number > skip):
            yield Line(name, at, number, str(entry["message"]).rstrip("\n"))


def _final(job: Mapping[str, Any]) -> list[Metric]:
    """FinalMetricDataList: the last value of each metric, which is all that the service itself stores."""
    kept = {str(entry["MetricName"]): float(entry["Value"]) for entry in job.get("FinalMetricDataList") or ()}
    return [Metric(cursor="final", step=0, values=kept)] if kept else []


def merged(job: Mapping[str, Any], log: TrainingLog, after: str | None) -> list[Event]:
    """Yield transitions and lines by time, after that cursor, each with a complete cursor.

    Lines that reach CloudWatch late are returned late, not in the order of their time.
    """
    place = Place.of(after)
    changes: list[Event | Line] = list(transitions(job)[place.events_seen :])
    found = []
    lines = log.lines(job, place.streams)
    for entry in sorted([*changes, *lines], key=lambda one: (one.time, isinstance(one, Line))):
        if isinstance(entry, Line):
            place = place.after(entry)
            found.append(Event(cursor=place.cursor, time=entry.time, message=entry.text, type="log"))
        else:
            place = place.after(None, counted=1)
            found.append(msgspec.structs.replace(entry, cursor=place.cursor))
    return found
