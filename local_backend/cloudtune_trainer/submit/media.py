"""Jobs whose rows are images or recordings: what their models do not have, and models that read something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.errors import Problem
from cloudtune.methods import METHODS
from cloudtune_trainer.submit.adapter_problems import DEFAULT_ADAPTER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.spec import JobSpec

ADAPTERS_OF_MEDIA = ("full", "head_only", "lora", "dora", "ia3")
"""The others change tokens, or need the layers of a language model."""
_NO_TOKENS = ("max_length", "neftune_alpha")


def media_problems(spec: JobSpec) -> Iterator[Problem]:
    """Settings that do not apply to images or recordings."""
    media = METHODS[spec.method.name].media
    if media is None:
        return
    adapter = spec.adapter.type if spec.adapter is not None else DEFAULT_ADAPTER
    if adapter not in ADAPTERS_OF_MEDIA:
        message = f"{spec.method.name} trains models of {media} input, which {adapter} does not change"
        fix = f"use one of {', '.join(ADAPTERS_OF_MEDIA)}"
        yield Problem(code="contradiction", field="adapter.type", message=message, fix=fix)
    for name in _NO_TOKENS:
        if getattr(spec.hyperparameters, name) is not None:
            message = f"it is about tokens, and {spec.method.name} reads files"
            yield Problem(code="no_effect", field=f"hyperparameters.{name}", message=message, fix="remove it")
    if spec.method.problem not in (None, "single_label"):
        message = f"the rows of {spec.method.name} have one label each"
        yield Problem(code="contradiction", field="method.problem", message=message, fix="remove it")


def wrong_input(spec: JobSpec, model: Mapping[str, Any]) -> Iterator[Problem]:
    """A model that does not read what the method's rows hold, as far as its files tell."""
    wanted, reads = METHODS[spec.method.name].media or "text", model.get("reads")
    if reads is not None and reads != wanted:
        message = f"{spec.method.name} trains a model of {wanted} input, and this one reads {reads}"
        fix = f"use a model with a tokenizer, or a method for {reads} rows"
        if wanted != "text":
            fix = f"use a model with a preprocessor_config.json for {wanted} input"
        yield Problem(code="wrong_family", field="model", message=message, fix=fix)
