"""The command line in a cloned repository whose configuration is hostile: nothing is run, nothing is sent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloudtune.registry import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "AKIAHUNTER2HUNTER2X"
HOSTILE = """
[backends.local]
python = "./evil.sh"
[backends.openai]
base_url = "{url}/v1"
[backends.azure_openai]
endpoint = "{url}"
management_url = "{url}"
storage_url = "{url}"
subscription_id = "s"
resource_group = "g"
workspace = "w"
route = "{route}"
[backends.bedrock]
endpoint_url = "{url}"
open_weight_url = "{url}/v1"
bucket = "rows-of-others"
[backends.sagemaker]
endpoint_url = "{url}"
python = "./evil.sh"
[backends.jumpstart]
endpoint_url = "{url}"
[backends.ray]
address = "{url}"
shared_folder = "/shared/of-others"
[backends.slurm]
host = "machine-of-others"
folder = "/shared/of-others"
[backends.ssh]
host = "machine-of-others"
folder = "/home/of-others"
"""
CHILD = """
import json, sys
events = []
watched = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork", "os.forkpty",
           "socket.connect", "socket.getaddrinfo", "socket.sendto")
sys.addaudithook(lambda name, arguments: events.append([name, repr(arguments)]) if name in watched else None)
from click.testing import CliRunner
from cloudtune.cli.main import cli
for words in json.loads(sys.argv[1]):
    del events[:]
    done = CliRunner().invoke(cli, words)
    print(json.dumps({"words": words, "code": done.exit_code, "text": done.output, "events": events,
                      "error": repr(done.exception)}))
"""


class Recorder:
    """A server that remembers what it is sent, and answers nothing."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def close(self) -> None:
        """Accept nothing more."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def evil() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A cloned repository with a job and a program."""
    folder = tmp_path / "clone"
    (folder / ".git").mkdir(parents=True)
    program = folder / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'executed'}\n")
    program.chmod(0o755)
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    models = {"openai": "gpt-4.1-mini-2025-04-14", "azure_openai": "gpt-4.1-mini-2025-04-14",
              "bedrock": "amazon.nova-lite-v1:0:300k", "jumpstart": "meta-textgeneration-llama-3-2-1b"}  # fmt: skip
    spec = {"model": {name: models.get(name, "./model.json") for name in BUILT_IN}, "data": {"train": "rows.jsonl"}}
    (folder / "job.yaml").write_text(json.dumps(spec))
    (folder / "model.json").write_text('{"model": {"hidden_size": 64}, "tokenizer": {"vocab_size": 512}}')
    return folder


def run_in(folder: Path, commands: list[list[str]]) -> list[dict[str, Any]]:
    """What each command did, in a process whose every start of a program and every connection is recorded."""
    kept = ("PATH", "PYTHONPATH", "LANG", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(folder.parent / "home"), "OPENAI_API_KEY": f"sk-{SECRET}", "AZURE_OPENAI_API_KEY": SECRET,
        "AWS_ACCESS_KEY_ID": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_BEARER_TOKEN_BEDROCK": SECRET,
        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", CHILD, json.dumps(commands)], cwd=folder, env=environment,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.timeout(300)  # it loads every vendor's SDK: a minute on a busy machine
@pytest.mark.parametrize("route", ["foundry", "ml_workspace"])
def test_nothing_is_run_or_sent_before_trust(clone: Path, evil: Recorder, tmp_path: Path, route: str) -> None:
    (clone / "cloudtune.toml").write_text(HOSTILE.format(url=evil.url, route=route))
    commands = [["doctor"], ["config", "show"], ["jobs", "--remote"]]
    for name in BUILT_IN:
        commands += [
            ["plan", "job.yaml", "--backend", name], ["plan", "job.yaml", "--backend", name, "--check-remote"],
            ["doctor", name], ["jobs", "--remote", "--backend", name], ["submit", "job.yaml", "--backend", name],
        ]  # fmt: skip
    results = run_in(clone, commands)
    assert len(results) == len(commands)
    assert {" ".join(one["words"]): one["events"] for one in results if one["events"]} == {}
    assert evil.requests == []
    assert not (tmp_path / "executed").exists()
    for one in results[3:]:
        if one["words"][:1] in (["plan"], ["doctor"], ["submit"]):
            assert one["code"] == 2, one
            assert f"cloudtune config trust {clone / 'cloudtune.toml'}" in one["text"]
    assert "backends.local.python" in results[0]["text"]
    assert "backends.openai.base_url" in results[1]["text"]
    assert SECRET not in json.dumps(results)


@pytest.mark.timeout(300)
def test_a_trusted_program_is_not_run_while_planning(clone: Path, evil: Recorder, tmp_path: Path) -> None:
    (clone / "cloudtune.toml").write_text(HOSTILE.format(url=evil.url, route="foundry"))
    trusted, planned, doctor, untrusted, refused = run_in(
        clone,
        [["config", "trust"], ["plan", "job.yaml", "--backend", "local"], ["doctor", "--offline"],
         ["config", "untrust"], ["plan", "job.yaml", "--backend", "local"]],
    )  # fmt: skip
    assert trusted["code"] == untrusted["code"] == 0
    assert "backends.local.python" in trusted["text"]
    assert planned["code"] == 0, planned["text"]
    assert planned["events"] == doctor["events"] == []
    assert not (tmp_path / "executed").exists()
    assert refused["code"] == 2


@pytest.mark.timeout(300)
def test_the_recorder_sees_what_a_trusted_endpoint_is_sent(clone: Path, evil: Recorder) -> None:
    """The first test can fail: with trust, the same settings do send the key there."""
    (clone / "cloudtune.toml").write_text(f'[backends.openai]\nbase_url = "{evil.url}/v1"\n')
    trusted, listed = run_in(clone, [["config", "trust"], ["jobs", "--remote", "--backend", "openai"]])
    assert trusted["code"] == 0
    assert any(name == "socket.connect" for name, _ in listed["events"])
    assert any(SECRET.encode() in request for request in evil.requests)


@pytest.mark.timeout(300)
def test_a_secret_in_a_url_is_refused_even_with_trust(clone: Path, evil: Recorder) -> None:
    text = f'[backends.openai]\nbase_url = "{evil.url}/${{AWS_SECRET_ACCESS_KEY}}/v1"\n'
    (clone / "cloudtune.toml").write_text(text)
    trusted, doctor, listed = run_in(clone, [["config", "trust"], ["doctor"], ["jobs", "--remote"]])
    assert (trusted["code"], listed["code"]) == (2, 2)
    assert "cloudtune.toml:2: backends.openai.base_url: an address cannot contain ${NAME}" in trusted["text"]
    assert evil.requests == []
    assert SECRET not in doctor["text"] + listed["text"]
