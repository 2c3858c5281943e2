"""`cloudtune catalog refresh`: what AWS's APIs answer becomes entries of the catalog."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from botocore.session import Session
from botocore.stub import Stubber

from cloudtune.catalog import load
from cloudtune.optional import CatalogReader
from cloudtune_providers.azure_openai.catalog_reader import catalog_of
from cloudtune_providers.bedrock.backend import BedrockBackend
from cloudtune_providers.sagemaker.backend import SageMakerBackend

TODAY = date(2026, 11, 29)
MICRO, LLAMA = "amazon.nova-micro-v1:0:128k", "meta.llama3-1-8b-instruct-v1:0:128k"


def stubbed(replies: dict[str, list[tuple[str, dict[str, Any]]]]) -> Any:
    """A factory of botocore clients that give recorded replies; botocore checks them against its service models."""

    def make(service: str) -> Any:
        client = Session().create_client(
            service, region_name="us-east-1", aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="x" * 40
        )
        stubber = Stubber(client)
        for call, reply in replies.get(service, []):
            stubber.add_response(call, reply)
        stubber.activate()
        return client

    return make


def listed(name: str, *, customizations: list[str], **lifecycle: Any) -> dict[str, Any]:
    return {
        "modelArn": f"arn:aws:bedrock:us-east-1::foundation-model/{name}", "modelId": name,
        "inputModalities": ["TEXT", "IMAGE"], "customizationsSupported": customizations,
        "modelLifecycle": {"status": "ACTIVE"} | lifecycle,
    }  # fmt: skip


def test_bedrocks_models_get_methods_and_end_dates() -> None:
    gone = datetime(2027, 3, 1, tzinfo=UTC)
    reply = {"modelSummaries": [
        listed(MICRO, customizations=["FINE_TUNING"], endOfLifeTime=gone),
        listed(LLAMA, customizations=[], status="LEGACY"),
        listed("amazon.nova-9-v1:0:1m", customizations=["FINE_TUNING", "DISTILLATION", "TELEPATHY"]),
        listed("amazon.untunable-v1:0", customizations=[]),
        listed("amazon.evil\x1b[31m", customizations=["FINE_TUNING"]),
    ]}  # fmt: skip
    backend = BedrockBackend(factory=stubbed({"bedrock": [("list_foundation_models", reply)]}))
    assert isinstance(backend, CatalogReader)
    found = backend.read_catalog(TODAY)
    models = {model.id: model for model in found.models}
    assert models.keys() == {MICRO, LLAMA, "amazon.nova-9-v1:0:1m"}
    assert (models[MICRO].methods, models[MICRO].ends) == (("sft",), date(2027, 3, 1))
    assert (models[LLAMA].methods, models[LLAMA].no_new_jobs_from) == (("sft",), TODAY)
    assert models["amazon.nova-9-v1:0:1m"].methods == ("sft", "distill")
    assert models["amazon.nova-9-v1:0:1m"].regions == ("us-east-1",)
    assert found.cite("models") == "Bedrock's ListFoundationModels in us-east-1, seen 2026-11-29"
    reinforced = next(model for model in load("bedrock").models if "rft" in model.methods)
    reply = {"modelSummaries": [listed(reinforced.id, customizations=["FINE_TUNING"])]}
    backend = BedrockBackend(factory=stubbed({"bedrock": [("list_foundation_models", reply)]}))
    assert backend.read_catalog(TODAY).models[0].methods == reinforced.methods  # the list does not know this method


def product(kind: str, component: str, usd: str, unit: str = "Hrs") -> str:
    price = {"unit": unit, "pricePerUnit": {"USD": usd}}
    return json.dumps({
        "product": {"attributes": {"component": component, "instanceName": kind}},
        "terms": {"OnDemand": {"T": {"effectiveDate": "2026-11-01T00:00:00Z", "priceDimensions": {"D": price}}}},
    })  # fmt: skip


def test_hourly_prices_are_read_page_by_page() -> None:
    pages = [
        {"PriceList": [product("ml.g5.xlarge", "Training", "1.5"), product("ml.g5.xlarge", "Hosting", "1.6")],
         "NextToken": "more"},
        {"PriceList": [product("ml.g6.xlarge", "Training", "0.0"), product("ml.p5.xlarge", "Training", "9", "Quantity"),
                       product("ml.x\u0007", "Training", "1"), product("ml.g7.xlarge", "Notebook", "1"),
                       product("ml.g8.xlarge", "Training", "NaN")]},
    ]  # fmt: skip
    backend = SageMakerBackend(factory=stubbed({"pricing": [("get_products", page) for page in pages]}))
    assert isinstance(backend, CatalogReader)
    found = backend.read_catalog(TODAY)
    assert {rates.use: rates.usd for rates in found.rates} == {
        "training": {"ml.g5.xlarge": 1.5}, "hosting": {"ml.g5.xlarge": 1.6}
    }  # fmt: skip
    assert {rates.region for rates in found.rates} == {"us-east-1"}


@pytest.mark.parametrize("vendor", ["bedrock", "sagemaker"])
def test_empty_lists_change_nothing(vendor: str) -> None:
    replies = {
        "bedrock": [("list_foundation_models", {"modelSummaries": []})],
        "pricing": [("get_products", {"PriceList": []})],
    }
    made = (BedrockBackend if vendor == "bedrock" else SageMakerBackend)(factory=stubbed(replies))
    found = made.read_catalog(TODAY)
    assert (found.sources, found.models, found.rates) == ({}, (), ())


def test_azures_models_get_the_day_on_which_training_ends() -> None:
    tunes = {"capabilities": {"fineTune": "true"}}
    known = load("azure_openai")
    found = catalog_of([
        {"name": "gpt-4.1", "version": "2025-04-14", "deprecation": {"fineTune": "2027-01-31T00:00:00Z"}} | tunes,
        {"name": "gpt-9", "version": "2027-01-01"} | tunes, {"name": "embed", "version": "1"},
        {"name": "Qwen-32B", "version": "1"} | tunes, {"name": "a\x1b", "version": "1"} | tunes,
    ], known, TODAY)  # fmt: skip
    models = {model.id: model for model in found.models}
    assert models.keys() == {"gpt-4.1-2025-04-14", "gpt-9-2027-01-01", "Qwen-32B"}
    changed, old = models["gpt-4.1-2025-04-14"], known.model("gpt-4.1-2025-04-14")
    assert old is not None
    assert (changed.no_new_jobs_from, changed.ends, changed.methods) == (date(2027, 1, 31), old.ends, old.methods)


def test_versions_of_one_azure_model_end_with_the_last() -> None:
    row = {"name": "Qwen-32B", "capabilities": {"fineTune": "true"}}
    days = {"1": "2027-05-01", "2": "2027-09-01", "3": "2027-01-01", "4": "soon"}
    listed_ = [row | {"version": version, "deprecation": {"fineTune": day}} for version, day in days.items()]
    (model,) = catalog_of(listed_[:3], load("azure_openai"), TODAY).models
    assert model.no_new_jobs_from == date(2027, 9, 1)
    (model,) = catalog_of(listed_[3:], load("azure_openai"), TODAY).models
    assert model.no_new_jobs_from is None, "a date that cannot be read changes nothing"
