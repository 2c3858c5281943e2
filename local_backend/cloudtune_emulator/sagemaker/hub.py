"""The public hub: contents described and listed, recipes checked, and the buckets that documents point into.

Shapes: botocore 1.44.5, service model. The hub belongs to the account ``aws``. Hyperparameters of a serverless job are
validated against its recipe (docs.aws.amazon.com/sagemaker/latest/dg/customizing-models-sft.html, seen 2026-11-21).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws import buckets
from cloudtune_emulator.aws.moto_app import OF_AWS
from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.sagemaker import documents, listing, shapes

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

_SINCE = 1_735_689_600.0  # 2025-01-01
_PLACEHOLDER = b"A placeholder of the emulator: no weights, no program.\n"


def describe(context: EmulatorContext, call: Call) -> Reply:
    """DescribeHubContent."""
    request = call.body
    name, version = request["HubContentName"], request.get("HubContentVersion")
    document = _document(call, request["HubName"], request["HubContentType"], name, version)
    body = _info(call, name) | {
        "HubName": documents.HUB, "HubArn": _arn(call, f"hub/{documents.HUB}"),
        "HubContentDocument": json.dumps(document),
    }  # fmt: skip
    return Reply(body=body)


def list_(context: EmulatorContext, call: Call) -> Reply:
    """ListHubContents."""
    _hub(call.body["HubName"])
    views = [_info(call, name) for name in documents.names()] if call.body["HubContentType"] == "Model" else []
    return Reply(body=listing.page(
        call, views, under="HubContentSummaries", name="HubContentName",
        by={"HubContentName": lambda view: view["HubContentName"]},
    ))  # fmt: skip


def versions(context: EmulatorContext, call: Call) -> Reply:
    """ListHubContentVersions: the emulator's hub has one version of each content."""
    _document(call, call.body["HubName"], call.body["HubContentType"], call.body["HubContentName"], None)
    return Reply(body={"HubContentSummaries": [_info(call, call.body["HubContentName"])]})


def describe_hub(context: EmulatorContext, call: Call) -> Reply:
    """DescribeHub."""
    _hub(call.body["HubName"])
    return Reply(body={
        "HubName": documents.HUB, "HubArn": _arn(call, f"hub/{documents.HUB}"), "HubStatus": "InService",
        "CreationTime": _SINCE, "LastModifiedTime": _SINCE,
    })  # fmt: skip


def _hub(name: str) -> None:
    if name != documents.HUB and not name.endswith(f":hub/{documents.HUB}"):
        raise shapes.failed("ResourceNotFound", f"Hub with name {name} does not exist")


def _document(call: Call, hub: str, kind: str, name: str, version: str | None) -> dict[str, Any]:
    _hub(hub)
    if kind != "Model" or name not in documents.names():
        raise shapes.failed("ResourceNotFound", f"Hub content with type {kind} and name {name} does not exist")
    if version is not None and version != documents.version(name):
        raise shapes.failed("ResourceNotFound", f"Hub content version {version} of {name} does not exist")
    return documents.document(name, call.region or "us-east-1")


def _arn(call: Call, what: str) -> str:
    return f"arn:aws:sagemaker:{call.region or 'us-east-1'}:aws:{what}"


def _info(call: Call, name: str) -> dict[str, Any]:
    version = documents.version(name)
    return {
        "HubContentName": name, "HubContentVersion": version, "HubContentType": "Model",
        "HubContentArn": _arn(call, f"hub-content/{documents.HUB}/Model/{name}/{version}"),
        "DocumentSchemaVersion": documents.SCHEMA_VERSION, "HubContentStatus": "Available",
        "HubContentDisplayName": name, "HubContentDescription": documents.INVENTED, "SupportStatus": "Supported",
        "HubContentSearchKeywords": ["@capability:fine-tuning"], "CreationTime": _SINCE,
    }  # fmt: skip


# -- for other modules ------------------------------------------------------------------------------------------------


