"""A training job's log, read on from a cursor: no gap and no repeat, in whatever order its streams arrive."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property_tests import examples

from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.options import AwsOptions
from cloudtune_providers.aws.training_log import GROUP, Figures, Place, TrainingLog, merged

if TYPE_CHECKING:
    from cloudtune.state import Event

START = datetime(2026, 11, 21, tzinfo=UTC)
PAGE = 3


class Entry(NamedTuple):
    stream: str
    at: int
    text: str


class Logs:
    """FilterLogEvents as CloudWatch answers it: by names or by a prefix, in pages of which some are empty."""

    def __init__(self, entries: list[Entry] | None = None) -> None:
        self.entries = entries or []
        self.asked = 0

    def filter_log_events(self, **requested: Any) -> dict[str, Any]:
        self.asked += 1
        assert requested["logGroupName"] == GROUP
        names, named = {entry.stream for entry in self.entries}, requested.get("logStreamNames")
        if not names or not names.issuperset(named or ()):
            raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "no"}}, "FilterLogEvents")
        begins = requested.get("logStreamNamePrefix", "")
        wanted = [
            entry
            for entry in sorted(self.entries, key=lambda entry: entry.at)
            if entry.at >= requested["startTime"]
            and entry.stream.startswith(begins)
            and (named is None or entry.stream in named)
        ]
        if "nextToken" not in requested and len(wanted) > PAGE:
            return {"events": [], "nextToken": "0"}
        start = int(requested.get("nextToken", 0))
        page = [{"timestamp": entry.at, "message": entry.text, "logStreamName": entry.stream}
                for entry in wanted[start : start + PAGE]]  # fmt: skip
        return {"events": page} | ({"nextToken": str(start + PAGE)} if start + PAGE < len(wanted) else {})


def log_of(logs: Logs) -> TrainingLog:
    return TrainingLog(Clients(AwsOptions(region="us-east-1"), lambda _: logs))


def lines(*reported: tuple[int, str]) -> Logs:
    return Logs([Entry("j/algo-1-1", at, text) for at, text in reported])


def job_with(*transitions: tuple[float, str], instances: int | None = 1) -> dict[str, Any]:
    reported = [{"Status": word, "StartTime": START + timedelta(seconds=at)} for at, word in transitions]
    resources = {} if instances is None else {"ResourceConfig": {"InstanceCount": instances}}
    return {"TrainingJobName": "j", "SecondaryStatusTransitions": reported, **resources}


def ms(seconds: float) -> int:
    return int((START + timedelta(seconds=seconds)).timestamp() * 1000)


def messages(events: list[Event]) -> list[str]:
    return [event.message for event in events]


def test_lines_and_transitions_go_on_from_any_cursor() -> None:
    job = job_with((0, "Starting"), (5, "Training"), (20, "Completed"))
    log = log_of(lines((ms(6), "a"), (ms(6), "b"), (ms(6), "c"), (ms(7), "d"), (ms(20), "e")))
    whole = merged(job, log, None)
    assert messages(whole) == ["Starting", "Training", "a", "b", "c", "d", "Completed", "e"]
    for number, event in enumerate(whole, 1):
        assert merged(job, log, event.cursor) == whole[number:]


def test_what_comes_later_is_told_once() -> None:
    logs = lines((ms(6), "a"))
    first = merged(job_with((0, "Starting"), (5, "Training")), log_of(logs), None)
    logs.entries += lines((ms(6), "b"), (ms(8), "c")).entries
    then = merged(job_with((0, "Starting"), (5, "Training"), (9, "Completed")), log_of(logs), first[-1].cursor)
    assert messages(then) == ["b", "c", "Completed"]


def test_a_stream_that_arrives_late_is_told_all_the_same() -> None:
    job = job_with(instances=2)
    logs = Logs([Entry("j/algo-1-1", 10, "a"), Entry("j/algo-1-1", 20, "b")])
    first = merged(job, log_of(logs), None)
    logs.entries += [Entry("j/algo-2-1", 5, "older than all"), Entry("j/algo-2-1", 15, "between")]
    second = merged(job, log_of(logs), first[-1].cursor)
    assert messages(second) == ["older than all", "between"]
    logs.entries += [Entry("j/algo-1-1", 20, "c"), Entry("j/algo-2-1", 15, "again")]
    assert messages(merged(job, log_of(logs), second[-1].cursor)) == ["again", "c"]


def test_an_instance_that_is_replaced_writes_another_stream() -> None:
    job = job_with()
    logs = Logs([Entry("j/algo-1-1", 10, "a"), Entry("j/algo-1-1", 20, "b")])
    first = merged(job, log_of(logs), None)
    logs.entries += [Entry("j/algo-1-25", 15, "with a slow clock"), Entry("j/algo-1-25", 30, "c")]
    second = merged(job, log_of(logs), first[-1].cursor)
    assert messages(second) == ["with a slow clock", "c"]
    logs.entries += [Entry("j/algo-1-1", 21, "its last words, late"), Entry("j/algo-1-25", 31, "d")]
    assert messages(merged(job, log_of(logs), second[-1].cursor)) == ["its last words, late", "d"]


def test_jobs_and_instances_whose_names_begin_alike_are_told_apart() -> None:
    names = ("j/algo-1-1", "j/algo-10-1", "jj/algo-1-1", "j/algo-2-1")
    logs = Logs([Entry(name, number, name) for number, name in enumerate(names)])
    assert messages(merged(job_with(instances=2), log_of(logs), None)) == ["j/algo-1-1", "j/algo-2-1"]
    assert messages(merged(job_with(instances=None), log_of(logs), None)) == ["j/algo-1-1", "j/algo-10-1", "j/algo-2-1"]


def test_one_instance_takes_one_request() -> None:
    logs = lines((ms(1), "a"), (ms(2), "b"))
    cursor = merged(job_with(), log_of(logs), None)[-1].cursor
    logs.asked = 0
    assert merged(job_with(), log_of(logs), cursor) == []
    assert logs.asked == 1


def test_lines_of_another_job_that_had_the_name_before_are_not_told() -> None:
    job = job_with() | {"CreationTime": START}
    assert messages(merged(job, log_of(lines((ms(-5), "another's"), (ms(5), "ours"))), None)) == ["ours"]


def test_a_job_without_a_log_has_no_lines() -> None:
    assert log_of(Logs()).lines(job_with(instances=3), {}) == []


def test_reports_are_counted_where_no_step_is_told() -> None:
    log = log_of(lines((ms(1), "x"), (ms(2), "1.5"), (ms(2), "eval"), (ms(3), "1.25")))
    whole = log.metrics(job_with(), None, figures)
    assert [(one.step, one.split) for one in whole] == [(1, "train"), (1, "validation"), (2, "train")]
    for number, one in enumerate(whole, 1):
        assert log.metrics(job_with(), one.cursor, figures) == whole[number:]


def test_reports_of_a_stream_that_arrives_late_are_counted() -> None:
    logs = lines((ms(3), "1.5"))
    first = log_of(logs).metrics(job_with(instances=2), None, figures)
    logs.entries += [Entry("j/algo-2-1", ms(1), "0.5")]
    then = log_of(logs).metrics(job_with(instances=2), first[-1].cursor, figures)
    assert [(one.step, one.values) for one in then] == [(2, {"loss": 0.5})]


def figures(line: str) -> Figures | None:
    if line == "eval":
        return Figures(values={"loss": 2.0}, split="validation")
    return Figures(values={"loss": float(line)}) if line[0].isdigit() else None


# -- any order of arrival ----------------------------------------------------------------------------------------------


@st.composite
def written(draw: st.DrawFn) -> tuple[int, list[list[Entry]]]:
    """Instances, and their streams: each grows in time, and a second one of an instance follows the first."""
    instances = draw(st.integers(1, 3))
    streams: list[list[Entry]] = []
    for instance in range(1, instances + 1):
        at = draw(st.integers(0, 20))
        for replaced in range(draw(st.integers(0, 2))):
            name, stream = f"j/algo-{instance}-{replaced}", []
            for gap in draw(st.lists(st.integers(0, 2), min_size=1, max_size=6)):
                at += gap
                stream.append(Entry(name, at, f"{name} {len(stream)}"))
            streams.append(stream)
    return instances, streams


def may_arrive(entry: Entry, visible: set[str]) -> bool:
    """A replaced instance has written before the one in its place does."""
    instance, _, replaced = entry.stream.rpartition("-")
    return replaced == "0" or f"{instance}-0" in visible


@settings(deadline=None, max_examples=examples(30))
@given(written(), st.data())
def test_no_gap_and_no_repeat_in_any_order_of_arrival(
    given: tuple[int, list[list[Entry]]], data: st.DataObject
) -> None:
    instances, streams = given
    words = [(0.001 * at, f"transition {at}") for at in sorted(data.draw(st.sets(st.integers(0, 40), max_size=4)))]
    pending, logs = [list(stream) for stream in streams], Logs()
    log = log_of(logs)
    parts: list[str] = []
    cursor, seen = None, 0
    while True:
        waiting = [stream for stream in pending if stream]
        if waiting:
            visible = {entry.stream for entry in logs.entries}
            stream = data.draw(st.sampled_from([one for one in waiting if may_arrive(one[0], visible)]))
            for _ in range(data.draw(st.integers(1, len(stream)))):
                logs.entries.append(stream.pop(0))
        seen = len(words) if not waiting else data.draw(st.integers(seen, len(words)))
        events = merged(job_with(*words[:seen], instances=instances), log, cursor)
        taken = events if not waiting else events[: data.draw(st.integers(0, len(events)))]  # and then it is killed
        parts += messages(taken)
        cursor = taken[-1].cursor if taken else cursor
        if not waiting:
            break
    assert Counter(parts) == Counter(
        [entry.text for stream in streams for entry in stream] + [text for _, text in words]
    )
    for stream in streams:
        assert [text for text in parts if text.startswith(f"{stream[0].stream} ")] == [entry.text for entry in stream]
    assert [text for text in parts if text.startswith("transition")] == [text for _, text in words]


@settings(deadline=None, max_examples=examples(15))
@given(st.integers(0), st.dictionaries(st.from_regex(r"algo-[0-9]+-[0-9]+", fullmatch=True),
                                       st.tuples(st.integers(0), st.integers(1))))  # fmt: skip
def test_a_place_is_its_cursor(told: int, streams: dict[str, tuple[int, int]]) -> None:
    assert Place.of(Place(told, streams).cursor) == Place(told, streams)
    assert Place.of("of another back end") == Place.of(None) == Place()
