"""Limits of rows that OpenAI and Azure OpenAI share; the catalog's dated values take precedence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.catalog import load
from cloudtune.data.checks.targets import Target
from cloudtune_providers.openai_dialect.tokens import encoding_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def target_of(name: str, formats: Mapping[str, str], model: str | None, method: str | None) -> Target:
    """The rules of the back end of that name. Files have at least 10 rows and at most 512 MiB."""
    target = Target(
        name, dict(formats), min_rows=10, max_bytes=512 << 20, tokenizer=encoding_of(model),
        rules_of=(name, model, method),
    )  # fmt: skip
    return target.with_limits(load(name), model, method)
