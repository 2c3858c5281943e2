"""A marked key goes through a whole life on each service, and is found nowhere afterwards but where it was given.

The command line runs as its users run it, the key in the environment and the settings in a file. What is searched:
everything written below the folder (ledger, spool, plans, saved output), everything printed, the
command lines of the processes, everything that the emulator answered, and its store.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil
import pytest
from click.testing import CliRunner
from tests.contract.emulated import MODEL

from cloudtune.cli.main import cli
from cloudtune.config.trust import trust
from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.azure import storage
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "m4rk3d5ecret"
KEY = f"sk-{MARK}-0a1b2c3d4e5f"
TOKEN = f"ey{MARK}.6f7081a2b3c4d5e6.sig"
ROWS = "".join(
    f'{{"messages":[{{"role":"user","content":"question {n}"}},{{"role":"assistant","content":"answer {n}"}}]}}\n'
    for n in range(12)
)
OPENAI = """
backend = "openai"
[backends.openai]
api_key = "${{MARKED_KEY}}"
base_url = "{url}/v1"
list_lag = 0.1
timeout = 5
"""
AZURE = """
backend = "azure_openai"
[backends.azure_openai]
route = "{route}"
endpoint = "{url}"
management_url = "{url}"
storage_url = "{url}/blobs/emulated"
workspace = "lab"
subscription_id = "{settings.subscription}"
resource_group = "{settings.resource_group}"
account = "{settings.account}"
api_key = "${{MARKED_KEY}}"
management_token = "${{MARKED_TOKEN}}"
list_lag = 0.1
timeout = 5
"""
ROUTES = {"openai": OPENAI, "foundry": AZURE, "ml_workspace": AZURE}
CATALOGUE_MODEL = "azureml://registries/azureml-meta/models/Meta-Llama-3.1-8B-Instruct/versions/4"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """At a hundred times the speed, with the environment that its users have."""
    settings = Settings(api_key=KEY, azure_key=KEY, azure_token=TOKEN, deploying_s=1)
    with Emulator(settings, scale=100) as emulator:
        emulator.script = Script(running_s=50.0)
        for name in [name for name in os.environ if name.startswith(("AZURE", "OPENAI", "CLOUDTUNE"))]:
            monkeypatch.delenv(name)
        given = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "CLOUDTUNE_HOME": str(tmp_path / "home"),
                 "MARKED_KEY": KEY, "MARKED_TOKEN": TOKEN, "AZUREML_DEV_URL_MFE": emulator.url}  # fmt: skip
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        with warnings.catch_warnings(action="ignore"):  # the SDK's own, of its own ways
            import azure.ai.ml.operations  # noqa: F401
        yield emulator


class Shell:
    """A folder, the command in it, and all that it has told."""

    secrets: ClassVar[tuple[str, ...]] = (KEY, TOKEN, MARK)

    def __init__(self, folder: Path, emulator: Emulator, route: str) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.commands: list[str] = []
        settings = ROUTES[route].format(url=emulator.url, settings=emulator.settings, route=route)
        (folder / "cloudtune.toml").write_text(settings)
        trust(folder / "cloudtune.toml", settings.encode())
        (folder / "rows.jsonl").write_text(ROWS)
        (folder / "held-out.jsonl").write_text("".join(line + "\n" for line in ROWS.splitlines()[:2]))
        model = CATALOGUE_MODEL if route == "ml_workspace" else MODEL
        data = "{train: rows.jsonl, validation: held-out.jsonl}"
        (folder / "job.yaml").write_text(f"name: mine\nmodel: {model}\ndata: {data}\n")

    def run(self, *words: str, code: int | None = 0) -> str:
        """In this process, so that what its libraries log is caught too."""
        done = CliRunner().invoke(cli, words)
        self.told += [done.stdout, done.stderr]
        assert code is None or done.exit_code == code, done.stderr
        return done.stdout.strip()

    def spawn(self, *words: str) -> str:
        """In a process of its own, whose command line can be seen, and those of its children."""
        command = [str(Path(sys.executable).with_name("cloudtune")), *words]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while running.poll() is None:
            self.commands += _command_lines(running.pid)
            time.sleep(0.2)
        out, err = running.communicate()
        self.told += [out, err]
        assert running.returncode == 0, err
        return out.strip()


def _command_lines(pid: int) -> list[str]:
    try:
        process = psutil.Process(pid)
        return [" ".join(one.cmdline()) for one in (process, *process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def live(shell: Shell, emulator: Emulator, route: str) -> None:
    """Plan, train, ask, read, and refusals of every sort: services that repeat what they were given."""
    for words in (("plan", "job.yaml", "--json"), ("config", "show"), ("config", "show", "--json")):
        shell.run(*words)
    for call, secret in given(emulator, route, "files.create", "jobs.create", "blobs.put", "mljobs.create"):
        emulator.faults.add("forbidden", call, message=f"The key {secret} may not do this.")
        shell.run("run", "job.yaml", "--yes", "-v", code=2)
    ref = shell.spawn("run", "job.yaml", "--yes", "-v")
    for words in (("show", ref, "--json"), ("logs", ref), ("jobs", "--json"), ("jobs", "--remote", "--json")):
        shell.run(*words)
    for call, secret in given(emulator, route, "jobs.*", "mljobs.*", "mlruns.*"):
        emulator.faults.add("expired_credentials", call, times=9, message=f"{secret} has expired.")
        shell.run("show", ref, "-v", code=None)
        shell.run("jobs", "--remote", "-v", code=None)
        emulator.faults.clear()
    if route == "foundry":
        emulator.faults.add("forbidden", "deployments.create", message=f"Not for {TOKEN}.")
        shell.run("deploy", ref, "--yes", code=2)
        shell.run("deploy", ref, "--yes", "--json")
        shell.run("generate", ref, "question 3", "--stream")
        shell.run("undeploy", shell.run("deployments", "-q").splitlines()[0], "--yes")
    else:
        shell.run("generate", ref, "question 3", code=None)
    shell.run("cancel", ref)


def given(emulator: Emulator, route: str, *calls: str) -> list[tuple[str, str]]:
    """Those of the calls that the route makes, each with the secret that it carries."""
    by = {"blobs": storage.key_of(emulator.context), "mljobs": TOKEN, "mlruns": TOKEN, "files": KEY, "jobs": KEY}
    of_workspace = ("blobs", "mljobs", "mlruns")
    pairs = [(call, call.partition(".")[0]) for call in calls]
    return [(call, by[kind]) for call, kind in pairs if (kind in of_workspace) == (route == "ml_workspace")]


def places(shell: Shell, emulator: Emulator) -> dict[str, str]:
    """All that has to be searched, by where it is."""
    found = {"printed": "\n".join(shell.told), "command lines": "\n".join(shell.commands)}
    for root in (shell.folder, emulator.store.folder):
        for file in root.rglob("*"):
            if file.is_file():
                found[str(file)] = file.read_bytes().decode("latin-1")
    kinds = ("job", "mljob", "file", "upload", "deployment", "blob", "model")
    found["emulator"] = repr([emulator.store.all(kind) for kind in kinds]) + repr(emulator.census())
    found["requests"] = repr([{name: seen[name] for name in ("body", "query", "ids", "files")}
                              for seen in emulator.requests])  # fmt: skip
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("route", ROUTES)
def test_a_marked_key_is_found_nowhere(
    emulator: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture, route: str
) -> None:
    caplog.set_level(logging.DEBUG)  # the emulator runs in this process
    shell = Shell(tmp_path, emulator, route)
    live(shell, emulator, route)
    searched = places(shell, emulator) | {"log": caplog.text}
    assert any("ledger" in place for place in searched)
    assert any("spool" in place for place in searched)
    secrets = (*shell.secrets, storage.key_of(emulator.context))
    assert {place: secret for place, text in searched.items() for secret in secrets if secret in text} == {}
    assert "mine" in searched["printed"], "there was something to be searched"


def test_the_search_finds_a_secret(emulator: Emulator, tmp_path: Path) -> None:
    """The test above can fail."""
    shell: Any = Shell(tmp_path, emulator, "openai")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "ledger.db").write_bytes(b"\x00" + KEY.encode() + b"\x00")
    shell.told.append(f"failed: {TOKEN}")
    hits = {place for place, text in places(shell, emulator).items() if MARK in text}
    assert hits == {"printed", str(tmp_path / "home" / "ledger.db")}
