"""Every command keeps what it writes for the user alone: the umask is 0, and no file is open to others."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloudtune_providers.sagemaker.local_jobs import LocalJobs
from cloudtune_trainer.tiny import write_tiny_model

if TYPE_CHECKING:
    from tests.cli.conftest import Desk

pytestmark = pytest.mark.timeout(300)
SPEC = """\
model: ./tiny
data: {train: rows.jsonl, validation: 0.2}
hyperparameters: {epochs: 1, batch_size: 4}
overrides: {local: {device: cpu, threads: 1}}
"""
COMMANDS = (
    ("plan", "job.yaml", "--backend", "local"),
    ("run", "job.yaml", "--backend", "local", "--yes"),
    ("submit", "job.yaml", "--backend", "local", "--again"),
    ("data", "check", "rows.jsonl"),
    ("data", "convert", "rows.jsonl", "--to", "openai", "--out", "out.jsonl"),
    ("jobs",),
    ("doctor", "--offline"),
)


def open_to_others(*folders: Path) -> dict[str, str]:
    """What group or others may do anything with, and its mode."""
    found = [path for folder in folders for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    modes = {str(path): stat.S_IMODE(path.stat().st_mode) for path in found}
    return {name: oct(mode) for name, mode in modes.items() if mode & 0o077}


def run(desk: Desk, *words: str, **environment: str) -> None:
    done = subprocess.run(
        desk.command(*words), cwd=desk.folder, env=desk.environment(**environment), umask=0, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def tiny(desk: Desk) -> Desk:
    (desk.folder / "cloudtune.toml").unlink()
    write_tiny_model(desk.folder / "tiny", vocab_texts=Path("rows.jsonl").read_text().splitlines())
    Path("job.yaml").write_text(SPEC)
    return desk


def test_commands_leave_nothing_open_to_others(tiny: Desk, tmp_path: Path) -> None:
    runs = tmp_path / "runs"  # on another disk: rows are copied there, and not linked
    for words in COMMANDS:
        run(tiny, *words, CLOUDTUNE_BACKENDS__LOCAL__ROOT=str(runs))
    kept = {path.name for path in (*tiny.home.rglob("*"), *runs.rglob("*"))}
    assert {"ledger.db", "spool", "verdicts", "log.txt", "train.jsonl", "tuned.json", "worker.json"} <= kept
    assert open_to_others(tiny.home, runs, tiny.folder / "out.jsonl") == {}


def test_the_emulator_leaves_nothing_open_to_others(desk: Desk) -> None:
    store = desk.folder / "store"
    words = desk.command("emulate", "--port", "0", "--store", str(store))
    with subprocess.Popen(
        words, cwd=desk.folder, env=desk.environment(), umask=0, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            _upload(_environment_of(server))
            found = open_to_others(store)
        finally:
            server.terminate()
            server.communicate(timeout=60)
    assert found == {}
    assert any((store / "contents").iterdir())


def _environment_of(server: subprocess.Popen[str]) -> dict[str, str]:
    assert server.stdout is not None
    reported: dict[str, str] = {}
    while not {"OPENAI_BASE_URL", "OPENAI_API_KEY"} <= reported.keys():
        line = server.stdout.readline()
        assert line, "the emulator ended early"
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").strip().partition("=")
            reported[name] = shlex.split(value)[0]
    return reported


def _upload(reported: dict[str, str]) -> None:
    body = b"\r\n".join([
        b"--b", b'Content-Disposition: form-data; name="purpose"', b"", b"fine-tune",
        b"--b", b'Content-Disposition: form-data; name="file"; filename="r.jsonl"', b"", b'{"a": 1}', b"--b--", b"",
    ])  # fmt: skip
    request = urllib.request.Request(
        f"{reported['OPENAI_BASE_URL']}/files", data=body,
        headers={"Content-Type": "multipart/form-data; boundary=b",
                 "Authorization": f"Bearer {reported['OPENAI_API_KEY']}"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def test_a_container_here_leaves_nothing_open_to_others(tmp_path: Path) -> None:
    root = tmp_path / "sagemaker"
    jobs, before = LocalJobs(root, "sagemaker", None), os.umask(0)
    try:
        jobs.create({
            "TrainingJobName": "one", "OutputDataConfig": {"S3OutputPath": (root / "out").as_uri()},
            "AlgorithmSpecification": {"ContainerEntrypoint": ["/bin/sh", "-c", "echo rows > /opt/ml/model/weights"]},
        })  # fmt: skip
    finally:
        os.umask(before)
    job = wait_for_end(jobs, "one")
    assert job["TrainingJobStatus"] == "Completed", job
    assert any(root.rglob("model.tar.gz"))
    assert {name: mode for name, mode in open_to_others(root).items() if not name.endswith(("python", "python3"))} == {}


def wait_for_end(jobs: LocalJobs, name: str) -> dict[str, object]:
    deadline = time.monotonic() + 120
    while (job := jobs.describe(name))["TrainingJobStatus"] not in ("Completed", "Failed", "Stopped"):
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return job
