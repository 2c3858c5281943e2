"""The command line by the route through a workspace, with the printed environment and one setting more."""

from __future__ import annotations

import json
import os
import warnings
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from tests.emulator.conftest import chat_rows

from cloudtune.cli.main import cli
from cloudtune_emulator import Emulator
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "azureml://registries/azureml-meta/models/Meta-Llama-3.1-8B-Instruct/versions/4"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with warnings.catch_warnings(action="ignore"):  # the SDK's own, of its own ways
        import azure.ai.ml.operations  # noqa: F401
    with Emulator(scale=100) as emulator:
        emulator.script = Script(running_s=50.0)
        for name in [name for name in os.environ if name.startswith(("AZURE", "OPENAI", "CLOUDTUNE"))]:
            monkeypatch.delenv(name)
        own = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "CLOUDTUNE_HOME": str(tmp_path / "home"),
                "CLOUDTUNE_BACKENDS__AZURE_OPENAI__ROUTE": "ml_workspace"}  # fmt: skip
        for name, value in (emulator.environment() | own).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        yield emulator


def run(*words: str, code: int = 0) -> tuple[str, str]:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == code, done.stderr
    return done.stdout.strip(), done.stderr


def test_from_rows_to_a_registered_model(emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(chat_rows())
    (tmp_path / "held-out.jsonl").write_text('{"prompt": "question 99", "completion": "answer 99"}\n')
    data = "{train: rows.jsonl, validation: held-out.jsonl}"
    (tmp_path / "job.yaml").write_text(f"name: mine\nmodel: {MODEL}\ndata: {data}\nbackend: azure_openai\n")
    ref, reported = run("run", "job.yaml", "--yes")
    assert "tuned model: azureml://jobs/mine-" in reported
    assert "cloudtune deploy" not in reported
    assert run("run", "job.yaml", "--yes")[0] == ref
    assert (emulator.census()["workspace_jobs"], emulator.census()["blobs"]) == (1, 2)
    shown = json.loads(run("show", ref, "--json")[0])
    assert (shown["state"], shown["native_state"]) == ("succeeded", "Completed")
    assert shown["finished_at"] > shown["started_at"] > shown["created_at"]
    assert "require an endpoint" in run("generate", ref, "hello", code=2)[1]
    run("delete", ref, "--yes")
    assert (emulator.census()["workspace_jobs"], emulator.census()["blobs"]) == (0, 0)
