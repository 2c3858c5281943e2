"""The command line on Bedrock: from the role's documents to an answer and back to nothing, against the emulator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from tests.contract.test_bedrock_storms import model_folder
from tests.emulator.aws_desk import CITIES, at_home
from tests.emulator.conftest import chat_rows

from cloudtune.cli.main import cli
from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result


class Desk:
    """A folder, an emulator whose time runs a thousand times as fast, and the command."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        self.folder = folder
        self.emulator = emulator
        (folder / "rows.jsonl").write_bytes(chat_rows())
        (folder / "job.yaml").write_text("name: mine\nmodel: amazon.nova-micro-v1:0:128k\ndata:\n  train: rows.jsonl\n")

    def run(self, *words: str, code: int = 0) -> Result:
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == code, (done.exit_code, done.stdout, done.stderr, done.exception)
        return done

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).stdout)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with Emulator(Settings(deploying_s=30.0), scale=1000) as emulator:
        emulator.script = Script(running_s=100.0)
        at_home(emulator, tmp_path, monkeypatch)
        monkeypatch.chdir(tmp_path)
        yield Desk(tmp_path, emulator)


def test_from_rows_to_an_answer_and_back_to_nothing(desk: Desk) -> None:
    ran = desk.run("run", "job.yaml", "--backend", "bedrock", "--yes")
    ref = ran.stdout.split()[0]
    assert ref.startswith("bedrock:123456789012/us-east-1@")
    assert f"cloudtune deploy {ref}" in ran.stderr
    assert desk.json("metrics", ref)["metrics"]
    assert "0.035 and 0.14 USD per 1M tokens" in desk.run("deploy", ref, code=7).stderr
    assert "60.5 USD per hour" in desk.run("deploy", ref, "--option", "kind=provisioned", "--yes", code=7).stderr
    assert f"cloudtune deploy {ref}" in desk.run("deployments", "--undeployed").stderr
    name = desk.run("deploy", ref, "--yes").stdout.strip()
    assert desk.json("deployments", "--undeployed")["undeployed"] == []
    assert desk.emulator.leaks() == {"custom_deployments": 1}
    assert desk.run("generate", ref, "question 3").stdout.strip()
    (standing,) = desk.json("deployments", "--backend", "bedrock")["deployments"]
    assert (standing["id"], standing["hourly_cost_usd"], standing["state"]) == (name, 0.0, "ready")
    assert standing["created_at"]
    assert "cloudtune undeploy" in desk.run("delete", ref, "--contents", "--yes", code=1).stderr
    desk.run("undeploy", name, "--backend", "bedrock", "--yes")
    assert desk.emulator.leaks() == {}
    assert "--contents" in desk.run("delete", ref, "--yes", code=2).stderr
    desk.run("delete", ref, "--contents", "--yes")
    store = desk.emulator.store
    assert [store.all(kind, "bedrock") for kind in ("custom_model", "custom_deployment")] == [[], []]
    bucket = desk.emulator.context.aws.backend("s3").get_bucket(desk.emulator.settings.aws_bucket)
    assert list(bucket.keys) == []
    assert desk.json("show", ref)["state"] == "succeeded"


def test_an_import_is_checked_made_and_asked(desk: Desk) -> None:
    folder = model_folder(desk.folder, 1)
    text = desk.run("import", str(folder), "--to", "bedrock", "--name", "brought", code=7).stderr
    assert "upload model.safetensors" in text
    assert "method import" in text
    assert desk.emulator.store.all("import", "bedrock") == []
    brought = desk.run("import", str(folder), "--to", "bedrock", "--name", "brought", "--yes")
    ref = brought.stdout.split()[0]
    assert ":import/brought-" in ref
    assert desk.run("import", str(folder), "--to", "bedrock", "--name", "brought", "--yes").stdout.split()[0] == ref
    assert desk.run("generate", ref, "hello").stdout.strip()
    (folder / "tokenizer_config.json").unlink()
    assert "tokenizer" in desk.run("import", str(folder), "--to", "bedrock", "--yes", code=2).stderr
    assert "cannot import models" in desk.run("import", str(folder), "--to", "openai", code=2).stderr
    desk.run("delete", ref, "--contents", "--yes")
    assert desk.emulator.store.all("imported_model", "bedrock") == []


