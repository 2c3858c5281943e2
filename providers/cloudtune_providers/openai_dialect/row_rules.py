"""Validation of training files for OpenAI and Azure OpenAI, beyond the shape of a row.

The order of roles is free: the published schema has none, and the vendors' own samples have two user turns in a row.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from cloudtune.data.conversation_rules import arguments_of, decoded, texts_of, turns_of, unmatched_calls
from cloudtune.data.records import ImagePart, Item, Preference
from cloudtune.data.row_rules import DataRule, RowRule, Source
from cloudtune_providers.openai_dialect.model_names import base_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.catalog import Catalog
    from cloudtune.data.records import Record
    from cloudtune.data.row_rules import DataFacts, Finding, VendorRule

_SCHEMA = Source("https://github.com/openai/openai-openapi", "2026-11-21")
_VISION = Source("https://developers.openai.com/api/docs/guides/vision-fine-tuning", "2026-11-29")
_RFT_IMAGES = Source(
    "https://community.openai.com/t/rl-finetuning-with-text-image-data-image-data-not-supported/1357459", "2026-11-29"
)
_RFT = Source("https://learn.microsoft.com/azure/foundry/openai/how-to/reinforcement-fine-tuning", "2026-11-29")
_DPO = Source(
    "https://learn.microsoft.com/azure/foundry/openai/how-to/fine-tuning-direct-preference-optimization", "2026-11-29"
)
_SPECIAL = Source("https://github.com/johny-b/llmcomp/issues/59", "2026-11-29")
_CALLS = Source("https://developers.openai.com/api/docs/guides/function-calling", "2026-11-29")
_DRONE = Source("https://github.com/openai/openai-cookbook/blob/main/examples/data/drone_training.jsonl", "2026-11-29")
_TOOL_TEXT = Source("https://community.openai.com/t/965584", "2026-11-29")

MOST_TOOLS = 128
MOST_IMAGE_ROWS = 50_000
MOST_IMAGE_BYTES = 10_000_000
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TOKENS = r"<\|(?:endoftext|endofprompt|fim_prefix|fim_middle|fim_suffix)\|>"
_TOKEN = re.compile(_TOKENS)
_DATA_URL = re.compile(r"data:(?P<type>[\w.+/-]*);base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]++={0,2}\s*")
_IMAGE_TYPES = {"image/jpg", "image/jpeg", "image/png", "image/webp"}
_OTHER_ENDINGS = {"avif", "bmp", "gif", "heic", "heif", "ico", "pdf", "psd", "svg", "tif", "tiff"}


# -- tools -------------------------------------------------------------------------------------------------------------


def _tools(record: Record) -> list[dict[str, Any]]:
    given = record.fields.get("tools") if isinstance(record, Item) else getattr(record, "tools", UNSET)
    tools = msgspec.to_builtins(given) if isinstance(given, list) else []
    return [tool for tool in tools if isinstance(tool, dict)]


def _too_many_tools(record: Record) -> Iterator[Finding]:
    if (count := len(_tools(record))) > MOST_TOOLS:
        yield "tools", f"the row declares {count} tools"


def _tool_names(record: Record) -> Iterator[Finding]:
    for i, tool in enumerate(_tools(record)):
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and not _NAME.fullmatch(name):
            yield f"tools[{i}].function.name", f"{name[:80]!r} is not 1 to 64 of the characters a-z A-Z 0-9 _ -"
    for field, message in turns_of(record):
        for i, call in enumerate(message.tool_calls or ()):
            if not _NAME.fullmatch(call.function.name):
                place = f"{field}.tool_calls[{i}].function.name"
                yield place, f"{call.function.name[:80]!r} is not 1 to 64 of the characters a-z A-Z 0-9 _ -"


def _arguments(record: Record) -> Iterator[Finding]:
    for field, text, value in arguments_of(record):
        if not isinstance(value, dict) and not _is_encoded_twice(value):
            yield field, f"{text[:40]!r} is not the text of a JSON object"


def _encoded_twice(record: Record) -> Iterator[Finding]:
    for field, text, value in arguments_of(record):
        if _is_encoded_twice(value):
            yield field, f"{text[:40]!r} is a JSON string that contains the object"


def _is_encoded_twice(value: object) -> bool:
    return isinstance(value, str) and isinstance(decoded(value), dict)


def _tool_content(record: Record) -> Iterator[Finding]:
    for field, message in turns_of(record):
        if message.role == "tool" and isinstance(message.content, list):
            yield f"{field}.content", "the result is a list of parts"


# -- names, words and roles --------------------------------------------------------------------------------------------


def _names(record: Record) -> Iterator[Finding]:
    for field, message in turns_of(record):
        if message.name is not UNSET and not _NAME.fullmatch(message.name):
            yield f"{field}.name", f"{message.name[:80]!r} is not 1 to 64 of the characters a-z A-Z 0-9 _ -"


def _special_tokens(record: Record) -> Iterator[Finding]:
    for field, _, text in texts_of(record):
        if found := _TOKEN.search(text):
            yield field, f"the text contains the token {found.group()}"


def _output_roles(record: Record) -> Iterator[Finding]:
    if isinstance(record, Preference):
        for field, message in turns_of(record):
            if not field.startswith("messages") and message.role not in {"assistant", "tool"}:
                yield f"{field}.role", f"the answer contains a {message.role} turn"


def _prompt_end(record: Record) -> Iterator[Finding]:
    if isinstance(record, Item) and record.messages and record.messages[-1].role == "tool":
        yield f"messages[{len(record.messages) - 1}].role", "the last turn is a tool turn"


# -- images ------------------------------------------------------------------------------------------------------------


def _images(record: Record) -> Iterator[tuple[str, str, ImagePart]]:
    """Field, role and image."""
    for field, message in turns_of(record):
        for i, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if isinstance(part, ImagePart):
                yield f"{field}.content[{i}].image_url", message.role, part


def _image_roles(record: Record) -> Iterator[Finding]:
    for field, role, _ in _images(record):
        if role != "user":
            yield field, f"the image is in a turn of {role}"


def _image_count(most: int, record: Record) -> Iterator[Finding]:
    if (count := len(list(_images(record)))) > most:
        yield "messages", f"the row has {count} images"


def _image_addresses(record: Record) -> Iterator[Finding]:
    for field, _, part in _images(record):
        url = part.image_url.url
        if not re.match(r"https?://[^/\s]|data:", url, re.IGNORECASE):
            yield f"{field}.url", f"{url[:60]!r} is neither an http(s) URL nor a data URL"
        elif url[:5].lower() == "data:" and not (
            (found := _DATA_URL.match(url)) and _BASE64.fullmatch(url, found.end())
        ):
            yield f"{field}.url", f"{url[:60]!r} is not a base64 data URL"


def _image_formats(record: Record) -> Iterator[Finding]:
    for field, _, part in _images(record):
        url = part.image_url.url
        if found := _DATA_URL.match(url):
            form = found["type"].lower()
            if form not in _IMAGE_TYPES:
                yield f"{field}.url", f"the image is of type {form or 'unknown'}"
        else:
            ending = url.split("?")[0].split("#")[0].rpartition(".")[2].lower()
            if ending in _OTHER_ENDINGS:
                yield f"{field}.url", f"the image is a .{ending} file"


def _image_bytes(record: Record) -> Iterator[Finding]:
    for field, _, part in _images(record):
        found = _DATA_URL.match(part.image_url.url)
        if found and (size := (len(part.image_url.url) - found.end()) * 3 // 4) > MOST_IMAGE_BYTES:
            yield f"{field}.url", f"the image has about {size:,} bytes"


def _image_detail(record: Record) -> Iterator[Finding]:
    for field, _, part in _images(record):
        if part.image_url.detail not in (UNSET, "auto", "low", "high"):
            yield f"{field}.detail", f"{part.image_url.detail!r} is not a level of detail"


def _image_method(record: Record) -> Iterator[Finding]:
    if isinstance(record, Preference | Item):
        for field, _, _ in _images(record):
            yield field, "the row has an image"


def _image_model(model: str, record: Record) -> Iterator[Finding]:
    for field, _, _ in _images(record):
        yield field, f"{model} is not tuned on images"


def _image_rows(facts: DataFacts) -> Iterator[Finding]:
    if (count := facts.features.get("images", 0)) > MOST_IMAGE_ROWS:
        yield "data.train", f"{count:,} rows have images"


# -- the table ---------------------------------------------------------------------------------------------------------

SPECIAL_TOKEN = RowRule(
    "special_token", "Texts contain no special token of the tokenizer.", _SPECIAL,
    '{"role": "user", "content": "code <|fim_suffix|> here"}', "remove the token, or write it another way",
    _special_tokens, re.compile(_TOKENS.encode()),
)  # fmt: skip
_ROWS = (
    RowRule(
        "tool_pairing", "Each tool call has one tool turn with its result before the next other turn, except in the "
        "last turn; each tool turn has the tool_call_id of such a call.", _CALLS,
        '{"role": "tool", "tool_call_id": "other", "content": "10:00"}',
        "give each call an id, and each result the id of its call", unmatched_calls,
    ),
    RowRule(
        "tool_arguments", "The arguments of a tool call are the text of a JSON object.", _CALLS,
        '{"name": "time", "arguments": "city=Lima"}', 'write them as JSON, such as "{\\"city\\": \\"Lima\\"}"',
        _arguments,
    ),
    RowRule(
        "tool_arguments_encoded", "The arguments of a tool call are encoded once. OpenAI's own example has some that "
        "are encoded twice, so they are accepted, but the model learns to write them so.", _DRONE,
        '{"name": "land", "arguments": "\\"{\\\\\\"place\\\\\\": 1}\\""}', "encode the object once",
        _encoded_twice, severity="warning",
    ),
    RowRule(
        "tool_content", "The content of a tool turn is a text.", _TOOL_TEXT,
        '{"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "10"}, '
        '{"type": "text", "text": "11"}]}',
        "write the result as one text", _tool_content,
    ),
    RowRule(
        "too_many_tools", f"A row declares at most {MOST_TOOLS} tools.", _CALLS, '"tools": [129 tools]',
        "declare only the tools that the conversation needs", _too_many_tools,
    ),
    RowRule(
        "tool_name", "The name of a tool has 1 to 64 letters a-z and A-Z, digits, underscores and dashes.", _SCHEMA,
        '{"type": "function", "function": {"name": "local time"}}', "rename the tool, in its calls too", _tool_names,
    ),
    RowRule(
        "name_pattern", "The name of a participant has 1 to 64 letters a-z and A-Z, digits, underscores and dashes.",
        _SCHEMA, '{"role": "user", "name": "José Pérez", "content": "hi"}', "use only these characters, or remove it",
        _names,
    ),
    SPECIAL_TOKEN,
    RowRule(
        "output_roles", "The answers of a pair hold only assistant and tool turns.", _DPO,
        '"preferred_output": [{"role": "assistant", ...}, {"role": "user", ...}]',
        "move the conversation before the answer into the prompt", _output_roles,
    ),
    RowRule(
        "prompt_end", "The prompt for a grader ends with a user turn.", _RFT,
        '"messages": [..., {"role": "tool", ...}]', "end it with a user turn", _prompt_end,
    ),
    RowRule(
        "image_role", "Only user turns contain images.", _VISION,
        '{"role": "assistant", "content": [{"type": "image_url", ...}]}', "move the image into a user turn",
        _image_roles,
    ),
    RowRule(
        "image_address", "An image is an http(s) URL or a base64 data URL.", _VISION,
        '{"type": "image_url", "image_url": {"url": "s3://bucket/a.png"}}',
        "publish it under an https URL, or embed it as data:image/png;base64,...", _image_addresses,
    ),
    RowRule(
        "image_format", "Images are JPEG, PNG or WEBP files.", _VISION,
        '{"type": "image_url", "image_url": {"url": "data:image/bmp;base64,..."}}', "convert it to JPEG, PNG or WEBP",
        _image_formats,
    ),
    RowRule(
        "image_size", "An image has at most 10 MB.", _VISION,
        '{"type": "image_url", "image_url": {"url": "data:image/png;base64,(14 MB)"}}', "make the image smaller",
        _image_bytes,
    ),
    RowRule(
        "image_detail", "The detail of an image is auto, low or high.", _VISION,
        '{"type": "image_url", "image_url": {"url": "...", "detail": "full"}}', "use auto, low or high", _image_detail,
    ),
    RowRule(
        "image_method", "Only supervised fine-tuning takes images.", _RFT_IMAGES,
        '{"messages": [an image], "reference_answer": "..."}', "remove the row, or the image", _image_method,
    ),
)  # fmt: skip
_DATA = (
    DataRule(
        "image_rows", f"A training file has at most {MOST_IMAGE_ROWS:,} rows with images.", _VISION,
        "50,001 rows with images", "use a sample", _image_rows,
    ),
)  # fmt: skip


def rules_for(catalog: Catalog, model: str | None, method: str | None) -> tuple[VendorRule, ...]:
    """The rules for that model and method."""
    base = base_of(model or "")
    found: list[VendorRule] = [*_ROWS, *_DATA]
    most = catalog.limit("row.images.max", base, method or "")
    if most is not None:
        cited = Source(catalog.sources[most.source].url or _VISION.url, str(catalog.sources[most.source].seen))
        found.append(
            RowRule(
                "image_count",
                f"A row has at most {most.value:g} images.",
                cited,
                f"{most.value + 1:g} images",
                "split the row, or use fewer images",
                partial(_image_count, int(most.value)),
            )
        )
    known = catalog.model(base)
    if known is not None and "image" not in known.inputs:
        able = ", ".join(one.id for one in catalog.models if "image" in one.inputs)
        found.append(
            RowRule(
                "image_model",
                f"{base} is tuned on text only.",
                _VISION,
                "any image",
                f"use {able}, or remove the images",
                partial(_image_model, base),
            )
        )
    return tuple(found)
