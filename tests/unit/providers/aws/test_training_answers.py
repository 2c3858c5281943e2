"""SageMaker's training job responses as cloudtune's types."""

from __future__ import annotations

import pytest
from botocore.session import get_session

from cloudtune.state import JobState
from cloudtune_providers.aws import training_responses as answers


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
    reported = {"TotalStepCountPerEpoch": 10, "CurrentStep": 4, "CurrentEpoch": 3, "MaxEpoch": 5}
    arn = "arn:aws:sagemaker:us-east-1:aws:hub-content/SageMakerPublicHub/Model/a-model/1.0.0"
    job = {"TrainingJobName": "j", "TrainingJobStatus": "InProgress", "SecondaryStatus": "Training",
           "ProgressInfo": reported, "ServerlessJobConfig": {"BaseModelArn": arn}}  # fmt: skip
    seen = answers.to_snapshot(job, "sagemaker", "s")
    assert (seen.progress.step, seen.progress.total_steps, seen.progress.epoch) == (24, 50, 3.0)
    assert seen.model == "a-model"
