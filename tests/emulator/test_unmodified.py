"""A script written for the vendor, curl, and the command itself: only the environment says where to go."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.emulator.conftest import MODEL, chat_rows

from cloudtune_local.emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = """
import sys, time
from openai import {client}
client = {client}()
file = client.files.create(file=open(sys.argv[1], "rb"), purpose="fine-tune")
job = client.fine_tuning.jobs.create(training_file=file.id, model="gpt-4.1-mini-2025-04-14")
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(0.1)
    job = client.fine_tuning.jobs.retrieve(job.id)
print(job.status, len(list(client.fine_tuning.jobs.list_events(job.id))))
model = job.fine_tuned_model
if len(sys.argv) > 2:
    import deploy
    model = deploy.deploy(job.fine_tuned_model)
answer = client.chat.completions.create(model=model, messages=[{{"role": "user", "content": "question 7"}}])
print(answer.choices[0].message.content)
if len(sys.argv) > 2:
    deploy.remove()
client.models.delete(job.fine_tuned_model)
client.files.delete(file.id)
print(len(client.files.list().data))
"""
DEPLOY = """
import json, os, time, urllib.request
BASE = os.environ["ARM"]
def ask(method, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": "Bearer " + os.environ["ARM_TOKEN"], "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(BASE, data, headers, method=method)) as answer:
        return json.loads(answer.read() or b"{}")
