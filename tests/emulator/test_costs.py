"""Estimate and cost of a job on each back end: planned, run by the emulator, recorded from what the vendor reports."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest
from tests.emulator.aws_desk import at_home
from tests.emulator.conftest import chat_rows
from tests.emulator.test_bedrock_commands import Desk

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PER_MILLION = {"openai": 5, "azure_openai": 2}
"""The price of a million tokens in USD, in the catalog."""
LLAMA = "meta-textgeneration-llama-3-2-1b-instruct"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with Emulator(Settings(), scale=0) as emulator:
        emulator.script = Script(running_s=1800.0)
        at_home(emulator, tmp_path, monkeypatch)
        monkeypatch.setenv("CLOUDTUNE_BACKENDS__AZURE_OPENAI__ENDPOINT", emulator.url)
        monkeypatch.setenv("CLOUDTUNE_BACKENDS__AZURE_OPENAI__API_KEY", emulator.settings.azure_key)
        monkeypatch.chdir(tmp_path)
        desk = Desk(tmp_path, emulator)
        (tmp_path / "rows.jsonl").write_bytes(chat_rows(200))
        (tmp_path / "tiny.json").write_text(json.dumps({"model": {"hidden_size": 32, "intermediate_size": 64}}))
        (tmp_path / "job.yaml").write_text(
            "name: mine\n"
            "unsupported: drop\n"  # Azure has no tags
            "model: {azure_openai: gpt-4.1-2025-04-14, openai: gpt-4.1-mini-2025-04-14, sagemaker: tiny.json,"
            " bedrock: 'amazon.nova-2-lite-v1:0:256k',"
            f" jumpstart: {LLAMA}}}\n"
            "data: {train: rows.jsonl}\ntags: {team: search}\nhyperparameters: {epochs: 2}\n"
            "overrides: {jumpstart: {accept_eula: true}, sagemaker: {instance_type: ml.g5.2xlarge}}\n"
        )
        yield desk


@pytest.mark.parametrize("name", ["openai", "azure_openai", "bedrock", "sagemaker", "jumpstart"])
def test_a_job_is_estimated_and_its_cost_recorded(desk: Desk, name: str) -> None:
    cost = desk.json("plan", "job.yaml", "--backend", name)["cost"]
    ref = desk.run("submit", "job.yaml", "--backend", name).stdout.split()[-1]
    desk.emulator.clock.advance(100_000)
    assert desk.json("show", ref)["state"] == "succeeded"
    (row,) = desk.json("cost")["costs"]
    assert (row["job"], row["state"], row["estimate_usd"]) == (ref, "succeeded", cost["usd"])
    if name in PER_MILLION:
        assert cost["usd"] == cost["at_least_usd"] == cost["at_most_usd"] > 0
        assert row["actual_usd"] == round(row["tokens"] * PER_MILLION[name] / 1e6, 4) == cost["usd"]
    elif name == "bedrock":
        assert cost["at_least_usd"] < cost["usd"] < cost["at_most_usd"]
        assert row["actual_usd"] is None
        assert "does not report what a job is billed for" in row["basis"]
    else:  # 1.515 USD for an hour
        assert (cost["usd"], cost["at_most_usd"]) == (None, 36.36)
        assert row["actual_usd"] == round(row["seconds"] / 3600 * 1.515, 4) > 0
    (group,) = desk.json("cost", "--by", "backend")["costs"]
    assert (group["backend"], group["jobs"], group["unknown"]) == (name, 1, int(name == "bedrock"))
    (line,) = csv.DictReader(io.StringIO(desk.run("cost", "--csv").stdout))
    assert line["actual_usd"] == ("" if row["actual_usd"] is None else str(row["actual_usd"]))


def test_a_limit_of_cost_limits_the_run_time(desk: Desk) -> None:
    plan = desk.json("plan", "job.yaml", "--backend", "sagemaker", "--set", "limits.max_cost_usd=3.03")
    assert plan["cost"]["at_most_usd"] == 3.03
    body = next(step["request"]["body"] for step in plan["steps"] if step["makes_job"])
    assert body["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200}
    assert "with the best checkpoint" in next(one["message"] for one in plan["warnings"] if one["code"] == "cost_limit")
    plan = desk.json("plan", "job.yaml", "--backend", "jumpstart", "--set", "limits.max_cost_usd=3.03")
    assert "keeps no usable model" in next(one["message"] for one in plan["warnings"] if one["code"] == "cost_limit")


def test_a_job_that_cannot_be_stopped_is_refused(desk: Desk) -> None:
    refused = desk.run("plan", "job.yaml", "--backend", "openai", "--set", "limits.max_cost_usd=0.001", code=7)
    assert "more than limits.max_cost_usd of 0.001 USD" in refused.stderr
    auto = ("--set", "hyperparameters.epochs=null", "--set", "limits.max_cost_usd=5")
    refused = desk.run("plan", "job.yaml", "--backend", "openai", *auto, code=7)
    assert "part of the cost is unknown: the number of epochs" in refused.stderr
    desk.run("plan", "job.yaml", "--backend", "openai", *auto, "--accept-unknown-cost")
    # the most that Bedrock's tokens can be, each byte one
    refused = desk.run("plan", "job.yaml", "--backend", "bedrock", "--set", "limits.max_cost_usd=0.05", code=7)
    assert "cannot stop a job there with a usable model" in refused.stderr
