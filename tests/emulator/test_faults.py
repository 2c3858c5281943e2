"""What goes wrong on demand, seen by the real SDK; counted in the emulator's store."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import openai
import pytest
from tests.emulator.conftest import MODEL, chat_rows

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.faults import UNREADABLE


def create(client: openai.OpenAI, file: str, **more: Any) -> Any:
    return client.fine_tuning.jobs.create(model=MODEL, training_file=file, **more)


def test_a_lost_reply_was_acted_on(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    emulator.faults.add("lost_reply", "jobs.create")
    with pytest.raises(openai.APIConnectionError):
        create(client, training_file)
    assert emulator.census()["jobs"] == 1
    create(client, training_file)
    assert emulator.census()["jobs"] == 2


def test_a_reset_was_not_acted_on(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    emulator.faults.add("reset", "jobs.create")
    with pytest.raises(openai.APIConnectionError):
        create(client, training_file)
    assert emulator.census()["jobs"] == 0


def test_the_sdk_itself_makes_two_jobs_of_a_lost_reply(
    emulator: Emulator, client: openai.OpenAI, training_file: str
) -> None:
    emulator.faults.add("error_after", "jobs.create")
    create(client.with_options(max_retries=2), training_file)
    assert emulator.census()["jobs"] == 2


def test_a_throttle_tells_when_to_come_back(emulator: Emulator, client: openai.OpenAI) -> None:
    emulator.faults.add("throttle", "models.list", times=2, seconds=7)
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as refused:
            client.models.list()
        assert refused.value.response.headers["retry-after"] == "7"
        assert refused.value.code == "rate_limit_exceeded"
    assert client.models.list().data


def test_errors_of_each_kind_and_how_many_calls_go_well_first(emulator: Emulator, client: openai.OpenAI) -> None:
    for kind, details, error in (
        ("server_error", {"status": 503}, openai.InternalServerError),
        ("forbidden", {}, openai.PermissionDeniedError),
        ("expired_credentials", {}, openai.AuthenticationError),
    ):
        emulator.faults.add(kind, "models.*", after=1, **details)
        client.models.list()
        with pytest.raises(error):
            client.models.list()
        client.models.list()


@pytest.mark.parametrize("landing", [{"seconds": 60}, {"requests": 1}])
def test_a_late_request_is_acted_on_after_the_client_has_looked(
    emulator: Emulator, client: openai.OpenAI, training_file: str, landing: dict[str, int]
) -> None:
    emulator.faults.add("late", "jobs.create", **landing)
    with pytest.raises(openai.APIConnectionError):
        create(client, training_file, metadata={"key": "1"})
    assert list(client.fine_tuning.jobs.list()) == []
    assert emulator.census()["late_requests"] == 1
    emulator.clock.advance(61)
    assert len(list(client.fine_tuning.jobs.list(metadata={"key": "1"}))) == 1
    assert emulator.census()["late_requests"] == 0


def test_a_late_upload_keeps_its_bytes(emulator: Emulator, client: openai.OpenAI) -> None:
    emulator.faults.add("late", "files.create", seconds=9999)
    rows = chat_rows(5000)
    with pytest.raises(openai.APIConnectionError):
        client.files.create(file=("late.jsonl", rows), purpose="fine-tune")
    assert emulator.app.deliver_delayed() == 1
    (file,) = client.files.list()
    assert client.files.content(file.id).read() == rows


def test_the_clients_timeout_is_met(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    emulator.faults.add("lost_reply", "jobs.create", hold_s=1.0)
    with pytest.raises(openai.APITimeoutError):
        create(client.with_options(timeout=0.2), training_file)
    assert emulator.census()["jobs"] == 1


def test_a_request_delivered_twice_makes_two(emulator: Emulator, client: openai.OpenAI) -> None:
    emulator.faults.add("twice", "files.create")
    client.files.create(file=("a.jsonl", chat_rows()), purpose="fine-tune")
    assert emulator.census()["file_names"] == {"a.jsonl": 2}


def test_lists_that_lag(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    emulator.faults.add("list_lag", "jobs.list", seconds=30)
    job = create(client, training_file)
    assert list(client.fine_tuning.jobs.list()) == []
    assert client.fine_tuning.jobs.retrieve(job.id).id == job.id
    emulator.clock.advance(30)
    assert len(list(client.fine_tuning.jobs.list())) == 1


def test_a_filter_without_effect(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    create(client, training_file, metadata={"key": "1"})
    emulator.faults.add("ignore_filter")
    assert len(list(client.fine_tuning.jobs.list(metadata={"key": "2"}))) == 1


def test_an_invented_status(
    emulator: Emulator, loose: openai.OpenAI, client: openai.OpenAI, training_file: str
) -> None:
    job = create(client, training_file)
    emulator.faults.add("invented_status", value="warming_up")
    assert str(loose.fine_tuning.jobs.retrieve(job.id).status) == "warming_up"
    with pytest.raises(openai.APIResponseValidationError):
        client.fine_tuning.jobs.retrieve(job.id)


def test_short_pages_lose_nothing_to_who_follows_the_cursor(
    emulator: Emulator, client: openai.OpenAI, training_file: str
) -> None:
    made = [create(client, training_file).id for _ in range(7)]
    emulator.faults.add("truncated_page")
    assert len(client.fine_tuning.jobs.list(limit=3).data) == 2
    assert [job.id for job in client.fine_tuning.jobs.list(limit=3)] == made[::-1]
    assert len(list(client.files.list(limit=2))) == 1


def test_an_event_told_twice(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    job = create(client, training_file)
    emulator.clock.advance(30)
    emulator.faults.add("duplicate_event", "jobs.events")
    response = [event.id for event in client.fine_tuning.jobs.list_events(job.id).data]
    assert len(set(response)) == len(response) - 1


def test_a_clock_that_is_wrong(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    right = create(client, training_file)
    emulator.faults.add("clock_skew", seconds=-3600)
    assert client.fine_tuning.jobs.retrieve(right.id).created_at == right.created_at - 3600


def test_result_files_in_base64(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    import base64

    job = create(client, training_file)
    emulator.clock.advance(100)
    (result,) = client.fine_tuning.jobs.retrieve(job.id).result_files
    plain = client.files.content(result).read()
    emulator.faults.add("base64_results")
    assert base64.b64decode(client.files.content(result).read()) == plain
    assert plain.startswith(b"step,")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_answer_was_acted_on(
    emulator: Emulator, client: openai.OpenAI, training_file: str, kind: str
) -> None:
    emulator.faults.add("unreadable", "jobs.create", value=kind)
    with suppress(openai.APIResponseValidationError, ValueError, RecursionError):
        answer = create(client, training_file)
        assert getattr(answer, "id", None) is None
    assert emulator.census()["jobs"] == 1
    assert emulator.requests[-1]["acted"]


def test_a_wrong_fault_is_refused(emulator: Emulator) -> None:
    with pytest.raises(ValueError, match="kind"):
        emulator.faults.add("no_such_fault")
    emulator.faults.add("reset", "files.*")
    emulator.faults.clear()
    assert emulator.faults.armed == []


def test_quotas() -> None:
    with Emulator(Settings(jobs_per_day=1, requests_per_minute=6), scale=0) as emulator:
        key = emulator.settings.api_key
        with openai.OpenAI(base_url=emulator.openai_url, api_key=key, max_retries=0) as client:
            file = client.files.create(file=("train.jsonl", chat_rows()), purpose="fine-tune").id
            create(client, file)
            with pytest.raises(openai.RateLimitError) as refused:
                create(client, file)
            assert refused.value.code == "daily_rate_limit_exceeded"
            assert refused.value.response.headers["retry-after"] == "86400"
            emulator.clock.advance(30)
            for _ in range(3):
                client.models.list()
            with pytest.raises(openai.RateLimitError) as refused:
                client.models.list()
            assert refused.value.response.headers["retry-after"] == "30"
            emulator.clock.advance(30)
            assert client.models.list().data
            emulator.clock.advance(86400)
            create(client, file)


def test_many_clients_at_once_lose_nothing(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    def make() -> None:
        for _ in range(5):
            create(client, training_file)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert emulator.census()["jobs"] == 40
    assert len({job.id for job in client.fine_tuning.jobs.list(limit=7)}) == 40


@pytest.mark.parametrize("kind", ["late", "twice", "throttle", "reset"])
def test_a_request_without_the_key_meets_no_fault(emulator: Emulator, kind: str) -> None:
    emulator.faults.add(kind, "files.create", seconds=1)
    wrong = openai.OpenAI(base_url=emulator.openai_url, api_key="sk-wrong-wrong", max_retries=0)
    with wrong as client, pytest.raises(openai.AuthenticationError):
        client.files.create(file=("t.jsonl", chat_rows()), purpose="fine-tune")
    assert emulator.app.deliver_delayed() == 0
    assert emulator.faults.armed  # it waits for a request that has a key
