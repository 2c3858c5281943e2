"""What a job is refused for at once, and what it fails of once its files are looked at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.emulator.conftest import MODEL, chat_rows
from tests.property_tests import examples

from cloudtune_emulator import rowcheck

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune_emulator import Emulator

GOOD = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
PAIR = {
    "input": {"messages": [{"role": "user", "content": "q"}]},
    "preferred_output": [{"role": "assistant", "content": "a"}],
    "non_preferred_output": [{"role": "assistant", "content": "b"}],
}


O4 = "o4-mini-2025-04-16"


def supervised(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


@pytest.mark.parametrize(("fields", "param"), [
    ({"model": "gpt-none"}, "model"),
    ({"model": O4}, "model"),
    ({"training_file": "file-none"}, "training_file"),
    ({"validation_file": "file-none"}, "validation_file"),
    ({"suffix": "x" * 65}, "suffix"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**31}, "seed"),
    ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
    ({"metadata": {"k" * 65: ""}}, "metadata"),
    ({"metadata": {"k": "v" * 513}}, "metadata"),
    ({"extra_body": {"learning_rate": 1e-4}}, "learning_rate"),
    ({"method": {"type": "magic"}}, "method.type"),
    ({"method": supervised({"n_epochs": 51})}, "hyperparameters.n_epochs"),
    ({"method": supervised({"n_epochs": 1.5})}, "hyperparameters.n_epochs"),
    ({"method": supervised({"batch_size": 257})}, "hyperparameters.batch_size"),
    ({"method": supervised({"beta": 0.1})}, "hyperparameters.beta"),
    ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 2.5}}}}, "hyperparameters.beta"),
    ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier"),
    ({"model": O4, "method": {"type": "reinforcement", "reinforcement": {}}}, "method.reinforcement.grader"),
    ({"integrations": [{"type": "other"}]}, "integrations"),
])  # fmt: skip
def test_a_bad_request_makes_no_job(
    emulator: Emulator, client: openai.OpenAI, training_file: str, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(**({"model": MODEL, "training_file": training_file} | fields))
    assert refused.value.param == param
    assert emulator.census()["jobs"] == 0


def failed(emulator: Emulator, client: openai.OpenAI, lines: list[str], **more: Any) -> Any:
    file = client.files.create(file=("t.jsonl", "\n".join(lines).encode()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(**({"model": MODEL, "training_file": file.id} | more))
    assert job.status == "validating_files"
    emulator.clock.advance(100)
    return client.fine_tuning.jobs.retrieve(job.id)


@pytest.mark.parametrize("line", [
    "{not json}", "[]", '"text"', "{}", json.dumps({"messages": []}), json.dumps({"messages": [{"role": "user"}]}),
    json.dumps({"messages": [{"role": "user", "content": "q"}]}),
    json.dumps({"messages": [{"role": "king", "content": "q"}]}),
    json.dumps({"messages": [{"role": "user", "content": "q", "weight": 1}, {"role": "assistant", "content": "a"}]}),
    json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 2}]}),
    json.dumps({"prompt": "q", "completion": "a"}),
    json.dumps({"messages": [{"role": "user", "content": "a <|endoftext|>"}, {"role": "assistant", "content": "b"}]}),
])  # fmt: skip
def test_a_bad_line_fails_the_job_and_is_named(emulator: Emulator, client: openai.OpenAI, line: str) -> None:
    job = failed(emulator, client, [json.dumps(GOOD)] * 6 + [line] + [json.dumps(GOOD)] * 6)
    assert job.status == "failed"
    assert job.error.code == "invalid_training_file"
    assert job.error.param == "training_file"
    assert "Line 7:" in job.error.message
    assert job.fine_tuned_model is None
    assert job.result_files == []
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id) if event.level == "error"]
    assert messages == [job.error.message]


def test_too_few_examples(emulator: Emulator, client: openai.OpenAI) -> None:
    job = failed(emulator, client, [json.dumps(GOOD)] * 9)
    assert job.error.code == "invalid_n_examples"
    assert "9 example(s)" in job.error.message


def test_moderated_rows_fail_the_job(emulator: Emulator, client: openai.OpenAI) -> None:
    emulator.faults.add("unsafe_file", times=1)
    blocked = failed(emulator, client, [json.dumps(GOOD)] * 10)
    assert (blocked.status, blocked.error.code, blocked.error.param) == ("failed", "unsafe_file", "training_file")
    assert failed(emulator, client, [json.dumps(GOOD)] * 10).status == "succeeded"


def test_azure_has_room_for_so_many_jobs_at_once(emulator: Emulator) -> None:
    with openai.OpenAI(
        base_url=f"{emulator.url}/openai/v1/", api_key=emulator.settings.azure_key, max_retries=0
    ) as client:
        file = client.files.create(file=("t.jsonl", chat_rows()), purpose="fine-tune").id
        jobs = [client.fine_tuning.jobs.create(model=MODEL, training_file=file).id for _ in range(23)]
        with pytest.raises(openai.RateLimitError) as refused:
            client.fine_tuning.jobs.create(model=MODEL, training_file=file)
        assert refused.value.code == "quota_exceeded"
        client.fine_tuning.jobs.cancel(jobs[0])
        assert client.fine_tuning.jobs.create(model=MODEL, training_file=file).status == "pending"


def test_a_bad_validation_file(emulator: Emulator, client: openai.OpenAI, training_file: str) -> None:
    bad = client.files.create(file=("v.jsonl", b"{}"), purpose="fine-tune").id
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=training_file, validation_file=bad)
    emulator.clock.advance(100)
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert done.error is not None
    assert (done.error.code, done.error.param) == ("invalid_validation_file", "validation_file")


def test_preferences(emulator: Emulator, client: openai.OpenAI) -> None:
    method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}
    good = failed(emulator, client, [json.dumps(PAIR)] * 10, method=method)
    assert good.status == "succeeded"
    assert good.method.dpo.hyperparameters.beta == 0.2
    bad = failed(emulator, client, [json.dumps(PAIR)] * 10 + [json.dumps(GOOD)], method=method)
    assert "Line 11:" in bad.error.message


def test_reinforcement(emulator: Emulator, client: openai.OpenAI) -> None:
    grader = {
        "type": "string_check",
        "name": "g",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "x",
    }
    more = {"model": O4, "method": {"type": "reinforcement", "reinforcement": {"grader": grader}}}
    requested = {"messages": [{"role": "user", "content": "q"}], "answer": "x"}
    assert failed(emulator, client, [json.dumps(requested)] * 10, **more).status == "succeeded"
    assert "last message" in failed(emulator, client, [json.dumps(GOOD)] * 10, **more).error.message


def test_validation_figures_stand_in_events_and_results(
    emulator: Emulator, client: openai.OpenAI, training_file: str
) -> None:
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=training_file, validation_file=training_file)
    emulator.clock.advance(100)
    response: Any = [event.data for event in client.fine_tuning.jobs.list_events(job.id) if event.type == "metrics"]
    assert all("valid_loss" in data for data in response)
    assert sum("full_valid_loss" in data for data in response) == 3
    (result,) = client.fine_tuning.jobs.retrieve(job.id).result_files
    assert client.files.content(result).text.splitlines()[1].count(",") == 4
    assert "" not in client.files.content(result).text.splitlines()[1].split(",")


LINES = st.one_of(st.just(json.dumps(GOOD)), st.text(max_size=40), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["messages", "role", "content", "input", "weight", "preferred_output"]), inner, max_size=4),
).map(json.dumps))  # fmt: skip


@given(lines=st.lists(LINES, max_size=12), method=st.sampled_from(["supervised", "dpo", "reinforcement"]))
@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_stands_in_a_file_is_counted_or_named(tmp_path: Path, lines: list[str], method: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    counted = rowcheck.check(path, method, "training_file")
    whole = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    assert counted.rows == len(whole)
    if counted.error is None:
        assert counted.rows >= 10
    else:
        assert set(counted.error) == {"code", "message", "param"}


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + chat_rows())
    assert rowcheck.check(path, "supervised", "training_file").error is None
