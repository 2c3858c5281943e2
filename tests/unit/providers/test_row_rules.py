"""What rows are held against while planning is what they are written in afterwards, for every back end and model."""

from __future__ import annotations

import pytest

from cloudtune.capability_check import row_rules
from cloudtune.catalog import load
from cloudtune.data.checks.targets import find_target
from cloudtune.data.write.formats_table import find_format
from cloudtune.optional import DataRules
from cloudtune.registry import BUILT_IN, backend_class
from cloudtune.spec import JobSpec


def spec(model: str, method: str = "sft") -> JobSpec:
    return JobSpec.model_validate({"model": model, "method": method, "data": {"train": "rows.jsonl"}})


MODELS = {"bedrock": [model.id for model in load("bedrock").models], "sagemaker": ["amazon.nova-lite-v1:0"]}


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_back_end_has_rules_with_known_formats(name: str) -> None:
    assert issubclass(backend_class(name), DataRules)
    for model in [None, *MODELS.get(name, [])]:
        target = find_target(name, model)
        assert target.formats
        assert all(find_format(form).name == form for form in target.formats.values())


def test_bedrock_by_model_and_method() -> None:
    from cloudtune_providers.bedrock.requests import format_of

    checked = 0
    for model in load("bedrock").models:
        for method in model.methods or ("sft",):
            target = find_target("bedrock", model.id, method)
            if method in target.formats and not model.id.startswith(("openai.", "qwen.")):
                assert target.format_for(method) == format_of(spec(model.id, method)), (model.id, method)
                checked += 1
    assert checked > 10
    for name in ("amazon.titan-text-express-v1", "cohere.command-text-v14"):
        assert find_target("bedrock", name).format_for("sft") == format_of(spec(name))


@pytest.mark.parametrize("vendor", ["openai", "azure_openai"])
def test_openais_dialect(vendor: str) -> None:
    from cloudtune_providers.azure_openai.translate import FORMATS as AZURE
    from cloudtune_providers.openai.translate import FORMATS as OPENAI

    for method, form in {"openai": OPENAI, "azure_openai": AZURE}[vendor].items():
        assert find_target(vendor, "gpt-4.1-mini-2025-04-14", method).format_for(method) == form


def test_sagemaker_with_and_without_servers() -> None:
    from cloudtune_providers.sagemaker.options import SageMakerOptions
    from cloudtune_providers.sagemaker.serverless import _FORMATS, _NOVA_FORMATS

    cls = backend_class("sagemaker")
    own = cls(SageMakerOptions(region="us-east-1"))  # type: ignore[call-arg]
    assert isinstance(own, DataRules)
    rules = row_rules(spec("meta-llama/Llama-3.2-1B"), own)
    assert rules is not None
    assert (rules.format_for("sft"), rules.max_bytes) == ("cloudtune", None)
    without = cls(SageMakerOptions(region="us-east-1", compute="serverless"))  # type: ignore[call-arg]
    for model, formats in {"meta-llama/Llama-3.2-1B": _FORMATS, "amazon.nova-lite-v1:0": _NOVA_FORMATS}.items():
        for method, form in formats.items():
            rules = row_rules(spec(model, method), without)
            assert rules is not None
            assert rules.formats.get(method) == form, (model, method)


def test_jumpstart_by_layout() -> None:
    from cloudtune_providers.jumpstart import layouts

    for layout, target in layouts.TARGETS.items():
        assert layouts.FORMATS[layout] in target.formats.values()