def deploy(model):
    ask("PUT", {"sku": {"name": "GlobalStandard", "capacity": 1},
                "properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}}})
    while ask("GET")["properties"]["provisioningState"] != "Succeeded":
        time.sleep(0.1)
    return "mine"
def remove():
    ask("DELETE")
"""


@pytest.fixture
def running() -> Iterator[Emulator]:
    """In real time, sixty times as fast: a job takes about a second."""
    with Emulator(Settings(), scale=60) as emulator:
        yield emulator


def clean_environment(emulator: Emulator) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "AZURE"))}
    return kept | emulator.environment()


@pytest.mark.parametrize("client", ["OpenAI", "AzureOpenAI"])
def test_a_script_written_for_the_vendor(running: Emulator, tmp_path: Path, client: str) -> None:
    (tmp_path / "train.jsonl").write_bytes(chat_rows())
    (tmp_path / "deploy.py").write_text(DEPLOY)
    (tmp_path / "script.py").write_text(SCRIPT.format(client=client))
    settings = running.settings
    account = (
        f"resourceGroups/{settings.resource_group}/providers/Microsoft.CognitiveServices/accounts/{settings.account}"
    )
    arm = f"{running.url}/subscriptions/{settings.subscription}/{account}/deployments/mine?api-version=2025-09-01"
    environment = clean_environment(running) | {"ARM": arm, "ARM_TOKEN": settings.azure_token}
    more = ["deploy"] if client == "AzureOpenAI" else []
    done = subprocess.run(
        [sys.executable, "script.py", "train.jsonl", *more], cwd=tmp_path, env=environment, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["succeeded 42", "answer 7", "1"]  # what is left is the result file
    assert running.census()["files"] == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_walk_with_curl(running: Emulator, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(chat_rows())
    key = ("-H", f"Authorization: Bearer {running.settings.api_key}")

    def curl(path: str, *arguments: str) -> Any:
        command = ["curl", "-sS", "--noproxy", "*", *key, *arguments, f"{running.openai_url}{path}"]
        return json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=30).stdout)

    def post(path: str, body: dict[str, Any]) -> Any:
        return curl(path, "-H", "Content-Type: application/json", "-d", json.dumps(body))

    file = curl("/files", "-F", "purpose=fine-tune", "-F", "file=@train.jsonl")["id"]
    job = post("/fine_tuning/jobs", {"model": MODEL, "training_file": file})["id"]
    running.clock.advance(100)
    done = curl(f"/fine_tuning/jobs/{job}")
    assert done["status"] == "succeeded"
    assert len(curl(f"/fine_tuning/jobs/{job}/events?limit=5")["data"]) == 5
    asked = {"model": done["fine_tuned_model"], "messages": [{"role": "user", "content": "question 2"}]}
    assert post("/chat/completions", asked)["choices"][0]["message"]["content"] == "answer 2"
    assert curl(f"/models/{done['fine_tuned_model']}", "-X", "DELETE")["deleted"]
    assert curl(f"/files/{file}", "-X", "DELETE")["deleted"]
    assert curl("/nowhere")["error"]["message"].startswith("Invalid URL")
    assert "JSON" in curl("/fine_tuning/jobs", "-d", "{bad", "-H", "Content-Type: application/json")["error"]["message"]


def test_the_side_door_over_http(running: Emulator, tmp_path: Path) -> None:
    from urllib import error, request

    def ask(method: str, name: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with request.urlopen(request.Request(f"{running.url}/_emulator/{name}", data, method=method)) as answer:
            return json.loads(answer.read())

    assert ask("GET", "store")["jobs"] == 0
    before = ask("GET", "clock")["now"]
    assert ask("POST", "clock", {"scale": 0, "advance": 1000})["now"] >= before + 1000
    armed = ask("POST", "faults", [{"kind": "reset", "call": "files.*"}, {"kind": "list_lag", "seconds": 3}])
    assert [fault["kind"] for fault in armed["faults"]] == ["reset", "list_lag"]
    assert ask("DELETE", "faults") == {"faults": []}
    assert ask("POST", "script", {"running_s": 5})["running_s"] == 5
    assert ask("POST", "land") == {"landed": 0}
    assert ask("GET", "requests") == {"requests": []}
    for method, name, body in (("POST", "clock", {"advanse": 1}), ("GET", "nothing", None), ("GET", "runs", None)):
        with pytest.raises(error.HTTPError) as refused:
            ask(method, name, body)
        assert refused.value.code in (400, 404)
        refused.value.close()


def test_the_command_prints_what_points_a_client_at_it() -> None:
    start = "from cloudtune.cli.main import main; main()"
    command = [sys.executable, "-c", start, "emulate", "--port", "0", "--api-key", "sk-mine-123456"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(5)]
        found = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        assert found["OPENAI_API_KEY"] == "sk-mine-123456"
        import openai

        with openai.OpenAI(base_url=found["OPENAI_BASE_URL"], api_key=found["OPENAI_API_KEY"]) as client:
            assert MODEL in [model.id for model in client.models.list()]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_it_listens_on_loopback_alone_unless_asked() -> None:
    from cloudtune.errors import ConfigError

    for host in ("0.0.0.0", "::", "example.org"):
        with pytest.raises(ConfigError, match="elsewhere"):
            Emulator(host=host)


def test_a_kept_store_is_there_after_a_restart(tmp_path: Path) -> None:
    import openai

    settings = Settings(store=tmp_path / "kept")
    ids = []
    for _ in range(2):
        emulator = Emulator(settings, scale=60)
        with emulator, openai.OpenAI(base_url=emulator.openai_url, api_key=settings.api_key) as client:
            known = client.files.list().data
            assert [file.id for file in known] == ids[::-1]
            ids.append(client.files.create(file=("t.jsonl", chat_rows()), purpose="fine-tune").id)
            assert client.files.content(ids[0]).read() == chat_rows()


def test_a_store_serves_one_emulator_at_a_time(tmp_path: Path) -> None:
    from cloudtune.errors import ConfigError

    with Emulator(Settings(store=tmp_path / "kept")), pytest.raises(ConfigError, match="another emulator"):
        Emulator(Settings(store=tmp_path / "kept"))


def test_the_script_engine_loads_no_torch_and_no_sdk() -> None:
    heavy = {"torch", "transformers", "openai", "boto3"}
    look = f"import sys, cloudtune_local.emulator; print(*({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.strip() == ""
