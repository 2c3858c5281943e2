"""What SageMaker tells of a training job, as our values; its log, read on from a cursor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.session import get_session

from cloudtune.errors import JobNotFound
from cloudtune.state import JobState
from cloudtune_providers.aws import training_answers as answers
from cloudtune_providers.aws.training_log import Figures, Line, TrainingLog, merged

if TYPE_CHECKING:
    from collections.abc import Iterator

START = datetime(2026, 11, 21, tzinfo=UTC)


def enum(name: str) -> tuple[str, ...]:
    return tuple(get_session().get_service_model("sagemaker").shape_for(name).enum)


def test_every_word_of_the_service_model_has_a_meaning() -> None:
    assert set(enum("TrainingJobStatus")) == set(answers.STATES)
    assert set(enum("SecondaryStatus")) == set(answers.PHASES)


@pytest.mark.parametrize(
    ("status", "secondary", "state"),
    [
        ("InProgress", "Pending", JobState.QUEUED), ("InProgress", "Downloading", JobState.PREPARING),
        ("InProgress", "Interrupted", JobState.QUEUED), ("InProgress", "Dreaming", JobState.RUNNING),
        ("Stopped", "Stopped", JobState.CANCELLED), ("Stopped", "MaxRuntimeExceeded", JobState.EXPIRED),
        ("Stopped", "MaxWaitTimeExceeded", JobState.EXPIRED), ("Stopped", "Dreaming", JobState.CANCELLED),
        ("Dreaming", "Training", JobState.UNKNOWN), ("Completed", "Completed", JobState.SUCCEEDED),
    ],
)  # fmt: skip
def test_both_words_count(status: str, secondary: str, state: JobState) -> None:
    assert answers.state_of(status, secondary) is state


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("AlgorithmError: it broke, exit code: 1", "algorithm_error"), ("ClientError: no rows", "client_error"),
        ("CapacityError: none left", "capacity"), ("AlgorithmError: CUDA out of memory", "out_of_memory"),
        ("something else", "failed"), (None, "failed"),
    ],
)  # fmt: skip
def test_failures_are_classified(reason: str | None, code: str) -> None:
    job = {"TrainingJobName": "j", "TrainingJobStatus": "Failed", "SecondaryStatus": "Failed", "FailureReason": reason}
    problem = answers.to_snapshot(job, "sagemaker", "s").problem
    assert problem is not None
    assert problem.code == code
    assert reason is None or problem.message == reason


def test_serverless_progress_counts_over_epochs() -> None:
    told = {"TotalStepCountPerEpoch": 10, "CurrentStep": 4, "CurrentEpoch": 3, "MaxEpoch": 5}
    arn = "arn:aws:sagemaker:us-east-1:aws:hub-content/SageMakerPublicHub/Model/a-model/1.0.0"
    job = {"TrainingJobName": "j", "TrainingJobStatus": "InProgress", "SecondaryStatus": "Training",
           "ProgressInfo": told, "ServerlessJobConfig": {"BaseModelArn": arn}}  # fmt: skip
    seen = answers.to_snapshot(job, "sagemaker", "s")
    assert (seen.progress.step, seen.progress.total_steps, seen.progress.epoch) == (24, 50, 3.0)
    assert seen.model == "a-model"


class Log(TrainingLog):
    """Lines of a list."""

    def __init__(self, lines: list[tuple[int, str]]) -> None:
        self.kept = lines

    def _entries(self, name: str, since_ms: int) -> Iterator[dict[str, Any]]:
        for at, text in self.kept:
            if at >= since_ms:
                yield {"timestamp": at, "message": text}


def job_with(*transitions: tuple[float, str]) -> dict[str, Any]:
    told = [{"Status": word, "StartTime": START + timedelta(seconds=at)} for at, word in transitions]
    return {"TrainingJobName": "j", "SecondaryStatusTransitions": told}


def ms(seconds: float) -> int:
    return int((START + timedelta(seconds=seconds)).timestamp() * 1000)


def test_lines_and_transitions_go_on_from_any_cursor() -> None:
    job = job_with((0, "Starting"), (5, "Training"), (20, "Completed"))
    log = Log([(ms(6), "a"), (ms(6), "b"), (ms(6), "c"), (ms(7), "d"), (ms(20), "e")])
    whole = merged(job, log, None)
    assert [event.message for event in whole] == ["Starting", "Training", "a", "b", "c", "d", "Completed", "e"]
    for number, event in enumerate(whole, 1):
        assert merged(job, log, event.cursor) == whole[number:]


def test_what_comes_later_is_told_once() -> None:
    log = Log([(ms(6), "a")])
    first = merged(job_with((0, "Starting"), (5, "Training")), log, None)
    log.kept += [(ms(6), "b"), (ms(8), "c")]
    then = merged(job_with((0, "Starting"), (5, "Training"), (9, "Completed")), log, first[-1].cursor)
    assert [event.message for event in then] == ["b", "c", "Completed"]


def test_reports_are_counted_where_no_step_is_told() -> None:
    log = Log([(ms(1), "x"), (ms(2), "1.5"), (ms(2), "eval"), (ms(3), "1.25")])

    def read(line: str) -> Figures | None:
        if line == "eval":
            return Figures(values={"loss": 2.0}, split="validation")
        return Figures(values={"loss": float(line)}) if line[0].isdigit() else None

    whole = log.metrics(job_with(), None, read)
    assert [(one.step, one.split) for one in whole] == [(1, "train"), (1, "validation"), (2, "train")]
    for number, one in enumerate(whole, 1):
        assert log.metrics(job_with(), one.cursor, read) == whole[number:]


def test_a_job_without_a_log_has_no_lines() -> None:
    class Nothing(Log):
        def _entries(self, name: str, since_ms: int) -> Iterator[dict[str, Any]]:
            raise JobNotFound("The specified log group does not exist.")

    assert list(Nothing([]).lines("j")) == []
    assert Line(1500, 1, "x").time == datetime.fromtimestamp(1.5, UTC)
