"""Two instances whose lines reach CloudWatch in another order than written: each line is reported once.

boto3 over HTTP on both sides; the log service is moto's, behind the emulator.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from cloudtune_emulator import Emulator
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.options import AwsOptions
from cloudtune_providers.aws.training_log import GROUP, TrainingLog, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Writer = Callable[..., None]
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TrainingLog, Writer]]:
    with Emulator() as emulator:
        for name, value in emulator.environment().items():
            monkeypatch.setenv(name, value)
        service = boto3.client("logs")
        service.create_log_group(logGroupName=GROUP)

        def write(stream: str, *lines: tuple[int, str]) -> None:
            known = service.describe_log_streams(logGroupName=GROUP)["logStreams"]
            if stream not in {one["logStreamName"] for one in known}:
                service.create_log_stream(logGroupName=GROUP, logStreamName=stream)
            reported = [{"timestamp": int(NOW.timestamp() * 1000) + at, "message": text} for at, text in lines]
            service.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=reported)

        yield TrainingLog(Clients(AwsOptions())), write


def job(**more: Any) -> dict[str, Any]:
    transition = {"Status": "Training", "StartTime": NOW}
    return {"TrainingJobName": "job", "SecondaryStatusTransitions": [transition], "CreationTime": NOW,
            "ResourceConfig": {"InstanceCount": 2}, **more}  # fmt: skip


def test_late_lines_of_another_stream_are_neither_lost_nor_told_twice(account: tuple[TrainingLog, Writer]) -> None:
    log, write = account
    assert [event.message for event in merged(job(), log, None)] == ["Training"]
    write("job/algo-1-1", (10, "1 begins"), (500, "1 goes on"))
    write("another/algo-1-1", (20, "not ours"))
    first = merged(job(), log, None)
    assert [event.message for event in first] == ["Training", "1 begins", "1 goes on"]
    write("job/algo-2-1", (5, "2 begins"), (400, "2 goes on"), (500, "2 goes on beside it"))
    second = merged(job(), log, first[-1].cursor)
    assert [event.message for event in second] == ["2 begins", "2 goes on", "2 goes on beside it"]
    write("job/algo-1-1", (500, "1 in the same moment"), (600, "1 ends"))
    third = merged(job(), log, second[-1].cursor)
    assert [event.message for event in third] == ["1 in the same moment", "1 ends"]
    write("job/algo-2-1", (550, "2 ends"))
    assert [event.message for event in merged(job(), log, third[-1].cursor)] == ["2 ends"]
    # Whoever stopped in the middle of an answer goes on from there.
    rest = merged(job(), log, second[0].cursor)
    assert [event.message for event in rest] == [
        "2 goes on", "1 in the same moment", "2 goes on beside it", "2 ends", "1 ends",
    ]  # fmt: skip
