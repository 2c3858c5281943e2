"""Fine-tuning jobs of the OpenAI API, through the real SDK with strict types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest
from tests.emulator.conftest import MODEL

from cloudtune_emulator import app

if TYPE_CHECKING:
    from cloudtune_emulator import Emulator


def create(client: openai.OpenAI, file: str, **more: object) -> str:
    return client.fine_tuning.jobs.create(model=MODEL, training_file=file, **more).id  # type: ignore[arg-type]


def test_a_job_goes_through_its_phases(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    job = create(client, training_file)
    seen = [client.fine_tuning.jobs.retrieve(job).status]
    for _ in range(70):
        emulator.clock.advance(1)
        status = client.fine_tuning.jobs.retrieve(job).status
        if status != seen[-1]:
            seen.append(status)
    assert seen == ["validating_files", "queued", "running", "succeeded"]


def test_a_job_has_succeeded_once_its_results_are_recorded(
    emulator: Emulator, client: openai.OpenAI, training_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it ended while a request is answered, after the store was settled for that request."""
    job = create(client, training_file)
    settle = app.settle
    monkeypatch.setattr(app, "settle", lambda context, now: None)
    emulator.clock.advance(1000)
    found = client.fine_tuning.jobs.retrieve(job)
    assert (found.status, found.fine_tuned_model, found.result_files, found.finished_at) == ("running", None, [], None)
    assert client.fine_tuning.jobs.list_events(job).data[0].type == "metrics"
    assert [kept.step_number for kept in client.fine_tuning.jobs.checkpoints.list(job)] == [24, 12]
    monkeypatch.setattr(app, "settle", settle)
    found = client.fine_tuning.jobs.retrieve(job)
    assert found.status == "succeeded"
    assert client.files.content(found.result_files[0]).content


def test_auto_is_told_resolved_once_the_files_are_validated(
    emulator: Emulator, client: openai.OpenAI, training_file: str
) -> None:
    job = create(client, training_file)
    assert client.fine_tuning.jobs.retrieve(job).hyperparameters.n_epochs == "auto"
    emulator.clock.advance(10)
    found = client.fine_tuning.jobs.retrieve(job)
    assert found.hyperparameters.n_epochs == 3
    assert found.method is not None
    assert found.method.supervised is not None
    assert found.method.supervised.hyperparameters is not None
    assert found.method.supervised.hyperparameters.batch_size == 1


def test_events_page_backwards_without_gap_or_repeat(
    emulator: Emulator, client: openai.OpenAI, training_file: str
) -> None:
    job = create(client, training_file)
    emulator.clock.advance(100)
    paged = [event.id for event in client.fine_tuning.jobs.list_events(job, limit=7)]
    whole = [event.id for event in client.fine_tuning.jobs.list_events(job, limit=1000)]
    assert paged == whole
    assert len(set(whole)) == len(whole) == 4 + 36 + 2
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job)]
    assert messages[-1] == f"Created fine-tuning job: {job}"
    assert messages[0] == "The job has successfully completed"


def test_events_told_once_keep_their_ids(
    emulator: Emulator, client: openai.OpenAI, loose: openai.OpenAI, training_file: str
) -> None:
    job = create(client, training_file)
    known: dict[str, str] = {}
    jobs = loose.fine_tuning.jobs
    for act in (None, jobs.pause, jobs.resume, jobs.cancel):
        emulator.clock.advance(10)
        if act is not None:
            act(job)
        response = {event.id: event.message for event in client.fine_tuning.jobs.list_events(job)}
        assert response.items() >= known.items()
        known = response


def test_a_finished_job_has_a_model_checkpoints_and_a_result_file(
    emulator: Emulator, client: openai.OpenAI, training_file: str
) -> None:
    job = create(client, training_file, suffix="mine")
    emulator.clock.advance(100)
    done = client.fine_tuning.jobs.retrieve(job)
    assert done.fine_tuned_model
    assert done.fine_tuned_model.startswith(f"ft:{MODEL}:emulated:mine:")
    # "question 7" and "answer 7" have three tokens, a role one; each message three more, and each row.
    assert done.trained_tokens == 3 * 12 * (3 + 2 * (3 + 1 + 3))
    kept = list(client.fine_tuning.jobs.checkpoints.list(job))
    assert [one.step_number for one in kept] == [36, 24, 12]
    assert kept[0].fine_tuned_model_checkpoint == done.fine_tuned_model
    lines = client.files.content(done.result_files[0]).text.splitlines()
    assert lines[0].startswith("step,train_loss")
    assert len(lines) == 37


