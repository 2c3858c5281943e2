"""Reads which models an Azure OpenAI resource can tune, and until when, from the management API. Read-only.

Shape: azure-mgmt-cognitiveservices 14.1.0, ``AccountModel``. ``deprecation.fine_tune`` is the day on which training
ends; the date of inference is the base model's, so it says nothing about tuned models.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.catalog import Catalog, Model, Source
from cloudtune.catalog.overlay import usable_name
from cloudtune_providers.azure_openai.translate import NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SOURCE = "models"
SHELF_DAYS = 30


def catalog_of(listed: Iterable[Mapping[str, Any]], known: Catalog, on: date) -> Catalog:
    """The models that can be tuned, and those of the catalog, as the resource lists them."""
    models: dict[str, Model] = {}
    for made in filter(None, (_model(one, known) for one in listed)):
        # Versions that the catalog does not tell apart are one model, which can be tuned until the last of them ends.
        models[made.id] = max(made, models.get(made.id, made), key=lambda one: one.no_new_jobs_from or date.max)
    source = Source(title="the list of models of the Azure resource", seen=on, shelf_days=SHELF_DAYS)
    sources = {_SOURCE: source} if models else {}
    return Catalog(format=1, vendor=NAME, as_of=on, sources=sources, models=tuple(models.values()))


def _model(listed: Mapping[str, Any], known: Catalog) -> Model | None:
    name = f"{listed.get('name')}-{listed.get('version')}"
    if known.model(str(listed.get("name"))) is not None:  # some have no version in their id
        name = str(listed.get("name"))
    can_tune = str((listed.get("capabilities") or {}).get("fineTune")).lower() == "true"
    old = known.model(name)
    if not usable_name(name) or (old is None and not can_tune):
        return None
    made = old or Model(id=name, methods=("sft",), source=_SOURCE, note="the list does not name the methods")
    text = (listed.get("deprecation") or {}).get("fineTune")
    try:
        until = None if text is None else date.fromisoformat(str(text)[:10])
    except ValueError:
        until = None  # the catalog's own date stays
    return msgspec.structs.replace(made, source=_SOURCE, no_new_jobs_from=until or made.no_new_jobs_from)
