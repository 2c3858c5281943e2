"""Base models: which can be customized, how, with what hyperparameters and rows; and how they are listed.

The data come from cloudtune's catalog. A base model that has reached its end of life accepts no jobs
(https://docs.aws.amazon.com/bedrock/latest/userguide/model-lifecycle.html, seen 2026-11-21).
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cloudtune.catalog import load
from cloudtune_emulator.aws.errors import invalid, not_found
from cloudtune_emulator.http import Call, Reply

if TYPE_CHECKING:
    from cloudtune.catalog import Catalog
    from cloudtune.catalog.document import Model
    from cloudtune_emulator.context import EmulatorContext

METHODS = {
    "FINE_TUNING": "sft", "CONTINUED_PRE_TRAINING": "cpt", "DISTILLATION": "distill",
    "REINFORCEMENT_FINE_TUNING": "rft",
}  # fmt: skip
_FORMATS = (
    ("amazon.nova-*", "converse"), ("meta.llama3-2-*", "converse"), ("meta.llama3-3-*", "converse"),
    ("meta.llama3-1-*", "prompt"), ("anthropic.claude-3-*", "claude"), ("*", "converse"),
)  # fmt: skip
"""https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html (seen 2026-11-21)."""
_ON_DEMAND = ("amazon.nova-*", "meta.llama3-3-70b-*")
"""https://docs.aws.amazon.com/bedrock/latest/userguide/deploy-custom-model-on-demand.html (seen 2026-11-21)."""
_ENDED_FAMILIES: dict[str, frozenset[str]] = {
    "anthropic.claude-3-*": frozenset(
        {"epochCount", "batchSize", "learningRateMultiplier", "earlyStoppingThreshold", "earlyStoppingPatience"}
    ),
}
"""https://docs.aws.amazon.com/bedrock/latest/userguide/custom-models-hp.html (seen 2026-11-21)."""
_PREFIX = "arn:aws:bedrock:"


def catalog() -> Catalog:
    """The catalog's entry for Bedrock."""
    return load("bedrock")


def today(now: float) -> date:
    """The date that applies: a test's clock may be earlier than the catalog, which is of today."""
    return max(datetime.fromtimestamp(now, UTC).date(), catalog().as_of)


def arn(region: str, name: str) -> str:
    """A foundation model's ARN."""
    return f"{_PREFIX}{region}::foundation-model/{name}"


def plain(identifier: str) -> str:
    """The id in an ARN, or the id itself."""
    return identifier.rpartition(":foundation-model/")[2]


def known(name: str) -> Model | None:
    """The model of that id; the id without its context suffix is the model for inference."""
    return catalog().model(name)


def inference(name: str) -> Model | None:
    """The model that answers to that id: with the suffix, or without."""
    found = (one for one in catalog().models if one.id == name or one.id.rpartition(":")[0] == name)
    return next(found, None)


def unfit(name: str, kind: str, region: str, now: float) -> str | None:
    """The reason why that base model accepts no such job, or None."""
    day, method = today(now), METHODS[kind]
    ended = inference(name)
    if ended is not None and ended.ends is not None and day >= ended.ends:
        # The messages for customization are not documented; these are those of its runtime.
        return f"The model {name} has reached the end of its life and can no longer be customized."
    found = known(name)
    if found is None and ended is not None:
        return f"The provided model identifier {name} does not support customization; use {ended.id}."
    if found is None:
        return f"The provided model identifier is invalid: {name}."
    if found.no_new_jobs_from is not None and day >= found.no_new_jobs_from:
        return f"The model {name} is legacy and takes no new customization jobs."
    if method not in found.methods or found.api:
        return f"The model {name} does not support {kind}."
    if found.regions and region not in found.regions:
        return f"The model {name} cannot be customized in {region}, but in {', '.join(found.regions)}."
    return None


