"""Reads Bedrock's base models and their end dates from ListFoundationModels. Read-only.

Shape: botocore 1.44.5, service model bedrock/2023-04-20. The list has no prices and does not know reinforcement
fine-tuning. A model in the state LEGACY that supports no customization accepts no new jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.catalog import Catalog, Model, Source
from cloudtune.catalog.overlay import usable_name
from cloudtune_providers.bedrock.responses import NAME

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from cloudtune_providers.aws.clients import Clients

_METHODS = {"FINE_TUNING": "sft", "DISTILLATION": "distill", "CONTINUED_PRE_TRAINING": "cpt"}
_INPUTS = {"TEXT": "text", "IMAGE": "image", "VIDEO": "video"}
_SOURCE = "models"
SHELF_DAYS = 30


def read_catalog(clients: Clients, known: Catalog, on: date) -> Catalog:
    """The models that can be tuned, and those of the catalog, as the list has them."""
    with clients.asking("the list of foundation models"):
        listed = clients.client(NAME).list_foundation_models()["modelSummaries"]
    models = [made for one in listed if (made := _model(one, known, on, clients.region)) is not None]
    title = f"Bedrock's ListFoundationModels in {clients.region}"
    source = Source(title=title, seen=on, shelf_days=SHELF_DAYS)
    return Catalog(format=1, vendor=NAME, as_of=on, sources={_SOURCE: source} if models else {}, models=tuple(models))


def _model(listed: Mapping[str, Any], known: Catalog, on: date, region: str) -> Model | None:
    name, lifecycle = listed.get("modelId"), listed.get("modelLifecycle") or {}
    if not usable_name(name):
        return None
    offered = tuple(_METHODS[kind] for kind in listed.get("customizationsSupported") or () if kind in _METHODS)
    old = known.model(str(name))
    if old is None and not offered:
        return None
    inputs = tuple(_INPUTS[kind] for kind in listed.get("inputModalities") or () if kind in _INPUTS) or ("text",)
    ends = lifecycle.get("endOfLifeTime")
    made = old or Model(id=str(name), source=_SOURCE, inputs=inputs, regions=(region,))  # type: ignore[arg-type]
    is_closed = lifecycle.get("status") == "LEGACY" and not offered
    announced = made.no_new_jobs_from if made.no_new_jobs_from is not None and made.no_new_jobs_from > on else None
    unlisted = tuple(method for method in made.methods if method not in _METHODS.values())
    return msgspec.structs.replace(
        made, source=_SOURCE, methods=made.methods if is_closed else (*offered, *unlisted),
        ends=ends.date() if ends is not None else made.ends,
        no_new_jobs_from=min(made.no_new_jobs_from or on, on) if is_closed else announced,
    )  # fmt: skip
