"""The command line on SageMaker: an endpoint that sleeps, answers in pieces, and one that breaks off."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from tests.emulator.aws_desk import at_home
from tests.emulator.conftest import chat_rows

from cloudtune.cli.main import cli
from cloudtune.config.trust import trust
from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.job_timeline import Script
from cloudtune_emulator.sagemaker import capacity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

CONFIG = """
backend = "sagemaker"
[backends.sagemaker]
compute = "serverless"
bucket = "{settings.aws_bucket}"
role_arn = "arn:aws:iam::{settings.aws_account}:role/{settings.aws_role}"
"""
SPEC = "name: mine\nmodel: huggingface-reasoning-qwen3-8b\nadapter: lora\ndata:\n  train: rows.jsonl\n"


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator(Settings(deploying_s=0.0), scale=1000) as emulator:
        emulator.script = Script(running_s=100.0)
        at_home(emulator, tmp_path, monkeypatch)
        (tmp_path / "cloudtune.toml").write_text(CONFIG.format(settings=emulator.settings))
        trust(tmp_path / "cloudtune.toml", (tmp_path / "cloudtune.toml").read_bytes())
        (tmp_path / "rows.jsonl").write_bytes(chat_rows())
        (tmp_path / "job.yaml").write_text(SPEC)
        monkeypatch.chdir(tmp_path)
        yield emulator


def run(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == code, (done.exit_code, done.stdout, done.stderr, done.exception)
    return done


def standing() -> dict[str, Any]:
    (one,) = json.loads(run("deployments", "--json").stdout)["deployments"]
    return dict(one)


def test_an_endpoint_that_sleeps(emulator: Emulator) -> None:
    ref = run("run", "job.yaml", "--yes").stdout.split()[0]
    emulator.clock.scale = 0
    deployed = run("deploy", ref, "--option", "min_copies=0", "--yes")
    name = deployed.stdout.strip()
    for words in ("to scale up from zero", "while in use", "ready"):
        assert words in deployed.stderr
    requested = ("generate", ref, "question 3", "--stream")
    assert run(*requested).stdout.strip() == "answer 3"
    emulator.faults.add("cut_answer", "sagemaker.InvokeEndpointWithResponseStream", requests=1)
    broken = run(*requested, code=6)
    assert broken.stdout.strip() == "answer", "what had come was printed when it came"
    assert "interrupted" in broken.stderr

    emulator.clock.advance(capacity.IDLE_S + capacity.RELEASE_S + 1)
    reported = run("deployments")
    assert "$0" in reported.stdout
    assert f"{name}: no instances and no cost while idle" in reported.stdout + reported.stderr
    assert (standing()["state"], standing()["hourly_cost_usd"]) == ("asleep", 0.0)
    assert "try again in about ten minutes" in run(*requested, code=6).stderr
    emulator.clock.advance(61)
    assert run(*requested).stdout.strip() == "answer 3"
    assert standing()["state"] == "ready"
    run("undeploy", name, "--yes")
    assert emulator.leaks() == {}
    assert run("deployments").stdout == ""
