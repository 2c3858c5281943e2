import json
from datetime import UTC, date, datetime, timedelta

import pytest

from cloudtune.catalog import load, read, vendors
from cloudtune.errors import ConfigError

VENDORS = ("azure_openai", "bedrock", "openai", "sagemaker")


def test_there_is_a_file_for_every_vendor():
    assert vendors() == VENDORS


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_figure_has_a_dated_source_that_is_used(vendor):
    catalog = load(vendor)
    entries = (*catalog.notices, *catalog.models, *catalog.ranges, *catalog.limits, *catalog.prices, *catalog.rates)
    assert {entry.source for entry in entries} == set(catalog.sources)
    for source in catalog.sources.values():
        assert date(2026, 1, 1) < source.seen <= datetime.now(UTC).date()
        assert source.url is None or source.url.startswith("https://")


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_entry_is_hidden_behind_an_earlier_one(vendor):
    # The first that fits wins, so an entry with the same name, models and methods as an earlier one is never seen.
    catalog = load(vendor)
    for entries in (catalog.ranges, catalog.limits):
        seen = [(entry.name, entry.models, entry.methods) for entry in entries]
        assert len(set(seen)) == len(seen)
        for number, entry in enumerate(entries):
            wide = [e for e in entries[:number] if e.name == entry.name and e.models == ("*",) and not e.methods]
            assert wide == [], f"{entry.name} of {entry.models} is hidden"


def test_every_model_has_one_entry():
    for vendor in VENDORS:
        ids = [model.id for model in load(vendor).models]
        assert len(set(ids)) == len(ids)


def test_openai_takes_no_new_jobs_from_the_day_of_its_notice():
    notice = next(n for n in load("openai").notices if n.what == "no_new_jobs")
    assert notice.on == date(2027, 1, 6)
    assert load("openai").cite(notice.source) == "OpenAI's deprecations page, seen 2026-11-21"


def test_reinforcement_has_no_base_left_on_openai():
    catalog = load("openai")
    shut = date(2026, 10, 23)
    assert catalog.tunable("rft", shut - timedelta(days=1)) == ["o4-mini-2025-04-16"]
    assert catalog.tunable("rft", shut) == []
    assert "gpt-4.1-mini-2025-04-14" in catalog.tunable("sft", shut)


@pytest.mark.parametrize(
    ("vendor", "name", "model", "method", "good", "bad"),
    [
        ("openai", "n_epochs", "any", "sft", (1, 50, 3.0, "auto"), (0, 51, 1.5, True, "many")),
        ("openai", "learning_rate_multiplier", "any", "sft", (1e-6, 10, "auto"), (0, -1)),
        ("openai", "beta", "any", "dpo", (0.1, 2), (0, 2.1)),
        ("openai", "reasoning_effort", "any", "rft", ("low",), ("utmost", 3)),
        ("bedrock", "epochCount", "amazon.nova-lite-v1:0:300k", "sft", (1, 5), (6,)),
        ("bedrock", "epochCount", "meta.llama3-3-70b-instruct-v1:0:128k", "sft", (10,), (11,)),
        ("bedrock", "learningRateWarmupSteps", "amazon.nova-2-lite-v1:0:256k", "sft", (20,), (21,)),
        ("sagemaker", "global_batch_size", "any", "dpo", (16, 128), (8, 256, 24)),
        ("sagemaker", "global_batch_size", "any", "sft", (8, 1024), (24,)),
    ],
)
def test_ranges_hold_for_model_and_method(vendor, name, model, method, good, bad):
    found = load(vendor).range(name, model, method)
    assert [value for value in good if found.fault(value)] == []
    assert [value for value in bad if not found.fault(value)] == []


def test_beta_is_no_matter_of_sft():
    assert load("openai").range("beta", "any", "sft") is None


def test_prices_hold_for_model_and_tier():
    assert load("openai").price("training", "gpt-4o-2024-08-06").usd == 25
    assert load("azure_openai").price("hosting", "any", tier="DeveloperTier").usd == 0
    assert load("azure_openai").price("hosting", "any", tier="Standard").usd == 1.7
    assert load("bedrock").price("provisioned", "amazon.nova-pro-v1:0:300k").usd == 60.5
    assert load("openai").price("training", "unheard-of") is None


def test_an_unknown_vendor_is_told_with_the_known_ones():
    with pytest.raises(ConfigError, match="azure_openai, bedrock, openai, sagemaker"):
        load("acme")


def test_a_fault_in_a_file_names_file_and_place(tmp_path):
    path = tmp_path / "acme.json"
    document = {"format": 1, "vendor": "acme", "as_of": "2026-01-01", "sources": {}, "limits": [{"name": "x"}]}
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"acme\.json.*limits\[0\]"):
        read(path)
    document["limits"] = [{"name": "x", "value": 1, "source": "here"}, {"name": "y", "value": 1, "source": "there"}]
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert [problem.message for problem in caught.value.problems] == [
        "source 'here' is used but not defined", "source 'there' is used but not defined",
    ]  # fmt: skip
    path.write_text(json.dumps(document | {"limits": [], "extra": 1}))
    with pytest.raises(ConfigError, match="extra"):
        read(path)
