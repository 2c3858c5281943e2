"""``cloudtune catalog refresh``: what changes, where it is written, and which back ends cannot do it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from tests.unit.providers.test_catalog_readers import MICRO, listed, stubbed

from cloudtune.catalog import current
from cloudtune.client import Client
from cloudtune.redaction.boundary import guarded
from cloudtune_providers.bedrock.backend import BedrockBackend

if TYPE_CHECKING:
    from tests.cli.conftest import Desk

ENDS = datetime(2027, 3, 1, tzinfo=UTC)


@pytest.fixture
def bedrock(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    reply = {"modelSummaries": [listed(MICRO, customizations=["FINE_TUNING"], endOfLifeTime=ENDS),
                                listed("amazon.nova-9-v1:0:1m", customizations=["FINE_TUNING"])]}  # fmt: skip
    own = Client.backend

    def backend(client: Client, name: str | None = None) -> object:
        if name != "bedrock":
            return own(client, name)
        return guarded(BedrockBackend(factory=stubbed({"bedrock": [("list_foundation_models", reply)]})))

    monkeypatch.setattr(Client, "backend", backend)
    return desk


def made_of(*models: dict[str, object]) -> BedrockBackend:
    replies = [("list_foundation_models", {"modelSummaries": list(models)})]
    return BedrockBackend(factory=stubbed({"bedrock": replies}))


def test_changes_are_shown_and_used(bedrock: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [
        f"bedrock: {MICRO}: methods: sft, distill -> sft", f"bedrock: {MICRO}: ends: none -> 2027-03-01",
        "bedrock: amazon.nova-9-v1:0:1m: new, sft",
    ]  # fmt: skip
    file = bedrock.home / "catalog" / "bedrock.json"
    dry = bedrock.run("catalog", "refresh", "--backend", "bedrock", "--dry-run")
    assert (dry.code, dry.out.splitlines(), file.exists()) == (0, changes, False), dry.err
    done = bedrock.run("catalog", "refresh", "--backend", "bedrock")
    assert (done.out, done.err) == (dry.out, f"bedrock: 3 changes; wrote {file}\n")
    model = current("bedrock").model(MICRO)
    assert model is not None
    assert model.ends == ENDS.date()
    again = bedrock.run("catalog", "refresh", "--backend", "bedrock", "--json").json
    assert (again["refreshed"][0]["changes"], again["refreshed"][0]["models"]) == ([], 2)
    one = made_of(listed(MICRO, customizations=["FINE_TUNING"], endOfLifeTime=ENDS))
    monkeypatch.setattr(Client, "backend", lambda client, name=None: guarded(one))
    last = bedrock.run("catalog", "refresh", "--backend", "bedrock", "--json").json
    assert "amazon.nova-9-v1:0:1m: no longer listed" in last["refreshed"][0]["changes"]


def test_back_ends_without_such_an_api_are_named(bedrock: Desk) -> None:
    done = bedrock.run("catalog", "refresh", "--json").json
    assert [one["backend"] for one in done["refreshed"]] == ["bedrock"]
    failed = {one["backend"]: one["problem"] for one in done["not_refreshed"]}
    assert failed.keys() == {"azure_openai", "openai", "sagemaker"}
    assert failed["openai"] == "the API of openai has no figures for the catalog"
    refused = bedrock.run("catalog", "refresh", "--backend", "scripted")
    assert (refused.code, "has no figures for the catalog" in refused.err) == (2, True)


def test_an_empty_list_leaves_the_figures_as_they_are(bedrock: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    file = bedrock.home / "catalog" / "bedrock.json"
    bedrock.run("catalog", "refresh", "--backend", "bedrock")
    before = file.read_bytes()
    empty = BedrockBackend(factory=stubbed({"bedrock": [("list_foundation_models", {"modelSummaries": []})]}))
    monkeypatch.setattr(Client, "backend", lambda client, name=None: guarded(empty))
    refused = bedrock.run("catalog", "refresh", "--backend", "bedrock")
    assert (refused.code, "bedrock lists no figures" in refused.err) == (1, True)
    assert file.read_bytes() == before