def of_arn(context: EmulatorContext, call: Call, arn: str) -> dict[str, Any]:
    """The document of a base model's ARN, with or without a version, or the service's error."""
    _, _, rest = arn.partition(":hub-content/")
    hub, _, name, *version = rest.split("/")
    return _document(call, hub, "Model", name, version[0] if version else None)


def is_gated(uri: str) -> bool:
    """Whether weights are in the bucket that requires accepting an agreement."""
    return uri.startswith("s3://jumpstart-private-cache-prod-")


def check_recipe(document: dict[str, Any], config: dict[str, Any], given: dict[str, str]) -> None:
    """Raises ValidationException if no recipe matches, or a value is outside its recipe's range."""
    technique, peft = config.get("CustomizationTechnique"), config.get("Peft")
    recipes = document.get("RecipeCollection") or ()
    if not any(one["CustomizationTechnique"] == technique and one.get("Peft") == peft for one in recipes):
        raise shapes.refused(f"The base model does not support {technique} with {peft or 'full-rank'} training.")
    rules = documents.override_params(str(technique), peft)
    faults = [f"{key} is not supported" for key in given if key not in rules]
    faults += [text for key, rule in rules.items() if key in given and (text := _broken(key, rule, given[key]))]
    if faults:
        raise shapes.refused(f"Invalid HyperParameters: {'; '.join(faults)}.")


def _broken(key: str, rule: dict[str, Any], text: str) -> str:
    if rule["type"] == "string":
        return "" if text in rule["enum"] else f"{key} must be one of {rule['enum']}, not {text}"
    try:
        value = int(text) if rule["type"] == "integer" else float(text)
    except ValueError:
        return f"{key} must be of type {rule['type']}, not {text}"
    if "enum" in rule and value not in rule["enum"]:
        return f"{key} must be one of {rule['enum']}, not {text}"
    if "min" in rule and not rule["min"] <= value <= rule["max"]:
        return f"{key} must be between {rule['min']} and {rule['max']}, not {text}"
    return ""


def seed_caches(context: EmulatorContext) -> None:
    """Create the AWS-owned public buckets to which documents refer, with placeholder objects."""
    region = context.settings.aws_region
    store = context.aws.backend("s3", account=OF_AWS)
    if documents.cache_bucket(region) in store.buckets:
        return
    for name in (documents.cache_bucket(region), documents.gated_bucket(region)):
        store.create_bucket(name, region)
    for uri, data in _contents(region).items():
        place = buckets.parse(uri)
        store.put_object(place.bucket, place.key, data)


def _contents(region: str) -> dict[str, bytes]:
    found = {f"s3://{documents.cache_bucket(region)}/models_manifest.json": documents.manifest()}
    for name in documents.names():
        document = documents.document(name, region)
        for field in ("TrainingScriptUri", "TrainingArtifactUri", "HostingArtifactUri", "HostingEulaUri"):
            if uri := document.get(field):
                found[uri + ("placeholder.txt" if uri.endswith("/") else "")] = _PLACEHOLDER
        if data := document.get("DefaultTrainingDatasetUri"):
            found[f"{data}default.jsonl"] = (
                b'{"instruction": "Whose rows?", "context": "", "response": "AWS\'s own."}\n'
            )
        key = f"community_models/{name}/specs_v{documents.version(name)}.json"
        found[f"s3://{documents.cache_bucket(region)}/{key}"] = json.dumps(document).encode()
        for recipe in document.get("RecipeCollection", ()):
            rules = documents.override_params(recipe["CustomizationTechnique"], recipe.get("Peft"))
            found[recipe["SmtjOverrideParamsS3Uri"]] = json.dumps(rules).encode()
            keys = "".join(f"  {key}: '{{{{{key}}}}}'\n" for key in rules)
            found[recipe["SmtjRecipeTemplateS3Uri"]] = f"# {documents.INVENTED}\ntraining_config:\n{keys}".encode()
    return found