def hyperparameters(name: str, kind: str, given: dict[str, str]) -> tuple[dict[str, float], list[str]]:
    """The family's effective hyperparameters, by the vendor's names, and the errors of the given values.

    Values are strings on the wire; unknown names and values out of range are refused at create
    (https://docs.aws.amazon.com/bedrock/latest/userguide/custom-models-hp.html, seen 2026-11-21).
    """
    method = {"distill": "sft"}.get(METHODS[kind], METHODS[kind])
    names = {entry.name for entry in catalog().ranges if method in entry.methods}
    ended = next((names for pattern, names in _ENDED_FAMILIES.items() if fnmatchcase(name, pattern)), None)
    figures: dict[str, float] = {}
    faults = []
    for key in names if ended is None else ():
        limits = catalog().range(key, name, method)
        if limits is not None and limits.default is not None:
            figures[key] = float(limits.default)
    for key, text in given.items():
        limits = None if ended is not None else catalog().range(key, name, method)
        if limits is None:
            if ended is None or key not in ended:
                faults.append(f"The hyperparameter {key} is not supported by {name}")
            continue
        number = _number(text)
        fault = "must be a number" if number is None else limits.fault(number)
        if fault is None and number is not None:
            figures[key] = float(number)
        else:
            faults.append(f"The hyperparameter {key} {fault}, not {text}")
    return figures, faults


def default(name: str, key: str) -> float | None:
    """The family's own default."""
    limits = catalog().range(key, name, "sft")
    return None if limits is None or limits.default is None else float(limits.default)


def _number(text: str) -> float | int | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def row_format(name: str) -> str:
    """The format of its rows."""
    return next(form for pattern, form in _FORMATS if fnmatchcase(name, pattern))


def is_on_demand(name: str) -> bool:
    """Whether models tuned on it can be deployed on demand."""
    return any(fnmatchcase(name, pattern) for pattern in _ON_DEMAND)


def get(context: EmulatorContext, call: Call) -> Reply:
    """GetFoundationModel."""
    name = plain(call.ids["modelIdentifier"])
    found = inference(name)
    if found is None:
        raise not_found("Could not resolve the foundation model from the provided model identifier.")
    return Reply(body={"modelDetails": _view(call, name, found)})


def list_(context: EmulatorContext, call: Call) -> Reply:
    """ListFoundationModels. Not paged."""
    shown = [_view(call, model.id, model) for model in catalog().models if not model.api]
    query = call.query
    if (provider := query.get("byProvider")) is not None:
        shown = [one for one in shown if one["providerName"].lower() == provider.lower()]
    for name, field in (
        ("byCustomizationType", "customizationsSupported"), ("byOutputModality", "outputModalities"),
        ("byInferenceType", "inferenceTypesSupported"),
    ):  # fmt: skip
        if (wanted := query.get(name)) is not None:
            shown = [one for one in shown if wanted in one[field]]
    return Reply(body={"modelSummaries": shown})


def _view(call: Call, name: str, model: Model) -> dict[str, Any]:
    day = today(call.now)
    is_legacy = model.no_new_jobs_from is not None and day >= model.no_new_jobs_from
    kinds = [kind for kind, method in METHODS.items() if method in model.methods and kind != _UNLISTED]
    lifecycle: dict[str, Any] = {"status": "LEGACY" if is_legacy else "ACTIVE"}
    if model.ends is not None:
        lifecycle["endOfLifeTime"] = f"{model.ends.isoformat()}T00:00:00Z"
    inputs = [kind.upper() for kind in model.inputs if kind != "video"]
    return {
        "modelArn": arn(call.region, name), "modelId": name, "modelName": name.partition(".")[2],
        "providerName": name.partition(".")[0].capitalize(), "inputModalities": inputs, "outputModalities": ["TEXT"],
        "responseStreamingSupported": True, "customizationsSupported": [] if is_legacy else kinds,
        "inferenceTypesSupported": ["ON_DEMAND"] if is_on_demand(name) else ["PROVISIONED"],
        "modelLifecycle": lifecycle,
    }  # fmt: skip


_UNLISTED = "REINFORCEMENT_FINE_TUNING"
"""ListFoundationModels does not know it (botocore 1.44.5, enum ModelCustomization)."""


def refuse(faults: list[str]) -> None:
    """Raise ValidationException that lists all errors."""
    if faults:
        raise invalid(faults[0] if len(faults) == 1 else f"{len(faults)} validation errors: {'; '.join(faults)}")
