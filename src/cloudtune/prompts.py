"""Prompts with tools, texts to score, and answers with tool calls."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import UnsupportedError
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class ToolPrompt(Value, frozen=True, kw_only=True):
    """A conversation with tools that the model can call. Only for a `ToolCaller`."""

    messages: tuple[dict[str, Any], ...]
    """As in OpenAI's API, with ``tool_calls`` and ``tool_call_id``."""
    tools: tuple[dict[str, Any], ...]
    """``{"type": "function", "function": {"name": ..., "description": ..., "parameters": JSON Schema}}``."""


class Passage(Value, frozen=True, kw_only=True):
    """A text whose probability is asked for."""

    text: str
    prompt: str | tuple[dict[str, Any], ...] | ToolPrompt | None = None
    """What the text answers. None for a text of its own."""


def messages_of(prompt: str | Sequence[Mapping[str, Any]] | ToolPrompt) -> list[dict[str, Any]]:
    """The messages of a prompt, for back ends that cannot send tools. Raises UnsupportedError for a `ToolPrompt`."""
    if isinstance(prompt, ToolPrompt):
        raise UnsupportedError("the prompt has tools, and cloudtune does not send tools to this back end")
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]


def with_calls(text: str, calls: Iterable[tuple[str, str]]) -> str:
    """An answer as text: each call of a tool, a name and JSON arguments, is JSON within ``<tool_call>``."""
    return "\n".join([*([text] if text else []), *(f"<tool_call>\n{_call(*call)}\n</tool_call>" for call in calls)])


def _call(name: str, arguments: str) -> str:
    given: Any = arguments
    with suppress(msgspec.DecodeError, RecursionError):
        given = msgspec.json.decode(arguments)
    return msgspec.json.encode({"name": name, "arguments": given}).decode()
