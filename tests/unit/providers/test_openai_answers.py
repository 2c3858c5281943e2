"""Answers and errors of the dialect, as the services have been seen to send them."""

from __future__ import annotations

import base64
import email.utils
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob

from cloudtune.errors import (
    CloudtuneError,
    CredentialsError,
    InvalidRequest,
    JobNotFound,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    TransientError,
    Unavailable,
)
from cloudtune.state import JobState
from cloudtune_providers.openai_dialect import files, responses
from cloudtune_providers.openai_dialect.errors import to_error

JOB: dict[str, Any] = {
    "id": "ftjob-1",
    "status": "running",
    "model": "gpt-4.1-mini-2025-04-14",
    "created_at": 1_700_000_000,
}


def test_every_word_of_the_sdk_has_a_state():
    words = get_args(FineTuningJob.model_fields["status"].annotation)
    assert len(words) >= 6
    assert [word for word in words if responses.state_of(word) is JobState.UNKNOWN] == []


@pytest.mark.parametrize(
    ("word", "state"),
    [("notRunning", "queued"), ("Canceled", "cancelled"), ("pausing", "paused"), ("resuming", "running"),
     ("", "unknown"), ("levitating", "unknown")],
)  # fmt: skip
def test_words_beyond_the_sdk(word, state):
    assert responses.state_of(word) == state


def test_every_file_status_of_the_sdk_is_placed():
    words = set(get_args(FileObject.model_fields["status"].annotation))
    assert words <= files._BAD | files._READY | files._WAITING


@pytest.mark.parametrize("error", [None, {}, {"code": None, "message": None, "param": None}])
def test_an_empty_error_makes_no_problem(error):
    snapshot = responses.to_snapshot(JOB | {"error": error}, "openai", "here")
    assert (snapshot.state, snapshot.problem) == (JobState.RUNNING, None)
    failed = responses.to_snapshot(JOB | {"error": error, "status": "failed"}, "openai", "here")
    assert failed.problem.message == "the service did not give a reason"


def test_a_snapshot_of_next_to_nothing():
    snapshot = responses.to_snapshot({"id": "ftjob-1"}, "openai", "here")
    assert (snapshot.state, snapshot.native_state, snapshot.name, snapshot.created_at) == ("unknown", "", "", None)


def test_a_failure_keeps_code_message_and_says_what_to_do():
    error = {"code": "invalid_training_file", "message": "Line 3: not JSON", "param": "training_file"}
    problem = responses.to_snapshot(JOB | {"status": "failed", "error": error}, "openai", "here").problem
    assert (problem.code, problem.message) == ("invalid_training_file", "Line 3: not JSON")
    assert "rows" in problem.hint


def test_the_end_is_told_only_of_what_has_ended():
    assert responses.to_snapshot(JOB | {"finished_at": 5}, "openai", "here").finished_at is None
    ended = responses.to_snapshot(JOB | {"finished_at": 5, "status": "succeeded"}, "openai", "here")
    assert ended.finished_at == datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)


def test_a_paused_reinforcement_says_what_can_be_done():
    job = JOB | {"status": "paused", "method": {"type": "reinforcement"}}
    assert "newest checkpoint" in responses.to_snapshot(job, "azure_openai", "here").detail
    assert responses.to_snapshot(JOB | {"status": "paused", "method": None}, "openai", "here").detail == ""
    later = responses.to_snapshot(JOB | {"estimated_finish": 1_700_003_600}, "openai", "here").detail
    assert later == "expected to finish at 2023-11-14 23:13 UTC"


@pytest.mark.parametrize(
    ("name", "split", "ours"),
    [("train_accuracy", "train", "token_accuracy"), ("train_mean_token_accuracy", "train", "token_accuracy"),
     ("validation_mean_token_accuracy", "validation", "token_accuracy"), ("valid_loss", "validation", "loss"),
     ("full_valid_loss", "validation", "full_loss"), ("train_reward_mean", "train", "reward")],
)  # fmt: skip
def test_figures_have_one_name_whatever_the_service_calls_them(name, split, ours):
    (metric,) = responses.figures({name: "0.5", "unheard_of": 1}, "ev", 4)
    assert (metric.step, metric.split, metric.values, metric.cursor) == (4, split, {ours: 0.5}, f"ev/{split}")


CSV = b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,2.5,0.1,,\n2,1.5,0.3,1.75,0.25\n"


@pytest.mark.parametrize("content", [CSV, base64.b64encode(CSV), b"\xef\xbb\xbf" + CSV, CSV.replace(b"\n", b"\r\n")])
def test_result_files_plain_and_base64(content):
    metrics = responses.result_metrics(content)
    assert [(m.step, m.split, m.values) for m in metrics] == [
        (1, "train", {"loss": 2.5, "token_accuracy": 0.1}),
        (2, "train", {"loss": 1.5, "token_accuracy": 0.3}),
        (2, "validation", {"loss": 1.75, "token_accuracy": 0.25}),
    ]


