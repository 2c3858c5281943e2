"""End dates of the catalogs: listed with their sources, warned of before, refused after."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from cloudtune.catalog import load, vendors
from cloudtune.cli.main import cli
from cloudtune.cost import ActualCost, Usage
from cloudtune.ledger.costs import JobCost
from cloudtune.ledger.rows import Attempt
from cloudtune.plan import DataReport, Plan, Resolved
from cloudtune.retirements import of_catalogs, of_jobs, of_spec
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef, JobState
from cloudtune.testing import FakeClock
from cloudtune_providers.azure_openai.backend import AzureOpenAIBackend
from cloudtune_providers.azure_openai.options import AzureOpenAIOptions
from cloudtune_providers.bedrock.backend import BedrockBackend
from cloudtune_providers.bedrock.options import BedrockOptions
from cloudtune_providers.bedrock.rules import TYPES as BEDROCK_METHODS
from cloudtune_providers.bedrock.rules import Rules as BedrockRules
from cloudtune_providers.openai.backend import OpenAIBackend

DATED = [
    (vendor, model.id, (model.methods or ("sft",))[0], on)
    for vendor in vendors() for model in load(vendor).models
    for on in [min((day for day in (model.no_new_jobs_from, model.ends) if day is not None), default=None)]
    if on is not None
]  # fmt: skip
NOTICES = [
    (vendor, method, notice.on)
    for vendor in vendors() for notice in load(vendor).notices
    if notice.what in ("no_new_jobs", "service_ends", "feature_ends") for method in notice.methods or ("sft",)
    if (vendor, method) != ("bedrock", "cpt")  # refused on every day
]  # fmt: skip


def problems(vendor: str, model: str, method: str, today: date) -> list[Any]:
    clock = FakeClock(datetime.combine(today, time(12), UTC))
    makers: dict[str, Any] = {
        "openai": lambda: OpenAIBackend(clock=clock), "bedrock": lambda: BedrockBackend(clock=clock),
        "azure_openai": lambda: AzureOpenAIBackend(
            AzureOpenAIOptions(endpoint="https://mine.openai.azure.com"), clock=clock
        ),
    }  # fmt: skip
    spec = JobSpec.model_validate({"model": model, "method": method, "data": {"train": "rows.jsonl"}})
    return [one for one in makers[vendor]().check(spec) if one.code.removesuffix("_soon") in ("model_ends", "closed")]


def test_every_catalog_with_dated_models_is_covered() -> None:
    assert {vendor for vendor, *_ in DATED} == {"openai", "azure_openai", "bedrock"}
    assert len(DATED) > 10


@pytest.mark.parametrize(("vendor", "model", "method", "on"), DATED, ids=lambda value: str(value)[:20])
def test_a_plan_warns_before_an_end_date_and_refuses_after(vendor: str, model: str, method: str, on: date) -> None:
    service = min((one.on for one in load(vendor).notices if one.what in ("no_new_jobs", "service_ends")), default=on)
    first = min(on, service)
    long_before = problems(vendor, model, method, first - timedelta(days=400))
    assert [one.code for one in long_before] == []
    before = problems(vendor, model, method, first - timedelta(days=1))
    assert before
    assert {one.severity for one in before} == {"warning"}
    for day in (on, on + timedelta(days=30)):
        after = problems(vendor, model, method, day)
        assert "error" in {one.severity for one in after}
        assert any(str(on) in one.message or str(service) in one.message for one in after)


@pytest.mark.parametrize(("vendor", "method", "on"), NOTICES, ids=str)
def test_a_plan_warns_before_a_service_or_a_method_ends(vendor: str, method: str, on: date) -> None:
    def closing(today: date) -> list[tuple[str, str]]:
        found = problems(vendor, "a-model-of-none", method, today)
        return [(one.code, one.severity) for one in found if f"from {on} on" in one.message]

    assert closing(on - timedelta(days=400)) == []
    assert closing(on - timedelta(days=1)) == [("closed_soon", "warning")]
    for day in (on, on + timedelta(days=30)):
        assert closing(day) == [("closed", "error")]


def test_bedrock_warns_before_a_method_ends_too() -> None:
    assert "cpt" not in BEDROCK_METHODS
    catalog, on = load("bedrock"), date(2027, 1, 1)
    notice = msgspec.structs.replace(catalog.notices[0], on=on, methods=("sft",))
    changed = msgspec.structs.replace(catalog, notices=(notice,))
    spec = JobSpec.model_validate({"model": "amazon.nova-lite-v1:0:300k", "data": {"train": "rows.jsonl"}})
    for days, code in ((-400, ""), (-1, "closed_soon"), (0, "closed"), (30, "closed")):
        rules = BedrockRules(changed, BedrockOptions(), on + timedelta(days=days))
        assert [one.code for one in rules.check(spec) if "closed" in one.code] == [code] * bool(code)


def test_every_end_date_of_the_catalogs_is_covered() -> None:
    dates = {(one.backend, one.on) for one in of_catalogs()}
    first = {(vendor, on) for vendor, _, _, on in DATED} | {(vendor, on) for vendor, _, on in NOTICES}
    first.add(("bedrock", load("bedrock").notices[0].on))
    later = {(vendor, model.ends) for vendor in vendors() for model in load(vendor).models if model.no_new_jobs_from}
    assert dates == first | {one for one in later if one[1] is not None}


def test_every_date_has_a_source_that_was_read() -> None:
    found = list(of_catalogs())
    assert len(found) >= len(DATED)
    assert all(", seen 20" in one.source for one in found)


def test_specs_with_tuned_and_short_names_are_found() -> None:
    (tuned, *_) = [one for one in of_spec("a.yaml", "openai", "ft:gpt-4.1-mini-2025-04-14:me::x", "sft")
                   if "gpt-4.1-mini" in one.text]  # fmt: skip
    assert tuned.on == date(2027, 1, 14)
    short = list(of_spec("a.yaml", "bedrock", "anthropic.claude-3-haiku-20240307-v1:0", "sft"))
    assert [one.on for one in short] == [date(2026, 9, 10)]
    assert list(of_spec("a.yaml", "local", "./model", "sft")) == []


def test_jobs_that_failed_have_no_tuned_model() -> None:
    plan = Plan(
        name="a", backend="openai", scope="s", key="k", attempt=1, token="t", steps=(),
        spec={"model": "gpt-4.1-mini-2025-04-14"}, data=DataReport(splits={}, fingerprint=""),
        resolved=Resolved(scope="s"),
    )  # fmt: skip
    made = Attempt(
        key="k", attempt=1, token="t", name="a", backend="openai", scope="s", model="m", gone_at=None, begun_at="",
        ref=JobRef("openai", "s", "j"), plan=plan,
    )  # fmt: skip
    for state in (*JobState, None):
        cost = None if state is None else ActualCost(usd=None, usage=Usage(), basis="", state=state, ended_at="")
        found = list(of_jobs([JobCost(attempt=made, actual=cost)]))
        assert bool(found) == (state not in ("failed", "cancelled")), state
    assert list(of_jobs([JobCost(attempt=made, actual=None)], elsewhere={("openai", "other")}))
    assert not list(of_jobs([JobCost(attempt=made, actual=None)], elsewhere={("openai", "s")}))


def test_the_dates_of_openai_are_not_those_of_other_services(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(memory_path)
    monkeypatch.setenv("CLOUDTUNE_HOME", str(memory_path))
    monkeypatch.setenv("CLOUDTUNE_BACKENDS__OPENAI__SERVICE", "nebius")
    Path("job.yaml").write_text("backend: openai\nmodel: gpt-4.1-mini-2025-04-14\ndata: {train: rows.jsonl}\n")
    answer = CliRunner().invoke(cli, ["retirements", "job.yaml", "--json"])
    assert json.loads(answer.stdout)["retirements"] == []
    answer = CliRunner().invoke(cli, ["models", "--backend", "openai", "--json"])
    assert json.loads(answer.stdout)["models"] == []
    answer = CliRunner().invoke(cli, ["models", "--backend", "openai"])
    assert "openai is set to Nebius Token Factory" in answer.stderr


def test_the_command_lists_by_date(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(memory_path)
    monkeypatch.setenv("CLOUDTUNE_HOME", str(memory_path))
    Path("job.yaml").write_text("backend: openai\nmodel: gpt-4.1-mini-2025-04-14\ndata: {train: rows.jsonl}\n")
    answer = CliRunner().invoke(cli, ["retirements", "job.yaml", "--json"])
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)["retirements"]
    assert [(one["on"], one["kind"], one["name"]) for one in found] == [
        ("2027-01-06", "spec", "job.yaml"), ("2027-01-14", "spec", "job.yaml"),
    ]  # fmt: skip
    everything = CliRunner().invoke(cli, ["retirements", "--all"])
    assert "gpt-4o-mini-2024-07-18" in everything.stdout
    assert "source: " in everything.stderr
    assert CliRunner().invoke(cli, ["retirements"]).exit_code == 0
