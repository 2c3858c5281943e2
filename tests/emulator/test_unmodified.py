"""A script written for the vendor, curl, and the command itself: only the environment points at the emulator."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.emulator.access import admin
from tests.emulator.conftest import MODEL, chat_rows

from cloudtune.cli.emulate import _tell
from cloudtune.cli.session import Session
from cloudtune_emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "rehearsal" / "tune_and_ask.py"
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


def run_script(script: str, folder: Path, environment: dict[str, str]) -> list[str]:
    (folder / "train.jsonl").write_bytes(chat_rows())
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py", "train.jsonl", "question 7"], cwd=folder, env=environment, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_script_written_for_openai(running: Emulator, tmp_path: Path) -> None:
    said = run_script(SCRIPT.read_text(encoding="utf-8"), tmp_path, clean_environment(running))
    assert said[0] == "succeeded: The job has successfully completed, 156 events"
    assert said[1].startswith("Step 1/150: training loss=")
    assert said[-1] == "question 7 answer 7"
    census = running.census()
    assert (census["jobs"], census["files"], census["result_files"]) == (1, 0, 1)
    assert [seen["call"] for seen in running.requests].count("models.delete") == 1


def test_the_same_script_for_azure(running: Emulator, tmp_path: Path) -> None:
    """As OpenAI's, but for the client's name, and for a deployment by the management plane before it is asked."""
    script = SCRIPT.read_text(encoding="utf-8").replace("OpenAI", "AzureOpenAI")
    script = script.replace("model=job.fine_tuned_model", "model=deploy.deploy(job.fine_tuned_model)")
    script = script.replace("client.models.delete", "deploy.remove()\nclient.models.delete")
    (tmp_path / "deploy.py").write_text(DEPLOY)
    settings = running.settings
    account = (
        f"resourceGroups/{settings.resource_group}/providers/Microsoft.CognitiveServices/accounts/{settings.account}"
    )
    arm = f"{running.url}/subscriptions/{settings.subscription}/{account}/deployments/mine?api-version=2025-09-01"
    environment = clean_environment(running) | {"ARM": arm, "ARM_TOKEN": settings.azure_token}
    said = run_script(f"import deploy\n{script}", tmp_path, environment)
    assert (said[0].partition(":")[0], said[-1]) == ("succeeded", "question 7 answer 7")
    assert (running.census()["files"], running.census()["deployments"]) == (0, 0)


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
    requested = {"model": done["fine_tuned_model"], "messages": [{"role": "user", "content": "question 2"}]}
    assert post("/chat/completions", requested)["choices"][0]["message"]["content"] == "answer 2"
    assert curl(f"/models/{done['fine_tuned_model']}", "-X", "DELETE")["deleted"]
    assert curl(f"/files/{file}", "-X", "DELETE")["deleted"]
    assert curl("/nowhere")["error"]["message"].startswith("Invalid URL")
    assert "JSON" in curl("/fine_tuning/jobs", "-d", "{bad", "-H", "Content-Type: application/json")["error"]["message"]


def test_the_admin_api_over_http(running: Emulator, tmp_path: Path) -> None:
    from urllib import error

    def ask(method: str, name: str, body: Any = None) -> Any:
        return admin(running, name, body, method=method)

    assert ask("GET", "store")["jobs"] == 0
    before = ask("GET", "clock")["now"]
    assert ask("POST", "clock", {"scale": 0, "advance": 1000})["now"] >= before + 1000
    armed = ask("POST", "faults", [{"kind": "reset", "call": "files.*"}, {"kind": "list_lag", "seconds": 3}])
    assert [fault["kind"] for fault in armed["faults"]] == ["reset", "list_lag"]
    assert ask("DELETE", "faults") == {"faults": []}
    assert ask("POST", "script", {"running_s": 5})["running_s"] == 5
    assert ask("POST", "deliver_delayed") == {"delivered": 0}
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
        lines = [process.stdout.readline().strip() for _ in range(6)]
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
        with pytest.raises(ConfigError, match="other machines can connect to"):
            Emulator(host=host)


def test_a_kept_store_is_there_after_a_restart(tmp_path: Path) -> None:
    import openai

    settings = Settings(store=tmp_path / "kept")
    ids = []
    for _ in range(2):
        emulator = Emulator(settings, scale=60)
        with emulator, openai.OpenAI(base_url=emulator.openai_url, api_key=emulator.settings.api_key) as client:
            known = client.files.list().data
            assert [file.id for file in known] == ids[::-1]
            ids.append(client.files.create(file=("t.jsonl", chat_rows()), purpose="fine-tune").id)
            assert client.files.content(ids[0]).read() == chat_rows()


def test_time_does_not_run_backwards_over_a_restart(tmp_path: Path) -> None:
    import openai

    settings = Settings(store=tmp_path / "kept")
    emulator = Emulator(settings, scale=0)
    with emulator, openai.OpenAI(base_url=emulator.openai_url, api_key=emulator.settings.api_key) as client:
        file = client.files.create(file=("t.jsonl", chat_rows()), purpose="fine-tune").id
        job = client.fine_tuning.jobs.create(model=MODEL, training_file=file).id
        emulator.clock.advance(7200)
        before = client.fine_tuning.jobs.retrieve(job)
        assert before.status == "succeeded"
    emulator = Emulator(settings, scale=0)
    with emulator, openai.OpenAI(base_url=emulator.openai_url, api_key=emulator.settings.api_key) as client:
        assert client.fine_tuning.jobs.retrieve(job) == before


def test_a_store_serves_one_emulator_at_a_time(tmp_path: Path) -> None:
    from cloudtune.errors import ConfigError

    with Emulator(Settings(store=tmp_path / "kept")), pytest.raises(ConfigError, match="another emulator"):
        Emulator(Settings(store=tmp_path / "kept"))


def test_the_script_engine_loads_no_torch_and_no_sdk() -> None:
    heavy = {"torch", "transformers", "openai", "boto3"}
    look = f"import sys, cloudtune_emulator; print(*({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_the_environment_is_written_at_once(running: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that reads the file while it is written must not get a part: it would reach the vendor."""
    written: list[str] = []
    monkeypatch.setattr("cloudtune.cli.session.write", lambda text, **how: written.append(text))
    _tell(Session(quiet=1), running)
    (text,) = written
    assert text.count("export ") == len(running.environment())
