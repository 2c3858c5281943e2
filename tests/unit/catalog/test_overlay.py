"""Refreshed figures replace those of a catalog, and the user's replace both; a damaged file stops only its back end."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from datetime import date
from typing import TYPE_CHECKING

import msgspec
import pytest

from cloudtune.catalog import Catalog, Model, Price, Rates, Source, current, load
from cloudtune.catalog.overlay import REFRESHED, files, overlaid, save, usable_name, with_other_regions
from cloudtune.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

NAME = "amazon.nova-micro-v1:0:128k"


def over(**parts: object) -> Catalog:
    source = Source(title="a test", seen=date(2026, 11, 29), shelf_days=30)
    made = Catalog(format=1, vendor="bedrock", as_of=date(2026, 11, 29), sources={"model": source})
    return msgspec.structs.replace(made, **parts)


def test_entries_of_the_overlay_come_first_and_keep_their_sources() -> None:
    base = load("bedrock")
    model = Model(id=NAME, methods=("sft",), ends=date(2027, 5, 1), source="model")
    price = Price(what="training", usd=9, per="1M tokens", models=(NAME,), source="model")
    found = overlaid(base, over(models=(model,), prices=(price,)), "user")
    assert found.model(NAME) == msgspec.structs.replace(model, source="user:model")
    assert [one.id for one in found.models].count(NAME) == 1
    assert len(found.models) == len(base.models)
    changed = found.price("training", NAME, "sft")
    assert changed is not None
    assert (changed.usd, found.cite(changed.source)) == (9, "a test, seen 2026-11-29")
    assert found.cite("model") == base.cite("model")  # another source with the same key
    assert found.price("training", "amazon.nova-2-lite-v1:0:256k", "sft") == base.price(
        "training", "amazon.nova-2-lite-v1:0:256k", "sft"
    )
    with pytest.raises(ConfigError, match="is about 'bedrock', not 'openai'"):
        overlaid(load("openai"), over(), "user")


def test_a_refresh_keeps_the_prices_of_other_regions() -> None:
    def of(region: str, usd: float) -> Catalog:
        sources = {region: Source(title=region, seen=date(2026, 11, 29))}
        rates = Rates(use="training", region=region, usd={"ml.g5.2xlarge": usd}, source=region)
        return over(vendor="sagemaker", rates=(rates,), sources=sources)

    found = with_other_regions(of("us-west-2", 2.0), with_other_regions(of("eu-west-1", 1.0), of("us-west-2", 9.0)))
    prices = {region: found.rate("training", "ml.g5.2xlarge", region) for region in ("us-west-2", "eu-west-1")}
    assert {region: rate and (rate.usd, rate.cited) for region, rate in prices.items()} == {
        "us-west-2": (2.0, "us-west-2"), "eu-west-1": (1.0, "eu-west-1")
    }  # fmt: skip
    assert found.sources.keys() == {"us-west-2", "eu-west-1"}


def test_the_users_file_wins_over_the_refreshed_one(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTUNE_HOME", str(memory_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(memory_path / "config"))
    places = dict(files("sagemaker"))
    rates = Rates(use="training", region="us-west-2", usd={"ml.g5.2xlarge": 1.0}, source="model")
    refreshed = over(vendor="sagemaker", rates=(rates,))
    save(refreshed, places[REFRESHED])
    assert stat.S_IMODE(places[REFRESHED].stat().st_mode) == 0o600
    rate = current("sagemaker").rate("training", "ml.g5.2xlarge", "us-west-2")
    assert rate is not None
    assert (rate.usd, rate.as_of) == (1.0, "2026-11-29")
    mine = msgspec.structs.replace(rates, usd={"ml.g5.2xlarge": 0.5})
    save(msgspec.structs.replace(refreshed, rates=(mine,)), places["user"])
    for given in (None, refreshed):
        rate = current("sagemaker", refreshed=given).rate("training", "ml.g5.2xlarge", "us-west-2")
        assert rate is not None
        assert rate.usd == 0.5


def test_a_damaged_file_stops_only_its_back_end(memory_path: Path) -> None:
    folder = memory_path / "home" / "catalog"
    folder.mkdir(parents=True)
    (folder / "openai.json").write_text('{"format": 1')
    program = (
        "from cloudtune.catalog import load\nfrom cloudtune.errors import ConfigError\nload('bedrock')\n"
        "try:\n    load('openai')\nexcept ConfigError as error:\n    print(error)\n"
    )
    env = os.environ | {"CLOUDTUNE_HOME": str(memory_path / "home")}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert "openai.json" in done.stdout
    assert "delete it" in done.stdout


def test_figures_are_stale_after_their_shelf_life() -> None:
    source = Source(title="a test", seen=date(2026, 1, 1), shelf_days=30)
    assert not source.is_stale(date(2026, 1, 31))
    assert source.is_stale(date(2026, 2, 1))


@pytest.mark.parametrize("name", ["", "a\nb", "a\x1b[31m", "ä", "x" * 301, None, 5])
def test_names_with_odd_characters_are_not_usable(name: object) -> None:
    assert not usable_name(name)
    assert usable_name(NAME)
