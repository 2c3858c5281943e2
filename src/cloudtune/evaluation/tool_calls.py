"""Compares the tool calls in an answer with the expected ones."""

from __future__ import annotations

import re
from typing import Any

from cloudtune.evaluation.text_metrics import is_same_value, json_value

_TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_CALL = frozenset({"name", "function"})
"""An object with one of these fields is a call, or a malformed one."""


def match(answer: str, expected: str) -> bool:
    """Whether both call the same tools with the same arguments, in any order, or both call none."""
    found, wanted = _calls(answer), _calls(expected)
    if found is None or wanted is None or len(found) != len(wanted):
        return False
    for call in found:
        same = next((place for place, other in enumerate(wanted) if is_same_value(call, other)), None)
        if same is None:
            return False
        del wanted[same]
    return True


def same_names(answer: str, expected: str) -> bool:
    """Whether both call the same tools, in any order and with any arguments, or both call none."""
    found, wanted = _calls(answer), _calls(expected)
    if found is None or wanted is None:
        return False
    return sorted(call[0] for call in found) == sorted(call[0] for call in wanted)


def _calls(text: str) -> list[list[Any]] | None:
    """The calls in a text, each as its name and arguments. None if one of them is malformed.

    Read are ``{"name": ..., "arguments": ...}``, with ``parameters`` or ``input`` for the arguments or within
    ``function``; a list of them, also as ``tool_calls``; and each within ``<tool_call>``.
    """
    tagged = _TAGGED.findall(text)
    values = [json_value(one) for one in tagged] if tagged else [json_value(text)]
    calls: list[list[Any]] = []
    for value in values:
        listed = value.get("tool_calls", value) if isinstance(value, dict) else value
        for one in listed if isinstance(listed, list) else [listed]:
            call = _call(one)
            if call is not None:
                calls.append(call)
            elif tagged or isinstance(listed, list) or (isinstance(one, dict) and not one.keys().isdisjoint(_CALL)):
                return None
    return calls


def _call(value: Any) -> list[Any] | None:
    inner = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return None
    arguments: Any = next((inner[key] for key in ("arguments", "parameters", "input") if key in inner), {})
    if isinstance(arguments, str):  # OpenAI's form
        arguments = json_value(arguments)
    return [inner["name"], arguments] if isinstance(arguments, dict) else None
