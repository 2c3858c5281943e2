"""Validation of the messages of one training row: calls without results, names, images, special tokens.

Sources: https://developers.openai.com/api/docs/guides/function-calling, .../vision-fine-tuning, the published OpenAPI
schema, and reports of the errors: https://github.com/johny-b/llmcomp/issues/59 (tokens),
https://community.openai.com/t/965584 (results as lists), https://community.openai.com/t/1357459 (images outside
supervised fine-tuning); all seen 2026-11-29.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SPECIAL = re.compile(r"<\|(?:endoftext|endofprompt|fim_prefix|fim_middle|fim_suffix)\|>")
_MOST_TOOLS, _MOST_IMAGES, _MOST_IMAGE_BYTES = 128, 64, 10_000_000
_DATA_URL = re.compile(r"data:image/(?P<kind>[\w.+-]+);base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]++={0,2}\s*")
_OTHER_KINDS = frozenset({"avif", "bmp", "gif", "heic", "heif", "ico", "pdf", "psd", "svg", "tif", "tiff"})


class RowFault(Exception):
    """The error of one line."""


def messages_of(value: Any, where: str) -> list[dict[str, Any]]:
    """The messages, each with a role and valid content. Raises RowFault."""
    if not isinstance(value, list) or not value:
        raise RowFault(f"'{where}' is missing or empty: it must be a list of messages.")
    for index, message in enumerate(value):
        _check_message(message, f"{where}[{index}]")
    return value


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise RowFault(f"{where} has no valid 'role'.")
    role, content = message["role"], message.get("content")
    if not isinstance(message.get("tool_calls") or [], list):
        raise RowFault(f"{where}.tool_calls must be a list.")
    is_call = role == "assistant" and (message.get("tool_calls") or message.get("function_call"))
    if not isinstance(content, str | list) and not is_call:
        raise RowFault(f"{where} has no 'content'.")
    if role == "tool" and not isinstance(content, str):
        raise RowFault(f"{where}, key 'content': Input should be a valid string.")
    for text in texts_of(message):
        if found := _SPECIAL.search(text):
            raise RowFault(f"{where} contains an invalid token: {found.group()}.")
    name = message.get("name")
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise RowFault(f"{where}.name does not match '^[a-zA-Z0-9_-]{{1,64}}$'.")
    for index, call in enumerate(message.get("tool_calls") or ()):
        _check_call(call, f"{where}.tool_calls[{index}]")


def texts_of(message: dict[str, Any]) -> Iterator[str]:
    """The texts of a message's content, and the arguments of its calls."""
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            yield function["arguments"]


def _check_call(call: Any, where: str) -> None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(call.get("id"), str) or not call["id"]:
        raise RowFault(f"{where} needs an 'id' and a 'function'.")
    if not isinstance(function.get("name"), str) or not _NAME.fullmatch(function["name"]):
        raise RowFault(f"{where}.function.name does not match '^[a-zA-Z0-9_-]{{1,64}}$'.")
    try:
        arguments = msgspec.json.decode(function.get("arguments", ""))
        if isinstance(arguments, str):
            # Encoded twice, as in the vendor's own example (openai-cookbook, drone_training.jsonl, seen 2026-11-29).
            arguments = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, TypeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise RowFault(f"{where}.function.arguments is not a JSON object.")


def check_calls(messages: list[dict[str, Any]]) -> None:
    """Each call is directly followed by its result; the last turn's calls need none. Raises RowFault."""
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                raise RowFault(f"messages[{index}].tool_call_id does not name a preceding tool call.")
            waiting.discard(message["tool_call_id"])
            continue
        if waiting:
            raise RowFault(f"messages[{index}] follows tool calls without results: {', '.join(sorted(waiting))}.")
        calls = [call["id"] for call in message.get("tool_calls") or ()]
        waiting = set(calls)
        if len(waiting) < len(calls):
            raise RowFault(f"messages[{index}] has two tool calls with one id.")
    if waiting and messages[-1]["role"] == "tool":
        raise RowFault(f"tool calls without results: {', '.join(sorted(waiting))}.")


def check_tools(tools: Any) -> None:
    """Check the tools of a row. Raises RowFault."""
    if tools is None:
        return
    if not isinstance(tools, list) or len(tools) > _MOST_TOOLS:
        raise RowFault(f"'tools' must be a list of at most {_MOST_TOOLS} tools.")
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type") != "function":
            raise RowFault(f"tools[{index}] must have the type 'function' and a 'function'.")
        if not isinstance(function.get("name"), str) or not _NAME.fullmatch(function["name"]):
            raise RowFault(f"tools[{index}].function.name does not match '^[a-zA-Z0-9_-]{{1,64}}$'.")


def check_images(messages: Iterable[dict[str, Any]], *, allowed: bool) -> None:
    """Check the images of a row. ``allowed``: the model and the method accept images. Raises RowFault."""
    count = 0
    for message in messages:
        for part in message["content"] if isinstance(message.get("content"), list) else ():
            if not isinstance(part, dict) or part.get("type") != "image_url":
                continue
            count += 1
            if not allowed:
                raise RowFault("the row contains images, but the model or the method does not support them.")
            if message["role"] != "user":
                raise RowFault(f"a message of the {message['role']} may not contain images.")
            _check_image(part.get("image_url"))
    if count > _MOST_IMAGES:
        raise RowFault(f"a row may contain at most {_MOST_IMAGES} images, and this one has {count}.")


def _check_image(image: Any) -> None:
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(url, str) or not re.match(r"https?://[^/\s]|data:", url, re.IGNORECASE):
        raise RowFault("an image must be an HTTP URL or a data URL.")
    if image.get("detail", "auto") not in ("auto", "low", "high"):
        raise RowFault("the detail of an image must be auto, low or high.")
    if url[:5].lower() == "data:":
        found = _DATA_URL.match(url)
        if (
            not found
            or found["kind"].lower() not in ("jpeg", "jpg", "png", "webp")
            or not _BASE64.fullmatch(url, found.end())
        ):
            raise RowFault("an image must be JPEG, PNG or WEBP, in base64.")
        if (len(url) - found.end()) * 3 // 4 > _MOST_IMAGE_BYTES:
            raise RowFault("an image may have at most 10 MB.")
    elif url.split("?")[0].split("#")[0].rpartition(".")[2].lower() in _OTHER_KINDS:
        raise RowFault("an image must be JPEG, PNG or WEBP.")
