"""Parameters of inference requests: known fields, sampling, tools. Others are refused, never ignored.

Fields: openai 3.52.0, ``chat/completion_create_params.py`` and ``responses/response_create_params.py``. What would
change the answer and is not emulated has the code ``not_emulated``: ignoring it would give wrong test results.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune_emulator.engines import Sampling
from cloudtune_emulator.http import ApiError, fit

if TYPE_CHECKING:
    from collections.abc import Mapping

_REASONING = re.compile(r"(ft:)?(o[1-9]|gpt-5(-mini|-nano)?(-\d|:|$))")
"""Models that sample in one way only, as reported in github.com/NVlabs/cvdp_benchmark/issues/29 (o4-mini) and
github.com/QwenLM/qwen-code/issues/921 (gpt-5-mini), read 2026-11-30."""
CHAT = frozenset(
    {"audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
     "max_tokens", "messages", "metadata", "modalities", "model", "moderation", "n", "parallel_tool_calls",
     "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
     "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream",
     "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
     "web_search_options"}
)  # fmt: skip
RESPONSES = frozenset(
    {"access_programs", "background", "context_management", "conversation", "image", "include", "input", "instructions",
     "max_output_tokens", "max_tool_calls", "metadata", "model", "moderation", "parallel_tool_calls",
     "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
     "reasoning", "safety_identifier", "service_tier", "store", "stream", "stream_options", "temperature", "text",
     "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user"}
)  # fmt: skip
_CHAT_PLAIN: dict[str, Any] = {
    "audio": None, "frequency_penalty": 0, "function_call": "none", "functions": [], "logit_bias": {},
    "logprobs": False, "modalities": ["text"], "moderation": None, "presence_penalty": 0, "reasoning_effort": None,
    "top_logprobs": 0, "verbosity": None, "web_search_options": None,
}  # fmt: skip
"""The values with the default meaning; others are not emulated."""
_RESPONSES_PLAIN: dict[str, Any] = {
    "background": False, "context_management": [], "conversation": None, "image": None, "include": [],
    "moderation": None, "previous_response_id": None, "prompt": None, "reasoning": None, "tool_choice": "none",
    "tools": [], "top_logprobs": 0, "truncation": "disabled",
}  # fmt: skip
_MOST_CHOICES = 128
_MOST_STOPS = 4


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | list[dict[str, Any]] | None = None


class _Tool(msgspec.Struct):
    type: str | None = None
    function: dict[str, Any] | None = None
    custom: dict[str, Any] | None = None


class _Text(msgspec.Struct):
    format: dict[str, Any] | None = None


class _Chat(msgspec.Struct):
    """The types of the fields that are read."""

    messages: list[_Message] | None = None
    tools: list[_Tool] | None = None
    response_format: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


class _Response(msgspec.Struct):
    input: str | list[_Message] | None = None
    text: _Text | None = None
    stream: bool | None = None
    instructions: str | None = None
    metadata: dict[str, Any] | None = None


def refuse_chat(body: Mapping[str, Any]) -> None:
    """Refuse unknown parameters of a chat completion, and those that are not emulated. Raises ApiError."""
    if unknown := sorted(set(body) - CHAT):
        # As users quote it, e.g. brainlid/langchain's changelog of v0.1.6 (seen 2026-11-21).
        raise ApiError(400, f"Unrecognized request argument supplied: {unknown[0]}")
    fit(body, _Chat)
    _refuse(body, _CHAT_PLAIN)
    kind = (body.get("response_format") or {}).get("type", "text")
    if kind != "text":
        raise ApiError(400, f"'{kind}' is not emulated.", param="response_format", code="not_emulated")
    if body.get("stream_options") is not None and not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise ApiError(400, message, param="stream_options")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise ApiError(400, message, param="max_tokens")


def refuse_response(body: Mapping[str, Any]) -> None:
    """The same for a response. Raises ApiError."""
    if unknown := sorted(set(body) - RESPONSES):
        raise ApiError(400, f"Unknown parameter: '{unknown[0]}'.", param=unknown[0], code="unknown_parameter")
    fit(body, _Response)
    _refuse(body, _RESPONSES_PLAIN)
    kind = ((body.get("text") or {}).get("format") or {}).get("type", "text")
    if kind != "text":
        raise ApiError(400, f"'{kind}' is not emulated.", param="text.format", code="not_emulated")


def _refuse(body: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    for name, usual in plain.items():
        if body.get(name) not in (None, usual):
            raise ApiError(400, f"'{name}' is not emulated.", param=name, code="not_emulated")


def sampled(body: Mapping[str, Any], *limits: str) -> Sampling:
    """The validated sampling parameters. The first given field of ``limits`` is the token limit. Raises ApiError."""
    limit = next((name for name in limits if body.get(name) is not None), None)
    most = Sampling().max_tokens if limit is None else _whole(body, limit, 1)
    figures: dict[str, float] = {}
    for name, highest in (("temperature", 2.0), ("top_p", 1.0)):
        value = 1.0 if body.get(name) is None else body[name]
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= highest:
            raise ApiError(400, f"Invalid '{name}': {value!r} is not between 0 and {highest:g}.", param=name)
        if value != 1.0 and _REASONING.match(str(body.get("model"))):
            message = f"Unsupported value: '{name}' does not support {value} with this model."
            raise ApiError(400, message, param=name, code="unsupported_value")
        figures[name] = float(value)
    seed = None if body.get("seed") is None else _whole(body, "seed", None)
    return Sampling(max_tokens=most, seed=seed, may_call=_offered(body), **figures)


def choices(body: Mapping[str, Any]) -> int:
    """The requested number of answers. Raises ApiError."""
    if body.get("n") is None:
        return 1
    wanted = _whole(body, "n", 1)
    if wanted > _MOST_CHOICES:
        raise ApiError(400, f"Invalid 'n': {wanted} is greater than {_MOST_CHOICES}.", param="n")
    return wanted


def stops(body: Mapping[str, Any]) -> list[str]:
    """The sequences that end an answer. Raises ApiError."""
    stop = body.get("stop")
    found = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(found, list) or len(found) > _MOST_STOPS or not all(isinstance(one, str) for one in found):
        raise ApiError(400, f"Invalid 'stop': a string, or at most {_MOST_STOPS} of them.", param="stop")
    return [one for one in found if one]


def _whole(body: Mapping[str, Any], name: str, least: int | None) -> int:
    value = body[name]
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        least_said = "" if least is None else f" of at least {least}"
        raise ApiError(400, f"Invalid '{name}': a whole number{least_said} is needed.", param=name)
    return value


def _offered(body: Mapping[str, Any]) -> bool:
    """Whether the model may call tools. Text is always a valid answer, so only forced tool calls are refused."""
    tools, choice = body.get("tools") or [], body.get("tool_choice")
    if not isinstance(tools, list):
        raise ApiError(400, "Invalid 'tools': a list is needed.", param="tools")
    for index, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in ("function", "custom") or not (tool.get(kind) or {}).get("name"):
            raise ApiError(400, f"Missing required parameter: 'tools[{index}].function'.", param=f"tools[{index}]")
    if choice is not None and not tools:
        raise ApiError(400, "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    if choice not in (None, "auto", "none"):
        message = "'tool_choice' is not emulated but for 'auto' and 'none': a model cannot be made to call here."
        raise ApiError(400, message, param="tool_choice", code="not_emulated")
    return bool(tools) and choice != "none"
