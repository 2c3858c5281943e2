"""The problems that are reported before anything is sent, and their messages."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.client import Client
from cloudtune.data import prepare
from cloudtune.data.checks.targets import find_target
from cloudtune.errors import DataError, UnsupportedError
from cloudtune.plan import PlanRequest
from cloudtune.spec import JobSpec
from cloudtune.testing.clock import FakeClock
from cloudtune_providers.azure_openai.backend import AzureOpenAIBackend
from cloudtune_providers.azure_openai.options import AzureOpenAIOptions
from cloudtune_providers.azure_openai.translate import deployment_body, deployment_name, is_ours, serves, suffix_of
from cloudtune_providers.openai.backend import OpenAIBackend
from cloudtune_providers.openai.options import OpenAIOptions
from cloudtune_providers.openai_dialect import targets
from cloudtune_providers.openai_dialect import tokens as openai_tokens
from cloudtune_providers.openai_dialect.model_names import base_of
from cloudtune_providers.openai_dialect.requests import file_name, label_of
from cloudtune_providers.openai_dialect.rules import is_loopback

MODEL = "gpt-4.1-mini-2025-04-14"
TODAY = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": f"{n}!"}) + "\n" for n in range(12)))
    return path


def spec_of(rows, **changes: Any) -> JobSpec:
    return JobSpec.model_validate({"name": "headlines", "model": MODEL, "data": {"train": str(rows)}} | changes)


def client_at(tmp_path, when: datetime = TODAY, **options: Any) -> Client:
    backend = OpenAIBackend(OpenAIOptions.model_validate(options), clock=FakeClock(when))
    return Client(backend, ledger=f"sqlite:///{tmp_path}/ledger.db", clock=FakeClock(when))


def refusals(client: Client, spec: JobSpec) -> dict[str, str]:
    with pytest.raises(UnsupportedError) as refused:
        client.plan(spec)
    return {problem.field: f"{problem.message} | {problem.fix}" for problem in refused.value.problems}


def test_all_refusals_come_at_once_with_reason_and_way_out(tmp_path, rows):
    spec = spec_of(
        rows, adapter={"type": "lora", "rank": 8}, seed=2**31, tags={"cloudtune_token": "mine"},
        hyperparameters={"learning_rate": 1e-4, "warmup_ratio": 0.1, "epochs": 1.5, "batch_size": 300},
    )  # fmt: skip
    response = refusals(client_at(tmp_path), spec)
    assert set(response) == {
        "adapter.rank", "hyperparameters.learning_rate", "hyperparameters.warmup_ratio", "hyperparameters.epochs",
        "hyperparameters.batch_size", "seed", "tags.cloudtune_token",
    }  # fmt: skip
    assert "overrides.openai.learning_rate_multiplier" in response["hyperparameters.learning_rate"]
    assert "unsupported: drop" in response["adapter.rank"]
    assert "whole number" in response["hyperparameters.epochs"]
    assert "at most 256" in response["hyperparameters.batch_size"]


def test_the_multiplier_takes_the_rates_place(tmp_path, rows):
    spec = spec_of(
        rows, hyperparameters={"learning_rate": 1e-4}, overrides={"openai": {"learning_rate_multiplier": 1.8}}
    )
    plan = client_at(tmp_path).plan(spec)
    assert [(drop.field, drop.value) for drop in plan.dropped] == [("hyperparameters.learning_rate", 1e-4)]
    create = next(step for step in plan.steps if step.id == "create")
    assert create.request["body"]["method"]["supervised"] == {"hyperparameters": {"learning_rate_multiplier": 1.8}}


def test_a_file_made_for_the_local_back_end_runs_when_drops_are_allowed(tmp_path, rows):
    spec = spec_of(
        rows, unsupported="drop", adapter={"type": "lora", "rank": 8, "alpha": 16, "targets": "all-linear"}, seed=0,
        hyperparameters={"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "scheduler": "linear", "max_length": 128},
        data={"train": str(rows), "test": 0.2}, tags={"example": "quickstart"},
    )  # fmt: skip
    plan = client_at(tmp_path).plan(spec)
    assert {drop.field for drop in plan.dropped} == {
        "adapter.rank", "adapter.alpha", "adapter.targets", "hyperparameters.learning_rate",
        "hyperparameters.scheduler", "hyperparameters.max_length",
    }  # fmt: skip
    body = next(step for step in plan.steps if step.id == "create").request["body"]
    assert body["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 8}}}
    assert (body["seed"], body["suffix"], body["metadata"]["example"]) == (0, "headlines", "quickstart")
    assert plan.data.splits["test"].rows > 0  # held out, and not among the files that are sent
    assert [step.id for step in plan.steps if step.kind == "upload"] == ["upload_train"]


@pytest.mark.parametrize(
    ("when", "severity"),
    [(datetime(2026, 9, 1, tzinfo=UTC), None), (TODAY, "warning"), (datetime(2027, 1, 5, tzinfo=UTC), "warning"),
     (datetime(2027, 1, 6, tzinfo=UTC), "error")],
)  # fmt: skip
def test_the_service_is_refused_from_its_last_day_and_warned_of_before(tmp_path, rows, when, severity):
    problems = client_at(tmp_path, when).backend().check(spec_of(rows))
    found = [problem for problem in problems if problem.code.startswith("closed") and "2027-01-06" in problem.message]
    assert [problem.severity for problem in found] == ([severity] if severity else [])
    assert all("seen 2026-11-21" in problem.message for problem in found)


def test_nothing_ends_on_a_rehearsal(tmp_path, rows):
    client = client_at(tmp_path, datetime(2031, 1, 1, tzinfo=UTC), base_url="http://127.0.0.1:8787/v1")
    assert {problem.severity for problem in client.plan(spec_of(rows)).warnings} == {"warning"}


def test_a_model_past_its_date_and_a_method_that_it_lacks(tmp_path, rows):
    response = refusals(client_at(tmp_path), spec_of(rows, model="gpt-3.5-turbo-0125"))
    assert "2026-10-23" in response["model"]
    assert MODEL in response["model"]
    warned = client_at(tmp_path).plan(spec_of(rows, model="gpt-99")).warnings
    assert any(w.code == "unknown_model" and MODEL in (w.fix or "") for w in warned)
    assert "is a path" in refusals(client_at(tmp_path), spec_of(rows, model="./weights"))["model"]


def test_a_tuned_model_ends_with_its_base(tmp_path, rows):
    response = refusals(client_at(tmp_path), spec_of(rows, model="ft:gpt-4o-mini-2024-07-18:org:x:1", method="rft"))
    assert "o4-mini" in response["method.name"]
    warned = client_at(tmp_path).plan(spec_of(rows, model="ft:gpt-4o-mini-2024-07-18:org:x:1")).warnings
    assert any("2027-01-14" in warning.message for warning in warned if warning.field == "model")


def test_too_few_rows(tmp_path, rows):
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:9]))
    with pytest.raises(DataError, match="openai requires at least 10 rows, found 9"):
        client_at(tmp_path).plan(spec_of(rows))


@pytest.mark.parametrize(("words", "severity"), [(66_000, "error"), (40_000, "warning"), (10_000, None)])
def test_a_long_row_is_refused_only_when_it_is_surely_too_long(tmp_path, rows, words, severity, monkeypatch):
    monkeypatch.setattr(targets, "encoding_of", lambda model: None)  # as where the tokenizer is not installed
    lines = rows.read_text().splitlines()
    lines[6] = json.dumps({"prompt": "a " * words, "completion": "!"})
    rows.write_text("\n".join(lines) + "\n")
    try:
        problems = client_at(tmp_path).plan(spec_of(rows)).warnings
    except DataError as error:
        problems = error.problems
    found = [(problem.severity, problem.line) for problem in problems if problem.code in ("too_long", "maybe_too_long")]
    assert found == ([(severity, 7)] if severity else [])


def test_plain_text_is_refused(tmp_path, rows):
    rows.write_text("".join(json.dumps({"text": f"line {n}"}) + "\n" for n in range(12)))
    with pytest.raises(DataError, match="text"):
        client_at(tmp_path).plan(spec_of(rows))


# -- names -----------------------------------------------------------------------------------------------------------


@given(st.from_regex(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,39}", fullmatch=True))
def test_a_label_survives_in_a_files_name(label):
    name = file_name("ab" * 32, "azure-openai", label, "0123456789abcdef" * 2)
    assert label_of(name) == label
    assert name.endswith(".jsonl")


@pytest.mark.parametrize("name", ["rows.jsonl", "cloudtune-.jsonl", "", file_name("ab" * 32, "openai", "", "f" * 32)])
def test_a_file_without_a_label_has_none(name):
    assert label_of(name) == ""


@given(st.from_regex(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,39}", fullmatch=True))
def test_suffixes_fit(name):
    assert 1 <= len(suffix_of(name)) <= 18
    assert not suffix_of(name).endswith("-")


def test_bases_of_tuned_models():
    assert base_of("ft:gpt-4.1-mini-2025-04-14:org:name:id") == MODEL
    assert base_of("gpt-4.1-2025-04-14.ft-0123-name") == "gpt-4.1-2025-04-14"
    assert base_of(MODEL) == MODEL


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://127.0.0.1:8787/v1", True), ("http://[::1]/v1", True), ("http://localhost/v1", True),
     ("https://api.openai.com/v1", False), ("https://10.0.0.1", False), ("", False)],
)  # fmt: skip
def test_what_is_this_machine(url, expected):
    assert is_loopback(url) is expected


@pytest.mark.parametrize(
    ("options", "environ", "scope"),
    [({}, {}, "api.openai.com"), ({"project": "proj_1"}, {}, "api.openai.com/proj_1"),
     ({}, {"OPENAI_PROJECT_ID": "proj_2"}, "api.openai.com/proj_2"),
     ({"organization": "org-1"}, {"OPENAI_BASE_URL": "http://127.0.0.1:99/v1/"}, "127.0.0.1:99/org-1"),
     ({"base_url": "https://user:pw@mantle.example/openai/v1"}, {}, "mantle.example/openai/v1")],
)  # fmt: skip
def test_scopes_tell_accounts_apart_and_hold_no_password(options, environ, scope):
    assert OpenAIOptions.model_validate(options).scope(environ) == scope


# -- Azure -----------------------------------------------------------------------------------------------------------


def azure(**options: Any) -> AzureOpenAIBackend:
    given = {"endpoint": "https://res.openai.azure.com"} | options
    return AzureOpenAIBackend(AzureOpenAIOptions.model_validate(given), clock=FakeClock(TODAY))


def test_azure_warns_that_rows_leave_the_region_until_somebody_chooses(rows):
    spec = spec_of(rows)
    assert [p.severity for p in azure().check(spec) if p.code == "training_type"] == ["warning"]
    assert [p for p in azure(training_type="GlobalStandard").check(spec) if p.code == "training_type"] == []


def test_a_job_of_too_many_tokens_is_warned_of_on_azure(rows, monkeypatch):
    rows.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": "a b " * 10_000}) + "\n" for n in range(12)))
    client = Client(azure(), ledger=f"sqlite:///{rows.parent}/ledger.db", clock=FakeClock(TODAY))
    tokens = client.plan(spec_of(rows)).data.splits["train"].tokens
    assert tokens.counted_by == "o200k_base", "the limit is in tokens, which are far fewer than bytes"
    few, many = int(2e9 // tokens.most), int(2e9 // tokens.most) + 1
    reported = {
        n: [w.code for w in client.plan(spec_of(rows, hyperparameters={"epochs": n})).warnings] for n in (few, many)
    }
    assert ["many_tokens" in reported[n] for n in (few, many)] == [False, True]


def test_azure_outlives_openai(rows):
    assert [p for p in azure().check(spec_of(rows)) if p.severity == "error"] == []
    late = AzureOpenAIBackend(
        AzureOpenAIOptions(endpoint="https://res.openai.azure.com"), clock=FakeClock(datetime(2027, 4, 14, tzinfo=UTC))
    )
    assert [p.field for p in late.check(spec_of(rows)) if p.severity == "error"] == ["model"]


def test_azure_needs_an_endpoint_and_for_rft_a_grader_and_held_out_rows(rows, monkeypatch):
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    backend = AzureOpenAIBackend(AzureOpenAIOptions(), clock=FakeClock(TODAY))
    spec = spec_of(rows, model="o4-mini-2025-04-16", method="rft")
    assert {p.field for p in backend.check(spec) if p.severity == "error"} == {
        "backends.azure_openai.endpoint", "overrides.azure_openai.grader", "data.validation",
    }  # fmt: skip


def test_deployments_are_named_after_the_model_and_known_again():
    model = "gpt-4.1-mini-2025-04-14.ft-0123456789abcdef0123456789abcdef-a.suffix"
    name = deployment_name(model)
    assert name == deployment_name(model) != deployment_name(model + "x")
    assert 2 <= len(name) <= 64
    body = deployment_body(model, "GlobalStandard", 1, "t" * 32)
    assert body["properties"]["model"] == {"format": "OpenAI", "name": model, "version": "1"}
    assert is_ours(body, body)
    assert not is_ours(body | {"tags": {"cloudtune": "other"}}, body)
    assert not is_ours(body | {"tags": None}, body)
    assert not is_ours(deployment_body("another", "GlobalStandard", 1, "t" * 32), body)
    assert serves(deployment_body(MODEL, "Standard", 1, "t"), MODEL)


# -- cost ------------------------------------------------------------------------------------------------------------


def test_the_cost_is_counted_and_told_with_the_prices_date(tmp_path, rows):
    plan = client_at(tmp_path).plan(spec_of(rows, hyperparameters={"epochs": 3}))
    cost = plan.cost
    assert cost is not None
    # Of each row: 3 for the row, 3 for each of two turns, their roles, and `0` `?` and `0` `!` or the like.
    tokens = sum(3 + 2 * (3 + 1) + 2 + 2 for _ in range(12))
    assert cost.basis.startswith(f"{tokens} tokens, counted with o200k_base, in 3 epochs at 5 USD per 1M tokens")
    assert cost.usd == cost.at_most_usd == cost.at_least_usd == round(tokens * 3 * 5 / 1e6, 4)
    assert cost.prices_as_of == "2026-11-21"
    assert "weakly sourced" in cost.basis


def test_without_the_tokenizer_there_are_bounds(tmp_path, rows, monkeypatch):
    spec = spec_of(rows, hyperparameters={"epochs": 3})
    exact = client_at(tmp_path).plan(spec)
    monkeypatch.setattr(openai_tokens, "_is_here", lambda: False)
    bounded = client_at(tmp_path).plan(spec)
    assert bounded.key == exact.key, "it is the same job"
    assert bounded.steps == exact.steps
    cost, tokens = bounded.cost, bounded.data.splits["train"].tokens
    assert tokens.counted_by == ""
    assert tokens.least < exact.data.splits["train"].tokens.least < tokens.most
    assert cost.usd is None, "it is not counted, and does not pretend to be"
    assert cost.basis.startswith(f"between {tokens.least:,} and {tokens.most:,} tokens in 3 epochs at 5 USD")
    assert 0 < cost.at_least_usd < exact.cost.usd < cost.at_most_usd
    assert cost.at_most_usd == round(tokens.most * 3 * 5 / 1e6, 4)


@pytest.mark.parametrize("counted_by", ["o200k_base", ""])
def test_plan_is_the_same_without_the_tokenizer(rows, monkeypatch, counted_by):
    backend = OpenAIBackend(OpenAIOptions(), clock=FakeClock(TODAY))
    spec = spec_of(rows)
    target = find_target("openai", MODEL, "sft")._replace(tokenizer=counted_by or None)
    data = prepare(spec.data, target=target)
    assert data.splits["train"].tokens.counted_by == counted_by
    request = PlanRequest(spec=spec, data=data, resolved=backend.resolve(spec), key="k" * 32, attempt=1, token="t" * 32)
    plan = backend.plan(request)
    monkeypatch.setattr(openai_tokens, "_is_here", lambda: False)
    monkeypatch.setitem(sys.modules, "bpe_openai", None)
    assert backend.plan(request) == plan


def test_images_have_no_estimate(tmp_path, rows):
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    row = {"messages": [{"role": "user", "content": [picture]}, {"role": "assistant", "content": "a cat"}]}
    lines = [
        {**row, "messages": [*row["messages"][:1], {"role": "assistant", "content": f"{n} cats"}]} for n in range(12)
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = client_at(tmp_path).plan(spec_of(rows, model="gpt-4o-2024-08-06"))
    assert plan.data.splits["train"].tokens is None
    assert plan.cost.usd is plan.cost.at_least_usd is plan.cost.at_most_usd is None
    assert plan.cost.basis.startswith("25 USD per 1M tokens, and how many tokens the rows have is not known")


def test_epochs_that_the_service_chooses_are_not_guessed(tmp_path, rows):
    one = client_at(tmp_path).plan(spec_of(rows, hyperparameters={"epochs": 1})).cost
    auto = client_at(tmp_path).plan(spec_of(rows)).cost
    assert one is not None
    assert auto is not None
    assert (auto.usd, auto.at_most_usd) == (None, one.usd)
    assert "per epoch, whose number the service chooses" in auto.basis


def test_rows_that_are_held_out_cost_nothing(tmp_path, rows):
    whole, share = (
        client_at(tmp_path).plan(spec_of(rows, hyperparameters={"epochs": 1}, data={"train": str(rows)} | more))
        for more in ({}, {"validation": 0.3})
    )
    kept = share.data.splits["train"].rows
    assert kept < 12
    assert whole.cost is not None
    assert share.cost is not None
    assert share.cost.basis.split()[0] == str(15 * kept)
    assert whole.cost.basis.split()[0] == str(15 * 12)


def test_a_model_or_tier_without_a_price_has_no_estimate(tmp_path, rows):
    def azure(model: str, tier: str) -> Any:
        options = AzureOpenAIOptions(endpoint="https://mine.openai.azure.com", training_type=tier)
        client = Client(AzureOpenAIBackend(options, clock=FakeClock(TODAY)), ledger=f"sqlite:///{tmp_path}/ledger.db")
        return client.plan(spec_of(rows, model=model)).cost

    for model in (MODEL, "gpt-4.1-2025-04-14"):
        unknown = azure(model, "Standard")
        assert unknown.unknown == ("the price of training",)
        assert unknown.usd is unknown.at_least_usd is unknown.at_most_usd is None
    assert azure("gpt-4.1-2025-04-14", "GlobalStandard").at_most_usd > 0
