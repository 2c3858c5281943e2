"""Compares the tool calls in an answer with the expected ones."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from cloudtune.evaluation.text_metrics import json_value

_TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def match(answer: str, expected: str) -> bool:
    """Whether both call the same tools with the same arguments, in any order. Without a call, there is no match."""
    found = _calls(answer)
    return bool(found) and found == _calls(expected)


def _calls(text: str) -> list[bytes]:
    """The calls in a text, sorted, each as JSON of its name and arguments; none if one of them is no call.

    Read are ``{"name": ..., "arguments": ...}``, with ``parameters`` or ``input`` for the arguments or within
    ``function``; a list of them, also as ``tool_calls``; and each within ``<tool_call>``.
    """
    tagged = _TAGGED.findall(text)
    values = [json_value(one) for one in tagged] if tagged else [json_value(text)]
    calls: list[bytes] = []
    for value in values:
        listed = value.get("tool_calls", value) if isinstance(value, dict) else value
        for one in listed if isinstance(listed, list) else [listed]:
            call = _call(one)
            if call is None:
                return []
            calls.append(msgspec.json.encode(call, order="deterministic"))
    return sorted(calls)


def _call(value: Any) -> list[Any] | None:
    inner = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return None
    arguments: Any = next((inner[key] for key in ("arguments", "parameters", "input") if key in inner), {})
    if isinstance(arguments, str):  # OpenAI's form
        arguments = json_value(arguments)
    return [inner["name"], arguments] if isinstance(arguments, dict) else None
