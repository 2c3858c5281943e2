"""One cost of each vendor, worked out by hand from the catalog's figures."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.local.backend.submitting import request

from cloudtune.catalog import load
from cloudtune.clock import SystemClock
from cloudtune.cost import Measured
from cloudtune.ledger.ledger import Ledger
from cloudtune.plan import SplitInfo, TokenCount
from cloudtune.pricing import by_tokens
from cloudtune.spec import Limits
from cloudtune.spec_distributed import Distributed
from cloudtune.spending import estimated
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options


def rows(tokens: int, size: int = 0) -> SplitInfo:
    count = TokenCount(least=tokens, most=tokens, counted_by="" if size else "o200k_base")
    return SplitInfo(rows=100, bytes=size, sha256="0" * 64, kind="chat", tokens=count)


def test_openai_bills_the_tokens_of_the_file_in_each_epoch() -> None:
    # 120,000 tokens x 3 epochs = 360,000; gpt-4.1-mini: 5 USD for 1,000,000; 0.36 x 5 = 1.80 USD.
    cost = by_tokens(load("openai"), "gpt-4.1-mini-2025-04-14", "sft", rows(120_000), epochs=3)
    assert (cost.usd, cost.at_least_usd, cost.at_most_usd, cost.unknown) == (1.8, 1.8, 1.8, ())
    assert cost.prices_as_of == "2026-11-21"
    assert cost.later == ("prompts: 0.8 USD per 1M tokens", "answers: 3.2 USD per 1M tokens")


def test_azure_bills_by_training_type_and_for_hosting() -> None:
    # 250,000 tokens x 2 epochs = 500,000; gpt-4.1 GlobalStandard: 2 USD for 1,000,000; 1.00 USD.
    cost = by_tokens(load("azure_openai"), "gpt-4.1-2025-04-14", "sft", rows(250_000), epochs=2, tier="GlobalStandard")
    assert cost.usd == 1.0
    assert cost.later == ("hosting: 1.7 USD per hour",), "storage is free, and not listed"
    standard = by_tokens(load("azure_openai"), "gpt-4.1-2025-04-14", "sft", rows(250_000), epochs=2, tier="Standard")
    assert (standard.usd, standard.unknown) == (None, ("the price of training",))


def test_bedrock_bills_tokens_and_stores_for_a_fee() -> None:
    # 600,000 characters / 6 = 100,000 tokens x 2 epochs = 200,000; Nova 2 Lite: 3.78 USD for 1,000,000; 0.756 USD.
    split = rows(100_000, 600_000)
    cost = by_tokens(load("bedrock"), "amazon.nova-2-lite-v1:0", "sft", split, epochs=2, likely=600_000 / 6)
    assert cost.usd == 0.756
    assert cost.later[0] == "storage of the model: 1.95 USD per model and month"


@pytest.mark.parametrize(("processes", "gpus", "usd"), [(1, 0, 0.1), (1, 1, 1.25), (2, 2, 2.5)])
def test_local_bills_hours_at_the_price_in_the_settings(tmp_path: Path, processes: int, gpus: int, usd: float) -> None:
    # 90 s for 1 MB and epoch: 10 MB x 2 epochs take 1800 s = 0.5 h. 0.5 x 0.20 on the CPU; 0.5 x 2.50 for each GPU.
    backend = LocalBackend(Options(root=tmp_path, usd_per_gpu_hour=2.5, usd_per_cpu_hour=0.2))
    wanted = request(backend, "job", device="auto")
    spec = wanted.spec.model_copy(
        update={
            "hyperparameters": wanted.spec.hyperparameters.model_copy(update={"epochs": 2.0}),
            "distributed": Distributed(processes=processes),
        }
    )
    split = msgspec.structs.replace(wanted.data.splits["train"], bytes=10_000_000)
    wanted = msgspec.structs.replace(
        wanted, spec=spec, data=msgspec.structs.replace(wanted.data, splits={"train": split}),
        resolved=msgspec.structs.replace(wanted.resolved, facts={**wanted.resolved.facts, "gpus": gpus}),
        measured=Measured(least_s=80, median_s=90, most_s=100, jobs=3),
    )  # fmt: skip
    assert backend.estimate(wanted).usd == usd
    assert backend.estimate(msgspec.structs.replace(wanted, measured=None)).unknown == ("the run time",)


def test_a_price_of_zero_is_a_known_cost(memory_path: Path) -> None:
    backend = LocalBackend(Options(root=memory_path, usd_per_cpu_hour=0))
    wanted = request(backend, "job")
    spec = wanted.spec.model_copy(update={"limits": Limits(max_cost_usd=1)})
    wanted = msgspec.structs.replace(wanted, spec=spec)
    ledger = Ledger.open(f"{memory_path}/ledger.db", SystemClock())
    kept, cost, problems = estimated(wanted, backend, ledger, accept_unknown=False)
    assert cost is not None
    assert (cost.usd, cost.at_most_usd, cost.unknown) == (0, 0, ())
    assert (kept.run_seconds, problems) == (None, [])


def test_every_price_has_a_source_and_a_date() -> None:
    for vendor in ("openai", "azure_openai", "bedrock", "sagemaker"):
        catalog = load(vendor)
        for price in (*catalog.prices, *catalog.rates):
            source = catalog.sources[price.source]
            assert source.title
            assert source.seen <= catalog.as_of
