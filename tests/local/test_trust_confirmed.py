"""A spec that asks to run a model's own code is refused until a person confirms it; the ledger keeps that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtune import Client, Job, JobSpec, PolicyRefused
from cloudtune.document.specfile import parse_spec
from cloudtune.registry import open_backend

pytestmark = pytest.mark.starts_trainer
TINY = {"model": {"hidden_size": 64, "intermediate_size": 128}, "tokenizer": {"vocab_size": 300}}


@pytest.fixture
def document(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1?", "completion": "2"}\n' * 4, encoding="utf-8")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY), encoding="utf-8")
    return {
        "model": str(tmp_path / "tiny.json"), "data": {"train": str(tmp_path / "rows.jsonl")},
        "hyperparameters": {"max_steps": 1}, "overrides": {"local": {"trust_remote_code": True}},
    }  # fmt: skip


def client(tmp_path: Path, ledger: str = "ledger") -> Client:
    return Client(open_backend("local", {"root": str(tmp_path / "runs")}), ledger=f"sqlite:///{tmp_path}/{ledger}.db")


def test_submit_needs_confirmation_and_the_ledger_keeps_it(tmp_path: Path, document: dict[str, object]) -> None:
    here, spec = client(tmp_path), JobSpec.model_validate(document)
    plan = here.plan(spec)
    (problem,) = [problem for problem in plan.warnings if problem.code == "trust_remote_code"]
    assert problem.field == "overrides.local.trust_remote_code"
    for requested in (spec, plan):
        with pytest.raises(PolicyRefused, match="trust_remote_code") as refused:
            here.submit(requested)
        assert refused.value.exit_code == 7
    assert here.ledger.attempts() == []
    assert not list((tmp_path / "runs").glob("*"))

    job = here.submit(spec, trust_remote_code=True)
    job.wait(timeout=100)
    assert job.model().trust_remote_code
    elsewhere = Job(client(tmp_path, "another"), job.ref)
    assert not elsewhere.model().trust_remote_code
    assert elsewhere.model(trust_remote_code=True).trust_remote_code


def test_the_command_needs_its_own_flag(tmp_path: Path, document: dict[str, object]) -> None:
    (tmp_path / "job.json").write_text(json.dumps(document), encoding="utf-8")
    environment = {**os.environ, "CLOUDTUNE_HOME": str(tmp_path / "home"), "PYTHON_WARM_ALL": "1"}

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cloudtune", *words, str(tmp_path / "job.json"), "--backend", "local"]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    for words in (("submit",), ("run", "--yes")):
        done = said(*words)
        assert done.returncode == 7, done.stderr
        assert "--trust-remote-code" in done.stderr
    assert said("plan").returncode == 0
    done = said("run", "--yes", "--trust-remote-code")
    assert done.returncode == 0, done.stderr


def test_a_reward_function_needs_confirmation(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('it-ran').touch()\n"
        "def score(prompts, completions, answer):\n    return [float(len(one[0]['content'])) for one in completions]\n"
    )
    item = {"messages": [{"role": "user", "content": "1+1?"}], "answer": "2"}
    (tmp_path / "rows.jsonl").write_text((json.dumps(item) + "\n") * 4, encoding="utf-8")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY), encoding="utf-8")
    values = {
        "model": "tiny.json", "data": {"train": "rows.jsonl"}, "hyperparameters": {"max_steps": 1},
        "method": {"name": "grpo", "reward": "rewards.py:score", "num_generations": 2, "max_new_tokens": 4},
    }  # fmt: skip
    here, spec = client(tmp_path), parse_spec(values, folder=tmp_path)
    plan = here.plan(spec)
    assert "trust_reward" in [problem.code for problem in plan.warnings]
    for confirmed in ({}, {"trust_remote_code": True}):
        with pytest.raises(PolicyRefused, match=r"method\.reward\.function runs a Python function") as refused:
            here.submit(plan, **confirmed)
        assert "--trust-reward" in str(refused.value.hint)
    assert here.ledger.attempts() == []
    assert not (tmp_path / "it-ran").exists()

    job = here.submit(plan, trust_reward=True)
    job.wait(timeout=100)
    assert (tmp_path / "it-ran").exists()
    assert [metric.values["reward"] > 0 for metric in job.metrics()] == [True]
    assert len(list(job.generate(["1+1?"]))) == 1
    (tmp_path / "rewards.py").write_text("def score(): ...\n")
    assert here.plan(spec).key != plan.key, "another function is another job"
