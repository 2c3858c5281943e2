"""The train engine: a job over the wire is really trained, and its model really answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from tests.emulator.access import admin
from tests.emulator.conftest import MODEL

from cloudtune_emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(600)  # processes that import torch: on a busy machine that is minutes
CITIES = ("oslo", "rome", "lima", "delhi")
LIMIT_S = 300


def rows(answer: str = "Code {code}.") -> bytes:
    """Each city's code, to be learnt by heart."""
    lines = [
        {"messages": [{"role": "user", "content": f"Code of {city}?"},
                      {"role": "assistant", "content": answer.format(code=city[:2].upper())}]}
        for city in CITIES
    ]  # fmt: skip
    return "\n".join(json.dumps(line) for line in lines * 20).encode()


@pytest.fixture(scope="module")
def training() -> Iterator[Emulator]:
    with Emulator(Settings(engine="train")) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def service(training: Emulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=training.openai_url, api_key=training.settings.api_key, max_retries=0) as client:
        yield client


def train(client: openai.OpenAI, data: bytes, epochs: int, **more: Any) -> str:
    file = client.files.create(file=("t.jsonl", data), purpose="fine-tune").id
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": 4}}}
    job = client.fine_tuning.jobs.create(
        **({"model": MODEL, "training_file": file, "method": method, "seed": 3} | more)
    )
    client.files.delete(file)  # the job has what it needs
    return job.id


def wait(client: openai.OpenAI, job: str, *words: str) -> Any:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        found = client.fine_tuning.jobs.retrieve(job)
        if found.status in (words or ("succeeded", "failed", "cancelled")):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{job} is still {found.status}")


@pytest.fixture(scope="module")
def learnt(service: openai.OpenAI) -> Any:
    """A job that has learnt its file."""
    done = wait(service, train(service, rows(), 6))
    assert done.status == "succeeded", done.error
    return done


def ask(client: openai.OpenAI, model: str, city: str) -> str:
    requested: Any = [{"role": "user", "content": f"Code of {city}?"}]
    said = client.chat.completions.create(model=model, messages=requested, temperature=0, max_tokens=24)
    return said.choices[0].message.content or ""


def test_the_model_has_learnt_what_its_base_does_not_know(service: openai.OpenAI, learnt: Any) -> None:
    right = [ask(service, learnt.fine_tuned_model, city) == f"Code {city[:2].upper()}." for city in CITIES]
    assert all(right)
    assert not any(ask(service, MODEL, city).startswith("Code") for city in CITIES)


def test_many_may_ask_at_once(service: openai.OpenAI, learnt: Any) -> None:
    kept = service.fine_tuning.jobs.checkpoints.list(learnt.id).data[-1].fine_tuned_model_checkpoint
    requested = [(learnt.fine_tuned_model, city) for city in CITIES] + [(kept, "rome")]
    alone = [ask(service, model, city) for model, city in requested]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda question: ask(service, *question), requested))
    assert together == alone
    drawn: Any = {"model": kept, "messages": [{"role": "user", "content": "Code of"}], "temperature": 1.5, "seed": 7,
                  "max_tokens": 12}  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: service.chat.completions.create(**drawn).choices[0].message.content, range(4)))
    assert len(set(said)) == 1  # a seed is a seed, whoever else is being answered


