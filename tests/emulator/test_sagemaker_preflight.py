"""The command line before a job on SageMaker and JumpStart: documents for roles, and what is looked at first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.emulator.aws_desk import at_home
from tests.emulator.conftest import chat_rows
from tests.emulator.test_bedrock_commands import Desk

from cloudtune_emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LLAMA = "meta-textgeneration-llama-3-2-1b-instruct"
QUOTAS = {"ml.g5.2xlarge for training job usage": 1.0, "ml.p5.48xlarge for training job usage": 0.0}
_TINY = {"model": {"hidden_size": 32, "intermediate_size": 64}}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with Emulator(Settings(sagemaker_quotas=QUOTAS)) as emulator:
        at_home(emulator, tmp_path, monkeypatch)
        monkeypatch.chdir(tmp_path)
        desk = Desk(tmp_path, emulator)
        (tmp_path / "rows.jsonl").write_bytes(chat_rows())
        (tmp_path / "tiny.json").write_text(json.dumps(_TINY))
        models = f"model: {{sagemaker: tiny.json, jumpstart: {LLAMA}}}"
        (tmp_path / "job.yaml").write_text(
            f"name: mine\n{models}\ndata: {{train: rows.jsonl}}\noverrides: {{jumpstart: {{accept_eula: true}}}}\n"
        )
        yield desk


@pytest.mark.parametrize("name", ["sagemaker", "jumpstart"])
def test_what_a_job_needs_is_looked_at_first(desk: Desk, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {one["what"]: one for one in desk.json("doctor", name)["checks"]}
    needed = {"identity", "region", "bucket", "role", "role's policy", "quota"}
    assert {found[what]["verdict"] for what in needed} == {"good"}, found
    assert "ml.g5.2xlarge (1)" in found["quota"]["detail"]
    assert "ml.p5.48xlarge" not in found["quota"]["detail"]
    planned = desk.json("plan", "job.yaml", "--backend", name, "--check-remote")
    checks = {one["what"]: one for one in planned["checks"]}
    assert checks["quota"]["verdict"] == "good"
    assert checks["quota"]["detail"] == "ml.g5.2xlarge for training job usage: 1, for all concurrent jobs"
    assert checks["price"]["verdict"] == "good"
    assert planned["cost"]["at_most_usd"] == 36.36
    assert "1.515 USD per hour since 2026-08-20: at most 36.36 USD" in checks["price"]["detail"]
    big = ("--set", f"overrides.{name}.instance_type=ml.p5.48xlarge")
    wrong = desk.run("plan", "job.yaml", "--backend", name, "--check-remote", *big, code=2).stdout
    assert "ml.p5.48xlarge for training job usage: 0, but 1 are needed" in wrong
    monkeypatch.setenv(f"CLOUDTUNE_BACKENDS__{name.upper()}__BUCKET", "surely-not-there")
    assert "the bucket surely-not-there does not exist" in desk.run("doctor", name, code=2).stdout


def test_the_models_document_and_its_terms_are_looked_at(desk: Desk) -> None:
    planned = desk.json("plan", "job.yaml", "--backend", "jumpstart", "--check-remote")
    checks = {one["what"]: (one["verdict"], one["detail"]) for one in planned["checks"]}
    assert checks["model"] == ("good", f"{LLAMA} 1.3.0, read from SageMakerPublicHub")
    assert checks["terms"][0] == "good"
    assert "hub" in {one["what"] for one in desk.json("doctor", "jumpstart")["checks"]}


def test_a_rehearsal_here_asks_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__SAGEMAKER__COMPUTE", "local")
    (check,) = desk.json("doctor", "sagemaker")["checks"]
    assert check["verdict"] == "good"
    assert not desk.emulator.requests


def test_a_serverless_job_is_looked_at_by_its_model_and_group(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__SAGEMAKER__COMPUTE", "serverless")
    group = "arn:aws:sagemaker:us-east-1:123456789012:model-package-group/nobody-made"
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__SAGEMAKER__PACKAGE_GROUP", group)
    (desk.folder / "less.yaml").write_text(
        "name: less\nmodel: huggingface-reasoning-qwen3-8b\ndata: {train: rows.jsonl}\nadapter: {type: lora}\n"
    )
    problems = desk.json("plan", "less.yaml", "--backend", "sagemaker", "--check-remote", code=0)
    checks = {one["what"]: (one["verdict"], one["detail"]) for one in problems["checks"]}
    assert checks["model"][1].startswith("huggingface-reasoning-qwen3-8b 1.0.4, recipe ")
    assert checks["package group"][0] == "cannot_verify"
    assert "quota" not in checks


@pytest.mark.parametrize("name", ["sagemaker", "jumpstart"])
def test_the_roles_documents_are_written_and_not_applied(desk: Desk, name: str) -> None:
    before = len(desk.emulator.context.aws.backend("iam").roles)
    files = desk.json("init", name)["files"]
    names = [f"{name}-role-trust.json", f"{name}-role-policy.json", f"{name}-caller-policy.json"]
    assert [file.rpartition("/")[2] for file in files] == names
    role = (desk.folder / names[1]).read_text()
    assert desk.emulator.settings.aws_bucket in role
    assert ("jumpstart-cache-prod-us-east-1" in role) == (name == "jumpstart")
    assert len(desk.emulator.context.aws.backend("iam").roles) == before
    assert "exists" in desk.run("init", name, code=2).stderr
