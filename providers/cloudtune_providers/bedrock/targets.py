"""The rows that Bedrock accepts, by base model; the catalog's dated values take precedence.

docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html, seen 2026-11-21. Numbers of rows may be
adjustable quotas of an account.
"""

from __future__ import annotations

from cloudtune.catalog import load
from cloudtune.data.checks.targets import Target
from cloudtune_providers.bedrock.responses import NAME

_NOVA = Target(
    NAME, {"sft": "bedrock-converse", "rft": "bedrock-rft", "distill": "bedrock-converse"}, min_rows=8, max_rows=20_000,
    max_tokens=32_000,
)  # fmt: skip
_NOVA_2 = _NOVA._replace(formats=_NOVA.formats | {"sft": "bedrock-nova-2"})
_LLAMA = Target(
    "bedrock-llama", {"sft": "bedrock-converse"}, min_rows=100, max_rows=10_000, together=True, max_tokens=16_000
)
_PROMPT = Target("bedrock-prompt", {"sft": "bedrock-prompt"})
_MODELS = (
    ("nova-2", _NOVA_2),
    ("llama3-1", _LLAMA._replace(name="bedrock-llama3-1", formats=_PROMPT.formats)),
    ("90b", _LLAMA._replace(name="bedrock-llama-90b", max_tokens=10_000)),
    ("llama", _LLAMA),
    ("titan-text", _PROMPT),
    ("cohere.", _PROMPT),
    ("anthropic.", Target("bedrock-claude", {"sft": "claude"}, min_rows=32, max_rows=10_000, max_tokens=32_000)),
)
"""A part of the model's id, and the rules for such models."""


def target_of(model: str | None, method: str | None) -> Target:
    """The rules for that model; Nova's if none is named."""
    found = next((target for part, target in _MODELS if model and part in model.lower()), _NOVA)
    return found._replace(rules_of=(NAME, model, method)).with_limits(load(NAME), model, method)