@given(st.binary(max_size=400))
def test_no_result_file_is_too_strange(content):
    responses.result_metrics(content)


def test_the_best_checkpoint_has_the_lowest_loss_on_held_out_rows():
    entries = [
        {"id": f"c{step}", "step_number": step, "created_at": step, "fine_tuned_model_checkpoint": f"m{step}",
         "metrics": {"step": step, "train_loss": 1.0 / step, "valid_loss": loss, "full_valid_loss": None}}
        for step, loss in ((30, 0.9), (20, 0.4), (10, 0.7))
    ]  # fmt: skip
    kept = responses.to_checkpoints(entries)
    assert [(c.step, c.best, c.last, c.uri) for c in kept] == [
        (10, False, False, "m10"), (20, True, False, "m20"), (30, False, True, "m30"),
    ]  # fmt: skip
    assert responses.to_checkpoints([]) == []


# -- errors ----------------------------------------------------------------------------------------------------------


def raised(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Exception:
    """What the SDK raises for that answer, by really getting it."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, json=body, headers=headers)

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    with openai.OpenAI(api_key="sk-secret-123", base_url="http://here/v1", max_retries=0, http_client=http) as client:
        try:
            client.fine_tuning.jobs.retrieve("ftjob-1")
        except openai.OpenAIError as error:
            return error
    raise AssertionError("nothing was raised")


def body(code: str | None = None, message: str = "told by the service") -> dict[str, Any]:
    return {"error": {"message": message, "type": "t", "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(400, None, InvalidRequest), (401, "invalid_api_key", CredentialsError), (403, None, PermissionDenied),
     (403, "training_not_available", PermissionDenied), (404, None, JobNotFound), (408, None, Unavailable),
     (409, None, InvalidRequest), (413, None, InvalidRequest), (422, None, InvalidRequest),
     (429, "rate_limit_exceeded", RateLimited), (429, "insufficient_quota", QuotaExceeded),
     (429, "daily_rate_limit_exceeded", QuotaExceeded), (500, None, Unavailable), (503, None, Unavailable)],
)  # fmt: skip
def test_every_status_has_its_class(status, code, expected):
    error = to_error(raised(status, body(code)), "job ftjob-1")
    assert type(error) is expected
    assert str(error).startswith("job ftjob-1: told by the service")
    assert pickle.loads(pickle.dumps(error)).message == error.message
    assert isinstance(error, TransientError) == (expected in (Unavailable, RateLimited))


def test_a_404_means_what_the_caller_says():
    assert type(to_error(raised(404, body()), "create", missing=InvalidRequest)) is InvalidRequest


@pytest.mark.parametrize("text", ["<html>gateway</html>", ""])
def test_an_error_that_is_no_json(text):
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(502, text=text)))
    client = openai.OpenAI(api_key="sk", base_url="http://here/v1", max_retries=0, http_client=http)
    with client, pytest.raises(openai.APIStatusError) as caught:
        client.fine_tuning.jobs.retrieve("x")
    assert isinstance(to_error(caught.value, "job"), Unavailable)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "7"}, 7.0), ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
     ({"retry-after": "soon"}, None), ({}, None), ({"retry-after": "-3"}, 0.0)],
)  # fmt: skip
def test_how_long_to_wait_is_read_in_every_form(headers, seconds):
    assert to_error(raised(429, body(), headers), "x").retry_after == seconds


def test_how_long_to_wait_as_a_date():
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < to_error(raised(429, body(), {"retry-after": date}), "x").retry_after <= 60


@pytest.mark.parametrize(
    ("cause", "acted"),
    [(httpx2.ConnectError("refused"), False), (httpx2.ConnectTimeout("slow"), False),
     (httpx2.ReadTimeout("slow"), None), (httpx2.RemoteProtocolError("cut"), None)],
)  # fmt: skip
def test_whether_the_request_ever_left(cause, acted):
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise cause

    http = httpx2.Client(transport=httpx2.MockTransport(fail))
    client = openai.OpenAI(api_key="sk", base_url="http://here/v1", max_retries=0, http_client=http)
    with client, pytest.raises(openai.APIConnectionError) as caught:
        client.fine_tuning.jobs.retrieve("x")
    error = to_error(caught.value, "job")
    assert (type(error), error.acted) == (Unavailable, acted)


def test_a_key_that_the_service_repeats_is_cut_out():
    refused = raised(401, body("invalid_api_key", "Incorrect API key provided: sk-secret-123."))
    error: CloudtuneError = to_error(refused, "job", secrets=("sk-secret-123",))
    assert "sk-secret-123" not in f"{error} {error!r}"
    assert "***" in str(error)


def test_no_key_at_all(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(openai.OpenAIError) as caught:
        openai.OpenAI()
    assert isinstance(to_error(caught.value, "the client"), CredentialsError)
