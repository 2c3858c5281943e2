"""``cloudtune models``: what can be tuned where, with prices, end dates and sources."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pytest

from cloudtune.catalog import load, tunable, vendors
from cloudtune.clock import SystemClock

if TYPE_CHECKING:
    from tests.cli.conftest import Desk


def test_models_of_all_catalogs_are_listed_with_source_and_price(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemClock, "now", lambda _: datetime(2026, 11, 29, tzinfo=UTC))
    done = desk.run("models", "--json")
    found = done.json["models"]
    assert {one["backend"] for one in found} == set(vendors())
    assert done.json["without_catalog"] == ["jumpstart", "local", "ray", "scripted", "slurm", "ssh"]
    assert all(one["source"] and one["read"] and one["open"] for one in found)
    (mini,) = [one for one in found if (one["backend"], one["model"], one["method"])
               == ("openai", "gpt-4.1-mini-2025-04-14", "sft")]  # fmt: skip
    assert (mini["training_usd"], mini["per"]) == (5, "1M tokens")
    assert (mini["no_new_jobs_from"], mini["ends"]) == ("2027-01-06", "2027-01-14")
    shown = desk.run("models", "--backend", "openai", "--method", "dpo")
    assert "gpt-4.1-mini-2025-04-14  openai   dpo     $5 per 1M tokens   2027-01-06  2027-01-14" in shown.out
    assert "source: OpenAI's deprecations page, seen 2026-11-21" in shown.err
    assert "o4-mini" not in desk.run("models", "--backend", "openai").out
    assert "o4-mini" in desk.run("models", "--backend", "openai", "--all").out
    rows = list(csv.DictReader(io.StringIO(desk.run("models", "--csv").out)))
    assert [row["model"] for row in rows] == [one["model"] for one in found]


def test_unknown_methods_and_back_ends_without_catalog_are_refused(desk: Desk) -> None:
    assert "unknown method 'sftt'" in desk.run("models", "--method", "sftt").err
    done = desk.run("models", "--backend", "local")
    assert (done.code, "no catalog for 'local'" in done.err) == (2, True)


@pytest.mark.parametrize("vendor", vendors())
def test_what_is_listed_as_open_agrees_with_the_catalog(vendor: str) -> None:
    catalog = load(vendor)
    for day in (date(2026, 1, 1), date(2026, 11, 29), date(2028, 1, 1)):
        for one in tunable(catalog, day):
            assert not one.open or one.model in catalog.tunable(one.method, day)
            assert one.no_new_jobs_from is None or one.open == (day < one.no_new_jobs_from)