def test_what_a_job_needs_is_looked_at_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {one["what"]: one["verdict"] for one in desk.json("doctor", "bedrock")["checks"]}
    assert {found[what] for what in ("identity", "region", "bucket", "role")} == {"good"}
    assert "model" not in found
    planned = desk.json("plan", "job.yaml", "--backend", "bedrock", "--check-remote")
    assert {one["what"]: one["verdict"] for one in planned["checks"]}["model"] == "good"
    assert "checks" not in desk.json("plan", "job.yaml", "--backend", "bedrock")
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__BEDROCK__BUCKET", "surely-not-there")
    wrong = desk.run("plan", "job.yaml", "--backend", "bedrock", "--check-remote", code=2).stdout
    assert "the bucket surely-not-there does not exist" in wrong
    assert "FAILED" in desk.run("doctor", "bedrock", code=2).stdout
    assert desk.json("doctor", "local", code=2)["error"]


def test_the_roles_documents_are_written_and_not_applied(desk: Desk) -> None:
    before = len(desk.emulator.context.aws.backend("iam").roles)
    files = desk.json("init", "bedrock")["files"]
    names = [f"bedrock-{name}.json" for name in ("role-trust", "role-policy", "caller-policy", "open-weight-policy")]
    assert [file.rpartition("/")[2] for file in files] == names
    trust = json.loads((desk.folder / names[0]).read_text())
    assert trust["Statement"][0]["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}
    assert desk.emulator.settings.aws_bucket in (desk.folder / names[1]).read_text()
    assert len(desk.emulator.context.aws.backend("iam").roles) == before
    assert "exists" in desk.run("init", "bedrock", code=2).stderr
    desk.run("init", "bedrock", "--force")
    assert "cloudtune init openai.yaml" in desk.run("init", "openai", code=2).stderr


LEARNING = """
name: codes
model: tiny.json
data: {train: codes.jsonl}
adapter: {type: lora, rank: 8, targets: all-linear}
hyperparameters: {epochs: 4, batch_size: 8, learning_rate: 1.0e-2}
seed: 0
"""


@pytest.mark.timeout(400)
def test_what_a_local_job_has_learnt_answers_from_bedrock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained here, merged, checked, uploaded, imported: the same words come back from Bedrock's runtime."""
    with Emulator(Settings(engine="train", deploying_s=0.0)) as emulator:
        for name, value in emulator.environment().items():
            monkeypatch.setenv(name, value)
        for name in ("XDG_CONFIG_HOME", "CLOUDTUNE_HOME"):
            monkeypatch.setenv(name, str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path)
        desk = Desk(tmp_path, emulator)
        (tmp_path / "tiny.json").write_text(json.dumps({"model": {"hidden_size": 64, "intermediate_size": 128}}))
        rows = [{"prompt": f"Code of {city}?", "completion": f"Code {city[:2].upper()}."} for city in CITIES]
        (tmp_path / "codes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 10))
        (tmp_path / "local.yaml").write_text(LEARNING)
        local = desk.run("run", "local.yaml", "--backend", "local", "--yes").stdout.split()[0]
        brought = desk.run("import", local, "--to", "bedrock", "--yes")
        assert "torch_dtype" in brought.stderr
        ref = brought.stdout.split()[0]
        requested = [f"Code of {city}?" for city in CITIES[:3]]
        said = [[desk.run("generate", job, prompt).stdout.strip() for prompt in requested] for job in (local, ref)]
        assert said[0] == said[1]
        assert all(text.startswith("Code ") for text in said[0]), "it has learnt nothing that could be compared"
        assert not list((tmp_path / "home").rglob("exports/*"))
