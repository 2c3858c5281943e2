"""What each place that trains accepts: formats by method, limits and rules. Facts from the vendors' documents.

Checked 2026-11-21. Limits of numbers may be adjustable quotas of an account; each says so where the vendor does.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from cloudtune.data.checks.openai_tokens import encoding_of
from cloudtune.errors import DataError, Problem

_MB = 1 << 20
NOVA_FORBIDDEN = ("User:", "Bot:", "Assistant:", "System:", "<image>", "<video>", "[EOS]")


class Target(NamedTuple):
    """What one place accepts."""

    name: str
    formats: dict[str, str]
    """Method -> the format that its rows are uploaded in."""
    min_rows: int = 1
    max_rows: int | None = None
    together: bool = False
    """Training and validation rows count together against the numbers of rows."""
    max_bytes: int | None = None
    """Of one file."""
    max_tokens: int | None = None
    """Of one row."""
    forbidden: tuple[str, ...] = ()
    """Text that makes the job fail in system or user messages."""
    tokenizer: str | None = None
    """The exact token counter of the model, if available: see ``tokens.counter_of``."""
    cited: dict[str, str] = {}
    """Field -> where its number comes from, in words."""

    def words(self, field: str) -> str:
        """Where the number of a field comes from, in brackets; empty if that is not known."""
        return f" ({self.cited[field]})" if field in self.cited else ""

    def format_for(self, method: str) -> str:
        """The format for a method. Raises DataError if it is not offered."""
        if method in self.formats:
            return self.formats[method]
        problem = Problem(
            code="method", field="method", message=f"{self.name} has no format for {method}",
            fix=f"it supports {', '.join(self.formats)}",
        )  # fmt: skip
        raise DataError([problem])


_OPENAI = {"sft": "openai", "dpo": "openai-preference", "rft": "openai-rft"}
_AZURE = {"sft": "azure-openai", "dpo": "azure-openai-preference", "rft": "azure-openai-rft"}
_NOVA = {"sft": "bedrock-converse", "rft": "bedrock-rft", "distill": "bedrock-converse"}
TARGETS: dict[str, Target] = {
    one.name: one
    for one in (
        Target("local", dict.fromkeys(("sft", "cpt", "dpo", "ipo", "orpo", "simpo"), "cloudtune")),
        Target("openai", _OPENAI, min_rows=10, max_bytes=512 * _MB),
        Target("azure_openai", _AZURE, min_rows=10, max_bytes=512 * _MB),
        Target("bedrock", _NOVA, min_rows=8, max_rows=20_000, max_tokens=32_000, forbidden=NOVA_FORBIDDEN),
        Target("bedrock-llama", {"sft": "bedrock-converse"}, 100, 10_000, together=True, max_tokens=16_000),
        Target("bedrock-llama3-1", {"sft": "bedrock-prompt"}, 100, 10_000, together=True, max_tokens=16_000),
        Target("bedrock-prompt", {"sft": "bedrock-prompt"}),
        Target("bedrock-claude", {"sft": "claude"}, min_rows=32, max_rows=10_000, max_tokens=32_000),
        Target("bedrock-llama-90b", {"sft": "bedrock-converse"}, 100, 10_000, together=True, max_tokens=10_000),
        Target("sagemaker", {"sft": "sagemaker-messages", "dpo": "sagemaker-preference", "grpo": "sagemaker-rlvr",
                             "rft": "sagemaker-rlvr"}, max_bytes=1024 * _MB),
        Target("sagemaker-nova", {"sft": "bedrock-converse", "dpo": "nova-preference"}, max_bytes=1024 * _MB,
               forbidden=NOVA_FORBIDDEN),
        Target("jumpstart", {"sft": "jumpstart-chat", "cpt": "cloudtune"}),
        Target("jumpstart-instruction", {"sft": "jumpstart-instruction"}),
    )
}  # fmt: skip
_MODELS = (
    ("bedrock", "llama3-1", "bedrock-llama3-1"), ("bedrock", "90b", "bedrock-llama-90b"),
    ("bedrock", "llama", "bedrock-llama"), ("bedrock", "titan-text", "bedrock-prompt"),
    ("bedrock", "cohere.", "bedrock-prompt"), ("bedrock", "anthropic.", "bedrock-claude"),
    ("sagemaker", "nova", "sagemaker-nova"),
)  # fmt: skip
"""Back end, a part of the model's id, and the target that they make."""


_FIGURES = {"rows.min": "min_rows", "rows.max": "max_rows", "file.bytes.max": "max_bytes",
            "upload.bytes.max": "max_bytes", "row.tokens.max": "max_tokens"}  # fmt: skip
"""Limit of the catalog -> our field; of two for one field the later counts."""


def find_target(backend: str, model: str | None = None, method: str | None = None) -> Target:
    """What the back end accepts for that model. Raises DataError for a name that is not known."""
    name = backend.replace("-", "_") if backend.replace("-", "_") in TARGETS else backend
    for place, part, found in _MODELS:
        if place == name and model and part in model.lower():
            return _with_figures(TARGETS[found], name, model, method)
    if name in TARGETS:
        return _with_figures(TARGETS[name], name, model, method)
    near = difflib.get_close_matches(name, TARGETS, n=1)
    fix = f"did you mean {near[0]}?" if near else f"use one of {', '.join(TARGETS)}"
    message = f"no data rules for {backend!r}"
    raise DataError([Problem(code="unknown_target", field="for", message=message, fix=fix)])


def _with_figures(target: Target, vendor: str, model: str | None, method: str | None) -> Target:
    """With the catalog's numbers, where it has any for that model and method: they are dated, and name their source."""
    from cloudtune.catalog import load, vendors

    if vendor not in vendors():
        return target
    catalog = load(vendor)
    changes: dict[str, int] = {}
    cited: dict[str, str] = {}
    for name, field in _FIGURES.items():
        limit = catalog.limit(name, model or "", method or "")
        if limit is not None and (not limit.methods or method):
            changes[field] = int(limit.value)
            cited[field] = catalog.cite(limit.source)
    counts = encoding_of(model) if vendor in ("openai", "azure_openai") else None
    return target._replace(**changes, cited=cited, tokenizer=counts)  # type: ignore[arg-type]