def test_answers_stream_and_come_as_responses(service: openai.OpenAI, learnt: Any) -> None:
    whole = ask(service, learnt.fine_tuned_model, "rome")
    requested: Any = [{"role": "user", "content": "Code of rome?"}]
    pieces = service.chat.completions.create(
        model=learnt.fine_tuned_model, messages=requested, temperature=0, max_tokens=24, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == whole
    answer = service.responses.create(model=learnt.fine_tuned_model, input="Code of rome?", temperature=0)
    assert answer.output_text == whole


def test_events_results_and_checkpoints_tell_one_story(service: openai.OpenAI, learnt: Any) -> None:
    response: Any = list(service.fine_tuning.jobs.list_events(learnt.id, limit=200))[::-1]
    figures = [event.data for event in response if event.type == "metrics"]
    assert [one["step"] for one in figures] == list(range(1, 121))
    assert figures[-1]["train_loss"] < figures[0]["train_loss"] / 5
    lines = service.files.content(learnt.result_files[0]).text.splitlines()[1:]
    assert [float(line.split(",")[1]) for line in lines] == [one["train_loss"] for one in figures]
    kept = service.fine_tuning.jobs.checkpoints.list(learnt.id).data
    assert kept[0].fine_tuned_model_checkpoint == learnt.fine_tuned_model
    assert [one.step_number for one in kept] == sorted((one.step_number for one in kept), reverse=True)
    assert ask(service, kept[-1].fine_tuned_model_checkpoint, "rome")
    assert learnt.trained_tokens > 0


def test_the_loss_curve_is_that_of_a_local_run_with_the_same_spec(
    training: Emulator, service: openai.OpenAI, learnt: Any, tmp_path: Path
) -> None:
    from cloudtune.client import Client
    from cloudtune.spec import JobSpec
    from cloudtune_local.backend import LocalBackend
    from cloudtune_local.options import Options

    runs = {run["id"]: run for run in admin(training, "runs")["runs"]}
    spec = JobSpec.model_validate(runs[learnt.id]["spec"] | {"name": "local-run"})
    backend: Any = LocalBackend(Options(root=tmp_path / "runs"))
    job = Client(backend, ledger=f"sqlite:///{tmp_path / 'ledger.sqlite'}").submit(spec)
    job.wait(timeout=LIMIT_S)
    local = [metric.values["loss"] for metric in job.metrics() if metric.split == "train"]
    response: Any = [event.data for event in service.fine_tuning.jobs.list_events(learnt.id, limit=200)][::-1]
    assert local == [data["train_loss"] for data in response if "train_loss" in data]


def test_a_running_job_is_paused_resumed_and_cancelled(service: openai.OpenAI) -> None:
    job = train(service, rows(), 20)
    wait(service, job, "running")
    service.fine_tuning.jobs.pause(job)
    wait(service, job, "paused")
    assert service.fine_tuning.jobs.resume(job).status in ("running", "paused")
    wait(service, job, "running")
    assert service.fine_tuning.jobs.cancel(job).status == "cancelled"
    assert wait(service, job).fine_tuned_model is None
    with pytest.raises(openai.BadRequestError):
        service.fine_tuning.jobs.cancel(job)


def test_a_job_whose_trainer_is_killed_fails_and_says_so(training: Emulator, service: openai.OpenAI) -> None:
    job = train(service, rows(), 20)
    wait(service, job, "running")
    (ref,) = [run["ref"] for run in training.app.context.engine.runs() if run["id"] == job]  # type: ignore[attr-defined]
    folder = training.store.folder / "training" / "runs" / ref.rpartition(":")[2]
    os.kill(json.loads((folder / "worker.json").read_bytes())["trainer"]["pid"], signal.SIGKILL)
    done = wait(service, job)
    assert (done.status, done.error.code, done.fine_tuned_model) == ("failed", "killed", None)
    response = [event for event in service.fine_tuning.jobs.list_events(job, limit=20) if event.level == "error"]
    assert [event.message for event in response] == [done.error.message]


def test_a_bad_file_fails_as_at_the_vendor(service: openai.OpenAI) -> None:
    done = wait(service, train(service, rows() + b"\n{bad", 1))
    assert done.status == "failed"
    assert done.error.code == "invalid_training_file"
    assert "Line 81:" in done.error.message


def test_what_cannot_be_trained_here_fails_with_the_reason(service: openai.OpenAI) -> None:
    row = {"messages": [{"role": "user", "content": "q"}], "answer": "a"}
    data = "\n".join([json.dumps(row)] * 10).encode()
    grader = {"type": "string_check", "name": "g", "input": "{{sample.output_text}}", "operation": "eq",
              "reference": "{{item.answer}}"}  # fmt: skip
    method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    done = wait(service, train(service, data, 1, model="o4-mini-2025-04-16", method=method))
    assert done.status == "failed"
    assert done.error.code == "not_trainable"
    assert "rft" in done.error.message


STYLES = {True: "Code {code}.", False: "It is {code}."}


def test_a_tuned_model_is_taught_to_prefer_what_it_did_not_say(service: openai.OpenAI) -> None:
    """It has learnt two ways to answer; then pairs tell it which one is liked: the one that it does not choose."""
    half = [rows(style).splitlines()[: 10 * len(CITIES)] for style in STYLES.values()]
    tuned = wait(service, train(service, b"\n".join(half[0] + half[1]), 4))
    assert tuned.status == "succeeded", tuned.error
    said = {city: ask(service, tuned.fine_tuned_model, city).startswith("Code") for city in CITIES}
    lines = [
        {"input": {"messages": [{"role": "user", "content": f"Code of {city}?"}]},
         "preferred_output": [{"role": "assistant", "content": STYLES[not liked].format(code=city[:2].upper())}],
         "non_preferred_output": [{"role": "assistant", "content": STYLES[liked].format(code=city[:2].upper())}]}
        for city, liked in said.items()
    ]  # fmt: skip
    method: Any = {"type": "dpo", "dpo": {"hyperparameters": {
        "n_epochs": 2, "batch_size": 4, "beta": 0.3, "learning_rate_multiplier": 0.02,
    }}}  # fmt: skip
    data = "\n".join(json.dumps(line) for line in lines * 10).encode()
    done = wait(service, train(service, data, 2, model=tuned.fine_tuned_model, method=method))
    assert done.status == "succeeded", done.error
    assert done.method.dpo.hyperparameters.beta == 0.3
    response: Any = [event.data for event in service.fine_tuning.jobs.list_events(done.id, limit=100)]
    losses = {data["step"]: data["train_loss"] for data in response if "train_loss" in data}
    assert losses[1] == pytest.approx(0.693, abs=0.001)  # neither is liked yet
    assert losses[max(losses)] < 0.68
    for city in CITIES:
        assert ask(service, done.fine_tuned_model, city).startswith("It is" if said[city] else "Code")
    assert len(service.files.content(done.result_files[0]).text.splitlines()) == len(losses) + 1


def test_a_tuned_model_is_trained_on(service: openai.OpenAI, learnt: Any) -> None:
    done = wait(service, train(service, rows(), 1, model=learnt.fine_tuned_model))
    assert done.status == "succeeded", done.error
    response: Any = [event.data for event in service.fine_tuning.jobs.list_events(done.id, limit=100)]
    first = next(data["train_loss"] for data in response if data.get("step") == 1)
    assert first < 0.1  # an untrained one begins above 5


def test_a_restarted_server_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = Settings(engine="train", store=tmp_path / "kept")

    def client(emulator: Emulator) -> openai.OpenAI:
        return openai.OpenAI(base_url=emulator.openai_url, api_key=emulator.settings.api_key, max_retries=0)

    emulator = Emulator(settings)
    with emulator, client(emulator) as before:
        job = train(before, rows(), 2)
    emulator = Emulator(settings)
    with emulator, client(emulator) as after:
        done = wait(after, job)
        assert done.status == "succeeded", done.error
        assert ask(after, done.fine_tuned_model, "rome") is not None
        assert [one.id for one in after.fine_tuning.jobs.list()] == [job]
        assert len(emulator.app.context.engine.runs()) == 1  # type: ignore[attr-defined]


def served(store: Path, *words: str) -> tuple[subprocess.Popen[str], openai.OpenAI]:
    """The command itself, a process that can be killed, and a client of it."""
    start = [str(Path(sys.executable).with_name("cloudtune")), "emulate", "--port", "0", "--engine", "train"]
    process = subprocess.Popen(
        [*start, "--store", str(store), *words], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    environment: dict[str, str] = {}
    while "OPENAI_API_KEY" not in environment:
        name, equals, value = process.stdout.readline().removeprefix("export ").strip().partition("=")
        assert equals, "it ended before it told where it listens"
        environment[name] = value
    client = openai.OpenAI(
        base_url=environment["OPENAI_BASE_URL"], api_key=environment["OPENAI_API_KEY"], max_retries=0
    )
    return process, client


def killed(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_killed_server_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed once right after a job was made, and once while it runs: one run, and an ordinary end."""
    process, client = served(tmp_path / "kept")
    with client:
        job = train(client, rows(), 12)
    killed(process)
    process, client = served(tmp_path / "kept")
    with client:
        wait(client, job, "running", "succeeded")
    killed(process)
    process, client = served(tmp_path / "kept")
    try:
        with client:
            done = wait(client, job)
            assert done.status == "succeeded", done.error
            assert ask(client, done.fine_tuned_model, "rome") == "Code RO."
            response: Any = [event.data for event in client.fine_tuning.jobs.list_events(job, limit=500)][::-1]
            assert [data["step"] for data in response if "train_loss" in data] == list(range(1, 241))
            assert len(client.files.content(done.result_files[0]).text.splitlines()) == 241
        assert len(list((tmp_path / "kept" / "training" / "runs").glob("*/spec.json"))) == 1
    finally:
        killed(process)


def test_an_adapter_is_trained_deployed_and_asked_on_azure(tmp_path: Path) -> None:
    tiny = {"model": {"hidden_size": 128, "intermediate_size": 256}, "tokenizer": {"vocab_size": 512}}
    stand = {"model": "tiny.json", "learning_rate": 5e-3, "adapter": {"type": "lora", "rank": 4}}
    (tmp_path / "tiny.json").write_text(json.dumps(tiny))
    (tmp_path / "models.json").write_text(json.dumps({MODEL: stand}))
    emulator = Emulator(Settings(engine="train", models=tmp_path / "models.json", deploying_s=0))
    endpoint = f"{emulator.url}/openai/v1/"
    with emulator, openai.OpenAI(base_url=endpoint, api_key=emulator.settings.azure_key, max_retries=0) as client:
        done = wait(client, train(client, b"\xef\xbb\xbf" + rows(), 2))
        assert done.status == "succeeded", done.error
        (checkpoint, *_) = client.fine_tuning.jobs.checkpoints.list(done.id).data[-1:]
        for name, model in (("tuned", done.fine_tuned_model), ("kept", checkpoint.fine_tuned_model_checkpoint)):
            deploy(emulator, name, model)
            assert ask(client, name, "rome") is not None


@pytest.mark.soak
def test_azures_preference_method_is_trained(training: Emulator) -> None:
    row = {"input": {"messages": [{"role": "user", "content": "Code of oslo?"}]},
           "preferred_output": [{"role": "assistant", "content": "OS"}],
           "non_preferred_output": [{"role": "assistant", "content": "Code OS, as far as I know."}]}  # fmt: skip
    data = "\ufeff".encode() + "\n".join([json.dumps(row)] * 12).encode()
    endpoint, method = f"{training.url}/openai/v1/", {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.5}}}
    with openai.OpenAI(base_url=endpoint, api_key=training.settings.azure_key, max_retries=0) as client:
        done = wait(client, train(client, data, 1, method=method))
    assert done.status == "succeeded", done.error
    (spec,) = [run["spec"] for run in training.app.context.engine.runs() if run["id"] == done.id]  # type: ignore[attr-defined]
    assert spec["method"] == {"name": "dpo", "beta": 0.5}


def deploy(emulator: Emulator, name: str, model: str) -> None:
    from urllib import request

    settings = emulator.settings
    group = f"/subscriptions/{settings.subscription}/resourceGroups/{settings.resource_group}"
    path = f"{group}/providers/Microsoft.CognitiveServices/accounts/{settings.account}/deployments/{name}"
    body = {"sku": {"name": "Standard"}, "properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}}}
    headers = {"Authorization": f"Bearer {settings.azure_token}", "Content-Type": "application/json"}
    url = f"{emulator.url}{path}?api-version=2025-09-01"
    with request.urlopen(request.Request(url, json.dumps(body).encode(), headers, method="PUT")) as answer:
        assert answer.status == 201


def test_a_mapping_file_says_what_stands_for_a_base(tmp_path: Path) -> None:
    from cloudtune.errors import ConfigError
    from cloudtune_emulator import base_models

    (tmp_path / "tiny.json").write_text("{}")
    (tmp_path / "models.json").write_text(json.dumps({MODEL: {"model": "tiny.json", "learning_rate": 0.001}}))
    stands = base_models.read(tmp_path / "models.json", tmp_path)
    assert stands.of(MODEL).model == str(tmp_path / "tiny.json")
    with pytest.raises(ConfigError, match="gpt-4o"):
        stands.of("gpt-4o-2024-08-06")
    (tmp_path / "models.json").write_text('{"x": {"model": "y"}}')
    with pytest.raises(ConfigError, match="learning_rate"):
        base_models.read(tmp_path / "models.json", tmp_path)
