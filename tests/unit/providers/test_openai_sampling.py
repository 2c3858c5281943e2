"""The sampling parameters that are sent to each model."""

from __future__ import annotations

import pytest

from cloudtune.optional import GenerateOptions
from cloudtune_providers.openai_dialect.inference import _sampling


@pytest.mark.parametrize(("model", "reasons"), [
    ("o4-mini-2025-04-16", True), ("ft:o4-mini-2025-04-16:org::id", True), ("o3", True), ("gpt-5-mini", True),
    ("gpt-5", True), ("gpt-5-chat-latest", False), ("gpt-4o-mini", False), ("ft:gpt-4.1-mini:org::o4", False),
    ("open-model", False),
])  # fmt: skip
def test_reasoning_models_get_no_default_temperature(model: str, reasons: bool) -> None:
    assert _sampling(model, GenerateOptions()) == ({} if reasons else {"temperature": 0.0, "top_p": 1.0})
    assert _sampling(model, GenerateOptions(temperature=0.5))["temperature"] == 0.5  # the service decides