def test_every_checkpoint_answers_until_its_model_is_deleted(
    emulator: Emulator, client: openai.OpenAI, training_file: str
) -> None:
    job = create(client, training_file)
    emulator.clock.advance(100)
    requested = [{"role": "user", "content": "question 3"}]
    for one in client.fine_tuning.jobs.checkpoints.list(job):
        name = one.fine_tuned_model_checkpoint
        said = client.chat.completions.create(model=name, messages=requested)  # type: ignore[arg-type]
        assert said.choices[0].message.content == "answer 3"
        assert client.models.delete(name).deleted
        with pytest.raises(openai.NotFoundError) as refused:
            client.models.delete(name)
        assert refused.value.code == "model_not_found"


def test_the_metadata_filter(client: openai.OpenAI, training_file: str) -> None:
    own = create(client, training_file, metadata={"key": "a b&c", "other": "1"})
    bare = create(client, training_file)
    listed = client.fine_tuning.jobs.list
    assert [job.id for job in listed(metadata={"key": "a b&c"})] == [own]
    assert [job.id for job in listed(metadata={"key": "no"})] == []
    assert [job.id for job in listed(extra_query={"metadata": "null"})] == [bare]
    assert [job.id for job in listed()] == [bare, own]


def test_the_list_pages_with_a_cursor(client: openai.OpenAI, training_file: str) -> None:
    made = [create(client, training_file) for _ in range(25)]
    first = client.fine_tuning.jobs.list()
    assert len(first.data) == 20
    assert first.has_more
    assert [job.id for job in client.fine_tuning.jobs.list(limit=4)] == made[::-1]


@pytest.mark.parametrize("wait", [1, 4, 20])
def test_cancel_stops_a_job_in_any_phase_and_later_refuses(
    emulator: Emulator, client: openai.OpenAI, training_file: str, wait: int
) -> None:
    job = create(client, training_file)
    emulator.clock.advance(wait)
    assert client.fine_tuning.jobs.cancel(job).status == "cancelled"
    emulator.clock.advance(500)
    done = client.fine_tuning.jobs.retrieve(job)
    assert done.status == "cancelled"
    assert done.fine_tuned_model is None
    with pytest.raises(openai.BadRequestError, match="already completed"):
        client.fine_tuning.jobs.cancel(job)


def test_a_paused_job_stands_still(
    emulator: Emulator, client: openai.OpenAI, loose: openai.OpenAI, training_file: str
) -> None:
    job = create(client, training_file)
    with pytest.raises(openai.BadRequestError, match="validating_files"):
        loose.fine_tuning.jobs.pause(job)
    emulator.clock.advance(20)
    assert str(loose.fine_tuning.jobs.pause(job).status) == "paused"
    before = len(list(loose.fine_tuning.jobs.list_events(job)))
    emulator.clock.advance(1000)
    assert str(loose.fine_tuning.jobs.retrieve(job).status) == "paused"
    assert len(list(loose.fine_tuning.jobs.list_events(job))) == before
    assert loose.fine_tuning.jobs.resume(job).status == "running"
    emulator.clock.advance(44)
    assert loose.fine_tuning.jobs.retrieve(job).status == "running"
    emulator.clock.advance(1)
    assert loose.fine_tuning.jobs.retrieve(job).status == "succeeded"


def test_an_unknown_job_is_not_found(client: openai.OpenAI) -> None:
    for ask in (
        client.fine_tuning.jobs.retrieve, client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.pause,
        client.fine_tuning.jobs.list_events, client.fine_tuning.jobs.checkpoints.list,
    ):  # fmt: skip
        with pytest.raises(openai.NotFoundError) as refused:
            ask("ftjob-none")
        assert refused.value.code == "fine_tune_not_found"


def test_a_tuned_model_is_trained_on(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    first = create(client, training_file)
    emulator.clock.advance(100)
    tuned = client.fine_tuning.jobs.retrieve(first).fine_tuned_model
    again = client.fine_tuning.jobs.create(model=str(tuned), training_file=training_file)
    emulator.clock.advance(100)
    assert str(client.fine_tuning.jobs.retrieve(again.id).fine_tuned_model).startswith(f"ft:{MODEL}:")
