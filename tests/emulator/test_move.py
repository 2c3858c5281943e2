"""``cloudtune move`` from OpenAI to every other back end: the target's plan accepts the written spec."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from tests.emulator.aws_desk import CITIES, at_home
from tests.emulator.conftest import MODEL, chat_rows

from cloudtune.cli.main import cli
from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPEC = f"""
name: support
backend: openai
model: {MODEL}
data: {{train: rows.jsonl}}
hyperparameters: {{batch_size: 4}}
overrides: {{openai: {{n_epochs: 3, learning_rate_multiplier: 1.8, suffix: v2}}}}
tags: {{team: search}}
seed: 7
"""
TINY = {"model": {"hidden_size": 64}, "tokenizer": {"vocab_size": 300}}
PAIR = {
    "input": {"messages": [{"role": "user", "content": "question"}]},
    "preferred_output": [{"role": "assistant", "content": "yes"}],
    "non_preferred_output": [{"role": "assistant", "content": "no"}],
}
TARGETS = {
    "azure_openai": None, "bedrock": None, "local": "tiny.json", "sagemaker": "tiny.json",
    "jumpstart": "meta-textgeneration-llama-3-2-1b-instruct",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with Emulator(Settings(deploying_s=1.0), scale=1000) as emulator:
        emulator.script = Script(running_s=10.0)
        at_home(emulator, tmp_path, monkeypatch)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "job.yaml").write_text(SPEC)
        (tmp_path / "rows.jsonl").write_bytes(chat_rows(20))
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(PAIR) + "\n" for _ in range(20)))
        (tmp_path / "tiny.json").write_text(json.dumps(TINY))
        yield tmp_path


def run(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(cli, [*words, "--json"])
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    return json.loads(done.stdout)


def test_the_moved_spec_passes_the_plan_of_every_back_end(folder: Path) -> None:
    ref = run("submit", "job.yaml")["ref"]
    for target, model in TARGETS.items():
        named = ("--model", model) if model else ()
        moved = run("move", ref, "--to", target, "-o", f"{target}.yaml", *named)
        terms = ("--set", "overrides.jumpstart.accept_eula=true") if target == "jumpstart" else ()
        plan = run("plan", f"{target}.yaml", *terms)
        assert (plan["backend"], plan["dropped"]) == (target, [])
        assert run("move", "job.yaml", "--to", target, *named)["changes"] == moved["changes"]
        pairs = ("--set", "method=dpo", "--set", "data.train=pairs.jsonl")
        can_prefer = target in ("azure_openai", "local", "sagemaker")
        found = run("move", "job.yaml", "--to", target, *named, *pairs, code=0 if can_prefer else 2)
        if can_prefer:
            assert found["spec"]["method"]["name"] == "dpo"
        else:
            assert f"{target} supports" in found["error"]["message"]


def test_a_moved_job_is_submitted(folder: Path) -> None:
    found = run("move", "job.yaml", "--to", "bedrock", "--submit", "--yes")
    assert found["ref"].startswith("bedrock:")
    assert found["plan"]["backend"] == "bedrock"
    assert run("submit", "job.yaml", "--backend", "openai")["ref"].startswith("openai:")
    refused = CliRunner().invoke(cli, ["move", "job.yaml", "--to", "azure_openai", "--submit"])
    assert refused.exit_code == 7


def test_a_file_is_not_overwritten(folder: Path) -> None:
    words = ("move", "job.yaml", "--to", "bedrock", "-o")
    assert "already exists" in run(*words, "job.yaml", code=2)["error"]["message"]
    assert "YAML" in run(*words, "job.json", code=2)["error"]["message"]
    assert "mkdir" in run(*words, "no/job.yaml", code=2)["error"]["message"]
    assert (folder / "job.yaml").read_text() == SPEC
    run(*words, "job.yaml", "--force")
    assert "Moved from openai to bedrock" in (folder / "job.yaml").read_text()


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.starts_trainer
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_rehearsal_compares_the_old_and_the_new_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, method: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOUDTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user-0123456789")
    if method == "dpo" and target in ("bedrock", "jumpstart"):
        pytest.skip(f"{target} does not support dpo")
    answers = [{"prompt": f"Code of {city}?", "completion": f"Code {city[:2].upper()}."} for city in CITIES]
    pairs = [{"prompt": one["prompt"], "chosen": one["completion"], "rejected": "No."} for one in answers]
    rows = answers if method == "sft" else pairs
    for name, written in (("rows", rows * 10), ("ask", answers)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    (tmp_path / "job.yaml").write_text(
        f"{{backend: openai, model: {MODEL}, data: {{train: rows.jsonl}}, method: {method}, hyperparameters: "
        "{epochs: 4}, evaluation: {data: ask.jsonl, max_tokens: 24, baselines: false}}"
    )
    named = ("--model", str(TARGETS[target])) if TARGETS[target] else ()
    terms = ("--set", "overrides.jumpstart.accept_eula=true") if target == "jumpstart" else ()
    found = run("move", "job.yaml", "--to", target, *named, *terms, "--rehearse")["rehearsal"]
    assert found["rows"] == len(CITIES)
    names = [one["name"] for one in found["models"]]
    assert names == [target.replace("_", "-"), "openai"]
    assert [one["against"] for one in found["comparisons"]] == ["openai"]
    assert os.environ["OPENAI_API_KEY"] == "sk-of-the-user-0123456789"
