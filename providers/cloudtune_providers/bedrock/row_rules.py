"""Validation of Bedrock's training rows, by the family of the base model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cloudtune.data.conversation_rules import turns_of
from cloudtune.data.row_rules import RowRule, Source
from cloudtune_providers.aws.converse import media_of
from cloudtune_providers.aws.nova_rules import MIXED_MEDIA, nova_rules
from cloudtune_providers.openai_dialect.row_rules import SPECIAL_TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.catalog import Catalog, Model
    from cloudtune.data.records import Record
    from cloudtune.data.row_rules import Finding, VendorRule

_PREPARE = Source("https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-prepare.html", "2026-11-21")
_DISTILL = Source(
    "https://docs.aws.amazon.com/bedrock/latest/userguide/distillation-prepare-datasets.html", "2026-11-21"
)


def _media_model(model: str, inputs: tuple[str, ...], record: Record) -> Iterator[Finding]:
    for field, _, kind, _ in media_of(record):
        if kind not in inputs:
            yield field, f"{model} is not tuned on {kind}s"


def _media(record: Record) -> Iterator[Finding]:
    for field, *_ in media_of(record):
        yield field, "the row has an image or video"


def _text_only(record: Record) -> Iterator[Finding]:
    for field, message in turns_of(record):
        if message.role == "tool" or message.tool_calls:
            yield field, "the turn has tool calls, or is a result"
        elif message.reasoning_content:
            yield f"{field}.reasoning_content", "the turn has reasoning"
    for field, *_ in media_of(record):
        yield field, "the turn has an image"


def _models_with_media(catalog: Catalog) -> list[str]:
    """Models that are tuned on images or videos, with the kinds of media."""
    return [f"{one.id} ({', '.join(one.inputs[1:])})" for one in catalog.models if len(one.inputs) > 1]


_MEDIA_METHOD = RowRule(
    "media_method", "Distillation takes text only.", _DISTILL, '{"image": ...}', "remove the row", _media
)
_TEXT_ONLY = RowRule(
    "text_only", "Rows for Claude have texts only: no tools, reasoning or images.", _PREPARE,
    '{"type": "tool_use", ...}', "remove the row", _text_only,
)  # fmt: skip


def rules_for(catalog: Catalog, known: Model | None, model: str, method: str | None) -> tuple[VendorRule, ...]:
    """The rules for that model and method. ``known``: the catalog's entry of the model."""
    found: list[VendorRule] = [MIXED_MEDIA]
    if not model or "nova" in model.lower():
        most = catalog.limit("row.images.max", model or "amazon.nova-lite-v1:0:300k", method or "")
        found += nova_rules(model, method, int(most.value) if most is not None else 10)
    if "anthropic." in model.lower():
        found.append(_TEXT_ONLY)
    if known is not None and known.api:  # open-weight models are tuned through an OpenAI-compatible API
        found.append(SPECIAL_TOKEN)
    if method == "distill":
        found.append(_MEDIA_METHOD)
    elif known is not None and not {"image", "video"} <= set(known.inputs):
        only = " and ".join(known.inputs)
        found.append(
            RowRule(
                "media_model",
                f"{known.id} is tuned on {only} only.",
                _PREPARE,
                '{"image": ...}',
                f"use one of {', '.join(_models_with_media(catalog))}, or remove the row",
                partial(_media_model, known.id, known.inputs),
            )
        )
    return tuple(found)
