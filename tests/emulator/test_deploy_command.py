"""The command line from rows to an answer and back to nothing: both SDKs of Azure's, over HTTP, by the emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.emulator.conftest import MODEL, chat_rows

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = """
backend = "azure_openai"
[backends.azure_openai]
endpoint = "{url}"
management_url = "{url}"
subscription_id = "{settings.subscription}"
resource_group = "{settings.resource_group}"
account = "{settings.account}"
api_key = "${{EMULATED_KEY}}"
management_token = "${{EMULATED_TOKEN}}"
list_lag = 0.1
timeout = 5
"""


@pytest.fixture
def quick() -> Iterator[Emulator]:
    """Real time, a hundred times as fast: the commands are processes of their own and really wait."""
    with Emulator(Settings(deploying_s=60), scale=100) as emulator:
        emulator.script = Script(running_s=50.0)
        yield emulator


class Shell:
    """A folder, and the installed command in it."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        self._folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE", "CLOUDTUNE"))}
        self._environment = kept | {
            "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "CLOUDTUNE_HOME": str(folder / "home"),
            "EMULATED_KEY": emulator.settings.azure_key, "EMULATED_TOKEN": emulator.settings.azure_token,
            "PYTHON_WARM_ALL": "1",
        }  # fmt: skip
        (folder / "cloudtune.toml").write_text(CONFIG.format(url=emulator.url, settings=emulator.settings))
        (folder / "rows.jsonl").write_bytes(chat_rows())
        (folder / "job.yaml").write_text(f"name: mine\nmodel: {MODEL}\ndata:\n  train: rows.jsonl\n")
        self.run("config", "trust")

    def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        command = [str(Path(sys.executable).with_name("cloudtune")), *words]
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == code, done.stderr
        return done.stdout.strip(), done.stderr


@pytest.mark.timeout(900)  # many processes, each of which loads an SDK: minutes on a busy machine
def test_from_rows_to_an_answer_and_back_to_nothing(quick: Emulator, tmp_path: Path) -> None:
    shell = Shell(tmp_path, quick)
    ref, reported = shell.run("run", "job.yaml", "--yes")
    assert f"cloudtune deploy {ref}" in reported
    assert "cloudtune export" not in reported
    assert "--base" not in reported
    _, reported = shell.run("generate", ref, "question 3", code=2)
    assert "cloudtune deploy JOB" in reported
    shell.run("deploy", ref, code=7)
    assert quick.store.all("deployment", "azure") == []

    name, reported = shell.run("deploy", ref, "--option", "sku=Standard", "--option", "capacity=2", "--yes")
    for words in (
        f"Plan to deploy {name} on azure_openai",
        "15 days",
        "Cost: 1.7 USD per hour, even when idle",
        "ready",
    ):
        assert words in reported
    (kept,) = quick.store.all("deployment", "azure")
    assert (kept["id"], kept["sku"]) == (name, {"name": "Standard", "capacity": 2})
    same, reported = shell.run("deploy", ref, "--option", "sku=Standard", "--option", "capacity=2", "--yes")
    assert same == name
    assert [seen["call"] for seen in quick.requests].count("deployments.create") == 1
    listed = json.loads(shell.run("deployments", "--json")[0])
    (one,) = listed["deployments"]
    assert (one["id"], one["state"], one["hourly_cost_usd"]) == (name, "ready", 1.7)
    table, reported = shell.run("deployments")
    assert " ago " in table
    assert f"{name}: deleted by the service after 15 days without a call" in reported
    answer, _ = shell.run("generate", ref, "question 3", "--stream")
    assert answer == "answer 3"
    quick.faults.add("cut_answer", "chat.create", requests=2)
    begun, reported = shell.run("generate", ref, "question 3", "--stream", code=6)
    assert begun, "what had come was printed when it came"
    assert "answer 3".startswith(begun)
    assert "Connection error" in reported

    shell.run("undeploy", name, code=7)
    assert shell.run("undeploy", name, "--yes")[0] == name
    assert shell.run("deployments")[0] == ""
    shell.run("generate", ref, "question 3", code=2)
    for _ in range(100):
        if quick.census()["deployments"] == 0:
            break
        time.sleep(0.1)
    assert quick.leaks() == {}
    assert "no longer exists" in shell.run("undeploy", name, "--yes")[1]
    assert [seen["call"] for seen in quick.requests].count("deployments.delete") == 1
    assert shell.run("jobs", "-q")[0] == ref
    secrets = (quick.settings.azure_key.encode(), quick.settings.azure_token.encode())
    written = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written for secret in secrets if secret in path.read_bytes()]
