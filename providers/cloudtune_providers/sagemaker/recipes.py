"""The documents and recipes of public hub models for SageMaker's serverless customization."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from cloudtune.errors import InvalidResponse, JobNotFound, Problem, SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.sagemaker.storage import Stores

PUBLIC_HUB = "SageMakerPublicHub"
OVERRIDES_KEY = "SmtjOverrideParamsS3Uri"
"""The field of a recipe with the URI of its parameters' types, ranges and defaults
(sagemaker-train 1.27.0, ``base_trainer.py``)."""
TEMPLATE_KEY = "SmtjRecipeTemplateS3Uri"
"""A recipe without this field is for clusters, not for jobs of this kind."""
_OVERRIDES = "overrides.sagemaker"
_ACCOUNT = "{customer_id}"


def find_recipe(
    clients: Clients, stores: Stores, *, hub: str, model: str, technique: str, peft: str | None,
    sequence_length: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The model's ARN and the parameters of its recipe. Raises SpecError. Read-only."""
    try:
        with clients.asking(f"document of {model}"):
            response = clients.client("sagemaker").describe_hub_content(
                HubName=hub, HubContentType="Model", HubContentName=model
            )
    except JobNotFound as error:
        fix = "find its name in the SageMaker hub, e.g. huggingface-reasoning-qwen3-8b"
        raise _wrong("unknown_model", "model", f"{hub} has no model {model!r}", fix) from error
    text = str(response["HubContentDocument"])
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidResponse(f"the hub's document of {model} is not valid JSON") from error
    recipe = _recipe(document, model, technique, peft, sequence_length)
    return {
        "model": model,
        "arn": str(response["HubContentArn"]),
        "version": str(response["HubContentVersion"]),
        "document_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "gated": bool(document.get("GatedBucket") or document.get("HostingEulaUri")),
        "recipe": str(recipe.get("Name") or ""),
        "sequence_length": recipe.get("SequenceLength"),
        "parameters": _parameters(clients, stores, recipe),
    }


def _recipe(
    document: Mapping[str, Any], model: str, technique: str, peft: str | None, length: str | None
) -> Mapping[str, Any]:
    """The recipe, chosen as in AWS's own SDK: by its length, and preferably one that needs no subscription.

    (sagemaker-train 1.27.0, ``common_utils/finetune_utils.py``.)
    """
    every = [one for one in document.get("RecipeCollection") or () if one.get("CustomizationTechnique")]
    offered = [one for one in every if one.get(TEMPLATE_KEY)]
    fitting = [one for one in offered if (one["CustomizationTechnique"], one.get("Peft")) == (technique, peft)]
    if not fitting:
        ways = sorted({f"{one['CustomizationTechnique']} ({one.get('Peft') or 'full'})" for one in offered})
        message = f"{model} does not support {technique} with {peft or 'all weights'}"
        raise _wrong("no_recipe", "method", message, f"supported: {', '.join(ways) or 'nothing'}")
    lengths = {str(one["SequenceLength"]) for one in fitting if one.get("SequenceLength")}
    if length is not None and lengths:
        fitting = [one for one in fitting if _tokens(one.get("SequenceLength")) == _tokens(length)]
    if not fitting:
        fix = f"choose one of {', '.join(sorted(lengths, key=_tokens))}"
        raise _wrong("no_recipe", f"{_OVERRIDES}.sequence_length", f"{model} has no recipe for {length}", fix)
    return next((one for one in fitting if not one.get("IsSubscriptionModel")), fitting[0])


def _tokens(length: object) -> int:
    """The number of tokens, written as ``8K`` or as a number."""
    text = str(length or "0").upper()
    return int(text[:-1]) * 1024 if text.endswith("K") else int(text)


def _parameters(clients: Clients, stores: Stores, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """``{name: {"type", "min", "max", "enum", "default"}}``."""
    url = str(recipe.get(OVERRIDES_KEY) or "")
    if not url:
        return {}
    if _ACCOUNT in url:  # a subscription's own access point
        url = url.replace(_ACCOUNT, clients.account())
    store, key = stores.at(url)
    try:
        found = json.loads(store.read(key))
    except ValueError as error:
        raise InvalidResponse(f"{url} is not valid JSON") from error
    return {str(name): dict(rule) for name, rule in found.items() if isinstance(rule, dict)}


def fault_of(rule: Mapping[str, Any], value: Any) -> str | None:
    """The error of a value, by the recipe."""
    if rule.get("type") == "integer" and (isinstance(value, bool) or value != int(value)):
        return f"must be a whole number, not {value}"
    if rule.get("enum") and value not in rule["enum"]:
        return f"must be one of {', '.join(map(str, rule['enum']))}, not {value}"
    low, high = rule.get("min"), rule.get("max")
    if isinstance(value, int | float) and ((low is not None and value < low) or (high is not None and value > high)):
        return f"must be between {low} and {high}, not {value}"
    return None


def _wrong(code: str, field: str, message: str, fix: str) -> SpecError:
    return SpecError([Problem(code=code, field=field, message=message, fix=fix)])
